//! The multiplexer tracks the requests in flight on one child, their wire ids and their outcomes. It is lock-free, does
//! not allocate per exchange, and has no clock (`docs/architecture.md#multiplexer`).
//!
//! A request reserves a slot, and with it a [`WireId`]. The writer marks the exchange as sent just before it writes the
//! frame to stdin. The router completes the exchange when the child answers. A slot stores a held value `H` (the
//! admission permit and the queue of interim messages) and one outcome `O`.
//!
//! # Invariants
//!
//! 1. A slot is on the free list, retired, held by the thread that took it, or serving one exchange.
//! 2. A state word changes only by the transitions in `state.rs`. Its generation only increases, and a slot is retired
//!    if its next generation would have no wire id. Therefore, no id is minted twice.
//! 3. An exchange has one waiting half, [`Pending`], and a table has one answering half, [`Answering`]. Neither half
//!    can be cloned.
//! 4. Answering and abandoning race on one word. Both are compare-and-swaps from WAITING, so an exchange becomes
//!    ANSWERED or ABANDONED, never both.
//! 5. Only the waiting half frees an ANSWERED slot, and only the answering half frees an ABANDONED slot. The waiting
//!    half frees the slot of an exchange that was never sent. The last of the two halves frees the slot.
//! 6. Only an exchange that was sent can be completed. Closing the table answers all waiting exchanges, sent or not.
//! 7. Publishing WAITING checks for CLOSED again, on the slot's word. `close` first closes the free list and then sets
//!    CLOSED in every word. For a slot that was taken earlier, either `close` sees WAITING or publishing sees CLOSED.
//! 8. The waiting half registers its waker and then checks for ANSWERED. The answering half sets ANSWERED and then
//!    wakes. A wake-up that reaches the slot's next exchange is spurious and harmless.
//! 9. A held value is dropped after its slot is freed, because a permit in it promises a free slot.
//!
//! Loom checks the invariants: `RUSTFLAGS="--cfg proxyrunner_loom" cargo test --release --lib mux::`.

mod answering;
mod free_list;
mod pending;
mod slot;
mod state;
mod table;
mod wire_id;

#[cfg(all(test, proxyrunner_loom))]
mod loom_tests;
#[cfg(all(test, not(proxyrunner_loom)))]
mod tests;

pub use answering::{Answering, Completed, Lost};
pub use pending::Pending;
pub use state::Abandoned;
pub use wire_id::WireId;

use crate::sync::{Arc, atomic::Ordering::Relaxed};
use free_list::NoSlot;
use std::fmt;
use table::Table;
use wire_id::Layout;

/// The maximum number of slots, which leaves each slot 2^33 generations.
pub const MAX_SLOTS: usize = 1 << 20;

/// Creates a table of at least `slots` slots, rounded up to a power of two.
///
/// # Panics
/// Panics unless `slots` is from 1 to [`MAX_SLOTS`].
pub fn table<H, O>(slots: usize) -> (Mux<H, O>, Answering<H, O>)
where
    H: Send + Sync,
    O: Send + Lost,
{
    table_with_generations(slots, u64::MAX)
}

/// Creates a table whose slots retire after `generations` exchanges each.
fn table_with_generations<H, O: Lost>(slots: usize, generations: u64) -> (Mux<H, O>, Answering<H, O>) {
    assert!((1..=MAX_SLOTS).contains(&slots), "a table has 1 to {MAX_SLOTS} slots, not {slots}");
    let layout = Layout::new(slots.next_power_of_two().trailing_zeros(), generations);
    let table = Arc::new(Table::new(layout));
    (Mux { table: table.clone() }, Answering::new(table))
}

/// The reason why no slot was reserved. Each variant returns the held value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused<H> {
    /// Every slot is in use.
    Full(H),
    /// The answering half was dropped or has closed the table.
    Closed(H),
}

/// The requesting side of a table, which reserves slots and marks exchanges as sent. Clones share the table.
pub struct Mux<H, O> {
    table: Arc<Table<H, O>>,
}

impl<H, O> Mux<H, O> {
    /// Reserves a slot that holds `held` until the exchange is over.
    #[inline]
    pub fn reserve(&self, held: H) -> Result<Pending<H, O>, Refused<H>> {
        match self.table.reserve(held) {
            Ok(id) => Ok(Pending::new(self.table.clone(), id)),
            Err((NoSlot::Empty, held)) => Err(Refused::Full(held)),
            Err((NoSlot::Closed, held)) => Err(Refused::Closed(held)),
        }
    }

    /// Marks an exchange as sent, just before its frame is written to stdin.
    ///
    /// Returns `true` once per exchange. Returns `false` if the frame must not be written because the exchange was
    /// abandoned, answered or already marked.
    #[inline]
    pub fn mark_sent(&self, id: WireId) -> bool {
        self.table.slot(id).state.mark_sent(self.table.layout.generation(id))
    }

    /// Returns whether the exchange was marked as sent and its slot has not been freed yet.
    pub fn was_sent(&self, id: WireId) -> bool {
        let word = self.table.slot(id).state.load();
        word.generation() == self.table.layout.generation(id) && word.is_sent()
    }

    /// Returns the number of slots in use, including the slots of abandoned exchanges. The number is a snapshot.
    pub fn waiting(&self) -> usize {
        self.table.in_flight()
    }

    /// Returns the number of exchanges that were abandoned after being sent and have no answer yet.
    ///
    /// The number is a snapshot and is temporarily too high while an exchange is being abandoned.
    pub fn abandoned(&self) -> usize {
        self.table.abandoned.load(Relaxed)
    }

    /// Returns the number of exchanges that were sent and are neither answered nor abandoned. This reads every slot.
    pub fn unanswered(&self) -> usize {
        let words = self.table.used().map(|(_, slot)| slot.state.load());
        words.filter(|word| word.is_sent() && word.is_waiting()).count()
    }

    /// Returns the number of exchanges that the child may still answer, including abandoned and unsent ones. This reads
    /// every slot.
    pub fn open(&self) -> usize {
        let words = self.table.used().map(|(_, slot)| slot.state.load());
        words.filter(|word| word.is_waiting() || word.is_abandoned()).count()
    }

    /// Returns the number of slots.
    pub fn slots(&self) -> usize {
        self.table.layout.slots()
    }
}

impl<H, O> Clone for Mux<H, O> {
    fn clone(&self) -> Self {
        Self { table: self.table.clone() }
    }
}

impl<H, O> fmt::Debug for Mux<H, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mux").field("table", &self.table).finish()
    }
}
