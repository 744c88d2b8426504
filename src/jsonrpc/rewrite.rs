//! The few changes that messages need on their way: ids, progress tokens and trace context.
//! Everything else leaves as it came. Also the few messages that proxyrunner writes itself.

use bytes::Bytes;
use serde_json::Value;

use super::message::{Message, Meta, Span};
use super::scan::members;
use super::splice::{Edits, Spliced, break_no_lines, splice};
use super::text::{text, unescaped};
use crate::trace_context::{Trace, is_baggage, is_traceparent};

/// The message as it is, on one line.
pub fn unchanged(bytes: &Bytes, message: &Message) -> Spliced {
    splice(bytes, &message.object, message.multiline, Edits::new())
}

/// A request or a response with another id, given in raw JSON. A message without an id stays as it is.
pub fn with_id(bytes: &Bytes, message: &Message, id: &[u8]) -> Spliced {
    replaced(bytes, message, message.id.as_ref(), id)
}

/// `notifications/cancelled` with another `params.requestId`, given in raw JSON.
pub fn with_request_id(bytes: &Bytes, message: &Message, id: &[u8]) -> Spliced {
    replaced(bytes, message, message.params.as_ref().and_then(|params| params.request_id.as_ref()), id)
}

/// `notifications/progress` with another `params.progressToken`, given in raw JSON.
pub fn with_progress_token(bytes: &Bytes, message: &Message, token: &[u8]) -> Spliced {
    replaced(bytes, message, message.params.as_ref().and_then(|params| params.progress_token.as_ref()), token)
}

fn replaced(bytes: &Bytes, message: &Message, span: Option<&Span>, text: &[u8]) -> Spliced {
    let mut edits = Edits::new();
    if let Some(span) = span {
        edits.replace(span, text);
    }
    splice(bytes, &message.object, message.multiline, edits)
}

/// A client's request or notification as the child is to read it.
///
/// `wire_id` replaces the id. `progress_token` replaces `params._meta.progressToken` if the client gave
/// one. A context in `trace`, which came by header, is written into `params._meta` unless `_meta` has a
/// well-formed one; so is its baggage, independently.
pub fn request_for_child(
    bytes: &Bytes,
    message: &Message,
    wire_id: Option<u64>,
    progress_token: Option<u64>,
    trace: &Trace,
) -> Spliced {
    let edits = edits_for_child(bytes, message, wire_id, progress_token, trace);
    splice(bytes, &message.object, message.multiline, edits)
}

/// The edits of [`request_for_child`], for callers who have more to add.
pub fn edits_for_child(
    bytes: &Bytes,
    message: &Message,
    wire_id: Option<u64>,
    progress_token: Option<u64>,
    trace: &Trace,
) -> Edits {
    let mut edits = Edits::new();
    if let (Some(id), Some(wire_id)) = (&message.id, wire_id) {
        edits.replace(id, wire_id.to_string().as_bytes());
    }
    let meta = message.params.as_ref().and_then(|params| params.meta.as_ref());
    if let (Some(token), Some(ours)) = (meta.and_then(|meta| meta.progress_token.as_ref()), progress_token) {
        edits.replace(token, ours.to_string().as_bytes());
    }
    inject(bytes, message, trace, &mut edits);
    edits
}

