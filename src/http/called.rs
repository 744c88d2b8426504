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
use std::borrow::Cow;

/// Returns the call that a message stands for; any other message as it is.
///
/// # Errors
/// As [`check_spelling`].
pub(super) fn called(
    settings: &Settings,
    headers: &mut Cow<'_, HeaderMap>,
    frame: Charged,
    message: Message,
) -> Result<(Charged, Message), Rejection> {
    let inner = settings.searches.then(|| crate::gateway::called(&frame, &message)).flatten();
    let Some((frame, message)) = inner else { return Ok((frame, message)) };
    check_spelling(&message, &frame)?;
    rename(headers, &frame, &message);
    Ok((frame, message))
}

/// Lets headers name the call instead of `call_tool`.
fn rename(headers: &mut Cow<'_, HeaderMap>, frame: &Charged, message: &Message) {
    let own = message.params.as_ref().and_then(|params| params.name.clone());
    let own = own.and_then(|own| HeaderValue::from_str(&encode(&text(frame, &own))).ok());
    if let Some(own) = own
        && headers.get(NAME).is_some_and(|name| name == crate::gateway::CALL)
    {
        headers.to_mut().insert(NAME, own);
    }
}
