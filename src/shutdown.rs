//! The stages of the shutdown, in their order. Each is entered once and never left.
//!
//! `unready`: the readiness probe fails, and all requests are served. → `refusing`: new exchanges and sessions get 503, and
//! messages of running ones are accepted. → `over`: the remaining exchanges fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The header of every answer during the shutdown, by which a gateway sends the next requests elsewhere. A 503 has it only if
/// its request was not begun because of the shutdown: the gateway sends that elsewhere, too.
pub const DRAINING: &str = "proxyrunner-draining";
/// Minimum time for connections to close after the drain.
pub const CLOSING: Duration = Duration::from_secs(2);
/// Minimum time to export the last telemetry.
pub const FLUSHING: Duration = Duration::from_millis(500);

const UNREADY: u8 = 1;
const REFUSING: u8 = 2;
const OVER: u8 = 3;

/// A handle on the stages; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// The stage that was entered last; each request reads it.
    stage: Arc<AtomicU8>,
    over: CancellationToken,
}

impl Shutdown {
    /// Makes readiness probes fail.
    pub fn begin(&self) {
        self.enter(UNREADY);
    }

    /// Refuses new exchanges and sessions.
    pub fn refuse(&self) {
        self.enter(REFUSING);
    }

    /// Fails the remaining exchanges, and ends the streams.
    pub fn finish(&self) {
        self.enter(OVER);
        self.over.cancel();
    }

    fn enter(&self, stage: u8) {
        self.stage.fetch_max(stage, Ordering::SeqCst);
    }

    fn has_entered(&self, stage: u8) -> bool {
        self.stage.load(Ordering::SeqCst) >= stage
    }

    /// Returns whether [`begin`](Self::begin) was called.
    pub fn has_begun(&self) -> bool {
        self.has_entered(UNREADY)
    }

    /// Returns whether [`refuse`](Self::refuse) was called.
    pub fn is_refusing(&self) -> bool {
        self.has_entered(REFUSING)
    }

    /// Returns whether [`finish`](Self::finish) was called.
    pub fn is_over(&self) -> bool {
        self.has_entered(OVER)
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