/// Writes what `trace` has and `_meta` lacks.
fn inject(bytes: &[u8], message: &Message, trace: &Trace, edits: &mut Edits) {
    let meta = message.params.as_ref().and_then(|params| params.meta.as_ref());
    let well_formed = |part: fn(&Meta) -> &Option<Span>, check: fn(&str) -> bool| {
        meta.filter(|meta| !meta.trace_repeated)
            .and_then(|meta| part(meta).as_ref())
            .is_some_and(|span| bytes[span.start] == b'"' && check(&text(bytes, span)))
    };
    let context = trace.traceparent().filter(|_| !well_formed(|meta| &meta.traceparent, is_traceparent));
    let baggage = trace.baggage().filter(|_| !well_formed(|meta| &meta.baggage, is_baggage));
    let state = context.and_then(|_| trace.tracestate());
    let new = [("traceparent", context), ("tracestate", state), ("baggage", baggage)]
        .into_iter()
        .filter_map(|(key, value)| Some(format!("\"{key}\":{}", Value::from(value?))))
        .collect::<Vec<_>>()
        .join(",");
    if new.is_empty() {
        return;
    }
    let Some(params) = &message.params else {
        // Every message with params to come has a method.
        if let Some(method) = &message.method {
            edits.insert(method.end, format!(",\"params\":{{\"_meta\":{{{new}}}}}").as_bytes());
        }
        return;
    };
    match (meta, &params.meta_value) {
        (Some(meta), _) => {
            let keys: &[&[u8]] = match (context, baggage) {
                (Some(_), Some(_)) => &[b"traceparent", b"tracestate", b"baggage"],
                (Some(_), None) => &[b"traceparent", b"tracestate"],
                (None, _) => &[b"baggage"],
            };
            let empty = delete_members(bytes, &meta.span, keys, edits);
            put_first(meta.span.start, &new, empty, edits);
        }
        // A _meta that is no object is the child's to refuse; a second one would hide it.
        (None, Some(_)) => {}
        (None, None) => {
            let empty = bytes[params.span.start + 1..].trim_ascii_start().starts_with(b"}");
            put_first(params.span.start, &format!("\"_meta\":{{{new}}}"), empty, edits);
        }
    }
}

/// Inserts members at the front of the object at `start`; `empty` says that no others follow.
fn put_first(start: usize, new: &str, empty: bool, edits: &mut Edits) {
    let comma = if empty { "" } else { "," };
    edits.insert(start + 1, format!("{new}{comma}").as_bytes());
}

/// Deletes the members of `object` with one of these keys, each with one comma. True if none is left.
fn delete_members(bytes: &[u8], object: &Span, keys: &[&[u8]], edits: &mut Edits) -> bool {
    let mut none_kept = true;
    let first = object.start + 1;
    // Where the member before this one ended: from there on, the comma belongs to this one.
    let mut from = first;
    for (key, value) in members(bytes, object.clone()) {
        if keys.contains(&&*unescaped(&bytes[key.clone()])) {
            edits.delete(&(from..value.end));
        } else {
            if none_kept && from > first {
                edits.delete(&(from..key.start));
            }
            none_kept = false;
        }
        from = value.end;
    }
    none_kept
}

/// An error response. Without a known id it has none: no MCP request has the id null.
pub fn error(id: Option<&[u8]>, code: i64, message: &str, data: Option<Value>) -> Bytes {
    let mut body = format!("{{\"code\":{code},\"message\":{}", Value::from(message));
    if let Some(data) = data {
        body += &format!(",\"data\":{data}");
    }
    body.push('}');
    write(&[("id", id), ("error", Some(body.as_bytes()))])
}

/// A response with the given result; both arguments are raw JSON.
pub fn result(id: &[u8], result: &[u8]) -> Bytes {
    write(&[("id", Some(id)), ("result", Some(result))])
}

/// A request; id and params are raw JSON.
pub fn request(id: &[u8], method: &str, params: Option<&[u8]>) -> Bytes {
    let method = Value::from(method).to_string();
    write(&[("id", Some(id)), ("method", Some(method.as_bytes())), ("params", params)])
}

/// A notification; params are raw JSON.
pub fn notification(method: &str, params: Option<&[u8]>) -> Bytes {
    let method = Value::from(method).to_string();
    write(&[("method", Some(method.as_bytes())), ("params", params)])
}

/// A message with the members that are there. Raw JSON cut out of a message may have line breaks
/// between its tokens; a frame may not.
fn write(members: &[(&str, Option<&[u8]>)]) -> Bytes {
    let mut text = b"{\"jsonrpc\":\"2.0\"".to_vec();
    for (key, value) in members {
        let Some(value) = value else { continue };
        text.extend_from_slice(format!(",\"{key}\":").as_bytes());
        let start = text.len();
        text.extend_from_slice(value);
        break_no_lines(&mut text[start..]);
    }
    text.push(b'}');
    text.into()
}
