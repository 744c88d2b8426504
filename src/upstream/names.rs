//! The names of a child's tools and prompts, by which metrics and spans tell calls apart. A child is asked for them once it
//! serves, so that the first call has its name already; further ones are noted as clients ask for the lists.

use super::greet::own_request;
use super::{Shared, Upstream};
use crate::budget::Charged;
use crate::era::{Era, discover};
use crate::exchange::Link;
use crate::jsonrpc::{LONGEST_URI, Span, Spliced, rewrite, string_member};
use crate::mux::WireId;
use crate::telemetry::{metrics, tracer};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Pages of a list that are read.
pub(super) const MOST_PAGES: usize = 64;
/// How long a child may take for one of them: while it owes an answer, its silence says nothing about whether it hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

impl Upstream {
    /// Has a child say its names, if anybody wants to tell them apart.
    pub(super) fn learn_names(self: &Arc<Self>, shared: &Arc<Shared>) {
        if are_wanted() {
            let (upstream, shared) = (Arc::clone(self), Arc::clone(shared));
            tokio::spawn(async move { upstream.list_names(&shared.link, shared.era, &shared.words).await });
        }
    }

    /// Reads the lists that a child offers by its `words`. What is in them is noted where its answers come in.
    pub(super) async fn list_names(&self, link: &Link, era: Era, words: &Charged) {
        let offered = discover::capability_names(words);
        for (capability, method) in [("tools", "tools/list"), ("prompts", "prompts/list")] {
            if !offered.iter().any(|offered| offered == capability) {
                continue;
            }
            let mut cursor = None;
            for _ in 0..MOST_PAGES {
                let write = |wire_id| list(wire_id, era, method, cursor.as_deref());
                // One that is silent or gone is asked nothing more.
                let Ok(Ok(answer)) = self.ask(link, method, PATIENCE, write).await else { return };
                cursor = answer.result.as_ref().and_then(|result| next_cursor(&answer.frame, result));
                if cursor.is_none() {
                    break;
                }
            }
        }
    }
}

/// Whether anybody wants to tell calls apart by name.
pub(super) fn are_wanted() -> bool {
    metrics::is_enabled() || tracer().is_some()
}

/// Where the next page of a list begins, unless that is said at unreasonable length.
pub(super) fn next_cursor(frame: &[u8], result: &Span) -> Option<String> {
    let cursor = string_member(frame, result, "nextCursor").filter(|cursor| cursor.len() <= LONGEST_URI);
    cursor.map(std::borrow::Cow::into_owned)
}

/// A request for a page of a list, on nobody's behalf.
pub(super) fn list(wire_id: WireId, era: Era, method: &str, cursor: Option<&str>) -> Spliced {
    let cursor = cursor.map(|cursor| format!("\"cursor\":{}", Value::from(cursor))).unwrap_or_default();
    if era == Era::Modern {
        return own_request(wire_id, method, &cursor);
    }
    let id = wire_id.as_u64().to_string();
    let params = format!("{{{cursor}}}");
    Spliced::from(rewrite::request(id.as_bytes(), method, Some(params.as_bytes())))
}
