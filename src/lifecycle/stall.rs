//! Decides whether a child still reads its stdin. A child that reads nothing hangs, even if it writes.
//!
//! A synchronous server reads nothing while it handles a request. It hangs if it still reads nothing after all of its
//! requests have timed out.

use std::time::{Duration, Instant};

/// The maximum time for which a child may leave waiting bytes unread.
#[derive(Clone, Copy, Debug)]
pub struct Leeway {
    /// The maximum in any case: longer than a request without progress may take.
    pub whole: Duration,
    /// The maximum after the last of its requests has timed out.
    pub idle: Duration,
}

/// An observation of a child's stdin.
#[derive(Clone, Copy, Debug)]
pub struct Stdin {
    /// Whether bytes wait to be read.
    pub waits: bool,
    /// Number of times that the child has read some bytes.
    pub taken: u64,
    /// Whether a request may still be answered in time.
    pub works: bool,
}

/// The stall of one child.
#[derive(Debug)]
pub struct Stall {
    leeway: Leeway,
    taken: u64,
    since: Instant,
    worked: Instant,
}

impl Stall {
    /// Creates the stall of a child that has just read something.
    pub fn new(leeway: Leeway, now: Instant) -> Self {
        Stall { leeway, taken: 0, since: now, worked: now }
    }

    /// Evaluates an observation at `now`; returns whether the child hangs.
    pub fn look(&mut self, seen: Stdin, now: Instant) -> bool {
        if !seen.waits || seen.taken != self.taken {
            (self.taken, self.since) = (seen.taken, now);
        }
        if seen.works {
            self.worked = now;
        }
        let past = |since: Instant, leeway: Duration| now.saturating_duration_since(since) >= leeway;
        seen.waits && past(self.since, self.leeway.whole) && past(self.worked, self.leeway.idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEEWAY: Leeway = Leeway { whole: Duration::from_secs(310), idle: Duration::from_secs(10) };
    const STUCK: Stdin = Stdin { waits: true, taken: 0, works: false };

    fn stall() -> (Stall, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        (Stall::new(LEEWAY, start), move |seconds| start + Duration::from_secs(seconds))
    }

    #[test]
    fn a_child_that_reads_nothing_hangs_once_every_request_has_timed_out() {
        let (mut stall, at) = stall();
        assert!(!stall.look(Stdin { works: true, ..STUCK }, at(1)));
        assert!(!stall.look(Stdin { works: true, ..STUCK }, at(300)));
        assert!(!stall.look(STUCK, at(309)));
        assert!(stall.look(STUCK, at(310)));
    }

    #[test]
    fn a_child_that_reads_slowly_does_not_hang() {
        let (mut stall, at) = stall();
        for n in 1..10 {
            assert!(!stall.look(Stdin { taken: n, ..STUCK }, at(300 * n)));
        }
        assert!(stall.look(Stdin { taken: 9, ..STUCK }, at(2_700 + 310)));
    }

    #[test]
    fn a_child_without_waiting_bytes_does_not_hang() {
        let (mut stall, at) = stall();
        assert!(!stall.look(Stdin { waits: false, ..STUCK }, at(9_999)));
        assert!(!stall.look(STUCK, at(10_000)), "not since just now");
        assert!(stall.look(STUCK, at(9_999 + 310)));
    }

    #[test]
    fn a_request_with_progress_delays_the_detection_of_a_hang() {
        let (mut stall, at) = stall();
        assert!(!stall.look(Stdin { works: true, ..STUCK }, at(3_600)));
        assert!(!stall.look(STUCK, at(3_609)), "it may be about to read");
        assert!(stall.look(STUCK, at(3_610)));
    }
}
