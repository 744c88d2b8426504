//! Explains a decision to an operator: `proxyrunner policy explain`.

use super::super::{Asker, Decision, Request};
use super::{Set, entities};
use cedar_policy::Entities;
use serde_json::Value;

/// A decision, and what it was made from.
pub(crate) struct Explanation {
    /// The decision.
    pub(crate) decision: Decision,
    /// The errors of evaluations, in full.
    pub(crate) errors: Vec<String>,
    /// Principal, action and resource.
    pub(crate) request: [String; 3],
    /// The context.
    pub(crate) context: Value,
    /// The entities of the request.
    pub(crate) entities: Value,
}

impl Set {
    /// Decides on a request, and returns what the decision was made from. Arguments that no policy
    /// names are left out.
    ///
    /// # Errors
    /// In words, when the request cannot be built.
    pub(crate) fn explain(&self, asker: &Asker<'_>, request: &Request<'_>) -> Result<Explanation, String> {
        let decision = if asker.subject().is_none() {
            Decision::denied("the caller has no subject")
        } else {
            (*self.decide(asker, request)).clone()
        };
        let (_, errors) = self.evaluate(asker, request);
        let asked = entities::build(self, asker, request)?;
        let shown = |uid: Option<&cedar_policy::EntityUid>| uid.map(ToString::to_string).unwrap_or_default();
        let uids = [asked.request.principal(), asked.request.action(), asked.request.resource()];
        let own = uids.iter().flatten().filter_map(|uid| asked.entities.get(uid)).cloned();
        let own = Entities::from_entities(own, None).map_err(|error| error.to_string())?;
        let context = match asked.request.context() {
            Some(context) => context.to_json_value().map_err(|error| error.to_string())?,
            None => Value::Null,
        };
        Ok(Explanation {
            decision,
            errors,
            request: uids.map(shown),
            context,
            entities: own.to_json_value().map_err(|error| error.to_string())?,
        })
    }
}
