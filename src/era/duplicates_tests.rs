//! Tests random messages, with members of one name in any number and shape: every translation of them is valid JSON.

use super::envelope::{put_on, take_off};
use super::fixtures::{edited, scanned};
use super::input::{Answers, InputRequired, from_url_required, input_required};
use super::question::Question;
use super::results::{CACHEABLE, Hint, Signature, complete, strip};
use super::{capabilities, discover, downgrade, errors, keys, notifications};
use crate::budget::Charged;
use crate::jsonrpc::rewrite::Changes;
use crate::jsonrpc::{Edits, Message, Span, Spliced, rewrite, scan};
use crate::session::{LEGACY_VERSIONS, Version};
use crate::trace_context::Trace;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const ROUNDS: usize = 200;

const OBJECTS: &[&str] = &[
    "_meta",
    "arguments",
    "requestedSchema",
    "properties",
    "annotations",
    "data",
    "capabilities",
    "outputSchema",
    "elicitation",
    "sampling",
    "roots",
    "extensions",
    "tasks",
    "task",
    "serverInfo",
    "clientInfo",
    "inputRequests",
    "inputResponses",
    "resource",
    "params",
    "message",
    "result",
    "content",
    "execution",
    "notifications",
    keys::TASKS,
    keys::RELATED_TASK,
    keys::SERVER_INFO,
    keys::CLIENT_INFO,
    keys::CLIENT_CAPABILITIES,
];
const ARRAYS: &[&str] = &[
    "tools",
    "prompts",
    "resources",
    "resourceTemplates",
    "content",
    "messages",
    "oneOf",
    "required",
    "enum",
    "enumNames",
    "elicitations",
    "supportedVersions",
    "icons",
    "arguments",
];
const STRINGS: &[&str] = &[
    "type",
    "uri",
    "url",
    "name",
    "title",
    "message",
    "mode",
    "method",
    "role",
    "text",
    "resultType",
    "cacheScope",
    "requestState",
    "elicitationId",
    "const",
    "instructions",
    "traceparent",
    "baggage",
    "data",
    "mimeType",
    "protocolVersion",
    keys::PROTOCOL_VERSION,
    keys::LOG_LEVEL,
    keys::SUBSCRIPTION_ID,
    "progressToken",
];
const TEXTS: &[&str] = &[
    "array",
    "string",
    "object",
    "text",
    "audio",
    "image",
    "resource_link",
    "a",
    "b",
    "url",
    "form",
    "complete",
    "input_required",
    "elicitation/create",
    "sampling/createMessage",
    "roots/list",
    "user",
    "2026-07-28",
    "debug",
    "",
];

/// Writes random JSON with the protocol's names.
struct Writer(fastrand::Rng);

impl Writer {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.0.usize(..from.len())]
    }

    fn value(&mut self, depth: usize) -> String {
        match self.0.u8(..if depth == 0 { 4 } else { 10 }) {
            0 => "null".into(),
            1 => ["-32002", "-32042", "-32602", "-32021", "0", "1.5"][self.0.usize(..6)].into(),
            2 => "true".into(),
            3 => format!("\"{}\"", self.pick(TEXTS)),
            4..=5 => self.array(depth),
            _ => self.object(depth),
        }
    }

    fn array(&mut self, depth: usize) -> String {
        let items: Vec<String> =
            (0..self.0.usize(..4)).map(|_| self.value(depth.saturating_sub(1))).collect();
        format!("[{}]", items.join(","))
    }

    fn object(&mut self, depth: usize) -> String {
        let below = depth.saturating_sub(1);
        let mut members: Vec<String> = Vec::new();
        for _ in 0..self.0.usize(..7) {
            let (name, value) = match self.0.u8(..8) {
                _ if depth == 0 => (self.pick(STRINGS), self.value(0)),
                0..=2 => (self.pick(OBJECTS), self.object(below)),
                3..=4 => (self.pick(ARRAYS), self.array(below)),
                5..=6 => (self.pick(STRINGS), format!("\"{}\"", self.pick(TEXTS))),
                _ => (self.pick(TEXTS), self.value(below)),
            };
            let space = ["", " ", "\n"][self.0.usize(..3)];
            members.push(format!("\"{name}\":{space}{value}"));
            // Sometimes the same name again.
            if self.0.u8(..3) == 0 {
                members.push(format!("{space}\"{name}\":{}", self.value(below)));
            }
        }
        format!("{{{}}}", members.join(","))
    }

    /// Writes a form whose fields often have the same names.
    fn form(&mut self) -> String {
        let mut fields = Vec::new();
        for _ in 0..self.0.usize(..6) {
            let (name, kind) = (self.pick(&["a", "b", "c"]), self.pick(&["array", "string"]));
            let choices = "\"oneOf\":[{\"const\":\"x\",\"title\":\"X\"}]";
            fields.push(format!("\"{name}\":{{\"type\":\"{kind}\",{choices},\"enum\":[1],{choices}}}"));
        }
        let (properties, more) = (fields.join(","), self.object(1));
        format!(
            "{{\"mode\":\"form\",\"message\":\"m\",\"requestedSchema\":{{\"properties\":{{{properties}}},\"x\":{more}}}}}"
        )
    }
}

