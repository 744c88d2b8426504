//! How far a peer lags behind with taking what is written to it. No clock.
//!
//! That a write waits says little: it does so for as long as the system's own buffer is full, whoever reads. So the time
//! for which writes wait is set against the bytes that the peer really took meanwhile: at [`LEAST_RATE`] it keeps up, and
//! one byte now and then makes good for next to nothing.

use std::time::Duration;

/// What a peer must take per second to keep up: below the slowest link worth serving.
const LEAST_RATE: u64 = 16 * 1024;

/// What is known of one peer. All times are milliseconds since the same moment.
#[derive(Debug, Default)]
pub struct Lag {
    looked: u64,
    taken: u64,
    behind: u64,
}

impl Lag {
    /// Looks again at a peer that has `taken` so many bytes in all; where a write waits, it began at `waits_since`. How
    /// far it is behind now.
    pub fn look(&mut self, now: u64, waits_since: Option<u64>, taken: u64) -> Duration {
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
    fn one_that_takes_nothing_lags_behind_for_as_long_as_a_write_waits() {
        let mut lag = Lag::default();
        assert_eq!(seconds(lag.look(10_000, Some(9_000), 0)), 1);
        assert_eq!(seconds(lag.look(12_000, Some(9_000), 0)), 3, "no second counts twice");
        assert_eq!(seconds(lag.look(20_000, None, 0)), 3, "nothing waits, and nothing was taken");
    }

    #[test]
    fn one_that_takes_at_the_least_rate_keeps_up_however_long_its_writes_wait() {
        let mut lag = Lag::default();
        for second in 1..=100 {
            assert_eq!(lag.look(second * 1_000, Some(0), second * LEAST_RATE), Duration::ZERO);
        }
        lag.look(101_000, Some(0), 200 * LEAST_RATE);
        assert_eq!(seconds(lag.look(103_000, Some(0), 200 * LEAST_RATE)), 2, "a quick start buys no time");
    }

    #[test]
    fn a_byte_now_and_then_resets_nothing() {
        let mut lag = Lag::default();
        let mut behind = Duration::ZERO;
        for second in 1..=10 {
            // Each byte lets a write through, and the next one waits.
            behind = lag.look(second * 1_000, Some(second * 1_000 - 999), second);
        }
        assert!(behind > Duration::from_secs(9), "{behind:?}");
    }
}
