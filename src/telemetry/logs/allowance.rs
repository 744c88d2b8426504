//! Limits how many lines of a child are logged per second (`--child-log-rate`), and counts the others.

use crate::telemetry::metrics::counters;
use std::time::{Duration, Instant};

/// The log lines that one stream of a child may cause.
#[derive(Debug)]
pub struct Allowance {
    child: u64,
    stream: &'static str,
    /// Unset: all.
    per_second: Option<u64>,
    begun: Instant,
    logged: u64,
    left_out: u64,
}

impl Allowance {
    /// The allowance of `stream` of child number `child`: `per_second` lines; 0 is all.
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

    /// Whether a line that comes now may be logged. If so, reports the lines that were left out before it.
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

    /// Reports the lines that were left out since the last report, if there are any. Returns their number.
    pub fn report(&mut self) -> u64 {
        let lines = std::mem::take(&mut self.left_out);
        if lines > 0 {
            counters::LEFT_OUT_LINES.add(lines);
            tracing::warn!(
                child = self.child,
                source = self.stream,
                lines,
                "the server wrote more lines than --child-log-rate; these were not logged"
            );
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_on_top_is_counted_and_told_with_the_next_line() {
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
    fn none_is_left_out_where_all_are_wanted() {
        let now = Instant::now();
        let mut allowance = Allowance::new(1, "stderr", 0, now);
        assert!((0..1000).all(|_| allowance.take(now)));
    }
}
