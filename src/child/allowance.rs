//! How many lines of a child's stderr are logged: so many in a second, and what comes on top is counted.

use std::time::{Duration, Instant};

/// The lines of one child.
#[derive(Debug)]
pub struct Allowance {
    /// Unset: all.
    per_second: Option<u64>,
    begun: Instant,
    logged: u64,
    left_out: u64,
}

impl Allowance {
    /// So many lines in a second; 0 is all.
    pub fn new(per_second: usize, now: Instant) -> Self {
        Allowance {
            per_second: Some(per_second as u64).filter(|most| *most > 0),
            begun: now,
            logged: 0,
            left_out: 0,
        }
    }

    /// Whether a line that comes now is logged; if so, how many were left out before it.
    pub fn take(&mut self, now: Instant) -> Option<u64> {
        let Some(most) = self.per_second else { return Some(0) };
        if now.saturating_duration_since(self.begun) >= Duration::from_secs(1) {
            (self.begun, self.logged) = (now, 0);
        }
        if self.logged >= most {
            self.left_out += 1;
            return None;
        }
        self.logged += 1;
        Some(self.left_out())
    }

    /// How many were left out since this was asked last.
    pub fn left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_on_top_is_counted_and_told_with_the_next_line() {
        let start = Instant::now();
        let mut allowance = Allowance::new(2, start);
        let taken: Vec<_> = (0..5).map(|_| allowance.take(start)).collect();
        assert_eq!(taken, [Some(0), Some(0), None, None, None]);
        let later = start + Duration::from_secs(1);
        assert_eq!(allowance.take(later), Some(3));
        assert_eq!(allowance.take(later), Some(0));
        assert_eq!((allowance.take(later), allowance.left_out(), allowance.left_out()), (None, 1, 0));
    }

    #[test]
    fn none_is_left_out_where_all_are_wanted() {
        let now = Instant::now();
        let mut allowance = Allowance::new(0, now);
        assert!((0..1000).all(|_| allowance.take(now) == Some(0)));
    }
}
