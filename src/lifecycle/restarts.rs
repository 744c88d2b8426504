//! Decides whether and when a child that ended is restarted: exponential backoff with jitter, and a budget that a
//! stable run restores.

use crate::backoff::{Backoff, jittered};
use std::time::{Duration, Instant};

/// The operator's settings for restarts.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// `--restart-limit`: maximum number of consecutive restarts.
    pub limit: u32,
    /// `--restart-backoff`: the delay of the first restart. It doubles with each.
    pub first: Duration,
    /// `--restart-backoff-max`: maximum delay.
    pub longest: Duration,
    /// `--restart-reset`: a child that has served for this long resets the count.
    pub stable: Duration,
}

impl Policy {
    /// The limit of a child that is restarted without end.
    pub const ENDLESS: u32 = u32::MAX;
}

/// The consecutive restarts of one child.
#[derive(Debug)]
pub struct Restarts {
    policy: Policy,
    backoff: Backoff,
    used: u32,
    serving_since: Option<Instant>,
}

impl Restarts {
    /// Creates the state before the first restart.
    pub fn new(policy: Policy) -> Self {
        Restarts { policy, backoff: Backoff::new(policy.first, policy.longest), used: 0, serving_since: None }
    }

    /// Records that the child has completed its handshake.
    pub fn note_serving(&mut self, now: Instant) {
        self.serving_since = Some(now);
    }

    /// Records that the child ended or failed to start, and returns the delay before the next start; `None` when the
    /// budget is used up. `chance`, from 0 to 1, spreads restarts that have a common cause.
    pub fn next_pause(&mut self, now: Instant, chance: f64) -> Option<Duration> {
        let served = self.serving_since.take().map(|since| now.saturating_duration_since(since));
        if served.is_some_and(|served| served >= self.policy.stable) {
            self.used = 0;
            self.backoff.reset();
        }
        if self.limit().is_some_and(|limit| self.used >= limit) {
            return None;
        }
        self.used = self.used.saturating_add(1);
        Some(jittered(self.backoff.advance(), chance))
    }

    /// Returns the number of consecutive restarts so far.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Returns the maximum number of consecutive restarts, if there is one.
    pub fn limit(&self) -> Option<u32> {
        (self.policy.limit != Policy::ENDLESS).then_some(self.policy.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        limit: 5,
        first: Duration::from_secs(1),
        longest: Duration::from_secs(5),
        stable: Duration::from_secs(60),
    };

    #[test]
    fn delays_double_up_to_the_maximum_until_the_budget_is_used_up() {
        let now = Instant::now();
        let mut restarts = Restarts::new(POLICY);
        let pauses: Vec<_> = std::iter::from_fn(|| restarts.next_pause(now, 1.0)).collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5].map(Duration::from_secs));
        assert_eq!((restarts.used(), restarts.limit()), (5, Some(5)));
        assert_eq!(restarts.next_pause(now, 1.0), None, "the budget stays used up");
    }

    #[test]
    fn jitter_shortens_a_delay_by_at_most_half() {
        let now = Instant::now();
        for (chance, pause) in [(0.0, 500), (0.5, 750), (1.0, 1000), (7.0, 1000), (-1.0, 500)] {
            assert_eq!(
                Restarts::new(POLICY).next_pause(now, chance),
                Some(Duration::from_millis(pause)),
                "{chance}"
            );
        }
    }

    #[test]
    fn only_a_stable_run_restores_the_budget() {
        let mut now = Instant::now();
        let mut restarts = Restarts::new(POLICY);
        for _ in 0..POLICY.limit {
            restarts.note_serving(now);
            now += POLICY.stable - Duration::from_millis(1);
            assert!(restarts.next_pause(now, 1.0).is_some());
        }
        restarts.note_serving(now);
        now += POLICY.stable;
        assert_eq!(restarts.next_pause(now, 1.0), Some(POLICY.first), "it was stable");
        assert_eq!(restarts.used(), 1);
    }

    #[test]
    fn the_time_of_a_child_that_never_served_does_not_count() {
        let now = Instant::now();
        let mut restarts = Restarts::new(Policy { limit: 1, ..POLICY });
        restarts.note_serving(now);
        assert!(restarts.next_pause(now, 1.0).is_some());
        assert_eq!(restarts.next_pause(now + POLICY.stable * 2, 1.0), None);
    }

    #[test]
    fn huge_settings_stay_within_the_maximum_delay() {
        let now = Instant::now();
        let mut restarts = Restarts::new(Policy { limit: u32::MAX, ..POLICY });
        assert!((0..100).all(|_| restarts.next_pause(now, 1.0).is_some_and(|pause| pause <= POLICY.longest)));
    }

    #[test]
    fn a_limit_of_zero_allows_no_restart() {
        assert_eq!(Restarts::new(Policy { limit: 0, ..POLICY }).next_pause(Instant::now(), 1.0), None);
    }
}
