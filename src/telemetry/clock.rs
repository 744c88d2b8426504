//! Time as telemetry needs it: the moment by the calendar when something began, and how long it took by a clock that never
//! jumps.

use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment by the clock that never jumps, in nanoseconds: half as long as the standard library's, and cheaper to
/// subtract.
#[derive(Clone, Copy, Debug)]
pub struct Moment(u64);

impl Moment {
    /// Now.
    pub fn now() -> Self {
        // Every system has it.
        Moment(clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| nanos(now.into())))
    }

    /// How long ago that is, in nanoseconds.
    pub fn nanos(self) -> u64 {
        Self::now().0.saturating_sub(self.0)
    }
}

/// When something began.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    unix_nanos: u64,
    moment: Moment,
}

impl Begun {
    /// Now.
    pub fn now() -> Self {
        Begun { unix_nanos: unix_nanos(), moment: Moment::now() }
    }

    /// In nanoseconds since 1970.
    pub fn unix_nanos(&self) -> u64 {
        self.unix_nanos
    }

    /// Now, in nanoseconds since 1970, if the calendar's clock has not jumped meanwhile.
    pub fn unix_nanos_now(&self) -> u64 {
        self.unix_nanos.saturating_add(self.moment.nanos())
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
