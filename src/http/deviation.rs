//! Tolerated deviations from the specification. Each kind is logged once per process with the client's User-Agent, so
//! that clients can be fixed and none can flood the log.

use hyper::header::{HeaderMap, USER_AGENT};
use std::sync::atomic::{AtomicU8, Ordering};

/// A tolerated deviation.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Deviation {
    /// `MCP-Protocol-Version` names a known revision that was not negotiated.
    OtherVersion = 1,
    /// `Accept` does not name both JSON and event streams.
    Accept = 2,
    /// `initialize` carries an unknown session id.
    StaleSession = 4,
    /// A message has members that are null and have no meaning.
    NullMembers = 8,
}

static LOGGED: AtomicU8 = AtomicU8::new(0);

impl Deviation {
    /// Logs the deviation unless its kind was logged before.
    pub fn tolerate(self, headers: &HeaderMap) {
        let bit = self as u8;
        if LOGGED.load(Ordering::Relaxed) & bit != 0 || LOGGED.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            return;
        }
        let client = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or("unknown");
        tracing::warn!(client, "{}; tolerated, further occurrences are not logged", self.words());
    }

    fn words(self) -> &'static str {
        match self {
            Deviation::OtherVersion => "MCP-Protocol-Version is not the negotiated one",
            Deviation::Accept => "Accept does not list both application/json and text/event-stream",
            Deviation::StaleSession => {
                "initialize carries an unknown Mcp-Session-Id; a new session is opened"
            }
            Deviation::NullMembers => "a message has members that are null and have no meaning",
        }
    }
}