fn is_json(bytes: &[u8]) {
    let parsed = serde_json::from_slice::<serde_json::Value>(bytes);
    assert!(parsed.is_ok(), "{}", String::from_utf8_lossy(bytes));
}

/// Makes edits to a message, whose result must be a message.
fn all_edits(frame: &Charged, message: &Message, make: impl FnOnce(&mut Edits)) {
    let mut edits = Edits::new();
    make(&mut edits);
    is_json(edited(frame, message, edits).as_bytes());
}

fn asks(question: &Question) {
    for version in LEGACY_VERSIONS {
        if let Ok(frame) = question.for_client(&Version::new(version), b"7", "id") {
            let frame = frame.to_vec();
            assert!(scan(&frame).is_ok(), "{}", String::from_utf8_lossy(&frame));
        }
    }
    let info = Charged::fixed(b"{}");
    is_json(&input_required(std::slice::from_ref(question), Some("s"), Some(&info)).to_vec());
}

fn translate_result(frame: &Charged, message: &Message, result: &Span) {
    let signature = Signature::of(Some(br#"{"name":"s"}"#));
    for method in CACHEABLE.iter().chain(&["tools/call", "prompts/get"]) {
        all_edits(frame, message, |edits| {
            complete(frame, result, method, &signature, Hint::default(), edits)
        });
        for version in LEGACY_VERSIONS.map(Version::new) {
            all_edits(frame, message, |edits| {
                let mut stripped = Edits::new();
                if strip(frame, result, method, &version, &mut stripped).is_ok() {
                    *edits = stripped;
                }
            });
            all_edits(frame, message, |edits| {
                if frame[result.start] == b'{' {
                    downgrade::result(frame, result, method, &version, edits);
                }
            });
        }
    }
    if let Ok(required) = InputRequired::read(frame, result, 8) {
        required.questions.iter().for_each(asks);
        let members = Answers::new(&required).members();
        is_json(&[b"{", &members.to_vec()[..], b"}"].concat());
    }
    let raw = &frame.slice(result.clone());
    if raw.starts_with(b"{") {
        is_json(&discover::from_initialize(raw, Hint::default()));
        is_json(&discover::served(raw));
        for version in LEGACY_VERSIONS {
            is_json(&discover::to_initialize(raw, &Version::new(version)));
            is_json(&capabilities::for_modern_child(raw, &Version::new(version), version.ends_with('5')));
        }
    }
}

fn translate_error(frame: &Charged, message: &Message, error: &Span) {
    for method in ["resources/read", "tools/call", "x"] {
        for uri in [None, Some(&b"\"u\""[..])] {
            all_edits(frame, message, |edits| {
                errors::to_modern(frame, error, method, uri, edits);
            });
        }
        all_edits(frame, message, |edits| {
            errors::to_legacy(frame, error, method, edits);
        });
    }
    from_url_required(frame, error, 8).iter().flatten().for_each(asks);
}

fn translate_request(frame: &Charged, message: &Message) {
    for trace in [Trace::default(), Trace::from_headers(Some(PARENT), Some("a=1"), Some("b=2"))] {
        let changes = Changes { wire_id: Some(7), progress_token: Some(8), ..Changes::new(&trace) };
        is_json(edited(frame, message, take_off(frame, message, &changes)).as_bytes());
        let envelope = format!("\"{}\":\"2026-07-28\"", keys::PROTOCOL_VERSION);
        let retry = "\"inputResponses\":{},\"requestState\":\"s\"";
        for retry in ["", retry].map(|retry| Spliced::of([Charged::from(retry)])) {
            is_json(edited(frame, message, put_on(frame, message, &changes, &envelope, &retry)).as_bytes());
        }
        is_json(&rewrite::request_for_child(frame, message, Some(7), Some(8), &trace).to_vec());
    }
}

/// Reads a message; `None` if it is refused, since the relevant members of `params` may not be repeated.
fn read(text: &str) -> Option<(Charged, Message)> {
    let frame = Charged::from(text);
    is_json(&frame);
    let message = scan(&frame).ok()?;
    Some((frame, message))
}

#[test]
fn messages_with_duplicate_names_are_translated_into_json() {
    let mut writer = Writer(fastrand::Rng::with_seed(35));
    for _ in 0..ROUNDS {
        let value = writer.object(4);
        let (frame, message) = scanned(&format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{value}}}"));
        translate_result(&frame, &message, &message.result.clone().expect("a result"));
        let (frame, message) = scanned(&format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{value}}}"));
        translate_error(&frame, &message, &message.error.clone().expect("an error"));
        let method =
            writer.pick(&["tools/call", "elicitation/create", "sampling/createMessage", "roots/list"]);
        let params = if writer.0.bool() { writer.form() } else { value };
        let request = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{method}\",\"params\":{params}}}");
        if let Some((frame, message)) = read(&request) {
            translate_request(&frame, &message);
            let question = Question::of_child("q1", &frame, &message);
            question.iter().for_each(asks);
        }
        if let Some((frame, message)) =
            read(&format!("{{\"jsonrpc\":\"2.0\",\"method\":\"n\",\"params\":{params}}}"))
        {
            all_edits(&frame, &message, |edits| *edits = notifications::stamp(&frame, &message, b"1"));
            all_edits(&frame, &message, |edits| *edits = notifications::unstamp(&frame, &message));
        }
    }
}

