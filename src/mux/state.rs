//! The state of a slot: one atomic word, `generation | flags`, and its named transitions.
//!
//! ```text
//!          publish            mark_sent                  answer             release
//!   FREE g ───────► WAITING ────────────► WAITING+SENT ───────────► ANSWERED ───────► FREE g+1
//!      │               │ │                      │                      ▲
//!      │ close         │ │ answer (closing)     │ abandon              │
//!      ▼               │ └──────────────────────┼──────────────────────┘
//!   CLOSED             │ abandon                ▼             release
//!                      ▼                     ABANDONED ──────────────────────────────► FREE g+1
//!                   FREE g+1
//! ```

use crate::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

const WAITING: u64 = 1;
const SENT: u64 = 1 << 1;
const ANSWERED: u64 = 1 << 2;
const ABANDONED: u64 = 1 << 3;
const CLOSED: u64 = 1 << 4;
const FLAG_BITS: u32 = 5;

/// A snapshot of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(u64);

impl Word {
    fn free(generation: u64) -> Self {
        Self(generation << FLAG_BITS)
    }

    pub(super) fn generation(self) -> u64 {
        self.0 >> FLAG_BITS
    }

    /// Whether the exchange is waited for and not answered.
    pub(super) fn is_waiting(self) -> bool {
        self.0 & (WAITING | ANSWERED | ABANDONED) == WAITING
    }

    pub(super) fn is_sent(self) -> bool {
        self.0 & SENT != 0
    }

    pub(super) fn is_answered(self) -> bool {
        self.0 & ANSWERED != 0
    }

    pub(super) fn is_abandoned(self) -> bool {
        self.0 & ABANDONED != 0
    }
}

/// The fate of an exchange that was abandoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abandoned {
    /// It was not sent: the child never learns of it, and the slot is free.
    Withdrawn,
    /// It was sent and has no answer: the child must be told. The slot and its held value stay until the child answers or
    /// the grace period ends.
    InFlight,
    /// It had been answered before.
    Settled,
}

#[derive(Debug)]
pub(super) struct State(AtomicU64);

impl State {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(Word::free(1).0))
    }

    /// Acquire pairs with `publish`, `answer` and `abandon`: what they wrote to the cells is visible to
    /// whoever the word now says owns them.
    #[inline]
    pub(super) fn load(&self) -> Word {
        Word(self.0.load(Acquire))
    }

    /// FREE → WAITING, by whoever took the slot from the free list; returns the generation, or `None` if
    /// the slot was closed.
    ///
    /// Publishing and looking again for *closed* are one step on one word, so `close` cannot slip between.
    #[inline]
    pub(super) fn publish(&self) -> Option<u64> {
        // Relaxed: the free list has ordered this after the word's last store.
        let word = Word(self.0.load(Relaxed));
        // Release: the held value is visible to whoever sees WAITING. On failure nothing was shared.
        self.0
            .compare_exchange(word.0 & !CLOSED, word.0 | WAITING, Release, Relaxed)
            .is_ok()
            .then(|| word.generation())
    }

    /// WAITING → WAITING + SENT, unless that has happened, or nobody waits.
    #[inline]
    pub(super) fn mark_sent(&self, generation: u64) -> bool {
        let mut word = Word(self.0.load(Relaxed));
        loop {
            if word.generation() != generation || !word.is_waiting() || word.is_sent() {
                return false;
            }
            // Relaxed: touches no cell, and as a read-modify-write it carries on the release sequence
            // that `publish` began.
            match self.0.compare_exchange_weak(word.0, word.0 | SENT, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(newer) => word = Word(newer),
            }
        }
    }

    /// WAITING → ANSWERED, by the answering half, if the word is still `seen`.
    ///
    /// Release: the outcome is visible to whoever sees ANSWERED. Failing, it loads with Acquire as `load`
    /// does, since a tombstone may be what it found.
    #[inline]
    pub(super) fn answer(&self, seen: Word) -> Result<(), Word> {
        debug_assert!(seen.is_waiting());
        match self.0.compare_exchange(seen.0, seen.0 | ANSWERED, Release, Acquire) {
            Ok(_) => Ok(()),
            Err(newer) => Err(Word(newer)),
        }
    }

    /// WAITING + SENT → ABANDONED, or WAITING → FREE in the next generation, by the waiting half.
    pub(super) fn abandon(&self) -> Abandoned {
        let mut word = self.load();
        loop {
            debug_assert!(!word.is_abandoned());
            if word.is_answered() {
                return Abandoned::Settled;
            }
            let (next, became) = if word.is_sent() {
                (word.0 | ABANDONED, Abandoned::InFlight)
            } else {
                (Word::free(word.generation() + 1).0, Abandoned::Withdrawn)
            };
            // Release: this half's uses of the held value come before its end at the hands of the other.
            // Acquire on failure: the outcome may be what it found.
            match self.0.compare_exchange_weak(word.0, next, Release, Acquire) {
                Ok(_) => return became,
                Err(newer) => word = Word(newer),
            }
        }
    }

    /// Any → the same + CLOSED, by the answering half; returns the word as it is now. A free slot that is
    /// closed is never published again.
    ///
    /// A read-modify-write, since a plain load might return a word from before the slot was last taken.
    /// Acquire as in `load`.
    pub(super) fn close(&self) -> Word {
        Word(self.0.fetch_or(CLOSED, Acquire) | CLOSED)
    }

    /// ANSWERED or ABANDONED → FREE in the next generation, by the half that came last.
    ///
    /// A plain store: nobody else changes a word in these states, but for `close`, whose flag may be lost
    /// here without harm, since by then the free list lets nobody take the slot.
    /// Relaxed: the free list publishes it.
    #[inline]
    pub(super) fn release(&self, generation: u64) {
        self.0.store(Word::free(generation + 1).0, Relaxed);
    }
}
