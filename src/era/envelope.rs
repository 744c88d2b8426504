//! The envelope of a modern request, in `_meta`: its revision, client, client capabilities and log level. It is read
//! and removed from a modern client's request to a legacy child, and added to a legacy client's request to a modern
//! child.

use super::{MODERN_VERSION, capabilities::Capabilities, keys};
use crate::budget::Charged;
use crate::jsonrpc::rewrite::{Changes, edits_with};
use crate::jsonrpc::{Amendment, Edits, Message, Span, Spliced, codes, text};
use crate::session::Version;
use serde_json::Value;
use std::fmt;

/// The log levels, least severe first (server/utilities/logging §Log Levels).
pub const LOG_LEVELS: [&str; 8] =
    ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// The four keys of an envelope.
const KEYS: [&str; 4] =
    [keys::PROTOCOL_VERSION, keys::CLIENT_INFO, keys::CLIENT_CAPABILITIES, keys::LOG_LEVEL];

/// The members of `params` that legacy children are not sent: those of a retry, and `task`, which modern clients
/// cannot use in this way.
const NOT_LEGACY: [&str; 3] = ["inputResponses", "requestState", "task"];

/// The two members of `params` that make a request a retry (basic/patterns/mrtr).
const RETRY: [&str; 2] = ["inputResponses", "requestState"];

/// A request's envelope. Cloning copies only the revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The revision, supported or not.
    pub version: String,
    /// `clientInfo`, a raw object.
    pub client_info: Option<Charged>,
    /// `clientCapabilities`, a raw object.
    pub client_capabilities: Charged,
    /// The minimum level of log messages that the request wants; `None` for no log messages.
    pub log_level: Option<&'static str>,
}

/// The fault of an envelope: always -32602, with the request's id (basic §`_meta`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// The revision is missing, or not a string.
    Version,
    /// The client capabilities are missing, or not an object.
    Capabilities,
    /// `clientInfo` is not an object.
    ClientInfo,
    /// The log level is not one of the eight (server/utilities/logging §Error Handling).
    LogLevel,
}

impl Malformed {
    /// Returns the JSON-RPC code.
    pub fn code(self) -> i64 {
        codes::INVALID_PARAMS
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, what) = match self {
            Malformed::Version => (keys::PROTOCOL_VERSION, "a string"),
            Malformed::Capabilities => (keys::CLIENT_CAPABILITIES, "an object"),
            Malformed::ClientInfo => (keys::CLIENT_INFO, "an object"),
            Malformed::LogLevel => {
                return write!(f, "params._meta[\"{}\"] must be a log level", keys::LOG_LEVEL);
            }
        };
        write!(f, "params._meta[\"{key}\"] is required and must be {what}")
    }
}

impl std::error::Error for Malformed {}

impl Envelope {
    /// Reads a modern request's envelope (basic §`_meta`). The caller checks whether its revision is supported.
    ///
    /// # Errors
    /// The first member that is missing or has the wrong type.
    pub fn read(frame: &Charged, message: &Message) -> Result<Self, Malformed> {
        let meta = message.params.as_ref().and_then(|params| params.meta.as_ref());
        let meta = meta.ok_or(Malformed::Version)?;
        let starts = |span: &Option<Span>, open: u8| span.clone().filter(|span| frame[span.start] == open);
        let version = starts(&meta.era_version, b'"').ok_or(Malformed::Version)?;
        let capabilities = starts(&meta.client_capabilities, b'{').ok_or(Malformed::Capabilities)?;
        let client_info = starts(&meta.client_info, b'{');
        if client_info.is_none() && meta.client_info.is_some() {
            return Err(Malformed::ClientInfo);
        }
        let log_level = match &meta.log_level {
            None => None,
            Some(span) if frame[span.start] == b'"' => {
                Some(log_level(&text(frame, span)).ok_or(Malformed::LogLevel)?)
            }
            Some(_) => return Err(Malformed::LogLevel),
        };
        Ok(Envelope {
            version: text(frame, &version).into_owned(),
            client_info: client_info.map(|span| frame.slice(span)),
            client_capabilities: frame.slice(capabilities),
            log_level,
        })
    }

