//! Records whether a server answers pings.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// Whether the server answers pings. Some servers never do, and must not be ended for that.
#[derive(Debug, Default)]
pub(super) struct Pings {
    answered: AtomicBool,
    silences: AtomicU32,
}

impl Pings {
    /// Notes that a ping was answered.
    pub fn note_answer(&self) {
        self.answered.store(true, Relaxed);
    }

    /// Counts an unanswered ping. Returns whether silence proves nothing, because the server never answered a ping
    /// though two processes had the chance.
    pub fn note_silence(&self) -> bool {
        if self.answered.load(Relaxed) {
            return false;
        }
        let before = self.silences.fetch_add(1, Relaxed);
        if before == 1 {
            tracing::warn!(
                "the server does not answer pings; silence of an idle server is no longer treated as a hang"
            );
        }
        before > 0
    }
}
