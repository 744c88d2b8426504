//! The facts about a message that only the audit log needs, and the hook by which it learns that a message has ended.

use super::peer::Peer;
use super::verdict::Verdict;
use crate::identity::Identity;
use crate::trace_context::Context;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The HTTP request that messages arrived with.
#[derive(Debug)]
pub struct Visitor {
    /// The remote end of the connection.
    pub peer: Peer,
    /// The path of the request.
    pub path: Box<str>,
    /// `User-Agent`
    pub agent: Option<Box<str>>,
    /// `X-Request-Id`
    pub request_id: Option<Box<str>>,
}

/// The facts about one message.
#[derive(Debug)]
pub struct Evidence {
    /// The HTTP request.
    pub visitor: Arc<Visitor>,
    /// The caller.
    pub identity: Arc<Identity>,
    /// The facts that are known later.
    pub details: Mutex<Details>,
}

/// The facts about a message that are known after its arrival.
#[derive(Debug, Default)]
pub struct Details {
    /// The message's id in raw JSON.
    pub id: Option<Box<str>>,
    /// The server that a gateway has passed it to.
    pub server: Option<Box<str>>,
    /// The session, as logs show it.
    pub session: Option<Box<str>>,
    /// The protocol revision.
    pub revision: Option<Box<str>>,
    /// Name and version of the client's software.
    pub client: Option<Arc<(Box<str>, Box<str>)>>,
    /// SHA-256 of the arguments, as the client sent them.
    pub arguments: Option<[u8; 32]>,
    /// The policy that decided.
    pub policy: Option<Box<str>>,
    /// The redacted arguments (`--audit-content`).
    pub request: Option<String>,
    /// The redacted result (`--audit-content`).
    pub response: Option<String>,
    /// The length of the response in bytes.
    pub response_size: Option<u64>,
}

/// A message that has ended.
#[derive(Debug)]
pub struct Ended<'a> {
    /// The method.
    pub method: &'a str,
    /// The tool, prompt or resource that it names.
    pub target: Option<&'a str>,
    /// The facts.
    pub evidence: &'a Evidence,
    /// The position in its trace.
    pub context: Option<Context>,
    /// The time since its arrival.
    pub took: Duration,
    /// The outcome.
    pub verdict: &'a Verdict,
}

/// The function that is told of each message that has ended.
type Witness = fn(&Ended<'_>);

static WITNESS: OnceLock<Witness> = OnceLock::new();
static WANTS_CONTENT: AtomicBool = AtomicBool::new(false);

/// Installs the function that is told of each message that has ended. Only the first call has an effect.
pub fn install(witness: Witness, wants_content: bool) {
    WANTS_CONTENT.store(wants_content, Relaxed);
    let _ = WITNESS.set(witness);
}

/// Returns whether facts about messages are collected.
#[inline]
pub fn is_collected() -> bool {
    WITNESS.get().is_some()
}

/// Returns whether arguments and results are collected.
pub fn wants_content() -> bool {
    WANTS_CONTENT.load(Relaxed)
}

pub(super) fn tell(ended: &Ended<'_>) {
    if let Some(witness) = WITNESS.get() {
        witness(ended);
    }
}
