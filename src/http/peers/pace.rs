//! The minimum rate at which a body must arrive. It has no clock of its own.

use std::time::{Duration, Instant};

/// Time that every body has, and the maximum time by which a longer one may fall behind its rate.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes per second at which a longer body must arrive: less than the slowest link worth serving.
const LEAST_RATE: f64 = 16.0 * 1024.0;
/// Maximum time by which a body may fall behind while others wait for its memory.
const AWAITED_PATIENCE: Duration = Duration::from_secs(5);
/// Time in which a body must then release its memory, which determines its rate.
const AWAITED_HOLD: Duration = Duration::from_secs(15);

/// The deadline of one body.
#[derive(Debug)]
pub struct Pace {
    deadline: Instant,
    /// The deadline while others wait for memory.
    awaited: Option<Instant>,
}

impl Pace {
    /// Starts the deadline of a body.
    pub fn begin(now: Instant) -> Self {
        Pace { deadline: now + PATIENCE, awaited: None }
    }

    /// Returns the time at which the body is too slow unless more of it arrives.
    pub fn deadline(&self) -> Instant {
        self.awaited.map_or(self.deadline, |awaited| awaited.min(self.deadline))
    }

    /// Returns whether others wait for memory, as last set.
    pub fn is_awaited(&self) -> bool {
        self.awaited.is_some()
    }

    /// Sets whether others wait for memory.
    pub fn set_awaited(&mut self, others_wait: bool, now: Instant) {
        self.awaited = others_wait.then(|| self.awaited.unwrap_or(now + AWAITED_PATIENCE));
    }

    /// Extends the deadline by the time that the body itself waited for memory.
    pub fn extend(&mut self, pause: Duration) {
        self.deadline += pause;
        self.awaited = self.awaited.map(|awaited| awaited + pause);
    }

    /// Credits `bytes` that arrived for a body that holds `held` bytes of memory.
    pub fn credit(&mut self, bytes: usize, held: usize, now: Instant) {
        self.deadline = later(self.deadline, bytes, LEAST_RATE, now + PATIENCE);
        if let Some(awaited) = self.awaited {
            let rate = LEAST_RATE.max(held as f64 / AWAITED_HOLD.as_secs_f64());
            self.awaited = Some(later(awaited, bytes, rate, now + AWAITED_PATIENCE));
        }
    }
}

/// Returns the deadline after `brought` bytes. It is at most `latest`, so that a body that began quickly cannot then
/// hold its memory for long.
fn later(deadline: Instant, brought: usize, rate: f64, latest: Instant) -> Instant {
    (deadline + Duration::from_secs_f64(brought as f64 / rate)).min(latest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_body_may_fall_behind_only_briefly() {
        let start = Instant::now();
        let mut pace = Pace::begin(start);
        pace.credit(64 << 20, 64 << 20, start);
        assert_eq!(pace.deadline(), start + PATIENCE, "a quick start gains no extra time");
        for n in 1..=600 {
            assert!(start + second(n) < pace.deadline(), "the least rate is enough");
            pace.credit(LEAST_RATE as usize, 64 << 20, start + second(n));
        }
        let before = pace.deadline();
        pace.credit(1, 64 << 20, start + second(601));
        assert!(pace.deadline() < before + Duration::from_millis(1));
    }

    #[test]
    fn an_awaited_body_must_arrive_faster_the_more_it_holds() {
        let start = Instant::now();
        let lasts = |held: usize, per_second: usize| {
            let mut pace = Pace::begin(start);
            pace.set_awaited(true, start);
            let kept_up = |n: &u64| {
                let in_time = start + second(*n) < pace.deadline();
                pace.credit(per_second, held, start + second(*n));
                in_time
            };
            (1..=60).take_while(kept_up).count()
        };
        assert_eq!(lasts(15 << 20, 1 << 20), 60);
        assert_eq!(lasts(15 << 20, 1 << 19), 8, "half of that falls behind by half a second per second");
        assert_eq!(lasts(5_000, LEAST_RATE as usize), 60);
        assert_eq!(lasts(15 << 20, 1), 5, "a byte now and then gains nothing");
    }

    #[test]
    fn the_stricter_deadline_ends_when_no_body_waits() {
        let start = Instant::now();
        let mut pace = Pace::begin(start);
        pace.set_awaited(true, start);
        assert_eq!(pace.deadline(), start + AWAITED_PATIENCE);
        pace.set_awaited(true, start + second(3));
        assert_eq!(pace.deadline(), start + AWAITED_PATIENCE, "it still applies");
        pace.set_awaited(false, start + second(4));
        assert_eq!(pace.deadline(), start + PATIENCE);
        pace.set_awaited(true, start + second(10));
        pace.extend(second(2));
        assert_eq!(pace.deadline(), start + second(12) + AWAITED_PATIENCE);
    }
}
