//! The backoff between retries of a delivery: exponential with jitter, or longer if the collector asks for it (OTLP
//! §OTLP/HTTP Throttling, §OTLP/gRPC Throttling). Time is an argument.

use std::time::{Duration, Instant};

/// Delay before the first retry.
const FIRST: Duration = Duration::from_millis(500);
/// Maximum delay, unless the collector asks for a longer one.
const LONGEST: Duration = Duration::from_secs(5);

/// The retries of one delivery.
#[derive(Debug)]
pub struct Attempts {
    until: Instant,
    next: Duration,
}

impl Attempts {
    /// Creates the retries of a delivery that may take `patience` from now.
    pub fn new(now: Instant, patience: Duration) -> Self {
        Attempts { until: now + patience, next: FIRST }
    }

    /// Returns the delay before the next retry; `None` if no time is left for one. `asked` is the delay that the
    /// collector asked for; `chance`, from 0 to 1, is the jitter.
    pub fn pause(&mut self, now: Instant, asked: Option<Duration>, chance: f64) -> Option<Duration> {
        let own = self.next.mul_f64(0.5 + 0.5 * chance);
        self.next = (self.next * 2).min(LONGEST);
        // A collector can prolong the delay but not shorten it.
        let pause = asked.map_or(own, |asked| asked.max(own));
        now.checked_add(pause).is_some_and(|at| at < self.until).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_there_is_no_time() {
        let start = Instant::now();
        let mut now = start;
        let mut attempts = Attempts::new(now, Duration::from_secs(10));
        let pauses: Vec<_> = std::iter::from_fn(|| {
            let pause = attempts.pause(now, None, 1.0)?;
            now += pause;
            Some(pause.as_millis())
        })
        .collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000]);
        assert!(now - start < Duration::from_secs(10));
    }

    #[test]
    fn a_collector_is_given_the_time_that_it_asks_for() {
        let now = Instant::now();
        let mut attempts = Attempts::new(now, Duration::from_secs(10));
        let asked = Some(Duration::from_secs(7));
        assert_eq!(attempts.pause(now, asked, 0.0), asked);
        assert_eq!(attempts.pause(now, Some(Duration::MAX), 0.0), None, "not before the end of time");
        assert_eq!(attempts.pause(now + Duration::from_secs(7), asked, 0.0), None);
        assert_eq!(
            attempts.pause(now, None, 0.0),
            Some(Duration::from_secs(2)),
            "it has doubled three times meanwhile"
        );
        let own = Attempts::new(now, Duration::from_secs(10)).pause(now, Some(Duration::ZERO), 0.0);
        assert_eq!(own, Some(FIRST / 2), "no collector makes it go on without a pause");
    }
}
