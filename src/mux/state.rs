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

    /// Returns whether the exchange is waiting, that is, neither answered nor abandoned.
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

/// The result of abandoning an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abandoned {
    /// The exchange was not sent. The child never learns of it, and the slot is free.
    Withdrawn,
    /// The exchange was sent and has no answer, so the child must be told. The slot and its held value stay until the
    /// child answers or the grace period ends.
    InFlight,
    /// The exchange had already been answered.
    Settled,
}

#[derive(Debug)]
pub(super) struct State(AtomicU64);

impl State {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(Word::free(1).0))
    }

    /// Loads the word with Acquire, which pairs with `publish`, `answer` and `abandon`.
    ///
    /// Their writes to the cells are visible to the owner of the cells that the word names.
    #[inline]
    pub(super) fn load(&self) -> Word {
        Word(self.0.load(Acquire))
    }

    /// Changes FREE to WAITING on behalf of the thread that took the slot from the free list.
    ///
    /// Returns the generation, or `None` if the slot was closed. Publishing and the second check for CLOSED are one
    /// step on one word, so `close` cannot happen between them.
    #[inline]
    pub(super) fn publish(&self) -> Option<u64> {
        // Relaxed: the free list has ordered this load after the word's last store.
        let word = Word(self.0.load(Relaxed));
        // Release: the held value is visible to a thread that sees WAITING. On failure, nothing was shared.
        self.0
            .compare_exchange(word.0 & !CLOSED, word.0 | WAITING, Release, Relaxed)
            .is_ok()
            .then(|| word.generation())
    }

    /// Changes WAITING to WAITING + SENT. Returns `false` if this has already happened or the exchange is not waiting.
    #[inline]
    pub(super) fn mark_sent(&self, generation: u64) -> bool {
        let mut word = Word(self.0.load(Relaxed));
        loop {
            if word.generation() != generation || !word.is_waiting() || word.is_sent() {
                return false;
            }
            // Relaxed: this accesses no cell, and as a read-modify-write it continues the release sequence that
            // `publish` began.
            match self.0.compare_exchange_weak(word.0, word.0 | SENT, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(newer) => word = Word(newer),
            }
        }
    }

    /// Changes WAITING to ANSWERED on behalf of the answering half, if the word is still `seen`.
    ///
    /// Release makes the outcome visible to a thread that sees ANSWERED. On failure, this loads with Acquire as `load`
    /// does, because the newer word may be a tombstone.
    #[inline]
    pub(super) fn answer(&self, seen: Word) -> Result<(), Word> {
        debug_assert!(seen.is_waiting());
        match self.0.compare_exchange(seen.0, seen.0 | ANSWERED, Release, Acquire) {
            Ok(_) => Ok(()),
            Err(newer) => Err(Word(newer)),
        }
    }

    /// Changes WAITING + SENT to ABANDONED, or WAITING to FREE in the next generation, on behalf of the waiting half.
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
            // Release: this half's uses of the held value happen before the other half drops it.
            // Acquire on failure: the newer word may be ANSWERED, and the outcome must be visible then.
            match self.0.compare_exchange_weak(word.0, next, Release, Acquire) {
                Ok(_) => return became,
                Err(newer) => word = Word(newer),
            }
        }
    }

    /// Adds CLOSED to any state on behalf of the answering half and returns the new word.
    ///
    /// A free slot that is closed is never published again. This is a read-modify-write, because a plain load might
    /// return a word from before the slot was last taken. Acquire acts as in `load`.
    pub(super) fn close(&self) -> Word {
        Word(self.0.fetch_or(CLOSED, Acquire) | CLOSED)
    }

    /// Changes ANSWERED or ABANDONED to FREE in the next generation, on behalf of the half that came last.
    ///
    /// This is a plain store, because no other thread changes a word in these states except through `close`. The flag
    /// of `close` may be lost here without harm, because by then the free list lets no thread take the slot. Relaxed:
    /// the free list publishes the word.
    #[inline]
    pub(super) fn release(&self, generation: u64) {
        self.0.store(Word::free(generation + 1).0, Relaxed);
    }
}
