//! Decides whether a silent child is idle, or hangs.
//!
//! An idle child is pinged. While requests are in flight, silence proves nothing, since a synchronous server is
//! silent in the middle of a call. It hangs only when it has been silent for longer than any request may take.
//! Cancelled requests without an answer may keep it busy just as long, although they are no longer in flight.

use std::time::{Duration, Instant};

/// The maximum silence of a healthy child.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// `--ping-interval`: silence of an idle child before it is pinged.
    pub idle: Duration,
    /// Silence of a busy child before it counts as hanging: longer than a request may take.
    pub busy: Duration,
}

/// An observation of a child.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Number of frames that it has written so far.
    pub heard: u64,
    /// Number of unanswered requests.
    pub in_flight: usize,
    /// Whether the child waits for a client's answer to its question.
    pub waits: bool,
}

/// The conclusion from an observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Diagnosis {
    /// No action is needed.
    Fine,
    /// The child must be pinged.
    Ask,
    /// The child hangs.
    Hangs,
}

/// The silence of one child.
#[derive(Debug)]
pub struct Silence {
    patience: Patience,
    heard: u64,
    /// Time of the last frame or ping.
    since: Instant,
    /// Start of the current uninterrupted period with requests in flight.
    busy_since: Option<Instant>,
    /// Arrival of the first request that may still keep the child busy, since no frame came after it.
    owes_since: Option<Instant>,
}

impl Silence {
    /// Creates the silence of a child that has just written a frame.
    pub fn new(patience: Patience, now: Instant) -> Self {
        Silence { patience, heard: 0, since: now, busy_since: None, owes_since: None }
    }

    /// Evaluates an observation at `now`.
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
        // Pinged again only after another idle period.
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
    fn an_idle_child_is_pinged_once_per_interval() {
        let start = Instant::now();
        let mut silence = Silence::new(PATIENCE, start);
        assert_eq!(silence.look(QUIET, start + Duration::from_secs(29)), Diagnosis::Fine);
        assert_eq!(silence.look(QUIET, start + Duration::from_secs(30)), Diagnosis::Ask);
        assert_eq!(silence.look(QUIET, start + Duration::from_secs(31)), Diagnosis::Fine);
        assert_eq!(silence.look(QUIET, start + Duration::from_secs(60)), Diagnosis::Ask);
    }

    #[test]
    fn a_call_may_take_its_time_and_not_longer() {
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

    /// A cancelled call may go on at a server that handles one call at a time.
    #[test]
    fn a_cancelled_call_may_keep_the_server_busy_as_long_as_any_request() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut silence = Silence::new(PATIENCE, start);
        silence.look(BUSY, start);
        for seconds in [20, 60, 299] {
            assert_eq!(silence.look(QUIET, after(seconds)), Diagnosis::Fine, "{seconds}");
        }
        assert_eq!(silence.look(QUIET, after(300)), Diagnosis::Ask);
        assert_eq!(silence.look(QUIET, after(329)), Diagnosis::Fine);
        assert_eq!(silence.look(QUIET, after(330)), Diagnosis::Ask, "it has still not written a frame");
        assert_eq!(silence.look(Seen { heard: 1, ..QUIET }, after(331)), Diagnosis::Fine);
        assert_eq!(silence.look(Seen { heard: 1, ..QUIET }, after(361)), Diagnosis::Ask);
    }

    /// Cancelled calls with pauses between them that are too short to prove a hang.
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
    fn a_child_that_waits_for_a_client_never_counts_as_hanging() {
        let start = Instant::now();
        let mut silence = Silence::new(PATIENCE, start);
        let waits = Seen { waits: true, ..BUSY };
        assert_eq!(silence.look(waits, start + Duration::from_secs(9_999)), Diagnosis::Fine);
        assert_eq!(
            silence.look(BUSY, start + Duration::from_secs(10_000)),
            Diagnosis::Fine,
            "the silence begins now"
        );
    }
}
