//! Deviations from the specification that are tolerated. Each kind is logged once, with the client's name, so that its
//! authors can hear of it and no client can flood the log.

use hyper::header::{HeaderMap, USER_AGENT};
use std::sync::atomic::{AtomicU8, Ordering};

/// What a client does otherwise than the specification says.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Deviation {
    /// `MCP-Protocol-Version` names a known revision that was not negotiated.
    OtherVersion = 1,
    /// `Accept` does not name both JSON and event streams.
    Accept = 2,
    /// `initialize` comes with a session id that is not known.
    StaleSession = 4,
}

static LOGGED: AtomicU8 = AtomicU8::new(0);

impl Deviation {
    /// Logs it unless it was logged before.
    pub fn tolerate(self, headers: &HeaderMap) {
        let bit = self as u8;
        if LOGGED.load(Ordering::Relaxed) & bit != 0 || LOGGED.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            return;
        }
        let client = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or("unknown");
        tracing::warn!(client, "{}; served all the same, and not logged again", self.words());
    }

    fn words(self) -> &'static str {
        match self {
            Deviation::OtherVersion => "MCP-Protocol-Version is not the negotiated one",
            Deviation::Accept => "Accept does not list both application/json and text/event-stream",
            Deviation::StaleSession => "initialize names a session that is unknown or has ended",
        }
    }
}
