//! The multiplexer: the requests in flight on one child, their wire ids, and their outcomes. It is lock-free, does not
//! allocate per exchange, and has no clock (`docs/architecture.md#multiplexer`).
//!
//! A request reserves a slot, and with it a [`WireId`]. The writer marks it as sent just before its frame goes to stdin. The
//! router completes it when the child answers. A slot carries a held value `H` (the admission permit, the queue of interim
//! messages) and one outcome `O`.
//!
//! # Invariants
//!
//! 1. A slot is on the free list, or retired, or held by the thread that took it, or serves one exchange.
//! 2. A state word changes only by the transitions in `state.rs`. Its generation only grows, and a slot whose next
//!    generation would have no wire id is retired. Hence no id is minted twice.
//! 3. An exchange has one waiting half, [`Pending`], and a table has one answering half, [`Answering`]. Neither can be
//!    cloned.
//! 4. Answer and abandon race on one word, and both are compare-and-swaps from WAITING: an exchange becomes ANSWERED or
//!    ABANDONED, never both.
//! 5. Only the waiting half frees an ANSWERED slot; only the answering half frees an ABANDONED one; an exchange that was
//!    never sent is freed by its waiting half. The last of the two frees.
//! 6. Only an exchange that was sent can be completed. (Closing answers all.)
//! 7. Publishing WAITING checks for CLOSED again, on the slot's word. `close` first closes the free list, then sets CLOSED
//!    in every word: a slot that was taken before is either seen WAITING by `close`, or sees CLOSED.
//! 8. The waiting half registers its waker, then checks for ANSWERED; the answering half sets ANSWERED, then wakes. A
//!    wake-up that reaches the slot's next exchange is spurious, and harmless.
//! 9. A held value is dropped after its slot was freed: a permit in it promises a free slot.
//!
//! Checked by loom: `RUSTFLAGS="--cfg proxyrunner_loom" cargo test --release --lib mux::`.

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

/// The maximum number of slots, which leaves each 2^33 generations.
pub const MAX_SLOTS: usize = 1 << 20;

/// A table of at least `slots` slots, rounded up to a power of two.
///
/// # Panics
/// Unless `slots` is from 1 to [`MAX_SLOTS`].
pub fn table<H, O>(slots: usize) -> (Mux<H, O>, Answering<H, O>)
where
    H: Send + Sync,
    O: Send + Lost,
{
    table_with_generations(slots, u64::MAX)
}

/// A table whose slots retire after `generations` exchanges each.
fn table_with_generations<H, O: Lost>(slots: usize, generations: u64) -> (Mux<H, O>, Answering<H, O>) {
    assert!((1..=MAX_SLOTS).contains(&slots), "a table has 1 to {MAX_SLOTS} slots, not {slots}");
    let layout = Layout::new(slots.next_power_of_two().trailing_zeros(), generations);
    let table = Arc::new(Table::new(layout));
    (Mux { table: table.clone() }, Answering::new(table))
}

/// The reason why no slot was reserved. Returns the held value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused<H> {
    /// Every slot is in use.
    Full(H),
    /// The answering half is gone, or has closed the table.
    Closed(H),
}

/// The requesting side of a table: reserves slots, and marks them as sent. Clones share the table.
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

    /// Marks an exchange as sent, just before its frame goes to stdin. True once per exchange; false if the frame must not be
    /// written, because the exchange was abandoned, answered, or marked before.
    #[inline]
    pub fn mark_sent(&self, id: WireId) -> bool {
        self.table.slot(id).state.mark_sent(self.table.layout.generation(id))
    }

    /// Whether the exchange was marked as sent and its slot has not been freed yet.
    pub fn was_sent(&self, id: WireId) -> bool {
        let word = self.table.slot(id).state.load();
        word.generation() == self.table.layout.generation(id) && word.is_sent()
    }

    /// Number of slots in use, including those of abandoned exchanges. A snapshot.
    pub fn waiting(&self) -> usize {
        self.table.in_flight()
    }

    /// Number of exchanges that were abandoned after being sent, and have no answer yet. A snapshot, temporarily too high
    /// while an exchange is being abandoned.
    pub fn abandoned(&self) -> usize {
        self.table.abandoned.load(Relaxed)
    }

    /// Number of exchanges that were sent and are waited for. Reads every slot.
    pub fn unanswered(&self) -> usize {
        let words = self.table.slots().iter().map(|slot| slot.state.load());
        words.filter(|word| word.is_sent() && word.is_waiting()).count()
    }

    /// Number of slots.
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
