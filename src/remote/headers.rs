//! The headers of requests: those of every one, those of a legacy session, and those in which modern requests repeat
//! parts of themselves (2026-07-28 basic/transports/streamable-http §Standard Headers).

use crate::era::headers::{HeaderParams, encode, named_by};
use crate::jsonrpc::{Message, Span, member, string_member, text};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;

/// The id of a legacy session.
pub(super) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// The revision of a request.
pub(super) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// Where a stream is resumed.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Returns the headers of every POST.
pub(super) fn post() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, JSON), (ACCEPT, BOTH)])
}

/// Returns the headers of every GET.
pub(super) fn get() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, EVENTS)])
}

/// The parameters of tools that requests repeat in headers, as lists of tools have told.
#[derive(Debug, Default)]
pub(super) struct Learned(Mutex<HeaderParams>);

impl Learned {
    /// Learns from a page of tools.
    pub fn learn(&self, frame: &[u8], result: &Span) {
        // Few servers have any, and searching the text is cheaper than walking through it.
        if memchr::memmem::find(&frame[result.clone()], b"x-mcp-header").is_some() {
            self.0.lock().add_page(frame, result);
        }
    }

    /// Returns the headers of a modern message.
    pub fn of(&self, frame: &[u8], message: &Message) -> HeaderMap {
        let mut headers = post();
        let mut insert = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(&encode(value)) {
                headers.insert(name, value);
            }
        };
        let params = message.params.as_ref();
        let version = params.and_then(|params| params.meta.as_ref()?.era_version.clone());
        if let Some(version) = version {
            insert(PROTOCOL_VERSION, &text(frame, &version));
        }
        let Some(method) = message.method.as_ref().map(|method| text(frame, method)) else { return headers };
        insert(METHOD, &method);
        let Some(params) = params else { return headers };
        let named = named_by(&method).and_then(|by| string_member(frame, &params.span, by));
        if let Some(named) = &named {
            insert(NAME, named);
        }
        if method == "tools/call"
            && let (Some(tool), Some(arguments)) = (&named, member(frame, &params.span, "arguments"))
        {
            for (name, value) in self.0.lock().values(tool, frame, &arguments) {
                if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                    insert(name, &value);
                }
            }
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc::scan;

    #[test]
    fn a_modern_call_repeats_its_name_and_marked_parameters() {
        let learned = Learned::default();
        let list = br#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"t","inputSchema":{"type":"object",
            "properties":{"region":{"type":"string","x-mcp-header":"Region"}}}}]}}"#;
        learned.learn(list, &scan(list).expect("a message").result.expect("a result"));
        let call = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"t","arguments":{"region":"Ζ"},
            "_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
        let headers = learned.of(call.as_bytes(), &scan(call.as_bytes()).expect("a message"));
        assert_eq!(headers["mcp-method"], "tools/call");
        assert_eq!(headers["mcp-name"], "t");
        assert_eq!(headers["mcp-protocol-version"], "2026-07-28");
        assert_eq!(headers["mcp-param-region"], "=?base64?zpY=?=");
    }
}
