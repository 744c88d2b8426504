//! Limits the number of logged lines per second and child (`--child-log-rate`), and counts the suppressed ones.

use crate::telemetry::metrics::counters;
use std::time::{Duration, Instant};

/// The rate limit for the log lines of one output stream of a child.
#[derive(Debug)]
pub struct Allowance {
    child: u64,
    stream: &'static str,
    /// Maximum number of lines per second; `None`: unlimited.
    per_second: Option<u64>,
    begun: Instant,
    logged: u64,
    left_out: u64,
}

impl Allowance {
    /// Creates the limit for `stream` of child number `child`: `per_second` lines (0: unlimited).
    pub fn new(child: u64, stream: &'static str, per_second: usize, now: Instant) -> Self {
        Allowance {
            child,
            stream,
            per_second: Some(per_second as u64).filter(|most| *most > 0),
            begun: now,
            logged: 0,
            left_out: 0,
        }
    }

    /// Returns whether a line may be logged now. If so, first reports the lines suppressed before it.
    pub fn take(&mut self, now: Instant) -> bool {
        let Some(most) = self.per_second else { return true };
        if now.saturating_duration_since(self.begun) >= Duration::from_secs(1) {
            (self.begun, self.logged) = (now, 0);
        }
        if self.logged >= most {
            self.left_out += 1;
            return false;
        }
        self.logged += 1;
        self.report();
        true
    }

    /// Logs and counts the lines suppressed since the last report. Returns their number.
    pub fn report(&mut self) -> u64 {
        let lines = std::mem::take(&mut self.left_out);
        if lines > 0 {
            counters::LEFT_OUT_LINES.add(lines);
            tracing::warn!(
                child = self.child,
                source = self.stream,
                lines,
                "the child wrote more lines than --child-log-rate allows; the excess was not logged"
            );
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suppressed_lines_are_counted_and_reported_with_the_next_line() {
        let start = Instant::now();
        let mut allowance = Allowance::new(1, "stderr", 2, start);
        let taken: Vec<_> = (0..5).map(|_| allowance.take(start)).collect();
        assert_eq!((taken, allowance.left_out), (vec![true, true, false, false, false], 3));
        let later = start + Duration::from_secs(1);
        assert_eq!((allowance.take(later), allowance.left_out), (true, 0));
        assert!(allowance.take(later));
        assert_eq!((allowance.take(later), allowance.report(), allowance.report()), (false, 1, 0));
    }

    #[test]
    fn no_line_is_suppressed_without_a_limit() {
        let now = Instant::now();
        let mut allowance = Allowance::new(1, "stderr", 0, now);
        assert!((0..1000).all(|_| allowance.take(now)));
    }
}
