//! The messages of the handshake: the client's `initialize`, the child's, and the answers.

use crate::budget::Charged;
use crate::era::capabilities::Capabilities;
use crate::ingress::Refusal;
use crate::jsonrpc::{Message, Span, Spliced, codes, member, members, rewrite, splice, text};
use crate::mux::WireId;
use crate::session::{LEGACY_VERSIONS, Version};
use crate::trace_context::Trace;

/// Maximum number of bytes of a handshake that are remembered as long as its session lasts.
pub const MOST_REMEMBERED: usize = 64 * 1024;
/// Maximum length of a revision, in bytes of raw JSON.
const LONGEST_VERSION: usize = 64;

#[cfg(test)]
#[path = "initialize_tests.rs"]
mod tests;

/// Refuses an `initialize` whose capabilities and `clientInfo` are too long to be remembered.
pub fn is_short(message: &Message) -> Result<(), Refusal> {
    let length = |part: Option<&Span>| part.map_or(0, |span| span.len());
    let info = message.params.as_ref().and_then(|params| params.client_info.as_ref());
    if length(capabilities(message)) + length(info) > MOST_REMEMBERED {
        return Err(Refusal::Withheld(codes::INVALID_PARAMS, "capabilities and clientInfo exceed 64 KiB"));
    }
    Ok(())
}

/// Writes `initialize` for a shared child: without capabilities, so that it never asks clients questions
/// (`docs/architecture.md#isolation`).
pub fn for_shared(wire_id: WireId, revision: &str) -> Spliced {
    own(wire_id, revision, serde_json::json!({}))
}

/// Writes `initialize` for a leased child: with every capability that can be translated. Each question is checked
/// against the capabilities of its own request.
pub fn for_leased(wire_id: WireId, revision: &str) -> Spliced {
    own(wire_id, revision, ASKS.declaration())
}

/// Writes `initialize` for a leased child that may ask for roots (`--forward-roots`).
pub fn for_leased_with_roots(wire_id: WireId, revision: &str) -> Spliced {
    own(wire_id, revision, Capabilities { roots: true, ..ASKS }.declaration())
}

const ASKS: Capabilities =
    Capabilities { form: true, url: true, sampling: true, sampling_tools: true, roots: false };

fn own(wire_id: WireId, revision: &str, capabilities: serde_json::Value) -> Spliced {
    let params = serde_json::json!({
        "protocolVersion": revision,
        "capabilities": capabilities,
        "clientInfo": {"name": "proxyrunner", "version": env!("CARGO_PKG_VERSION")},
    });
    let id = wire_id.as_u64().to_string();
    Spliced::from(rewrite::request(id.as_bytes(), "initialize", Some(params.to_string().as_bytes())))
}

/// Forwards a client's `initialize` to its exclusive child. `roots` is withheld unless the operator opted in, since a
/// stock filesystem server replaces its allowed directories by the client's roots. A revision later than `ceiling`,
/// which the server refuses, is replaced by it.
pub fn for_exclusive(
    frame: &Charged,
    message: &Message,
    wire_id: WireId,
    forward_roots: bool,
    ceiling: Option<&str>,
    trace: &Trace,
) -> Spliced {
    let capabilities = capabilities(message).filter(|_| !forward_roots);
    let mut edits = rewrite::edits_for_child(frame, message, Some(wire_id.as_u64()), None, trace);
    if let Some(span) = capabilities
        && let Some(kept) = without(frame, span, "roots")
    {
        edits.replace(span, kept.as_bytes());
    }
    let asked = requested_version(frame, message);
    if let Some(ceiling) = ceiling.filter(|ceiling| asked.is_some_and(|asked| asked.as_str() > *ceiling))
        && let Some(span) = message.params.as_ref().and_then(|params| params.protocol_version.as_ref())
    {
        edits.replace(span, format!("\"{ceiling}\"").as_bytes());
    }
    splice(frame, &message.object, edits)
}

/// Returns whether a client's `initialize` declares a capability; null declares nothing.
pub fn declares(frame: &[u8], message: &Message, capability: &str) -> bool {
    let declared = capabilities(message).and_then(|span| member(frame, span, capability));
    declared.is_some_and(|value| &frame[value] != b"null")
}

/// Returns the revision that a client's `initialize` requests.
pub fn requested_version(frame: &[u8], message: &Message) -> Option<Version> {
    let span = message.params.as_ref()?.protocol_version.as_ref()?;
    (frame[span.start] == b'"' && span.len() <= LONGEST_VERSION).then(|| Version::new(&text(frame, span)))
}

/// Returns the revision of an `InitializeResult`.
pub fn negotiated_version(frame: &[u8], result: &Span) -> Option<Version> {
    let span = member(frame, result, "protocolVersion")?;
    (frame[span.start] == b'"' && span.len() <= LONGEST_VERSION).then(|| Version::new(&text(frame, &span)))
}

/// Returns the answer for a client of a shared child: the child's own result, in the client's revision if the child's
/// is not older (lifecycle §Version Negotiation), without tasks, which would cross clients.
///
/// The flag is set if the child's revision is later than the client's.
pub fn welcome(result: &Charged, asked: Option<&Version>) -> (Version, bool, Charged) {
    let whole = 0..result.len();
    let own = negotiated_version(result, &whole).unwrap_or_else(|| Version::new(LEGACY_VERSIONS[0]));
    let version = match asked {
        Some(asked) if asked.is_known() && asked.as_str() <= own.as_str() => asked.clone(),
        _ => own.clone(),
    };
    let newer = version.as_str() < own.as_str();
    let mut text = String::from("{");
    for (key, value) in members(result, whole) {
        if text.len() > 1 {
            text.push(',');
        }
        let kept = match key_of(result, &key).as_ref() {
            "protocolVersion" => serde_json::Value::from(version.as_str()).to_string(),
            "capabilities" => without(result, &value, "tasks").unwrap_or_else(|| raw(result, &value)),
            _ => raw(result, &value),
        };
        text.push_str(&raw(result, &key));
        text.push(':');
        text.push_str(&kept);
    }
    text.push('}');
    (version, newer, result.derive(text.into_bytes()))
}

fn capabilities(message: &Message) -> Option<&Span> {
    message.params.as_ref()?.capabilities.as_ref()
}

/// Returns the object without a member; `None` if it lacks that member.
fn without(bytes: &[u8], object: &Span, name: &str) -> Option<String> {
    member(bytes, object, name)?;
    let kept: Vec<String> = members(bytes, object.clone())
        .filter(|(key, _)| key_of(bytes, key) != name)
        .map(|(key, value)| format!("{}:{}", raw(bytes, &key), raw(bytes, &value)))
        .collect();
    Some(format!("{{{}}}", kept.join(",")))
}

fn key_of<'a>(bytes: &'a [u8], key: &Span) -> std::borrow::Cow<'a, str> {
    text(bytes, key)
}

fn raw(bytes: &[u8], span: &Span) -> String {
    lossy(&bytes[span.clone()])
}

/// Converts scanned text, which is UTF-8 already.
fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
