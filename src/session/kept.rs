//! The events of a session that are kept for a reader that resumes, and the order in which they are dropped.

use super::event_id::StreamId;
use crate::exchange::Class;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

/// The worth of a kept event. The least worth is dropped first, and of equals the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// Progress and logs.
    Passing,
    /// An event that a reader has taken, so that it is missing only if the connection broke; or a change of state,
    /// which the client can query.
    Seen,
    /// A question or an answer that no reader has taken, and that a client resumes for.
    Owed,
}

impl Worth {
    pub(super) fn of(class: Class, taken: bool) -> Self {
        match class {
            Class::Droppable => Worth::Passing,
            Class::Dear if !taken => Worth::Owed,
            Class::Dear | Class::Idempotent => Worth::Seen,
        }
    }
}

/// The stream and number of a kept event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeptEvent {
    pub stream: StreamId,
    pub seq: u64,
    pub bytes: usize,
}

/// The moment from which an event is kept, comparable over all sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Since(u64);

impl Since {
    fn now() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Since(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// All kept events of one session.
#[derive(Debug)]
pub(super) struct Kept {
    max_events: usize,
    max_bytes: usize,
    bytes: usize,
    by_worth: [VecDeque<(Since, KeptEvent)>; 3],
}

impl Kept {
    pub(super) fn new(max_events: usize, max_bytes: usize) -> Self {
        Kept { max_events, max_bytes, bytes: 0, by_worth: Default::default() }
    }

    pub(super) fn put(&mut self, place: KeptEvent, worth: Worth) {
        self.bytes += place.bytes;
        self.by_worth[worth as usize].push_back((Since::now(), place));
    }

    /// Returns the moment from which the oldest event of this worth is kept.
    pub(super) fn oldest(&self, worth: Worth) -> Option<Since> {
        self.by_worth[worth as usize].front().map(|(since, _)| *since)
    }

    /// Removes and returns the oldest event of this worth.
    pub(super) fn pop_oldest(&mut self, worth: Worth) -> Option<KeptEvent> {
        let (_, place) = self.by_worth[worth as usize].pop_front()?;
        self.bytes -= place.bytes;
        Some(place)
    }

    /// Removes and returns the next event to drop while a limit is exceeded. The last event stays, whatever its size.
    pub(super) fn pop_excess(&mut self) -> Option<KeptEvent> {
        let events: usize = self.by_worth.iter().map(VecDeque::len).sum();
        if events <= 1 || (events <= self.max_events && self.bytes <= self.max_bytes) {
            return None;
        }
        self.pop(Worth::Owed)
    }

    /// Removes and returns the next event to drop that is worth no more than `worth`.
    pub(super) fn pop(&mut self, worth: Worth) -> Option<KeptEvent> {
        let (_, place) = self.by_worth[..=worth as usize].iter_mut().find_map(VecDeque::pop_front)?;
        self.bytes -= place.bytes;
        Some(place)
    }

    /// Removes the events for which `stays` is false.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(&KeptEvent) -> bool) {
        for places in &mut self.by_worth {
            places.retain(|(_, place)| {
                let stays = stays(place);
                if !stays {
                    self.bytes -= place.bytes;
                }
                stays
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(seq: u64, bytes: usize) -> KeptEvent {
        KeptEvent { stream: StreamId::numbered(1), seq, bytes }
    }

    fn popped(kept: &mut Kept) -> Vec<u64> {
        std::iter::from_fn(|| kept.pop_excess()).map(|place| place.seq).collect()
    }

    #[test]
    fn the_least_worth_is_dropped_first_then_the_oldest() {
        let mut kept = Kept::new(2, 1_000);
        kept.put(place(1, 1), Worth::Owed);
        kept.put(place(2, 1), Worth::Seen);
        kept.put(place(3, 1), Worth::Passing);
        kept.put(place(4, 1), Worth::Passing);
        kept.put(place(5, 1), Worth::Seen);
        assert_eq!(popped(&mut kept), [3, 4, 2]);
    }

    #[test]
    fn owed_events_are_ordered_over_all_sessions() {
        let (mut one, mut other) = (Kept::new(9, 1_000), Kept::new(9, 1_000));
        one.put(place(1, 1), Worth::Seen);
        other.put(place(2, 1), Worth::Owed);
        one.put(place(3, 1), Worth::Owed);
        other.put(place(4, 1), Worth::Owed);
        assert!(other.oldest(Worth::Owed) < one.oldest(Worth::Owed));
        assert_eq!(other.pop_oldest(Worth::Owed).map(|place| place.seq), Some(2));
        assert!(one.oldest(Worth::Owed) < other.oldest(Worth::Owed));
        assert_eq!(one.pop_oldest(Worth::Owed).map(|place| place.seq), Some(3));
        assert_eq!(one.oldest(Worth::Owed), None);
    }

    #[test]
    fn bytes_are_limited_but_the_last_event_stays() {
        let mut kept = Kept::new(10, 100);
        kept.put(place(1, 60), Worth::Seen);
        kept.put(place(2, 500), Worth::Seen);
        assert_eq!(popped(&mut kept), [1]);
        kept.retain(|place| place.seq != 2);
        kept.put(place(3, 60), Worth::Seen);
        kept.put(place(4, 40), Worth::Seen);
        assert_eq!(popped(&mut kept), [0; 0], "a removed event no longer counts");
    }
}
