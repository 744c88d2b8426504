//! The answering half of a table: completes exchanges, expires tombstones, and fails all exchanges at the end.

use super::{slot::Slot, state::Word, table::Table, wire_id::WireId};
use crate::sync::{Arc, atomic::Ordering::Relaxed};
use std::fmt;

/// An outcome type with a value for a lost answering half.
pub trait Lost {
    /// The outcome of waiting exchanges when [`Answering`] is dropped.
    fn lost() -> Self;
}

/// The fate of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Completed<O> {
    /// It was delivered to the waiting half.
    Delivered,
    /// The exchange was abandoned: the outcome is dropped, and the tombstone freed.
    Late,
    /// The exchange is over: answered before, expired, or withdrawn before it was sent.
    Duplicate(O),
    /// No request with this id has been sent yet.
    Unknown(O),
}

/// The answering half of all exchanges of a table, owned by the child's router.
///
/// Dropping it answers all waiting exchanges with [`Lost::lost`].
pub struct Answering<H, O: Lost> {
    table: Arc<Table<H, O>>,
    /// Per slot: the generation last seen abandoned, and the tick at which that was first seen.
    noted: Box<[(u64, u64)]>,
}

impl<H, O: Lost> Answering<H, O> {
    pub(super) fn new(table: Arc<Table<H, O>>) -> Self {
        let noted = vec![(0, 0); table.slots().len()].into();
        Self { table, noted }
    }

    /// Completes an exchange with its outcome.
    #[inline]
    pub fn complete(&mut self, id: WireId, outcome: O) -> Completed<O> {
        let slot = self.table.slot(id);
        let generation = self.table.layout.generation(id);
        let word = slot.state.load();
        if word.generation() != generation {
            // Generations begin at 1.
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

    /// The held value of an exchange that was sent and is waited for.
    #[inline]
    pub fn held(&self, id: WireId) -> Option<&H> {
        let slot = self.table.slot(id);
        let word = slot.state.load();
        let waits =
            word.generation() == self.table.layout.generation(id) && word.is_waiting() && word.is_sent();
        // SAFETY: this is the answering half, which would need `self` mutably to answer or bury; seen
        // sent, the waiting half cannot withdraw.
        waits.then(|| unsafe { slot.held() })
    }

    /// The only exchange that was sent and has no answer yet; `None` if there are none or several. Reads every slot, so it is
    /// only for answers without an id, which are rare.
    pub fn only_waiting(&self) -> Option<WireId> {
        let mut sent = self.table.slots().iter().enumerate().filter_map(|(index, slot)| {
            let word = slot.state.load();
            (word.is_sent() && (word.is_waiting() || word.is_abandoned()))
                .then(|| self.table.layout.mint(index, word.generation()))
        });
        let only = sent.next();
        only.filter(|_| sent.next().is_none())
    }

    /// Frees tombstones that were first seen `grace_ticks` or longer ago; returns their number. Later answers to them are
    /// duplicates. Costs one load while nothing is abandoned.
    pub fn expire(&mut self, now_tick: u64, grace_ticks: u64) -> usize {
        if self.table.abandoned.load(Relaxed) == 0 {
            return 0;
        }
        let mut expired = 0;
        for index in 0..self.noted.len() {
            let word = self.table.slots()[index].state.load();
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

    /// Closes the table, answers all waiting exchanges, sent or not, and frees all tombstones. Returns the number of answered
    /// exchanges. Once it has begun, nothing can be reserved; once it has ended, nothing can be marked as sent.
    pub fn close(&mut self, mut outcome: impl FnMut() -> O) -> usize {
        self.table.close();
        let mut answered = 0;
        for index in 0..self.noted.len() {
            loop {
                let slot = &self.table.slots()[index];
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

    /// Answers a slot that was seen sent and unanswered, or frees its tombstone.
    #[inline]
    fn settle(&mut self, id: WireId, seen: Word, outcome: O) -> Completed<O> {
        let slot: &Slot<H, O> = self.table.slot(id);
        if seen.is_waiting() {
            // SAFETY: this is the answering half, and `seen` is waiting.
            if unsafe { slot.answer(seen, outcome) }.is_ok() {
                slot.waker.wake();
                return Completed::Delivered;
            }
            // Once an exchange is sent, only abandoning it can make an answer fail.
        }
        self.bury(id);
        Completed::Late
    }

    /// Frees an ABANDONED slot.
    fn bury(&self, id: WireId) {
        // SAFETY: ABANDONED, the cells are the answering half's, and no outcome is stored.
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
