//! The parameters of tools that requests over HTTP repeat in headers. Clients of all servers need not repeat them, so the
//! gateway does, as it has learned from the lists of tools.

use crate::era::headers::HeaderParams;
use crate::jsonrpc::Span;
use parking_lot::Mutex;
use std::collections::HashMap;

/// What was learned, by the segment of the server.
#[derive(Debug, Default)]
pub(super) struct Learned(Mutex<HashMap<Box<str>, HeaderParams>>);

impl Learned {
    /// Learns from a page of a server's tools.
    pub fn learn(&self, segment: &str, frame: &[u8], result: &Span) {
        // Few servers have any, and searching the text is cheaper than walking through it.
        if memchr::memmem::find(&frame[result.clone()], b"x-mcp-header").is_none() {
            return;
        }
        let mut page = HeaderParams::default();
        page.add_page(frame, result);
        if !page.is_empty() {
            self.0.lock().entry(segment.into()).or_default().add_all(page);
        }
    }

    /// Returns the headers of a call: names and values.
    pub fn of(
        &self,
        segment: &str,
        tool: &str,
        frame: &[u8],
        arguments: Option<&Span>,
    ) -> Vec<(String, String)> {
        let learned = self.0.lock();
        let (Some(params), Some(arguments)) = (learned.get(segment), arguments) else { return Vec::new() };
        params.values(tool, frame, arguments)
    }
}
