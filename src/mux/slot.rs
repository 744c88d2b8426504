//! The storage of one exchange and the source of the multiplexer's `unsafe` code: two cells, whose owner depends on the
//! state word.
//!
//! | state | held value | outcome |
//! | --- | --- | --- |
//! | FREE | the thread that took the slot or withdrew | none |
//! | WAITING | shared, read-only | answering half |
//! | ANSWERED | waiting half | waiting half |
//! | ABANDONED | answering half | answering half |

use super::state::{State, Word};
use crate::sync::{AtomicWaker, UnsafeCell};
use std::mem::MaybeUninit;

/// One slot, on its own cache lines.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Slot<H, O> {
    pub(super) state: State,
    pub(super) waker: AtomicWaker,
    held: UnsafeCell<MaybeUninit<H>>,
    outcome: UnsafeCell<MaybeUninit<O>>,
}

// SAFETY: a slot moves `H` and `O` from thread to thread (Send) and lets two threads read `H` at the same time (Sync).
// `O` has one owner at a time. The transitions of `State` order the accesses.
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

    /// Stores the held value and publishes the slot. Returns the generation, or the value if the slot was closed.
    ///
    /// # Safety
    /// The caller took the slot from the free list and has not given it back.
    #[inline]
    pub(super) unsafe fn publish(&self, held: H) -> Result<u64, H> {
        // SAFETY: the caller owns a FREE slot, whose cells are empty.
        self.held.with_mut(|cell| unsafe { (*cell).write(held) });
        // SAFETY: the slot was not published, so the caller still owns it and the value just stored.
        self.state.publish().ok_or_else(|| unsafe { self.take_held() })
    }

    /// Stores the outcome and answers the exchange if the state is still `seen`.
    ///
    /// Otherwise, returns the outcome and the newer state. This method does not wake the waiting half.
    ///
    /// # Safety
    /// The caller is the answering half, and `seen` is a waiting state.
    #[inline]
    pub(super) unsafe fn answer(&self, seen: Word, outcome: O) -> Result<(), (O, Word)> {
        // SAFETY: until the slot is ANSWERED, the answering half owns the outcome cell, which is empty.
        self.outcome.with_mut(|cell| unsafe { (*cell).write(outcome) });
        // SAFETY: the exchange was not answered, so the answering half still owns the cell and the outcome just stored.
        self.state.answer(seen).map_err(|newer| (unsafe { self.take_outcome() }, newer))
    }

    /// Returns a reference to the held value in its cell.
    ///
    /// # Safety
    /// The caller is a half of this exchange and prevents the held value from being taken while it is borrowed. The
    /// waiting half neither abandons the exchange nor takes the outcome. The answering half has seen the slot waiting
    /// and sent, and neither answers nor buries the exchange.
    #[inline]
    pub(super) unsafe fn held(&self) -> &H {
        // SAFETY: the slot is published, so the value is initialized. Only shared references exist by the caller's
        // promise.
        self.held.with(|cell| unsafe { (*cell).assume_init_ref() })
    }

    /// Moves the held value out.
    ///
    /// # Safety
    /// The caller owns the held value according to the table above and moves it out once.
    #[inline]
    pub(super) unsafe fn take_held(&self) -> H {
        // SAFETY: by the caller's promise, the value is initialized and is not read again.
        self.held.with_mut(|cell| unsafe { (*cell).assume_init_read() })
    }

    /// Moves the outcome out.
    ///
    /// # Safety
    /// The caller owns the outcome according to the table above, an outcome was stored, and it is moved out once.
    #[inline]
    pub(super) unsafe fn take_outcome(&self) -> O {
        // SAFETY: by the caller's promise, the value is initialized and is not read again.
        self.outcome.with_mut(|cell| unsafe { (*cell).assume_init_read() })
    }
}
