//! Whether a child that says nothing is only quiet, or hangs.
//!
//! While nothing is in flight it is asked for a sign of life. While something is, silence proves nothing, since a
//! synchronous server is rightly silent in the middle of a call; only when it has been silent for longer than any
//! request may take does it hang.

use std::time::{Duration, Instant};

/// How long a child may be silent.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// `--ping-interval`: with nothing in flight, before it is asked.
    pub idle: Duration,
    /// With something in flight all the while, before it is taken to hang: longer than a request may take.
    pub busy: Duration,
}

/// What can be seen of a child at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Frames that it has said so far.
    pub heard: u64,
    /// Requests that it has not answered.
    pub in_flight: usize,
    /// It waits for somebody else: a client that it asked something.
    pub waits: bool,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Fine,
    /// It is to be asked for a sign of life.
    Ask,
    /// It hangs.
    Hangs,
}

/// The silence of one child.
#[derive(Debug)]
pub struct Silence {
    patience: Patience,
    heard: u64,
    was_busy: bool,
    since: Instant,
}

impl Silence {
    /// It has just been heard.
    pub fn new(patience: Patience, now: Instant) -> Self {
        Silence { patience, heard: 0, was_busy: false, since: now }
    }

    /// Takes what is seen at `now`, says what follows.
    pub fn look(&mut self, seen: Seen, now: Instant) -> Verdict {
        let busy = seen.in_flight > 0;
        if seen.heard != self.heard || busy != self.was_busy || seen.waits {
            (self.heard, self.was_busy, self.since) = (seen.heard, busy, now);
            return Verdict::Fine;
        }
        let silent = now.saturating_duration_since(self.since);
        match busy {
            true if silent >= self.patience.busy => Verdict::Hangs,
            false if silent >= self.patience.idle => {
                // Asked again only after as long.
                self.since = now;
                Verdict::Ask
            }
            _ => Verdict::Fine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { idle: Duration::from_secs(30), busy: Duration::from_secs(300) };
    const QUIET: Seen = Seen { heard: 0, in_flight: 0, waits: false };
    const BUSY: Seen = Seen { heard: 0, in_flight: 1, waits: false };

    #[test]
    fn one_that_is_idle_is_asked_once_an_interval() {
        let start = Instant::now();
        let mut silence = Silence::new(PATIENCE, start);
        assert_eq!(silence.look(QUIET, start + Duration::from_secs(29)), Verdict::Fine);
        assert_eq!(silence.look(QUIET, start + Duration::from_secs(30)), Verdict::Ask);
        assert_eq!(silence.look(QUIET, start + Duration::from_secs(31)), Verdict::Fine);
        assert_eq!(silence.look(QUIET, start + Duration::from_secs(60)), Verdict::Ask);
    }

    #[test]
    fn a_call_may_take_its_time_and_no_longer() {
        let start = Instant::now();
        let mut silence = Silence::new(PATIENCE, start);
        assert_eq!(silence.look(BUSY, start), Verdict::Fine, "it has become busy");
        assert_eq!(silence.look(BUSY, start + Duration::from_secs(299)), Verdict::Fine);
        assert_eq!(silence.look(BUSY, start + Duration::from_secs(300)), Verdict::Hangs);
    }

    #[test]
    fn a_frame_or_a_moment_without_calls_ends_the_silence() {
        let start = Instant::now();
        let (later, end) = (start + Duration::from_secs(299), start + Duration::from_secs(301));
        let mut silence = Silence::new(PATIENCE, start);
        silence.look(BUSY, start);
        assert_eq!(silence.look(Seen { heard: 1, ..BUSY }, later), Verdict::Fine);
        assert_eq!(silence.look(Seen { heard: 1, ..BUSY }, end), Verdict::Fine);

        let mut silence = Silence::new(PATIENCE, start);
        silence.look(BUSY, start);
        assert_eq!(silence.look(QUIET, later), Verdict::Fine);
        assert_eq!(silence.look(BUSY, end), Verdict::Fine);
    }

    #[test]
    fn one_that_waits_for_a_client_is_never_taken_to_hang() {
        let start = Instant::now();
        let mut silence = Silence::new(PATIENCE, start);
        let waits = Seen { waits: true, ..BUSY };
        assert_eq!(silence.look(waits, start + Duration::from_secs(9_999)), Verdict::Fine);
        assert_eq!(
            silence.look(BUSY, start + Duration::from_secs(10_000)),
            Verdict::Fine,
            "not since just now"
        );
    }
}
