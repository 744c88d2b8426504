//! How quickly a body must come. No clock.

use std::time::{Duration, Instant};

/// How long a body may take, however short; and how far a longer one may fall behind.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a longer one must bring per second beyond that: below the slowest link worth serving.
const LEAST_RATE: f64 = 16.0 * 1024.0;
/// How far it may fall behind while others wait for the room that it holds, ...
const AWAITED_PATIENCE: Duration = Duration::from_secs(5);
/// ... when it must come as quickly as if it held that for so long.
const AWAITED_HOLD: Duration = Duration::from_secs(15);

/// One body's pace.
#[derive(Debug)]
pub struct Pace {
    deadline: Instant,
    /// Runs only while others wait.
    awaited: Option<Instant>,
}

impl Pace {
    /// A body begins.
    pub fn begin(now: Instant) -> Self {
        Pace { deadline: now + PATIENCE, awaited: None }
    }

    /// When it is too slow, unless it brings something.
    pub fn deadline(&self) -> Instant {
        self.awaited.map_or(self.deadline, |awaited| awaited.min(self.deadline))
    }

    /// Whether it is known that others wait.
    pub fn is_awaited(&self) -> bool {
        self.awaited.is_some()
    }

    /// Whether others wait now.
    pub fn awaited(&mut self, others_wait: bool, now: Instant) {
        self.awaited = others_wait.then(|| self.awaited.unwrap_or(now + AWAITED_PATIENCE));
    }

    /// It waited itself, which is not its client's slowness.
    pub fn waited(&mut self, pause: Duration) {
        self.deadline += pause;
        self.awaited = self.awaited.map(|awaited| awaited + pause);
    }

    /// It brought `bytes`, and holds room for `held`.
    pub fn brought(&mut self, bytes: usize, held: usize, now: Instant) {
        self.deadline = later(self.deadline, bytes, LEAST_RATE, now + PATIENCE);
        if let Some(awaited) = self.awaited {
            let rate = LEAST_RATE.max(held as f64 / AWAITED_HOLD.as_secs_f64());
            self.awaited = Some(later(awaited, bytes, rate, now + AWAITED_PATIENCE));
        }
    }
}

/// What was brought buys time, but never more than one is patient for: a body that came quickly at first must not
/// hold its part of `--max-buffered` for as long as it would have taken.
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
    fn a_body_may_fall_behind_but_not_for_long() {
        let start = Instant::now();
        let mut pace = Pace::begin(start);
        pace.brought(64 << 20, 64 << 20, start);
        assert_eq!(pace.deadline(), start + PATIENCE, "a quick start buys no hour");
        for n in 1..=600 {
            assert!(start + second(n) < pace.deadline(), "the least rate is enough");
            pace.brought(LEAST_RATE as usize, 64 << 20, start + second(n));
        }
        let before = pace.deadline();
        pace.brought(1, 64 << 20, start + second(601));
        assert!(pace.deadline() < before + Duration::from_millis(1));
    }

    #[test]
    fn one_that_others_wait_for_must_come_more_quickly_the_more_it_holds() {
        let start = Instant::now();
        let lasts = |held: usize, per_second: usize| {
            let mut pace = Pace::begin(start);
            pace.awaited(true, start);
            let kept_up = |n: &u64| {
                let in_time = start + second(*n) < pace.deadline();
                pace.brought(per_second, held, start + second(*n));
                in_time
            };
            (1..=60).take_while(kept_up).count()
        };
        assert_eq!(lasts(15 << 20, 1 << 20), 60);
        assert_eq!(lasts(15 << 20, 1 << 19), 8, "half of that falls behind by half a second per second");
        assert_eq!(lasts(5_000, LEAST_RATE as usize), 60);
        assert_eq!(lasts(15 << 20, 1), 5, "a byte now and then buys nothing");
    }

    #[test]
    fn once_nobody_waits_the_hurry_is_over() {
        let start = Instant::now();
        let mut pace = Pace::begin(start);
        pace.awaited(true, start);
        assert_eq!(pace.deadline(), start + AWAITED_PATIENCE);
        pace.awaited(true, start + second(3));
        assert_eq!(pace.deadline(), start + AWAITED_PATIENCE, "it goes on");
        pace.awaited(false, start + second(4));
        assert_eq!(pace.deadline(), start + PATIENCE);
        pace.awaited(true, start + second(10));
        pace.waited(second(2));
        assert_eq!(pace.deadline(), start + second(12) + AWAITED_PATIENCE);
    }
}
