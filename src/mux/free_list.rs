//! Owns which slots are free: a bounded first-in-first-out queue of slot indexes, lock-free, any number of
//! takers and givers.
//!
//! Vyukov's bounded queue, made smaller by what is known here. There are as many cells as indexes, and
//! whoever gives an index back holds it, so the queue is never full: giving needs no loop, and a taker
//! needs not mark its cell as vacated. A cell is one word, `lap | index`, where the lap is the position's
//! high part: a cell whose lap is behind the head's has not been written yet.
//!
//! First in, first out, so that a slot rests as long as possible before it is used again, and generations
//! are used up evenly.

use crate::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use std::cmp::Ordering;

/// Set in `head` once no index may be taken any more. Positions never come near it.
const CLOSED: u64 = 1 << 63;

/// Two neighbouring words that different threads write would slow each other down; x86 fetches lines in
/// pairs, hence 128.
#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

#[derive(Debug)]
pub(super) struct FreeList {
    /// The position to take from next.
    head: Apart<AtomicU64>,
    /// The position to give back to next.
    tail: Apart<AtomicU64>,
    cells: Box<[AtomicU64]>,
}

/// Why no index was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSlot {
    /// All are in use, or their giver is still at it.
    Empty,
    /// [`FreeList::close`] was called.
    Closed,
}

impl FreeList {
    /// A list with the indexes below `slots`, a power of two, in order.
    pub(super) fn new(slots: usize) -> Self {
        debug_assert!(slots.is_power_of_two());
        Self {
            head: Apart(AtomicU64::new(0)),
            tail: Apart(AtomicU64::new(slots as u64)),
            cells: (0..slots as u64).map(AtomicU64::new).collect(),
        }
    }

    /// Takes the index that has been free for longest.
    #[inline]
    pub(super) fn take(&self) -> Result<usize, NoSlot> {
        let mut head = self.head.0.load(Relaxed);
        loop {
            if head & CLOSED != 0 {
                return Err(NoSlot::Closed);
            }
            // Acquire pairs with the store in `give`: the last user is done with the slot.
            let cell = self.cell(head).load(Acquire);
            match self.lap(cell).cmp(&self.lap(head)) {
                Ordering::Less => return Err(NoSlot::Empty),
                Ordering::Greater => head = self.head.0.load(Relaxed),
                // The cell read is still the right one, since it is overwritten only once the head has
                // moved on, and then this fails. Release pairs with `close`: who closes sees the slots
                // that were taken before as their last users left them. Acquire: see `give`.
                Ordering::Equal => match self.head.0.compare_exchange_weak(head, head + 1, AcqRel, Relaxed) {
                    Ok(_) => return Ok(self.index(cell)),
                    Err(newer) => head = newer,
                },
            }
        }
    }

    /// Gives back an index that was taken.
    #[inline]
    pub(super) fn give(&self, index: usize) {
        // AcqRel orders the stores to one cell. As every give follows its own take, the gives up to this
        // position follow at least as many takes, hence the take from this cell a lap ago, or one after
        // it. Takes are chained on the head, gives on the tail, so that lap's store comes before ours.
        let tail = self.tail.0.fetch_add(1, AcqRel);
        // Release: publishes the slot to whoever takes it.
        self.cell(tail).store(self.lap(tail) | index as u64, Release);
    }

    /// Lets no index be taken any more. Whatever the slots that were taken before went through until they
    /// were taken is visible after this.
    pub(super) fn close(&self) {
        self.head.0.fetch_or(CLOSED, Acquire);
    }

    /// How many indexes are out: taken and not given back. Exact only while nobody takes or gives.
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