/// Without this, a choice of several values beside a field of the same name left `…}"b":{…` behind.
#[test]
fn a_form_with_two_fields_of_one_name_is_asked_with_the_last() {
    let field = |kind| format!("{{\"type\":\"{kind}\",\"oneOf\":[{{\"const\":\"x\",\"title\":\"X\"}}]}}");
    let (array, string) = (field("array"), field("string"));
    for (fields, kept) in [
        (format!("\"b\":{array},\"b\":{string}"), vec!["b"]),
        (format!("\"b\":{string},\"b\":{array}"), vec![]),
        (format!("\"a\":{string},\"b\":{string},\"b\":{array},\"c\":{string}"), vec!["a", "c"]),
    ] {
        let params = format!("{{\"message\":\"m\",\"requestedSchema\":{{\"properties\":{{{fields}}}}}}}");
        let text =
            format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"elicitation/create\",\"params\":{params}}}");
        let (frame, message) = scanned(&text);
        let question = Question::of_child("q1", &frame, &message).expect("a question");
        let asked =
            question.for_client(&Version::new("2025-06-18"), b"7", "id").expect("the revision supports it");
        let asked = super::fixtures::json(asked.to_vec());
        let properties = asked["params"]["requestedSchema"]["properties"].as_object().expect("an object");
        assert_eq!(properties.keys().collect::<Vec<_>>(), kept);
        assert!(properties.values().all(|field| field["enumNames"] == serde_json::json!(["X"])));
    }
}