    /// Creates the envelope of a legacy client's requests to a modern child. `client_info` and `client_capabilities`
    /// are the raw values of its `initialize`, in the session's revision.
    pub fn of_session(
        version: &Version,
        client_info: Option<&Charged>,
        client_capabilities: &Charged,
        forward_roots: bool,
    ) -> Self {
        Envelope {
            version: MODERN_VERSION.to_owned(),
            client_info: client_info.filter(|info| info.first() == Some(&b'{')).cloned(),
            client_capabilities: super::capabilities::for_modern_child(
                client_capabilities,
                version,
                forward_roots,
            ),
            log_level: None,
        }
    }

    /// Creates the envelope of proxyrunner's own requests: `server/discover` and its common subscription.
    pub fn own() -> Self {
        let info = serde_json::json!({"name": "proxyrunner", "version": env!("CARGO_PKG_VERSION")});
        Envelope {
            version: MODERN_VERSION.to_owned(),
            client_info: Some(Charged::own(info.to_string())),
            client_capabilities: Charged::fixed(b"{}"),
            log_level: None,
        }
    }

    /// Returns the client's capabilities.
    pub fn capabilities(&self) -> Capabilities {
        Capabilities::read(&self.client_capabilities, &(0..self.client_capabilities.len()))
    }

    /// Returns the envelope as raw members of `_meta`, `"key":value`, separated by commas.
    pub fn members(&self) -> String {
        let version = Value::from(self.version.as_str());
        let capabilities = String::from_utf8_lossy(&self.client_capabilities);
        let mut members = format!(
            "\"{}\":{version},\"{}\":{capabilities}",
            keys::PROTOCOL_VERSION,
            keys::CLIENT_CAPABILITIES
        );
        if let Some(info) = &self.client_info {
            members += &format!(",\"{}\":{}", keys::CLIENT_INFO, String::from_utf8_lossy(info));
        }
        if let Some(level) = self.log_level {
            members += &format!(",\"{}\":\"{level}\"", keys::LOG_LEVEL);
        }
        members
    }
}

/// Returns the log level with this name.
pub fn log_level(name: &str) -> Option<&'static str> {
    LOG_LEVELS.into_iter().find(|level| *level == name)
}

/// Returns the edits that turn a modern client's request into a request to a legacy child: `changes`, without the
/// envelope, which some legacy servers refuse, and without the members of a retry. Other keys of `_meta` stay, and so
/// does an empty `_meta`, since it is the client's own.
pub fn take_off(frame: &[u8], message: &Message, changes: &Changes<'_>) -> Edits {
    let meta = Amendment { drop: &KEYS, add: changes.meta.add };
    let drop: &[&str] = if is_retry(message) || has_task(message) { &NOT_LEGACY } else { &[] };
    let params = Amendment { drop, add: changes.params.add };
    edits_with(frame, message, &Changes { meta, params, ..*changes })
}

/// Returns whether a request is a retry. This saves a search for members that the scan did not find.
fn is_retry(message: &Message) -> bool {
    let params = message.params.as_ref();
    params.is_some_and(|params| params.request_state.is_some() || params.input_responses.is_some())
}

fn has_envelope(message: &Message) -> bool {
    let meta = message.params.as_ref().and_then(|params| params.meta.as_ref());
    meta.is_some_and(|meta| {
        let keys = [&meta.era_version, &meta.client_info, &meta.client_capabilities, &meta.log_level];
        keys.into_iter().any(Option::is_some)
    })
}

fn has_task(message: &Message) -> bool {
    message.params.as_ref().is_some_and(|params| params.task.is_some())
}

