//! The few changes that messages need on their way: ids, progress tokens and trace context. Every other byte stays
//! unchanged. Also the few messages that proxyrunner writes itself.

use crate::budget::Charged;
use serde_json::Value;
use std::borrow::Cow;

use super::message::{Message, Span};
use super::object::{Amendment, amend, amend_by, members};
use super::propagation::injection;
use super::splice::{Edits, SmallBytes, Spliced, splice, splice_one};
use super::text::{LONGEST_KEY, key_of, unescaped};
use crate::trace_context::Trace;

/// Returns the unchanged message, without surrounding whitespace.
pub fn unchanged(bytes: &Charged, message: &Message) -> Spliced {
    let mut edits = Edits::new();
    fill_null_params(message, b"", &mut edits);
    splice(bytes, &message.object, edits)
}

/// Replaces null `params`, which some parsers refuse, by an object with these members; returns false if they are not
/// null.
pub fn fill_null_params(message: &Message, members: &[u8], edits: &mut Edits) -> bool {
    if let Some(null) = &message.null_params {
        edits.replace(null, &[b"{", members, b"}"].concat());
    }
    message.null_params.is_some()
}

/// Replaces the id of a request or response by another one in raw JSON. A message without an id stays unchanged.
pub fn with_id(bytes: &Charged, message: &Message, id: &[u8]) -> Spliced {
    replaced(bytes, message, message.id.as_ref(), id)
}

/// Replaces `params.requestId` of a `notifications/cancelled` by another one in raw JSON.
pub fn with_request_id(bytes: &Charged, message: &Message, id: &[u8]) -> Spliced {
    replaced(bytes, message, message.params.as_ref().and_then(|params| params.request_id.as_ref()), id)
}

/// Replaces `params.progressToken` of a `notifications/progress` by another one in raw JSON.
pub fn with_progress_token(bytes: &Charged, message: &Message, token: &[u8]) -> Spliced {
    replaced(bytes, message, message.params.as_ref().and_then(|params| params.progress_token.as_ref()), token)
}

fn replaced(bytes: &Charged, message: &Message, span: Option<&Span>, text: &[u8]) -> Spliced {
    if let (Some(span), None) = (span, &message.null_params) {
        return splice_one(bytes, &message.object, span, text);
    }
    let mut edits = Edits::new();
    fill_null_params(message, b"", &mut edits);
    if let Some(span) = span {
        edits.replace(span, text);
    }
    splice(bytes, &message.object, edits)
}

/// Rewrites a client's request or notification for the child.
///
/// `wire_id` replaces the id. `progress_token` replaces `params._meta.progressToken`, if there is one. The context
/// and the baggage in `trace` are each written into `params._meta`, unless `_meta` has a well-formed one that `trace`
/// does not replace.
pub fn request_for_child(
    bytes: &Charged,
    message: &Message,
    wire_id: Option<u64>,
    progress_token: Option<u64>,
    trace: &Trace,
) -> Spliced {
    let meta = message.params.as_ref().and_then(|params| params.meta.as_ref());
    let has_token = meta.is_some_and(|meta| meta.progress_token.is_some()) && progress_token.is_some();
    if let (Some(id), Some(wire_id), false, true) = (&message.id, wire_id, has_token, trace.is_empty()) {
        // The usual request: only its id changes.
        return replaced(bytes, message, Some(id), itoa::Buffer::new().format(wire_id).as_bytes());
    }
    let edits = edits_for_child(bytes, message, wire_id, progress_token, trace);
    splice(bytes, &message.object, edits)
}

/// Returns the edits of [`request_for_child`], for callers that make further edits outside of `params`.
pub fn edits_for_child(
    bytes: &Charged,
    message: &Message,
    wire_id: Option<u64>,
    progress_token: Option<u64>,
    trace: &Trace,
) -> Edits {
    edits_with(bytes, message, &Changes { wire_id, progress_token, ..Changes::new(trace) })
}

