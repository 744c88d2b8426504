//! The filters of a subscription: the requested one, and the acknowledged one.

use crate::audience::Filter;
use crate::budget::Charged;
use crate::era::keys;
use crate::ingress::Incoming;
use crate::jsonrpc::{self, ClientId, Span, items, member, rewrite, text};
use serde_json::{Value, json};

/// Maximum number of resources that one subscription may name.
const MOST_RESOURCES: usize = 256;

/// Returns the list_changed notifications for a subscription that is acknowledged again: these lists may have changed
/// while the subscription was closed.
pub(super) fn changed_since(frame: &Charged, acknowledged: bool) -> Option<Vec<String>> {
    let message = jsonrpc::scan(frame).ok().filter(|_| acknowledged)?;
    if text(frame, message.method.as_ref()?) != "notifications/subscriptions/acknowledged" {
        return None;
    }
    let filter = message.params.as_ref().and_then(|params| member(frame, &params.span, "notifications"));
    let honours = |flag: &str| {
        let flag = filter.as_ref().and_then(|filter| member(frame, filter, flag));
        flag.is_some_and(|flag| &frame[flag] == b"true")
    };
    let kinds = ["tools", "prompts", "resources"].into_iter();
    let changed = kinds.filter(|kind| honours(&format!("{kind}ListChanged")));
    Some(changed.map(|kind| format!("notifications/{kind}/list_changed")).collect())
}

/// The filter that a subscription asks for.
pub(super) struct RequestedFilter {
    pub tools: bool,
    pub prompts: bool,
    pub resources: bool,
    pub uris: Option<Vec<String>>,
}

/// Returns the tasks that a subscription names, unescaped; `None` if it is malformed or names too many.
pub(super) fn tasks(incoming: &Incoming) -> Option<Vec<String>> {
    let frame = &incoming.frame;
    let filter =
        incoming.message.params.as_ref().and_then(|params| member(frame, &params.span, "notifications"));
    match filter.and_then(|filter| member(frame, &filter, "taskIds")) {
        None => Some(Vec::new()),
        Some(list) => {
            let named = items(frame, list.clone()).count();
            strings(frame, list).filter(|tasks| tasks.len() == named)
        }
    }
}

impl RequestedFilter {
    /// Reads the filter; `None` if it is malformed.
    pub fn read(incoming: &Incoming) -> Option<Self> {
        let frame = &incoming.frame;
        let params = incoming.message.params.as_ref()?;
        let filter =
            member(frame, &params.span, "notifications").filter(|filter| frame[filter.start] == b'{')?;
        let flag = |name| match member(frame, &filter, name).map(|span| frame.slice(span)) {
            None => Some(false),
            Some(raw) if &raw[..] == b"true" => Some(true),
            Some(raw) if &raw[..] == b"false" => Some(false),
            Some(_) => None,
        };
        let uris = match member(frame, &filter, "resourceSubscriptions") {
            None => None,
            Some(list) => Some(strings(frame, list)?),
        };
        Some(RequestedFilter {
            tools: flag("toolsListChanged")?,
            prompts: flag("promptsListChanged")?,
            resources: flag("resourcesListChanged")?,
            uris,
        })
    }
}

fn strings(frame: &[u8], list: Span) -> Option<Vec<String>> {
    if frame[list.start] != b'[' {
        return None;
    }
    let mut strings = Vec::new();
    for item in items(frame, list).take(MOST_RESOURCES) {
        if frame[item.start] != b'"' {
            return None;
        }
        strings.push(text(frame, &item).into_owned());
    }
    Some(strings)
}

pub(super) fn acknowledgement(
    client_id: &ClientId,
    filter: Filter,
    watched: Option<Vec<String>>,
    incoming: &Charged,
) -> Charged {
    let mut honoured = serde_json::Map::new();
    let flags = [
        ("toolsListChanged", filter.tools),
        ("promptsListChanged", filter.prompts),
        ("resourcesListChanged", filter.resources),
    ];
    honoured.extend(
        flags.into_iter().filter(|(_, on)| *on).map(|(name, _)| (name.to_owned(), Value::from(true))),
    );
    if let Some(watched) = watched {
        honoured.insert("resourceSubscriptions".to_owned(), json!(watched));
    }
    let id = String::from_utf8_lossy(client_id.raw()).into_owned();
    let params = format!(
        "{{\"_meta\":{{\"{}\":{id}}},\"notifications\":{}}}",
        keys::SUBSCRIPTION_ID,
        Value::from(honoured)
    );
    let message = rewrite::notification("notifications/subscriptions/acknowledged", Some(params.as_bytes()));
    // The acknowledgement repeats URIs of the request.
    incoming.derive(message.to_vec())
}
