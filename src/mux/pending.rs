//! The waiting half of an exchange: a future that resolves to the outcome and cancels the exchange on drop.

use super::{state::Abandoned, table::Table, wire_id::WireId};
use crate::sync::{Arc, atomic::Ordering::Relaxed};
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// The waiting half of one exchange. It resolves to the outcome. Dropping it before that abandons the exchange.
#[must_use = "dropping it abandons the exchange"]
pub struct Pending<H, O> {
    table: Arc<Table<H, O>>,
    id: WireId,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The future was never polled, so the slot holds no waker of this half.
    Fresh,
    Registered,
    /// The outcome was taken or the exchange was abandoned, so the slot no longer belongs to this half.
    Over,
}

impl<H, O> Pending<H, O> {
    pub(super) fn new(table: Arc<Table<H, O>>, id: WireId) -> Self {
        Self { table, id, stage: Stage::Fresh }
    }

    /// Returns the id to put into the frame.
    pub fn wire_id(&self) -> WireId {
        self.id
    }

    /// Returns the held value, or `None` once the outcome was taken or the exchange was abandoned.
    pub fn held(&self) -> Option<&H> {
        // SAFETY: this is the waiting half. Abandoning the exchange and taking the outcome need mutable access to it.
        (self.stage != Stage::Over).then(|| unsafe { self.table.slot(self.id).held() })
    }

    /// Abandons the exchange, as dropping it does, and returns the result.
    ///
    /// The result tells the caller whether to notify the child. Later calls return [`Abandoned::Settled`]. Polling
    /// after this call panics.
    pub fn abandon(&mut self) -> Abandoned {
        if self.stage == Stage::Over {
            return Abandoned::Settled;
        }
        let slot = self.table.slot(self.id);
        if self.stage == Stage::Registered {
            // The waker is cleared first, because an abandoned slot may serve another exchange with another waker.
            slot.waker.clear();
        }
        self.stage = Stage::Over;
        // The exchange is counted first, so that a tombstone is never uncounted.
        self.table.abandoned.fetch_add(1, Relaxed);
        let became = slot.state.abandon();
        match became {
            Abandoned::InFlight => return became,
            Abandoned::Withdrawn => {
                // SAFETY: the slot is FREE and not given back yet, so this half owns it, and its outcome is empty.
                let held = unsafe { slot.take_held() };
                self.table.give_back(self.id);
                drop(held);
            }
            // SAFETY: the slot was found ANSWERED, and `stage` allows this code to be reached once.
            Abandoned::Settled => drop(unsafe { self.take() }),
        }
        self.table.abandoned.fetch_sub(1, Relaxed);
        became
    }

    /// Empties the cells and frees the slot.
    ///
    /// The held value is dropped last, so that a request admitted by its permit finds the slot free.
    ///
    /// # Safety
    /// The slot is ANSWERED, and the outcome was not taken.
    #[inline]
    unsafe fn take(&self) -> O {
        let slot = self.table.slot(self.id);
        // SAFETY: the slot is ANSWERED, so the waiting half owns both cells, and it takes them once.
        let (held, outcome) = unsafe { (slot.take_held(), slot.take_outcome()) };
        self.table.release(self.id);
        drop(held);
        outcome
    }
}

impl<H, O> Future for Pending<H, O> {
    type Output = O;

    /// # Panics
    /// Panics if polled after the outcome was taken or the exchange was abandoned.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<O> {
        assert!(self.stage != Stage::Over, "polled after the end of the exchange");
        let slot = self.table.slot(self.id);
        if !slot.state.load().is_answered() {
            slot.waker.register(context.waker());
            // The state is checked again, because an answer after the first check may have found no waker.
            if !slot.state.load().is_answered() {
                self.stage = Stage::Registered;
                return Poll::Pending;
            }
        }
        self.stage = Stage::Over;
        // SAFETY: the slot is ANSWERED, and `stage` allows this code to be reached once.
        Poll::Ready(unsafe { self.take() })
    }
}

// Values are only moved out of the cells and never pinned.
impl<H, O> Unpin for Pending<H, O> {}

impl<H, O> Drop for Pending<H, O> {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl<H, O> fmt::Debug for Pending<H, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("id", &self.id).field("stage", &self.stage).finish_non_exhaustive()
    }
}
