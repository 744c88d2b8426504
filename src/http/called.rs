//! The calls that a gateway's `call_tool` stands for (`--search-tools`). They take its place before anything else looks at
//! the message, so that limits, policies, the audit log and metrics concern the tool that is called.

use super::Settings;
use super::body::check_spelling;
use super::modern::NAME;
use super::reject::Rejection;
use crate::budget::Charged;
use crate::era::headers::encode;
use crate::jsonrpc::{Message, text};
use hyper::header::{HeaderMap, HeaderValue};

/// Returns the call that a message stands for, if it stands for one.
///
/// # Errors
/// As [`check_spelling`].
pub(super) fn called(
    settings: &Settings,
    frame: &Charged,
    message: &Message,
) -> Result<Option<(Charged, Message)>, Rejection> {
    let call = settings.searches.then(|| crate::gateway::called(frame, message)).flatten();
    if let Some((frame, message)) = &call {
        check_spelling(message, frame)?;
    }
    Ok(call)
}

/// Returns headers that name the call instead of `call_tool`, if they name that.
pub(super) fn renamed(headers: &HeaderMap, (frame, message): &(Charged, Message)) -> Option<Box<HeaderMap>> {
    let own = message.params.as_ref()?.name.clone()?;
    let own = HeaderValue::from_str(&encode(&text(frame, &own))).ok()?;
    headers.get(NAME).filter(|name| *name == crate::gateway::CALL)?;
    let mut renamed = Box::new(headers.clone());
    renamed.insert(NAME, own);
    Some(renamed)
}
