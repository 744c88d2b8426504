//! One token bucket as GCRA: a bucket is one number, the time at which it will be full again.

use std::time::Duration;

/// A bucket of `maxTokens` tokens that fills up once in `refillPeriod`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    max_tokens: u64,
    /// Nanoseconds for one token.
    token: u64,
}

/// The longest time in which a bucket fills up.
pub(super) const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

impl Rate {
    /// Returns a rate. `None` if there are no tokens, the period is zero or longer than a year, or a token takes less
    /// than a nanosecond.
    pub fn new(max_tokens: u64, refill_period: Duration) -> Option<Self> {
        let period = u64::try_from(refill_period.as_nanos()).ok().filter(|_| refill_period <= LONGEST)?;
        let token = period.checked_div(max_tokens).filter(|token| *token > 0)?;
        Some(Rate { max_tokens, token })
    }

    /// Returns the size of the bucket.
    pub fn max_tokens(self) -> u64 {
        self.max_tokens
    }

    /// Returns the time in which an empty bucket fills up, in whole seconds, at least one.
    pub fn window(self) -> u64 {
        whole_seconds(self.period())
    }

    /// Returns the nanoseconds for one token, and those for all.
    #[cfg(feature = "gateway")]
    pub(super) fn nanos(self) -> (u64, u64) {
        (self.token, self.period())
    }

    fn period(self) -> u64 {
        self.token * self.max_tokens
    }

    /// Returns when a bucket is full at the latest: one that was emptied under another limit is empty under this one.
    pub(super) fn within(self, full_at: u64, now: u64) -> u64 {
        full_at.min(now.saturating_add(self.period()))
    }

    /// Takes one token: returns the new time at which the bucket is full, if it was `full_at` before.
    ///
    /// # Errors
    /// When there is none, with the nanoseconds until there is one.
    pub(super) fn take(self, full_at: Option<u64>, now: u64) -> Result<u64, u64> {
        let next = full_at.unwrap_or(now).max(now).saturating_add(self.token);
        match next.saturating_sub(now).checked_sub(self.period()) {
            Some(excess @ 1..) => Err(excess),
            _ => Ok(next),
        }
    }
}

/// Rounds nanoseconds up to seconds, at least one.
pub(super) fn whole_seconds(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000_000).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_bucket_gives_its_tokens_at_once_and_then_one_at_a_time() {
        let rate = Rate::new(3, Duration::from_secs(6)).expect("a rate");
        let mut full_at = None;
        let mut take = |now| {
            let taken = rate.take(full_at, now);
            if let Ok(next) = taken {
                full_at = Some(next);
            }
            taken.map(drop)
        };
        assert_eq!([take(0), take(0), take(0)], [Ok(()); 3]);
        assert_eq!(take(0), Err(2 * SECOND));
        assert_eq!((take(SECOND), take(2 * SECOND)), (Err(SECOND), Ok(())));
        assert_eq!(take(2 * SECOND), Err(2 * SECOND));
        assert_eq!(
            [take(100 * SECOND), take(100 * SECOND), take(100 * SECOND)],
            [Ok(()); 3],
            "it does not overflow"
        );
        assert!(take(100 * SECOND).is_err());
    }

    #[test]
    fn a_rate_has_tokens_and_a_period() {
        for (tokens, period) in
            [(0, Duration::from_secs(1)), (1, Duration::ZERO), (2, Duration::from_nanos(1)), (1, LONGEST * 2)]
        {
            assert_eq!(Rate::new(tokens, period), None);
        }
        assert_eq!(Rate::new(1, LONGEST).map(Rate::window), Some(LONGEST.as_secs()));
        assert_eq!(Rate::new(7, Duration::from_millis(1)).map(Rate::window), Some(1));
    }
}