/// The changes to a request on its way to the child.
#[derive(Debug, Clone, Copy)]
pub struct Changes<'a> {
    /// Replaces the id.
    pub wire_id: Option<u64>,
    /// Replaces `params._meta.progressToken`, if there is one.
    pub progress_token: Option<u64>,
    /// The trace context; see [`request_for_child`].
    pub trace: &'a Trace,
    /// Other changes in `params`, except for `_meta`.
    pub params: Amendment<'a>,
    /// Other changes in `params._meta`, except for the trace keys and `progressToken`.
    pub meta: Amendment<'a>,
}

impl<'a> Changes<'a> {
    /// Creates changes of only the trace context.
    pub fn new(trace: &'a Trace) -> Self {
        let none = Amendment::default();
        Self { wire_id: None, progress_token: None, trace, params: none, meta: none }
    }
}

/// Returns the edits for `changes`. Missing `params` and `_meta` are created if members have to be added. A `_meta`
/// that is not an object stays, since a second one would hide it: the child may refuse it.
pub fn edits_with(bytes: &[u8], message: &Message, changes: &Changes<'_>) -> Edits {
    let mut edits = Edits::new();
    if let (Some(id), Some(wire_id)) = (&message.id, changes.wire_id) {
        edits.replace(id, itoa::Buffer::new().format(wire_id).as_bytes());
    }
    let meta = message.params.as_ref().and_then(|params| params.meta.as_ref());
    let (trace_keys, injected) = injection(bytes, meta, changes.trace);
    let meta_members = joined(changes.meta.add, &injected);
    let Some(params) = &message.params else {
        insert_params(message, changes.params.add, &meta_members, &mut edits);
        return edits;
    };
    let new_meta = if params.meta_value.is_none() { wrapped(&meta_members) } else { SmallBytes::new() };
    let add = joined(changes.params.add, &new_meta);
    amend_if_any(bytes, &params.span, Amendment { drop: changes.params.drop, add: &add }, &mut edits);
    if let Some(meta) = meta {
        let both;
        let drop = if changes.meta.drop.is_empty() {
            trace_keys
        } else {
            both = [changes.meta.drop, trace_keys].concat();
            &both
        };
        amend_if_any(bytes, &meta.span, Amendment { drop, add: &meta_members }, &mut edits);
        if let (Some(token), Some(ours)) = (&meta.progress_token, changes.progress_token) {
            edits.replace(token, itoa::Buffer::new().format(ours).as_bytes());
        }
    }
    edits
}

fn amend_if_any(bytes: &[u8], object: &Span, amendment: Amendment<'_>, edits: &mut Edits) {
    if !(amendment.drop.is_empty() && amendment.add.is_empty()) {
        amend(bytes, object, amendment, edits);
    }
}

/// Reserves the keys of `params._meta` that begin with `prefix`: removes a client's own members with such keys, however
/// they are written, and adds `member`, which is raw JSON, or empty. A `_meta` that is not an object is replaced if there is a
/// member to add, so that no caller can keep it out. Returns `None` if nothing changes.
pub fn with_reserved(bytes: &Charged, message: &Message, prefix: &str, member: &[u8]) -> Option<Spliced> {
    let mut edits = Edits::new();
    let kept = |name: &[u8]| match name.len() > LONGEST_KEY {
        // It comes with its quotes and escapes.
        true => !unescaped(name).starts_with(prefix.as_bytes()),
        false => !name.starts_with(prefix.as_bytes()),
    };
    match &message.params {
        None if member.is_empty() => return None,
        None => insert_params(message, b"", member, &mut edits),
        Some(params) => match (&params.meta, &params.meta_value) {
            (Some(meta), _) => {
                let is_kept = |(key, _): (Span, Span)| kept(&key_of(&bytes[key]));
                if member.is_empty() && members(bytes, meta.span.clone()).all(is_kept) {
                    return None;
                }
                amend_by(bytes, &meta.span, kept, member, &mut edits);
            }
            (None, _) if member.is_empty() => return None,
            (None, Some(other)) => edits.replace(other, &[b"{", member, b"}"].concat()),
            (None, None) => {
                let add = wrapped(member);
                amend(bytes, &params.span, Amendment { drop: &[], add: &add }, &mut edits);
            }
        },
    }
    Some(splice(bytes, &message.object, edits))
}

