//! Reads the pages of a child's list.

use crate::era::Era;
use crate::inquiry::{legacy_request, modern_request};
use crate::jsonrpc::{LONGEST_URI, Span, Spliced, string_member};
use crate::mux::WireId;
use serde_json::Value;
use std::borrow::Cow;
use std::time::Duration;

/// Maximum number of pages of a list that are read.
pub(super) const MOST_PAGES: usize = 64;
/// Timeout for a page. While the child owes an answer, its silence does not tell whether it hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Returns the cursor of the next page, unless it is unreasonably long.
pub(super) fn next_cursor(frame: &[u8], result: &Span) -> Option<String> {
    let cursor = string_member(frame, result, "nextCursor").filter(|cursor| cursor.len() <= LONGEST_URI);
    cursor.map(Cow::into_owned)
}

/// Writes a request for a page of a list.
pub(super) fn request(wire_id: WireId, era: Era, method: &str, cursor: Option<&str>) -> Spliced {
    let cursor = cursor.map(|cursor| format!("\"cursor\":{}", Value::from(cursor))).unwrap_or_default();
    match era {
        Era::Modern => modern_request(wire_id, method, &cursor),
        Era::Legacy => legacy_request(wire_id, method, Some(&format!("{{{cursor}}}"))),
    }
}
