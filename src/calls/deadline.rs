//! The deadline of a request: `--request-timeout` since its last progress, and `--request-max` in total. Both clocks
//! stop while the client is asked.

use crate::children::Settings;
use crate::exchange::Failure;
use std::time::{Duration, Instant};

/// Minimum time that remains after the client has answered.
const LEAST: Duration = Duration::from_secs(1);

/// The clocks of a request.
#[derive(Debug)]
pub(super) struct Deadline {
    patience: Duration,
    most: Duration,
    quiet_until: Instant,
    last: Instant,
    /// The time at which the clocks were stopped, if they are.
    stopped: Option<Instant>,
}

impl Deadline {
    /// Starts the clocks of a request.
    pub fn new(settings: &Settings, now: Instant) -> Self {
        let (patience, most) = (settings.request_timeout, settings.request_max);
        Deadline { patience, most, quiet_until: now + patience, last: now + most, stopped: None }
    }

    /// Returns the time at which the request fails, unless it makes progress.
    pub fn at(&self) -> Instant {
        self.quiet_until.min(self.last)
    }

    /// Restarts the timeout, since the child reported progress.
    pub fn progressed(&mut self, now: Instant) {
        self.quiet_until = now + self.patience;
    }

    /// Stops the clocks: the client is asked.
    pub fn stop(&mut self, now: Instant) {
        self.stopped.get_or_insert(now);
    }

    /// Resumes the clocks: the client has answered.
    pub fn resume(&mut self, now: Instant) {
        if let Some(stopped) = self.stopped.take() {
            let pause = now.saturating_duration_since(stopped);
            self.quiet_until = (self.quiet_until + pause).max(now + LEAST);
            self.last = (self.last + pause).max(now + LEAST);
        }
    }

    /// Returns the failure for a request whose time is over.
    pub fn failure(&self) -> Failure {
        if self.last <= self.quiet_until {
            Failure::TookTooLong(self.most)
        } else {
            Failure::TimedOut(self.patience)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadline(patience: u64, most: u64, now: Instant) -> Deadline {
        let (patience, most) = (Duration::from_secs(patience), Duration::from_secs(most));
        Deadline { patience, most, quiet_until: now + patience, last: now + most, stopped: None }
    }

    #[test]
    fn progress_extends_the_deadline_up_to_the_maximum() {
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let mut deadline = deadline(10, 25, begun);
        assert_eq!(deadline.at(), after(10));
        deadline.progressed(after(9));
        assert_eq!(deadline.at(), after(19));
        assert!(matches!(deadline.failure(), Failure::TimedOut(_)));
        deadline.progressed(after(18));
        assert_eq!(deadline.at(), after(25));
        assert!(matches!(deadline.failure(), Failure::TookTooLong(_)));
    }

    #[test]
    fn the_clocks_stop_while_the_client_is_asked() {
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let mut deadline = deadline(10, 25, begun);
        deadline.stop(after(4));
        deadline.resume(after(104));
        assert_eq!((deadline.at(), deadline.last), (after(110), after(125)));
        deadline.stop(after(110));
        deadline.resume(after(120));
        assert_eq!(deadline.at(), after(121), "at least one second remains");
        deadline.resume(after(500));
        assert_eq!(deadline.at(), after(121), "it was not stopped");
    }
}
