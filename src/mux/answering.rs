//! The answering half of a table, which completes exchanges, expires tombstones, and fails all waiting exchanges at the
//! end.

use super::{slot::Slot, state::Word, table::Table, wire_id::WireId};
use crate::sync::{Arc, atomic::Ordering::Relaxed};
use std::fmt;

/// An outcome type with a value that reports the loss of the answering half.
pub trait Lost {
    /// Returns the outcome of waiting exchanges when [`Answering`] is dropped.
    fn lost() -> Self;
}

/// The result of completing an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Completed<O> {
    /// The outcome was delivered to the waiting half.
    Delivered,
    /// The exchange was abandoned. The outcome is dropped and the tombstone is freed.
    Late,
    /// The exchange is over: it was already answered, has expired, or was withdrawn before it was sent.
    Duplicate(O),
    /// No request with this id has been sent yet.
    Unknown(O),
}

/// The answering half of all exchanges of a table. The child's router owns it.
///
/// Dropping it answers all waiting exchanges with [`Lost::lost`].
pub struct Answering<H, O: Lost> {
    table: Arc<Table<H, O>>,
    /// For each slot, the generation last seen abandoned and the tick at which that was first seen.
    noted: Box<[(u64, u64)]>,
}

impl<H, O: Lost> Answering<H, O> {
    pub(super) fn new(table: Arc<Table<H, O>>) -> Self {
        let noted = vec![(0, 0); table.layout.slots()].into();
        Self { table, noted }
    }

    /// Completes an exchange with its outcome.
    #[inline]
    pub fn complete(&mut self, id: WireId, outcome: O) -> Completed<O> {
        let slot = self.table.slot(id);
        let generation = self.table.layout.generation(id);
        let word = slot.state.load();
        if word.generation() != generation {
            // Generations start at 1.
            let minted = (1..word.generation()).contains(&generation);
            return if minted { Completed::Duplicate(outcome) } else { Completed::Unknown(outcome) };
        }
        if word.is_answered() {
            return Completed::Duplicate(outcome);
        }
        if !word.is_sent() {
            return Completed::Unknown(outcome);
        }
        self.settle(id, word, outcome)
    }

    /// Returns the held value of an exchange that was sent and is neither answered nor abandoned.
    #[inline]
    pub fn held(&self, id: WireId) -> Option<&H> {
        let slot = self.table.slot(id);
        let word = slot.state.load();
        let waits =
            word.generation() == self.table.layout.generation(id) && word.is_waiting() && word.is_sent();
        // SAFETY: this is the answering half, which needs `&mut self` to answer or bury the exchange. The exchange was
        // seen sent, so the waiting half cannot withdraw it.
        waits.then(|| unsafe { slot.held() })
    }

    /// Returns the only exchange that was sent and has no answer yet, or `None` if there are none or several.
    ///
    /// This reads every slot, so call it only for answers without an id, which are rare.
    pub fn only_waiting(&self) -> Option<WireId> {
        let mut sent = self.table.used().filter_map(|(index, slot)| {
            let word = slot.state.load();
            (word.is_sent() && (word.is_waiting() || word.is_abandoned()))
                .then(|| self.table.layout.mint(index, word.generation()))
        });
        let only = sent.next();
        only.filter(|_| sent.next().is_none())
    }

    /// Frees the tombstones that were first seen at least `grace_ticks` ago and returns their number.
    ///
    /// Later answers to these exchanges are duplicates. The cost is one load while no exchange is abandoned.
    pub fn expire(&mut self, now_tick: u64, grace_ticks: u64) -> usize {
        if self.table.abandoned.load(Relaxed) == 0 {
            return 0;
        }
        let mut expired = 0;
        let table = Arc::clone(&self.table);
        for (index, slot) in table.used() {
            let word = slot.state.load();
            if !word.is_abandoned() {
                continue;
            }
            let (generation, since) = &mut self.noted[index];
            if *generation != word.generation() {
                (*generation, *since) = (word.generation(), now_tick);
            }
            if now_tick.saturating_sub(*since) >= grace_ticks {
                self.bury(self.table.layout.mint(index, word.generation()));
                expired += 1;
            }
        }
        expired
    }

    /// Closes the table, answers all waiting exchanges, sent or not, and frees all tombstones.
    ///
    /// Returns the number of answered exchanges. No slot can be reserved once this method has begun, and no exchange
    /// can be marked as sent once it has ended.
    pub fn close(&mut self, mut outcome: impl FnMut() -> O) -> usize {
        self.table.close();
        let mut answered = 0;
        for index in 0..self.noted.len() {
            loop {
                let slot = self.table.at(index);
                let word = slot.state.close();
                let id = || self.table.layout.mint(index, word.generation());
                if word.is_abandoned() {
                    self.bury(id());
                } else if word.is_waiting() {
                    // SAFETY: this is the answering half, and the state is waiting.
                    if unsafe { slot.answer(word, outcome()) }.is_err() {
                        continue;
                    }
                    slot.waker.wake();
                    answered += 1;
                }
                break;
            }
        }
        answered
    }

    /// Answers an exchange that was seen sent and unanswered, or frees its tombstone.
    #[inline]
    fn settle(&mut self, id: WireId, seen: Word, outcome: O) -> Completed<O> {
        let slot: &Slot<H, O> = self.table.slot(id);
        if seen.is_waiting() {
            // SAFETY: this is the answering half, and `seen` is waiting.
            if unsafe { slot.answer(seen, outcome) }.is_ok() {
                slot.waker.wake();
                return Completed::Delivered;
            }
            // After an exchange is sent, an answer can fail only because the exchange was abandoned.
        }
        self.bury(id);
        Completed::Late
    }

    /// Frees an ABANDONED slot.
    fn bury(&self, id: WireId) {
        // SAFETY: the slot is ABANDONED, so the answering half owns the cells, and no outcome is stored.
        let held = unsafe { self.table.slot(id).take_held() };
        self.table.abandoned.fetch_sub(1, Relaxed);
        self.table.release(id);
        drop(held);
    }
}

impl<H, O: Lost> Drop for Answering<H, O> {
    fn drop(&mut self) {
        self.close(O::lost);
    }
}

impl<H, O: Lost> fmt::Debug for Answering<H, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answering").field("table", &self.table).finish()
    }
}
