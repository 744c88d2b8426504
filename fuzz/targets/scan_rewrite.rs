//! Checks that the scan accepts the same JSON as serde_json and finds the same values as a parser, and that a rewrite
//! changes nothing else in the message.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use proxyrunner::internals::budget::Charged;
use proxyrunner::internals::jsonrpc::rewrite::{request_for_child, with_id};
use proxyrunner::internals::jsonrpc::{
    Edits, Fault, Kind, Message, Params, Span, break_no_lines, codes, elements, is_batch, members, scan, splice, text,
};
use proxyrunner::internals::trace_context::{Context, Trace, is_baggage, is_traceparent};
use serde_json::value::RawValue;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// A traceparent of a future version, with text that breaks out of a JSON string unless it is escaped.
const LATER: &str = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-\"}\\u";

fuzz_target!(|data: &[u8]| {
    let json = serde_json::from_slice::<&RawValue>(data).is_ok();
    let judged = |fault: &Fault| {
        assert_eq!(fault.code == codes::PARSE_ERROR, !json, "{fault}");
        assert!(fault.at <= data.len());
    };
    if is_batch(data) {
        match elements(data, usize::MAX) {
            Ok(spans) => same_elements(data, &spans),
            Err(fault) => judged(&fault),
        }
    }
    match scan(data) {
        Err(fault) => judged(&fault),
        Ok(message) => {
            assert!(json);
            same_members(data, &message);
            let below = Context { trace: [1; 16], span: [2; 8], flags: 1 };
            for trace in [
                Trace::default(),
                Trace::from_headers(Some(PARENT), None, None),
                Trace::from_headers(Some(PARENT), Some("a=1"), Some("b=2")),
                Trace::from_headers(None, None, Some("b=2")),
                Trace::from_headers(Some(LATER), Some("a=1"), None),
                Trace::from_headers(Some(PARENT), Some("a=1"), None).at(below, Some("c=3")),
            ] {
                rewrites(data, &message, &trace);
            }
        }
    }
});

fn same_elements(data: &[u8], spans: &[Span]) {
    let values: Vec<&RawValue> = serde_json::from_slice(data).expect("a batch is JSON");
    assert!(
        values.iter().map(|value| value.get().as_bytes()).eq(spans.iter().map(|span| &data[span.clone()]))
    );
}

/// Returns an object's members as a parser reads them, or `None` if a key is a lone surrogate, which the parser
/// rejects.
fn parsed(object: &[u8]) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_slice(object).ok()
}

fn same_members(data: &[u8], message: &Message) {
    let check = |object: &Span, expected: &[(&str, Option<&Span>)]| {
        let Some(values) = parsed(&data[object.clone()]) else { return };
        for (key, span) in expected {
            let found = span.map(|span| &data[span.clone()]);
            let value = values.get(*key).map(|value| value.get().as_bytes());
            assert_eq!(found, value.filter(|value| *key != "id" || *value != b"null"), "{key}");
        }
    };
    let params = message.params.as_ref();
    check(
        &message.object,
        &[
            ("id", message.id.as_ref()),
            ("method", message.method.as_ref()),
            ("params", params.map(|params| &params.span)),
            ("result", message.result.as_ref()),
            ("error", message.error.as_ref()),
        ],
    );
    let Some(params) = params else { return };
    check(
        &params.span,
        &[
            ("_meta", params.meta_value.as_ref()),
            ("name", params.name.as_ref()),
            ("requestId", params.request_id.as_ref()),
            ("progressToken", params.progress_token.as_ref()),
        ],
    );
    let Some(meta) = &params.meta else { return };
    check(
        &meta.span,
        &[
            ("progressToken", meta.progress_token.as_ref()),
            ("traceparent", meta.traceparent.as_ref()),
            ("tracestate", meta.tracestate.as_ref()),
            ("baggage", meta.baggage.as_ref()),
            ("io.modelcontextprotocol/protocolVersion", meta.era_version.as_ref()),
        ],
    );
}

