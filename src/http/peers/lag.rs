//! Measures how far a peer lags behind in reading. It has no clock of its own.
//!
//! A waiting write proves little: it waits while the system's buffer is full, even if the peer reads. So the time
//! that writes wait is offset by the bytes that the peer read meanwhile. At [`LEAST_RATE`] a peer keeps up; a byte
//! now and then gains almost nothing.

use std::time::Duration;

/// Bytes per second that a peer must read to keep up: less than the slowest link worth serving.
const LEAST_RATE: u64 = 16 * 1024;

/// The lag of one peer. All times are milliseconds since the same moment.
#[derive(Debug, Default)]
pub struct Lag {
    looked: u64,
    taken: u64,
    behind: u64,
}

impl Lag {
    /// Updates and returns the lag of a peer that has read `taken` bytes in total, and for which a write has waited
    /// since `waits_since`.
    pub fn update(&mut self, now: u64, waits_since: Option<u64>, taken: u64) -> Duration {
        let waited = waits_since.map_or(0, |since| now.saturating_sub(since.max(self.looked)));
        let made_good = taken.saturating_sub(self.taken).saturating_mul(1_000) / LEAST_RATE;
        self.behind = (self.behind + waited).saturating_sub(made_good);
        self.looked = now;
        self.taken = self.taken.max(taken);
        Duration::from_millis(self.behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(lag: Duration) -> u64 {
        lag.as_secs()
    }

    #[test]
    fn a_peer_that_reads_nothing_lags_as_long_as_a_write_waits() {
        let mut lag = Lag::default();
        assert_eq!(seconds(lag.update(10_000, Some(9_000), 0)), 1);
        assert_eq!(seconds(lag.update(12_000, Some(9_000), 0)), 3, "no second counts twice");
        assert_eq!(seconds(lag.update(20_000, None, 0)), 3, "no write waits, and nothing was read");
    }

    #[test]
    fn a_peer_that_reads_at_the_minimum_rate_never_lags() {
        let mut lag = Lag::default();
        for second in 1..=100 {
            assert_eq!(lag.update(second * 1_000, Some(0), second * LEAST_RATE), Duration::ZERO);
        }
        lag.update(101_000, Some(0), 200 * LEAST_RATE);
        assert_eq!(seconds(lag.update(103_000, Some(0), 200 * LEAST_RATE)), 2, "a quick start gains no time");
    }

    #[test]
    fn a_byte_now_and_then_does_not_reset_the_lag() {
        let mut lag = Lag::default();
        let mut behind = Duration::ZERO;
        for second in 1..=10 {
            // Each byte lets one write through, and the next one waits.
            behind = lag.update(second * 1_000, Some(second * 1_000 - 999), second);
        }
        assert!(behind > Duration::from_secs(9), "{behind:?}");
    }
}
