//! Limits log lines that anybody on the network can cause.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Interval between two lines.
const INTERVAL: Duration = Duration::from_secs(60);

/// A log line that is written at most once a minute.
#[derive(Debug)]
pub struct Seldom(AtomicU64);

impl Seldom {
    /// Creates the state of one line.
    pub const fn new() -> Self {
        Seldom(AtomicU64::new(0))
    }

    /// Returns whether the line may be written now.
    pub fn is_due(&self) -> bool {
        self.is_due_at(super::clock::unix_nanos())
    }

    fn is_due_at(&self, now: u64) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        let is_due = last == 0 || now.abs_diff(last) >= super::clock::nanos(INTERVAL);
        is_due && self.0.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl Default for Seldom {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_due_once_a_minute() {
        let line = Seldom::new();
        let minute = super::super::clock::nanos(INTERVAL);
        assert!(line.is_due_at(minute));
        assert!(!line.is_due_at(2 * minute - 1));
        assert!(line.is_due_at(2 * minute));
        assert!(line.is_due_at(1), "the clock was set back");
    }
}
