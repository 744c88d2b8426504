//! The cursors of lists belong to their caller. Where callers are identified, a list's `nextCursor` is
//! [sealed](super::outlook) for its principal and its method, and the `cursor` of a request is opened before its child
//! sees it.

use super::Server;
use super::outcome::NoAnswer;
use super::outlook::{Cursors, Outlook};
use super::permit::{self, Permit};
use super::reject::Rejection;
use crate::jsonrpc::{self, Edits, NoRoom, Spliced, codes, members, splice, splice_one, text};
use crate::policy::View;
use crate::upstream::{Incoming, Purpose, Received, Refusal, Upstream};

/// The methods whose results have cursors.
const LISTS: [&str; 5] =
    ["tools/list", "prompts/list", "resources/list", "resources/templates/list", "tasks/list"];
/// The same for every cursor that does not open, since the reason could help to forge one.
const UNKNOWN: &str = "Invalid params: the cursor is unknown; begin the list again without one";

/// Opens the cursor of a list request. Returns the request as its child may see it, and its client's outlook, unless the
/// answer passes as it is.
///
/// # Errors
/// -32602 when the cursor was not sealed for this principal and this method; 400 when a server could take another
/// member for it; 503 when `--max-buffered` has no room.
pub fn open(
    server: &Server,
    permit: Permit,
    incoming: Incoming,
) -> Result<(Incoming, Option<Box<Outlook>>), NoAnswer> {
    let Permit { view, note } = permit;
    let incoming = if note.is_empty() { incoming } else { noted(&note, incoming)? };
    if server.identifies && LISTS.contains(&&*incoming.method()) {
        return list(server, view, incoming);
    }
    let outlook = view.map(|view| Box::new(Outlook { view: Some(view), cursors: None }));
    Ok((incoming, outlook))
}

/// Writes what was decided into a request, whose `_meta` names the caller already.
fn noted(note: &str, incoming: Incoming) -> Result<Incoming, NoAnswer> {
    let (frame, message) = (&incoming.frame, &incoming.message);
    let meta = message.params.as_ref().and_then(|params| params.meta.as_ref());
    let Some(meta) = meta else { return Ok(incoming) };
    let mut edits = Edits::new();
    let is_first = members(frame, meta.span.clone()).next().is_none();
    edits.insert_members(meta.span.start + 1, note.as_bytes(), !is_first);
    rewritten(splice(frame, &message.object, edits), &incoming)
}

/// Returns a request with another text.
fn rewritten(frame: Spliced, incoming: &Received) -> Result<Incoming, NoAnswer> {
    let frame = frame.flatten().map_err(|no_room: NoRoom| Rejection::busy(no_room.to_string()))?;
    let message = jsonrpc::scan(&frame).map_err(|fault| Rejection::invalid(fault.to_string()))?;
    Ok(Received { frame, message, ..Received::clone(incoming) }.into())
}

fn list(
    server: &Server,
    view: Option<Box<View>>,
    incoming: Incoming,
) -> Result<(Incoming, Option<Box<Outlook>>), NoAnswer> {
    permit::check_spelling(&incoming)?;
    let purpose = Purpose::of_list(&incoming.identity.principal, &incoming.method());
    let incoming = opened(&server.upstream, &purpose, incoming)?;
    let cursors = Cursors::new(&server.upstream, purpose, incoming.id());
    Ok((incoming, Some(Box::new(Outlook { view, cursors: Some(cursors) }))))
}

/// Replaces the cursor by that of the server. None, null and an empty text ask for the first page.
fn opened(upstream: &Upstream, purpose: &Purpose, incoming: Incoming) -> Result<Incoming, NoAnswer> {
    let (frame, message) = (&incoming.frame, &incoming.message);
    let params = message.params.as_ref();
    let cursor = params.and_then(|params| jsonrpc::member(frame, &params.span, "cursor"));
    let Some(cursor) = cursor.filter(|cursor| !matches!(&frame[cursor.clone()], b"null" | b"\"\"")) else {
        return Ok(incoming);
    };
    let sealed = text(frame, &cursor);
    let own = Some(sealed).filter(|_| frame[cursor.start] == b'"');
    let own = own.and_then(|sealed| upstream.seal().open_cursor(&sealed, purpose));
    let own = own.ok_or(Refusal::Withheld(codes::INVALID_PARAMS, UNKNOWN))?;
    rewritten(splice_one(frame, &message.object, &cursor, &own), &incoming)
}
