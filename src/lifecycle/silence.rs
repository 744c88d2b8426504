//! Whether a child that says nothing is only quiet, or hangs.
//!
//! While nothing is in flight it is asked for a sign of life. While something is, silence proves nothing, since a
//! synchronous server is rightly silent in the middle of a call; only when it has been silent for longer than any
//! request may take does it hang. What was cancelled and never answered may still keep it busy for as long, though it is
//! in flight no longer.

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
pub enum Diagnosis {
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
    /// When it was heard last, or asked.
    since: Instant,
    /// Since when something has been in flight all the while.
    busy_since: Option<Instant>,
    /// When the first request came that it may still be busy with, since it has not been heard after that.
    owes_since: Option<Instant>,
}

impl Silence {
    /// It has just been heard.
    pub fn new(patience: Patience, now: Instant) -> Self {
        Silence { patience, heard: 0, since: now, busy_since: None, owes_since: None }
    }

    /// Takes what is seen at `now`, says what follows.
    pub fn look(&mut self, seen: Seen, now: Instant) -> Diagnosis {
        let busy = seen.in_flight > 0;
        if seen.heard != self.heard || seen.waits {
            (self.heard, self.since) = (seen.heard, now);
            (self.busy_since, self.owes_since) = (busy.then_some(now), busy.then_some(now));
            return Diagnosis::Fine;
        }
        if busy {
            let busy_since = *self.busy_since.get_or_insert(now);
            self.owes_since.get_or_insert(now);
            let hangs = now.saturating_duration_since(busy_since) >= self.patience.busy;
            return if hangs { Diagnosis::Hangs } else { Diagnosis::Fine };
        }
        self.busy_since = None;
        let may_be_busy =
            self.owes_since.is_some_and(|since| now.saturating_duration_since(since) < self.patience.busy);
        if may_be_busy || now.saturating_duration_since(self.since) < self.patience.idle {
            return Diagnosis::Fine;
        }
        // Asked again only after as long.
        self.since = now;
        Diagnosis::Ask
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
        assert_eq!(silence.look(QUIET, start + Duration::from_secs(29)), Diagnosis::Fine);
        assert_eq!(silence.look(QUIET, start + Duration::from_secs(30)), Diagnosis::Ask);
        assert_eq!(silence.look(QUIET, start + Duration::from_secs(31)), Diagnosis::Fine);
        assert_eq!(silence.look(QUIET, start + Duration::from_secs(60)), Diagnosis::Ask);
    }

    #[test]
    fn a_call_may_take_its_time_and_no_longer() {
        let start = Instant::now();
        let mut silence = Silence::new(PATIENCE, start);
        assert_eq!(silence.look(BUSY, start), Diagnosis::Fine, "it has become busy");
        assert_eq!(silence.look(BUSY, start + Duration::from_secs(299)), Diagnosis::Fine);
        assert_eq!(silence.look(BUSY, start + Duration::from_secs(300)), Diagnosis::Hangs);
    }

    #[test]
    fn a_frame_or_a_moment_without_calls_ends_the_silence() {
        let start = Instant::now();
        let (later, end) = (start + Duration::from_secs(299), start + Duration::from_secs(301));
        let mut silence = Silence::new(PATIENCE, start);
        silence.look(BUSY, start);
        assert_eq!(silence.look(Seen { heard: 1, ..BUSY }, later), Diagnosis::Fine);
        assert_eq!(silence.look(Seen { heard: 1, ..BUSY }, end), Diagnosis::Fine);

        let mut silence = Silence::new(PATIENCE, start);
        silence.look(BUSY, start);
        assert_eq!(silence.look(QUIET, later), Diagnosis::Fine);
        assert_eq!(silence.look(BUSY, end), Diagnosis::Fine);
    }

    /// Whoever cancels a call does not end it at a server that does one thing at a time.
    #[test]
    fn what_was_cancelled_may_keep_it_busy_for_as_long_as_any_request() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut silence = Silence::new(PATIENCE, start);
        silence.look(BUSY, start);
        for seconds in [20, 60, 299] {
            assert_eq!(silence.look(QUIET, after(seconds)), Diagnosis::Fine, "{seconds}");
        }
        assert_eq!(silence.look(QUIET, after(300)), Diagnosis::Ask);
        assert_eq!(silence.look(QUIET, after(329)), Diagnosis::Fine);
        assert_eq!(silence.look(QUIET, after(330)), Diagnosis::Ask, "it has still not been heard");
        assert_eq!(silence.look(Seen { heard: 1, ..QUIET }, after(331)), Diagnosis::Fine);
        assert_eq!(silence.look(Seen { heard: 1, ..QUIET }, after(361)), Diagnosis::Ask);
    }

    /// Calls that are given up one after the other, before a moment without any is long enough.
    #[test]
    fn sparse_calls_do_not_hide_that_it_hangs() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut silence = Silence::new(PATIENCE, start);
        for seconds in 0..300 {
            let seen = if seconds % 10 < 7 { BUSY } else { QUIET };
            assert_eq!(silence.look(seen, after(seconds)), Diagnosis::Fine, "{seconds}");
        }
        assert_eq!(silence.look(BUSY, after(306)), Diagnosis::Fine, "a healthy one may be in this call");
        assert_eq!(silence.look(QUIET, after(307)), Diagnosis::Ask);
    }

    #[test]
    fn one_that_waits_for_a_client_is_never_taken_to_hang() {
        let start = Instant::now();
        let mut silence = Silence::new(PATIENCE, start);
        let waits = Seen { waits: true, ..BUSY };
        assert_eq!(silence.look(waits, start + Duration::from_secs(9_999)), Diagnosis::Fine);
        assert_eq!(
            silence.look(BUSY, start + Duration::from_secs(10_000)),
            Diagnosis::Fine,
            "not since just now"
        );
    }
}