fn one_line(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

fn rewrites(data: &[u8], message: &Message, trace: &Trace) {
    let mut line = data.to_vec();
    // The code that reads messages does the same.
    if message.multiline {
        break_no_lines(&mut line);
    }
    let bytes = Charged::own(line);
    let sent = request_for_child(&bytes, message, Some(7), Some(8), trace);
    let len = sent.len();
    let sent = Charged::own(sent.to_vec());
    assert_eq!(sent.len(), len);
    assert!(!sent.iter().any(|byte| matches!(byte, b'\n' | b'\r')));
    let again = scan(&sent).unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!((again.kind, &again.object), (message.kind, &(0..len)));
    if *trace == Trace::default() {
        restores(data, message, &sent, &again);
    } else {
        carries(data, message, &sent, &again, trace);
    }
    if message.kind != Kind::Notification && message.id.is_some() {
        let renamed = with_id(&bytes, message, b"\"x\"").to_vec();
        assert_eq!(&renamed[scan(&renamed).expect("still a message").id.expect("has an id")], b"\"x\"");
    }
}

fn token(message: &Message) -> Option<&Span> {
    message.params.as_ref()?.meta.as_ref()?.progress_token.as_ref()
}

/// Checks that restoring the id and the token yields the original message.
fn restores(data: &[u8], message: &Message, sent: &Charged, again: &Message) {
    let mut edits = Edits::new();
    for (ours, theirs) in [(&again.id, &message.id), (&token(again).cloned(), &token(message).cloned())] {
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            edits.replace(ours, &one_line(&data[theirs.clone()]));
        }
    }
    assert_eq!(splice(sent, &again.object, edits).to_vec(), one_line(&data[message.object.clone()]));
}

/// Returns an object's members with one-line values, except the members whose keys are in `without`.
fn others(data: &[u8], object: Option<&Span>, without: &[&str]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let Some(object) = object else { return Vec::new() };
    members(data, object.clone())
        .filter(|(key, _)| !without.contains(&&*text(data, key)))
        .map(|(key, value)| (data[key].to_vec(), one_line(&data[value])))
        .collect()
}

/// Checks that the message carries the trace context and that nothing else changed.
///
/// A well-formed context in `_meta` is kept unless the trace replaces it.
fn carries(data: &[u8], message: &Message, sent: &[u8], again: &Message, trace: &Trace) {
    let params = |message: &Message| message.params.as_ref().map(|params| params.span.clone());
    let meta = |params: &Option<Box<Params>>| params.as_ref()?.meta.clone();
    let same = |before: Option<&Span>, after: Option<&Span>, without: &[&str]| {
        assert_eq!(others(data, before, without), others(sent, after, without));
    };
    same(Some(&message.object), Some(&again.object), &["id", "params"]);
    same(params(message).as_ref(), params(again).as_ref(), &["_meta"]);
    let (old, new) = (meta(&message.params), meta(&again.params));
    let keys = ["progressToken", "traceparent", "tracestate", "baggage"];
    same(old.as_ref().map(|meta| &meta.span), new.as_ref().map(|meta| &meta.span), &keys);
    if message.method.is_none() && message.params.is_none() {
        return assert!(again.params.is_none());
    }
    let Some(new) = new else {
        return assert!(message.params.as_ref().is_some_and(|params| params.meta_value.is_some()));
    };
    let value = |bytes: &[u8], span: &Option<Span>| {
        let span = span.as_ref().filter(|span| bytes[span.start] == b'"')?;
        Some(text(bytes, span).into_owned())
    };
    let old_value = |part: fn(&proxyrunner::internals::jsonrpc::Meta) -> &Option<Span>, check: fn(&str) -> bool| {
        let old = old.as_ref().filter(|old| !old.trace_repeated)?;
        value(data, part(old)).filter(|value| check(value))
    };
    if let Some(parent) = trace.traceparent() {
        let kept = old_value(|meta| &meta.traceparent, is_traceparent).filter(|_| !trace.replaces_context());
        if kept.is_none() {
            assert_eq!(value(sent, &new.tracestate).as_deref(), trace.tracestate());
        }
        assert_eq!(value(sent, &new.traceparent), kept.or(Some(parent.to_string())));
    }
    if let Some(baggage) = trace.baggage() {
        let kept = old_value(|meta| &meta.baggage, is_baggage);
        assert_eq!(value(sent, &new.baggage), kept.or(Some(baggage.to_owned())));
    }
}
