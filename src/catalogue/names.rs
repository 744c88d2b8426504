//! The names of a child's tools and prompts, by which metrics and spans tell calls apart. They are read when a child
//! starts to serve, so that the first call has its name already; further names are noted as clients request the
//! lists.

use super::pages::{self, MOST_PAGES, PATIENCE, next_cursor};
use crate::era::{Era, discover};
use crate::exchange::Link;
use crate::inquiry;
use crate::telemetry::{metrics, tracer};

/// Returns whether metrics or spans need the names.
pub(crate) fn are_wanted() -> bool {
    metrics::is_enabled() || tracer().is_some()
}

/// Reads the lists that a child offers by its `InitializeResult` or `DiscoverResult`. Their names are noted where the
/// child's answers are read.
pub(crate) async fn read(link: &Link, era: Era, words: &[u8]) {
    let offered = discover::capability_names(words);
    for (capability, method) in [("tools", "tools/list"), ("prompts", "prompts/list")] {
        if !offered.iter().any(|offered| offered == capability) {
            continue;
        }
        let mut cursor = None;
        for _ in 0..MOST_PAGES {
            let write = |wire_id| pages::request(wire_id, era, method, cursor.as_deref());
            // A child that is silent or gone gets no further requests.
            let Ok(Ok(answer)) = inquiry::ask(link, method, PATIENCE, write).await else { return };
            cursor = answer.result.as_ref().and_then(|result| next_cursor(&answer.frame, result));
            if cursor.is_none() {
                break;
            }
        }
    }
}
