//! The modern front (2026-07-28): the request ladder of `protocol.md` A1, in its order, with its codes and statuses.
//! Stateless: nothing of sessions is minted or echoed, and a client that disconnects has cancelled.

use super::live::LiveStream;
use super::reject::{self, Rejection};
use super::response::{self, Body};
use super::{Server, guard};
use crate::era::{Envelope, MODERN_VERSION, errors, headers};
use crate::jsonrpc::{Kind, Span, codes, text};
use crate::session::Principal;
use crate::upstream::{Caller, Incoming, ModernBegun};
use hyper::header::{HeaderMap, HeaderName};
use hyper::{Response, StatusCode};
use std::sync::Arc;

const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// Legacy methods that the modern revision removed (protocol B3): a legacy child would answer them.
const REMOVED: [&str; 8] = [
    "initialize",
    "ping",
    "logging/setLevel",
    "resources/subscribe",
    "resources/unsubscribe",
    "tasks/list",
    "tasks/result",
    "roots/list",
];

/// Whether a message is a modern client's (protocol A2): its envelope says so, or without one and without a session
/// its header does.
pub fn is_modern(headers: &HeaderMap, incoming: &Incoming) -> bool {
    let enveloped = incoming.message.params.as_ref().and_then(|params| params.meta.as_ref());
    enveloped.is_some_and(|meta| meta.era_version.is_some()) || speaks_modern(headers)
}

/// Whether the request's header names a modern revision.
pub fn speaks_modern(headers: &HeaderMap) -> bool {
    let version = headers.get(PROTOCOL_VERSION).and_then(|version| version.to_str().ok());
    version.is_some_and(|version| version.trim() >= MODERN_VERSION)
}
