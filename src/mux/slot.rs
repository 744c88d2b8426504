//! Owns the storage of one exchange and all of the multiplexer's `unsafe`: two cells, and the rule that the
//! state word says whose they are.
//!
//! | state | held value | outcome |
//! | --- | --- | --- |
//! | FREE | whoever took the slot, or withdrew | nobody |
//! | WAITING | shared, to read | answering half |
//! | ANSWERED | waiting half | waiting half |
//! | ABANDONED | answering half | answering half |

use super::state::{State, Word};
use crate::sync::{AtomicWaker, UnsafeCell};
use std::mem::MaybeUninit;

/// One slot, on cache lines of its own.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Slot<H, O> {
    pub(super) state: State,
    pub(super) waker: AtomicWaker,
    held: UnsafeCell<MaybeUninit<H>>,
    outcome: UnsafeCell<MaybeUninit<O>>,
}

// SAFETY: a slot hands `H` and `O` from thread to thread (Send), and lets two threads read `H` at a time
// (Sync). `O` has one owner at a time. The transitions of `State` order the accesses.
unsafe impl<H: Send + Sync, O: Send> Sync for Slot<H, O> {}

impl<H, O> Slot<H, O> {
    pub(super) fn new() -> Self {
        Self {
            state: State::new(),
            waker: AtomicWaker::new(),
            held: UnsafeCell::new(MaybeUninit::uninit()),
            outcome: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// Stores the held value and publishes the slot; returns the generation, or the value if the slot was
    /// closed.
    ///
    /// # Safety
    /// The caller took the slot from the free list and has not given it back.
    #[inline]
    pub(super) unsafe fn publish(&self, held: H) -> Result<u64, H> {
        // SAFETY: the caller owns a FREE slot, whose cells are empty.
        self.held.with_mut(|cell| unsafe { (*cell).write(held) });
        // SAFETY: unpublished, the slot is still the caller's, with the value just stored.
        self.state.publish().ok_or_else(|| unsafe { self.take_held() })
    }

    /// Stores the outcome and answers, if the state is still `seen`; returns the outcome and the newer
    /// state otherwise. Does not wake.
    ///
    /// # Safety
    /// The caller is the answering half, and `seen` is a waiting state.
    #[inline]
    pub(super) unsafe fn answer(&self, seen: Word, outcome: O) -> Result<(), (O, Word)> {
        // SAFETY: until it is ANSWERED, the outcome is the answering half's, and empty.
        self.outcome.with_mut(|cell| unsafe { (*cell).write(outcome) });
        // SAFETY: not answered, so the cell is still ours, with the outcome just stored.
        self.state.answer(seen).map_err(|newer| (unsafe { self.take_outcome() }, newer))
    }

    /// Reads the held value in place.
    ///
    /// # Safety
    /// The caller is a half of this exchange, and keeps the held value from being taken while it is borrowed: the
    /// waiting half by neither abandoning nor taking the outcome; the answering half by neither answering
    /// nor burying, having seen the slot waiting and sent.
    #[inline]
    pub(super) unsafe fn held(&self) -> &H {
        // SAFETY: published, hence initialised; only shared references exist by the caller's promise.
        self.held.with(|cell| unsafe { (*cell).assume_init_ref() })
    }

    /// Moves the held value out.
    ///
    /// # Safety
    /// The caller owns the held value by the table above, and moves it out once.
    #[inline]
    pub(super) unsafe fn take_held(&self) -> H {
        // SAFETY: by the caller's promise initialised, and not read again.
        self.held.with_mut(|cell| unsafe { (*cell).assume_init_read() })
    }

    /// Moves the outcome out.
    ///
    /// # Safety
    /// The caller owns the outcome by the table above, one was stored, and it is moved out once.
    #[inline]
    pub(super) unsafe fn take_outcome(&self) -> O {
        // SAFETY: by the caller's promise initialised, and not read again.
        self.outcome.with_mut(|cell| unsafe { (*cell).assume_init_read() })
    }
}
