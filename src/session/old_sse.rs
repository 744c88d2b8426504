//! Sessions of HTTP+SSE (2024-11-05), which end with their only stream, and that with its caller's credentials.

use super::Session;
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Interval at which a session whose caller's credentials have ended looks for the answers that it still owes.
const UNTIL_ANSWERED: Duration = Duration::from_secs(1);

impl Session {
    /// Marks its transport as HTTP+SSE, so that Streamable HTTP does not accept its id. Its caller's credentials end
    /// then, or never.
    pub fn become_old_sse(&self, ends: Option<Instant>) {
        let _ = self.old_sse.set(Mutex::new(ends));
    }

    /// Returns whether its transport is HTTP+SSE.
    pub fn is_old_sse(&self) -> bool {
        self.old_sse.get().is_some()
    }

    /// Records the end of other credentials of its caller, with which a message came. The caller cannot open the stream
    /// again with them, since the session would end with the former one.
    pub fn prolong(&self, ends: Option<Instant>) {
        if let Some(latest) = self.old_sse.get() {
            let mut latest = latest.lock();
            *latest = latest.zip(ends).map(|(former, new)| former.max(new));
        }
    }

    /// Returns the time until which its stream stays open at least; `None` if that has passed. Requests that are in
    /// flight then are still answered.
    pub fn stays_until(&self, now: Instant) -> Option<Instant> {
        let is_owing = self.state().owed > 0;
        let ends = (*self.old_sse.get()?.lock()).filter(|ends| *ends > now);
        ends.or(is_owing.then_some(now + UNTIL_ANSWERED))
    }
}
