//! The stages of the end, in their order; each is entered once and never left.
//!
//! `unready` (probes say so, everything is still served) → `refusing` (new exchanges and sessions get 503; what
//! running ones need is still taken) → `over` (what is left gets an error).

use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The time that connections have to close once everything is answered, if nothing is left of the drain.
pub const CLOSING: Duration = Duration::from_secs(2);
/// The least time to export the last of the telemetry.
pub const FLUSHING: Duration = Duration::from_millis(500);

/// A handle on the stages; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    unready: CancellationToken,
    refusing: CancellationToken,
    over: CancellationToken,
}

impl Shutdown {
    /// Readiness probes fail from here on.
    pub fn begin(&self) {
        self.unready.cancel();
    }

    /// New exchanges and sessions are refused from here on.
    pub fn refuse(&self) {
        self.begin();
        self.refusing.cancel();
    }

    /// Every exchange still running gets its error now, and streams end.
    pub fn finish(&self) {
        self.refuse();
        self.over.cancel();
    }

    /// Whether [`begin`](Self::begin) was called.
    pub fn has_begun(&self) -> bool {
        self.unready.is_cancelled()
    }

    /// Whether [`refuse`](Self::refuse) was called.
    pub fn is_refusing(&self) -> bool {
        self.refusing.is_cancelled()
    }

    /// Resolves once [`refuse`](Self::refuse) was called.
    pub async fn refusing(&self) {
        self.refusing.cancelled().await;
    }

    /// Whether [`finish`](Self::finish) was called.
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
