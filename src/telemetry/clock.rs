//! Clocks for telemetry: wall-clock timestamps, and durations from a monotonic clock.

use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A reading of the monotonic clock in nanoseconds. Half the size of [`std::time::Instant`] and cheaper to subtract.
#[derive(Clone, Copy, Debug)]
pub struct Moment(u64);

impl Moment {
    /// Reads the clock.
    pub fn now() -> Self {
        // Every supported system has this clock.
        Moment(clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| nanos(now.into())))
    }

    /// Returns the nanoseconds since this reading.
    pub fn nanos(self) -> u64 {
        Self::now().0.saturating_sub(self.0)
    }
}

/// The start time of a span, from both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    unix_nanos: u64,
    moment: Moment,
}

impl Begun {
    /// Reads both clocks.
    pub fn now() -> Self {
        Begun { unix_nanos: unix_nanos(), moment: Moment::now() }
    }

    /// Returns the start in nanoseconds since the Unix epoch.
    pub fn unix_nanos(&self) -> u64 {
        self.unix_nanos
    }

    /// Returns the current time in nanoseconds since the Unix epoch, as the start plus the monotonic duration: it is
    /// never before the start, even if the wall clock was set back.
    pub fn unix_nanos_now(&self) -> u64 {
        self.unix_nanos.saturating_add(self.moment.nanos())
    }
}

/// Returns the current time in nanoseconds since the Unix epoch.
pub fn unix_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos)
}

/// Converts a duration to nanoseconds, saturating.
pub fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos().into())
}
