//! The list of free slots: a bounded, lock-free first-in-first-out queue of slot indexes. Any number of threads can
//! take and give indexes.
//!
//! The queue is a ring with as many cells as indexes. A cell is one word, `lap | index`, where the lap is the high part
//! of a position. A cell whose lap is behind the head's lap has not been filled yet. Only a taken index can be given
//! back, so the ring is never full, and a cell is always taken before it is filled again.
//!
//! A giver fills the cell first and then moves the tail. If the giver stalls between these steps, other threads move
//! the tail for it. (In Vyukov's queue the tail moves first, so a giver that is preempted between the steps makes the
//! list look empty to all threads as soon as the head arrives there.)
//!
//! First-in-first-out order lets a slot rest as long as possible before it is reused, and uses up generations evenly.

use crate::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::cmp::Ordering;

/// Flag in `head` that is set when no more indexes may be taken. Positions never reach this bit.
const CLOSED: u64 = 1 << 63;

/// Keeps words that different threads write on separate cache lines. The alignment is 128 bytes because x86 fetches
/// cache lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

#[derive(Debug)]
pub(super) struct FreeList {
    /// The next position to take from.
    head: Apart<AtomicU64>,
    /// The next position to give back to, or the previous position while its giver has not finished.
    tail: Apart<AtomicU64>,
    cells: Box<[AtomicU64]>,
}

/// The reason why no index was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSlot {
    /// All indexes are in use.
    Empty,
    /// [`FreeList::close`] was called.
    Closed,
}

impl FreeList {
    /// Creates a list of the indexes below `slots`, in ascending order. `slots` is a power of two.
    pub(super) fn new(slots: usize) -> Self {
        debug_assert!(slots.is_power_of_two());
        Self {
            head: Apart(AtomicU64::new(0)),
            tail: Apart(AtomicU64::new(slots as u64)),
            cells: (0..slots as u64).map(AtomicU64::new).collect(),
        }
    }

    /// Takes the index that has been free the longest.
    #[inline]
    pub(super) fn take(&self) -> Result<usize, NoSlot> {
        let mut head = self.head.0.load(Relaxed);
        loop {
            if head & CLOSED != 0 {
                return Err(NoSlot::Closed);
            }
            // Acquire pairs with the compare-exchange in `give`: the last user has finished with the slot.
            let cell = self.cell(head).load(Acquire);
            match self.lap(cell).cmp(&self.lap(head)) {
                Ordering::Less => return Err(NoSlot::Empty),
                Ordering::Greater => head = self.head.0.load(Relaxed),
                // A position is filled only once, so the cell was read correctly if the head has not moved.
                // Release pairs with `close`: the closing thread sees the slots that were taken before as their last
                // users left them.
                Ordering::Equal => {
                    match self.head.0.compare_exchange_weak(head, head + 1, Release, Relaxed) {
                        Ok(_) => return Ok(self.index(cell)),
                        Err(newer) => head = newer,
                    }
                }
            }
        }
    }

    /// Gives back a taken index.
    #[inline]
    pub(super) fn give(&self, index: usize) {
        // Acquire here and on the cell, Release on the tail: positions are filled in order, and a thread at one
        // position sees all earlier positions filled. Therefore, the cell value read here is at most one lap behind,
        // and a failed compare-exchange means that the cell is filled.
        let mut tail = self.tail.0.load(Acquire);
        loop {
            let cell = self.cell(tail);
            let seen = cell.load(Acquire);
            let is_ours = self.lap(seen) < self.lap(tail)
                // Release publishes the slot to the thread that takes it. Acquire on failure acts as for a load.
                && cell.compare_exchange(seen, self.lap(tail) | index as u64, Release, Acquire).is_ok();
            // This thread or another filled the cell. The tail advances unless another thread has already moved it.
            let moved = self.tail.0.compare_exchange(tail, tail + 1, Release, Acquire);
            if is_ours {
                return;
            }
            tail = moved.map_or_else(|newer| newer, |tail| tail + 1);
        }
    }

    /// Prevents further taking. Afterwards, everything that happened to the taken slots before they were taken is
    /// visible.
    pub(super) fn close(&self) {
        self.head.0.fetch_or(CLOSED, Acquire);
    }

    /// Returns the number of indexes that are taken and not given back. The number is exact only while no thread takes
    /// or gives.
    pub(super) fn taken(&self) -> usize {
        let given = self.tail.0.load(Relaxed) - self.cells.len() as u64;
        let taken = self.head.0.load(Relaxed) & !CLOSED;
        taken.saturating_sub(given) as usize
    }

    fn cell(&self, position: u64) -> &AtomicU64 {
        &self.cells[self.index(position)]
    }

    fn index(&self, word: u64) -> usize {
        (word & (self.cells.len() as u64 - 1)) as usize
    }

    fn lap(&self, word: u64) -> u64 {
        word & !(self.cells.len() as u64 - 1)
    }
}
