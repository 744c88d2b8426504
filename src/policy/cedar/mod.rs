//! Decisions by Cedar, with ToolHive's mapping of requests to principals, actions, resources and context
//! (`docs/policy.md`). Default deny; a `forbid` wins; an evaluation error of any policy denies.

mod cache;
mod compile;
mod document;
mod entities;
mod explain;
mod fault;
mod files;
mod groups;
mod loaded;
mod needs;
mod values;

#[cfg(test)]
mod tests;

pub(crate) use explain::Explanation;
pub(crate) use loaded::Loaded;

use super::{Asker, Decision, Request};
use crate::jsonrpc::{members, unescaped};
use crate::sorted::sorted;
use cache::Cache;
use cedar_policy::{
    AuthorizationError, Authorizer, Entities, EntityTypeName, EntityUid, EvaluationError, PolicySet,
};
use needs::Needs;
use std::collections::HashSet;
use std::sync::Arc;

/// The options of a document.
#[derive(Clone, Debug)]
struct Options {
    group_claim: Option<String>,
    role_claim: Option<String>,
    group_type: EntityTypeName,
    multi_valued: HashSet<String>,
}

/// A set of policies.
#[derive(Debug)]
pub(crate) struct Set {
    policies: PolicySet,
    /// The entities that are the same for all requests.
    entities: Entities,
    options: Options,
    /// The parent of everything that the server offers.
    server: Option<EntityUid>,
    needs: Needs,
    authorizer: Authorizer,
    cache: Cache,
}

impl Set {
    /// Returns the number of policies.
    fn len(&self) -> usize {
        self.policies.policies().count()
    }

    /// Returns whether decisions may depend on a tool's annotations.
    pub(crate) fn needs_hints(&self) -> bool {
        self.needs.hints
    }

    /// Returns whether decisions may depend on arguments.
    pub(crate) fn needs_arguments(&self) -> bool {
        self.needs.arguments()
    }

    /// Decides on a request.
    pub(crate) fn decide(&self, asker: &Asker<'_>, request: &Request<'_>) -> Arc<Decision> {
        match request.arguments.filter(|_| self.needs.arguments()) {
            None => self.cache.remembered(cache::key(asker, request), || {
                Arc::new(self.evaluate(asker, &Request { arguments: None, ..*request }).0)
            }),
            Some(arguments) if self.is_ambiguous(arguments) => {
                Arc::new(Decision::failed("an argument that policies name could be read as another one"))
            }
            Some(_) => Arc::new(self.evaluate(asker, request).0),
        }
    }

    /// Decides on a request, and returns the errors in full. They contain values of the request, so only an operator
    /// who gave the request may see them.
    fn evaluate(&self, asker: &Asker<'_>, request: &Request<'_>) -> (Decision, Vec<String>) {
        let asked = match entities::build(self, asker, request) {
            Ok(asked) => asked,
            Err(why) => return (Decision::failed("the request cannot be built"), vec![why]),
        };
        let response = self.authorizer.is_authorized(&asked.request, &self.policies, &asked.entities);
        let diagnostics = response.diagnostics();
        let errors: Vec<_> = diagnostics.errors().map(ToString::to_string).collect();
        if let Some(AuthorizationError::PolicyEvaluationError(error)) = diagnostics.errors().next() {
            let policies = vec![error.policy_id().to_string()];
            return (Decision { policies, ..Decision::failed(kind(error.inner())) }, errors);
        }
        let policies: Vec<String> = sorted(diagnostics.reason().map(ToString::to_string).collect());
        let decision = match response.decision() {
            cedar_policy::Decision::Allow => Decision::allowed(policies),
            cedar_policy::Decision::Deny => {
                let why = if policies.is_empty() { "no policy permits it" } else { "a policy forbids it" };
                Decision { policies, ..Decision::denied(why) }
            }
        };
        (decision, errors)
    }

    /// Returns whether a child could read an argument as another one, and policies depend on either: it occurs twice,
    /// or differs in case only.
    fn is_ambiguous(&self, arguments: &[u8]) -> bool {
        let mut seen = HashSet::new();
        for (key, _) in members(arguments, 0..arguments.len()) {
            let key = unescaped(&arguments[key]);
            let key = String::from_utf8_lossy(&key);
            let folded = crate::jsonrpc::folded(&key);
            if self.needs.may_mean(&folded)
                && (!self.needs.depends_on(&key) || !seen.insert(folded.into_owned()))
            {
                return true;
            }
            // More are refused for their number.
            if seen.len() > entities::MOST_ARGUMENTS {
                break;
            }
        }
        false
    }
}

/// Returns what is wrong in an evaluation, without any value.
fn kind(error: &EvaluationError) -> &'static str {
    match error {
        EvaluationError::EntityDoesNotExist(_) => "its evaluation uses an entity that does not exist",
        EvaluationError::EntityAttrDoesNotExist(_) | EvaluationError::RecordAttrDoesNotExist(_) => {
            "its evaluation uses an attribute that does not exist"
        }
        EvaluationError::TypeError(_) => "its evaluation meets a value of another type",
        EvaluationError::IntegerOverflow(_) => "its evaluation exceeds the range of numbers",
        EvaluationError::FailedExtensionFunctionExecution(_) => {
            "its evaluation cannot read a text as a value"
        }
        _ => "it cannot be evaluated",
    }
}

/// Returns whether a text is a document whose policies and entities are valid, for the fuzz target.
pub fn parses(text: &str) -> bool {
    let file = files::File { path: "authz.yaml".into(), text: text.to_owned() };
    compile::compile(&[file], Some("server")).is_ok()
}
