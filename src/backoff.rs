//! Exponential backoff: delays that double up to a limit, and jitter that spreads many retries of one cause.

use std::time::Duration;

/// A sequence of delays, each twice the one before, up to a limit.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Creates a sequence that starts at `first` and never exceeds `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Backoff { first, longest, next: first.min(longest) }
    }

    /// Returns the current delay, and doubles the next one.
    pub fn advance(&mut self) -> Duration {
        let delay = self.next;
        self.next = delay.saturating_mul(2).min(self.longest);
        delay
    }

    /// Starts again with the first delay.
    pub fn reset(&mut self) {
        *self = Backoff::new(self.first, self.longest);
    }
}

/// Shortens a delay to between a half and all of it. `chance` is a number from 0 to 1.
pub fn jittered(delay: Duration, chance: f64) -> Duration {
    delay.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
}

/// Returns a random number from 0 to 1; 1 if the system's random number generator failed, so that delays are not
/// spread.
pub fn chance() -> f64 {
    getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit_and_start_again_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let delays: Vec<_> = (0..5).map(|_| backoff.advance().as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 5, 5]);
        backoff.reset();
        assert_eq!(backoff.advance(), Duration::from_secs(1));
        assert_eq!(Backoff::new(Duration::MAX, Duration::MAX).advance(), Duration::MAX);
    }

    #[test]
    fn jitter_shortens_a_delay_by_at_most_half() {
        let second = Duration::from_secs(1);
        for (chance, millis) in [(0.0, 500), (0.5, 750), (1.0, 1000), (7.0, 1000), (-1.0, 500)] {
            assert_eq!(jittered(second, chance), Duration::from_millis(millis), "{chance}");
        }
        assert!((0.0..=1.0).contains(&chance()));
    }
}
