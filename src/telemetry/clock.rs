//! Time as telemetry needs it: the moment by the calendar when something began, and how long it took by a clock that never
//! jumps.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// When something began.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    unix_nanos: u64,
    instant: Instant,
}

impl Begun {
    /// Now.
    pub fn now() -> Self {
        Begun { unix_nanos: unix_nanos(), instant: Instant::now() }
    }

    /// In nanoseconds since 1970.
    pub fn unix_nanos(&self) -> u64 {
        self.unix_nanos
    }

    /// How long ago that is.
    pub fn elapsed(&self) -> Duration {
        self.instant.elapsed()
    }

    /// In nanoseconds since 1970, so much later.
    pub fn after(&self, elapsed: Duration) -> u64 {
        self.unix_nanos.saturating_add(nanos(elapsed))
    }
}

/// Now, in nanoseconds since 1970.
pub fn unix_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos)
}

/// A duration in nanoseconds, as far as they go.
pub fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos().into())
}
