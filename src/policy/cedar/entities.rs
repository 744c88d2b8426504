//! The entities of a request, by ToolHive's mapping.

use super::super::{Asker, Feature, Request};
use super::values::{self, Pair, Undecidable};
use super::{Options, Set, groups};
use cedar_policy::{Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

/// Maximum number of arguments, if policies use all of them.
pub(super) const MOST_ARGUMENTS: usize = 1_024;

static CLIENT: LazyLock<EntityTypeName> = LazyLock::new(|| named("Client"));
static ACTION: LazyLock<EntityTypeName> = LazyLock::new(|| named("Action"));
static TOOL: LazyLock<EntityTypeName> = LazyLock::new(|| named("Tool"));
static PROMPT: LazyLock<EntityTypeName> = LazyLock::new(|| named("Prompt"));
static RESOURCE: LazyLock<EntityTypeName> = LazyLock::new(|| named("Resource"));
static SERVER: LazyLock<EntityTypeName> = LazyLock::new(|| named("MCP"));

fn named(name: &str) -> EntityTypeName {
    name.parse().expect("a name")
}

/// Returns the id of an entity.
pub(super) fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

/// Returns the server as the parent of everything that it offers.
pub(super) fn server(name: &str) -> EntityUid {
    uid(&SERVER, name)
}

/// Returns the id of the action on a kind of thing.
pub(super) fn action(feature: Feature) -> &'static str {
    match feature {
        Feature::Tool => "call_tool",
        Feature::Prompt => "get_prompt",
        Feature::Resource => "read_resource",
    }
}

/// A request in Cedar's terms.
pub(super) struct Asked {
    pub request: cedar_policy::Request,
    pub entities: Entities,
}

/// Builds a request and its entities.
///
/// # Errors
/// In words, when that is impossible: which denies.
pub(super) fn build(set: &Set, asker: &Asker<'_>, request: &Request<'_>) -> Result<Asked, String> {
    let claims = claims(asker, &set.options);
    let arguments = match request.arguments.filter(|_| set.needs.arguments()) {
        Some(given) => values::arguments(given, MOST_ARGUMENTS, |name| set.needs.names(name)).map_err(
            |why| match why {
                Undecidable::TooMany => format!("the request has more than {MOST_ARGUMENTS} arguments"),
                Undecidable::OutOfRange => "an argument is a number out of range".to_owned(),
            },
        )?,
        None => Vec::new(),
    };
    let principal = principal(asker, &set.options, claims.clone())?;
    let (action_uid, action) = action_entity(request.feature)?;
    let resource = resource(set, request, arguments.clone())?;
    let uids = (principal.uid(), action_uid, resource.uid());
    // Attributes of claims and of arguments have different prefixes.
    let context =
        Context::from_pairs(claims.into_iter().chain(arguments)).map_err(|error| error.to_string())?;
    let base = set.entities.clone();
    let entities = base.upsert_entities([principal, action, resource], None);
    let request = cedar_policy::Request::new(uids.0, uids.1, uids.2, context, None);
    Ok(Asked {
        request: request.map_err(|error| error.to_string())?,
        entities: entities.map_err(|error| error.to_string())?,
    })
}

/// Returns the attributes of the claims.
fn claims(asker: &Asker<'_>, options: &Options) -> Vec<Pair> {
    let mut pairs = Vec::with_capacity(asker.identity.claims.len() + options.multi_valued.len());
    for (name, claim) in &asker.identity.claims {
        let several = options.multi_valued.contains(name).then(|| several(claim)).flatten();
        match several {
            Some(parts) => {
                pairs.push((format!("claim_{name}"), RestrictedExpression::new_string(parts.join(" "))));
                let set = parts.iter().map(|part| RestrictedExpression::new_string((*part).to_owned()));
                pairs.push((format!("claimset_{name}"), values::set(set)));
            }
            None => {
                pairs.extend(values::value(claim).map(|value| (format!("claim_{name}"), value)));
            }
        }
    }
    pairs
}

/// Returns the parts of a claim that may be one string or several.
fn several(claim: &Value) -> Option<Vec<&str>> {
    match claim {
        Value::String(text) => Some(text.split_whitespace().collect()),
        Value::Array(items) => Some(items.iter().filter_map(Value::as_str).collect()),
        _ => None,
    }
}

fn principal(asker: &Asker<'_>, options: &Options, claims: Vec<Pair>) -> Result<Entity, String> {
    let subject = asker.subject().unwrap_or_default();
    let groups =
        groups::of(&asker.identity.claims, options.group_claim.as_deref(), options.role_claim.as_deref());
    let parents: HashSet<_> = groups.into_iter().map(|group| uid(&options.group_type, group)).collect();
    entity(uid(&CLIENT, subject), claims, parents)
}

fn action_entity(feature: Feature) -> Result<(EntityUid, Entity), String> {
    let id = action(feature);
    let action = uid(&ACTION, id);
    let operation = ("operation".to_owned(), RestrictedExpression::new_string(id.to_owned()));
    Ok((action.clone(), entity(action, vec![operation], HashSet::new())?))
}

fn resource(set: &Set, request: &Request<'_>, arguments: Vec<Pair>) -> Result<Entity, String> {
    let kind = match request.feature {
        Feature::Tool => &*TOOL,
        Feature::Prompt => &*PROMPT,
        Feature::Resource => &*RESOURCE,
    };
    let text = |name: &str, text: &str| (name.to_owned(), RestrictedExpression::new_string(text.to_owned()));
    let mut attributes = arguments;
    if request.feature == Feature::Tool {
        let hints = request.hints.given();
        attributes
            .extend(hints.map(|(name, value)| (name.to_owned(), RestrictedExpression::new_bool(value))));
    }
    attributes.extend([
        text("name", request.name),
        text("operation", request.feature.operation()),
        text("feature", request.feature.name()),
    ]);
    if request.feature == Feature::Resource {
        attributes.push(text("uri", request.name));
    }
    let parents = match request.server {
        Some(name) => HashSet::from([server(name)]),
        None => set.server.iter().cloned().collect(),
    };
    entity(uid(kind, request.name), attributes, parents)
}

fn entity(uid: EntityUid, attributes: Vec<Pair>, parents: HashSet<EntityUid>) -> Result<Entity, String> {
    let attributes: HashMap<_, _> = attributes.into_iter().collect();
    Entity::new(uid, attributes, parents).map_err(|error| error.to_string())
}