/// Returns the edits that turn a legacy client's request into a request to a modern child: `changes`, and the
/// envelope in `members` instead of any that the client wrote. `retry` holds the raw members of a retry (see
/// [`Answers`](super::input::Answers)), or is empty; the client's own members with these names are removed.
pub fn put_on(
    frame: &[u8],
    message: &Message,
    changes: &Changes<'_>,
    members: &str,
    retry: &Spliced,
) -> Edits {
    let meta = Amendment { drop: if has_envelope(message) { &KEYS } else { &[] }, add: members.as_bytes() };
    let drop: &[&str] = if is_retry(message) { &RETRY } else { &[] };
    let span = message.params.as_ref().map(|params| params.span.clone()).filter(|_| retry.len() > 0);
    // Without params, new ones are composed as text.
    let text = if span.is_none() { retry.to_vec() } else { Vec::new() };
    let params = Amendment { drop, add: &text };
    let mut edits = edits_with(frame, message, &Changes { meta, params, ..*changes });
    if let Some(span) = span {
        // The envelope always follows.
        let retry = retry.segments().iter().cloned().chain([Charged::fixed(b",")]);
        edits.insert_first(span.start + 1, retry);
    }
    edits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::era::fixtures::{edited, json as parsed, scanned};
    use crate::trace_context::Trace;
    use serde_json::json;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const MODERN: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_weather","arguments":{"location":"Seattle, WA"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"ExampleClient","version":"1.0.0"},"io.modelcontextprotocol/clientCapabilities":{"sampling":{}},"progressToken":"t","io.modelcontextprotocol/logLevel":"warning","x/y":1}}}"#;

    fn with_meta(meta: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"_meta":{meta}}}}}"#)
    }

    #[test]
    fn an_envelope_is_read() {
        let (frame, message) = scanned(MODERN);
        let envelope = Envelope::read(&frame, &message).unwrap();
        assert_eq!(envelope.version, "2026-07-28");
        assert_eq!(
            envelope.client_info.as_deref().unwrap(),
            br#"{"name":"ExampleClient","version":"1.0.0"}"#
        );
        assert!(envelope.capabilities().sampling);
        assert_eq!(envelope.log_level, Some("warning"));
    }

    #[test]
    fn a_malformed_envelope_is_refused_with_the_fault() {
        let version = r#""io.modelcontextprotocol/protocolVersion":"v""#;
        let capabilities = r#""io.modelcontextprotocol/clientCapabilities":{}"#;
        for (meta, expected) in [
            ("{}".to_owned(), Err(Malformed::Version)),
            ("7".to_owned(), Err(Malformed::Version)),
            (format!("{{{version}}}"), Err(Malformed::Capabilities)),
            (format!("{{{}}}", version.replace("\"v\"", "7")), Err(Malformed::Version)),
            (format!("{{{version},{}}}", capabilities.replace("{}", "[]")), Err(Malformed::Capabilities)),
            (format!("{{{version},{capabilities}}}"), Ok("v")),
            (
                format!("{{{version},{capabilities},\"{}\":\"me\"}}", keys::CLIENT_INFO),
                Err(Malformed::ClientInfo),
            ),
            (
                format!("{{{version},{capabilities},\"{}\":\"loud\"}}", keys::LOG_LEVEL),
                Err(Malformed::LogLevel),
            ),
            (format!("{{{version},{capabilities},\"{}\":3}}", keys::LOG_LEVEL), Err(Malformed::LogLevel)),
        ] {
            let (frame, message) = scanned(&with_meta(&meta));
            let read = Envelope::read(&frame, &message);
            assert_eq!(read.as_ref().map(|read| &*read.version).map_err(|error| *error), expected, "{meta}");
        }
        let (frame, message) = scanned(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#);
        assert_eq!(Envelope::read(&frame, &message), Err(Malformed::Version));
        assert_eq!(Malformed::LogLevel.code(), -32602);
        assert!(Malformed::Version.to_string().contains(keys::PROTOCOL_VERSION));
    }

    #[test]
    fn a_legacy_child_sees_no_envelope() {
        let retry =
            MODERN.replace("\"arguments\"", r#""requestState":"s","inputResponses":{"k":{}},"arguments""#);
        let none = Trace::default();
        let parent = Trace::from_headers(Some(PARENT), None, None);
        let base = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"get_weather","arguments":{"location":"Seattle, WA"},"_meta":{"progressToken":8,"x/y":1}}}"#;
        let task = MODERN.replace("\"arguments\"", r#""task":{"ttl":1},"arguments""#);
        for (text, trace, expected) in [
            (MODERN, &none, base.to_owned()),
            (&retry, &none, base.to_owned()),
            (&task, &none, base.to_owned()),
            (
                MODERN,
                &parent,
                base.replace("\"progress", &format!("\"traceparent\":\"{PARENT}\",\"progress")),
            ),
        ] {
            let (frame, message) = scanned(text);
            let changes = Changes { wire_id: Some(7), progress_token: Some(8), ..Changes::new(trace) };
            assert_eq!(edited(&frame, &message, take_off(&frame, &message, &changes)), expected);
        }
    }

    #[test]
    fn removing_the_envelope_may_leave_an_empty_meta() {
        let only = with_meta(&format!("{{ \"{}\":\"v\", \"{}\":{{}} }}", KEYS[0], KEYS[2]));
        let (frame, message) = scanned(&only);
        for (trace, expected) in [
            (Trace::default(), "{ }".to_owned()),
            (Trace::from_headers(Some(PARENT), None, None), format!("{{\"traceparent\":\"{PARENT}\" }}")),
        ] {
            let edits = take_off(&frame, &message, &Changes::new(&trace));
            assert_eq!(edited(&frame, &message, edits), with_meta(&expected));
        }
    }

    #[test]
    fn every_request_to_a_modern_child_describes_the_session() {
        let mut envelope = Envelope::of_session(
            &Version::new("2025-06-18"),
            Some(&Charged::fixed(br#"{"name":"c","version":"1"}"#)),
            &Charged::fixed(br#"{"elicitation":{},"roots":{"listChanged":true}}"#),
            false,
        );
        envelope.log_level = log_level("error");
        let expected = json!({
            keys::PROTOCOL_VERSION: "2026-07-28", keys::CLIENT_INFO: {"name": "c", "version": "1"},
            keys::CLIENT_CAPABILITIES: {"elicitation": {}}, keys::LOG_LEVEL: "error",
        });
        for (params, rest) in [
            ("", json!({})),
            (r#","params":{}"#, json!({})),
            (r#","params":{"cursor":"c"}"#, json!({})),
            (
                r#","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2025-11-25","k":[1]}}"#,
                json!({"k": [1]}),
            ),
            (
                r#","params":{"_meta":{"io.modelcontextprotocol/logLevel":"debug"},"inputResponses":1}"#,
                json!({}),
            ),
        ] {
            let (frame, message) = scanned(&format!(r#"{{"jsonrpc":"2.0","id":"a","method":"m"{params}}}"#));
            let trace = Trace::default();
            let changes = Changes { wire_id: Some(7), ..Changes::new(&trace) };
            for retry in ["", r#""inputResponses":{"k":{"a":1}},"requestState":"s""#] {
                let sent = parsed(edited(
                    &frame,
                    &message,
                    put_on(
                        &frame,
                        &message,
                        &changes,
                        &envelope.members(),
                        &Spliced::of([Charged::from(retry)]),
                    ),
                ));
                let mut meta = sent["params"]["_meta"].clone();
                for (key, value) in rest.as_object().unwrap() {
                    assert_eq!(meta.as_object_mut().unwrap().remove(key).as_ref(), Some(value));
                }
                assert_eq!(meta, expected, "{params}");
                assert_eq!(sent["id"], 7);
                assert_eq!(sent["params"]["requestState"] == "s", !retry.is_empty());
                assert_eq!(sent["params"]["inputResponses"].is_object(), !retry.is_empty());
            }
        }
    }

    #[test]
    fn an_added_envelope_can_be_removed() {
        let envelope = Envelope::own().members();
        let trace = Trace::default();
        for params in [r#"{"name":"n", "_meta":{ "k":1 }}"#, r#"{"_meta":{}}"#] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":"a","method":"m","params":{params}}}"#);
            let (frame, message) = scanned(&text);
            let on = put_on(
                &frame,
                &message,
                &Changes::new(&trace),
                &envelope,
                &Spliced::of([Charged::fixed(b"\"requestState\":\"s\"")]),
            );
            let (frame, message) = scanned(&edited(&frame, &message, on));
            assert!(Envelope::read(&frame, &message).is_ok());
            assert_eq!(edited(&frame, &message, take_off(&frame, &message, &Changes::new(&trace))), text);
        }
    }
}
