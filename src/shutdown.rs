//! The stages of the shutdown, in their order. Each is entered once and never left.
//!
//! `unready`: the readiness probe fails, and all requests are served. → `refusing`: new exchanges and sessions get 503, and
//! messages of running ones are accepted. → `over`: the remaining exchanges fail.

use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Minimum time for connections to close after the drain.
pub const CLOSING: Duration = Duration::from_secs(2);
/// Minimum time to export the last telemetry.
pub const FLUSHING: Duration = Duration::from_millis(500);

/// A handle on the stages; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    unready: CancellationToken,
    refusing: CancellationToken,
    over: CancellationToken,
}

impl Shutdown {
    /// Makes readiness probes fail.
    pub fn begin(&self) {
        self.unready.cancel();
    }

    /// Refuses new exchanges and sessions.
    pub fn refuse(&self) {
        self.begin();
        self.refusing.cancel();
    }

    /// Fails the remaining exchanges, and ends the streams.
    pub fn finish(&self) {
        self.refuse();
        self.over.cancel();
    }

    /// Returns whether [`begin`](Self::begin) was called.
    pub fn has_begun(&self) -> bool {
        self.unready.is_cancelled()
    }

    /// Returns whether [`refuse`](Self::refuse) was called.
    pub fn is_refusing(&self) -> bool {
        self.refusing.is_cancelled()
    }

    /// Returns whether [`finish`](Self::finish) was called.
    pub fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Resolves once [`finish`](Self::finish) was called.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_stage_implies_the_earlier_ones() {
        let shutdown = Shutdown::default();
        assert!(!shutdown.has_begun());
        shutdown.begin();
        assert!(shutdown.has_begun() && !shutdown.is_refusing());
        shutdown.finish();
        assert!(shutdown.is_refusing() && shutdown.is_over());
    }
}