fn joined<'a>(first: &'a [u8], then: &'a [u8]) -> Cow<'a, [u8]> {
    match (first.is_empty(), then.is_empty()) {
        (true, _) => then.into(),
        (_, true) => first.into(),
        _ => [first, b",", then].concat().into(),
    }
}

/// Returns a `_meta` with these members; empty if there are none.
fn wrapped(members: &[u8]) -> SmallBytes {
    let mut meta = SmallBytes::new();
    if !members.is_empty() {
        meta.extend_from_slice(b"\"_meta\":{");
        meta.extend_from_slice(members);
        meta.extend_from_slice(b"}");
    }
    meta
}

/// Adds `params` to a message without them. Such a message has a method.
fn insert_params(message: &Message, params: &[u8], meta: &[u8], edits: &mut Edits) {
    let meta = wrapped(meta);
    let members = joined(params, &meta);
    if fill_null_params(message, &members, edits) {
        return;
    }
    if let (Some(method), false) = (&message.method, members.is_empty()) {
        edits.insert(method.end, &[b",\"params\":{", &*members, b"}"].concat());
    }
}

/// Maximum length of the text quoted in an error message, in bytes.
const QUOTED: usize = 2048;

/// Writes an error response. Without a known id it has none, since no MCP request has the id null. A long `message`
/// is cut.
pub fn error(id: Option<&[u8]>, code: i64, message: &str, data: Option<Value>) -> Charged {
    let message = &message[..message.floor_char_boundary(QUOTED)];
    let mut body = format!("{{\"code\":{code},\"message\":{}", Value::from(message));
    if let Some(data) = data {
        body += &format!(",\"data\":{data}");
    }
    body.push('}');
    write(&[("id", id), ("error", Some(body.as_bytes()))])
}

/// Writes a response with a short result; both arguments are raw JSON.
pub fn result(id: &[u8], result: &[u8]) -> Charged {
    write(&[("id", Some(id)), ("result", Some(result))])
}

/// Writes a response with a result of any length, which is not copied; both arguments are raw JSON.
pub fn result_of(id: &[u8], result: &Spliced) -> Spliced {
    around(&[b"{\"jsonrpc\":\"2.0\",\"id\":", id, b",\"result\":"].concat(), result)
}

/// Writes a request with short params; id and params are raw JSON.
pub fn request(id: &[u8], method: &str, params: Option<&[u8]>) -> Charged {
    let method = Value::from(method).to_string();
    write(&[("id", Some(id)), ("method", Some(method.as_bytes())), ("params", params)])
}

/// Writes a request with params of any length, which are not copied; id and params are raw JSON.
pub fn request_of(id: &[u8], method: &str, params: &Spliced) -> Spliced {
    let method = Value::from(method).to_string();
    let head = [b"{\"jsonrpc\":\"2.0\",\"id\":", id, b",\"method\":", method.as_bytes(), b",\"params\":"];
    around(&head.concat(), params)
}

/// Writes a notification with short params in raw JSON.
pub fn notification(method: &str, params: Option<&[u8]>) -> Charged {
    let method = Value::from(method).to_string();
    write(&[("method", Some(method.as_bytes())), ("params", params)])
}

fn around(head: &[u8], value: &Spliced) -> Spliced {
    let head = std::iter::once(Charged::own(head));
    Spliced::of(head.chain(value.segments().iter().cloned()).chain([Charged::fixed(b"}")]))
}

/// Writes a message with those members that have a value.
fn write(members: &[(&str, Option<&[u8]>)]) -> Charged {
    let mut text = b"{\"jsonrpc\":\"2.0\"".to_vec();
    for (key, value) in members {
        let Some(value) = value else { continue };
        text.extend_from_slice(format!(",\"{key}\":").as_bytes());
        text.extend_from_slice(value);
    }
    text.push(b'}');
    Charged::own(text)
}
