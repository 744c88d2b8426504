//! The waiting half of an exchange: a future of its outcome, which cancels on drop.

use super::{state::Abandoned, table::Table, wire_id::WireId};
use crate::sync::{Arc, atomic::Ordering::Relaxed};
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// The waiting half of one exchange. Resolves to the outcome; dropping it before that abandons the
/// exchange.
#[must_use = "dropping it abandons the exchange"]
pub struct Pending<H, O> {
    table: Arc<Table<H, O>>,
    id: WireId,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Never polled: the slot holds no waker of ours.
    Fresh,
    Registered,
    /// The outcome was taken, or the exchange abandoned: the slot is no longer ours.
    Over,
}

impl<H, O> Pending<H, O> {
    pub(super) fn new(table: Arc<Table<H, O>>, id: WireId) -> Self {
        Self { table, id, stage: Stage::Fresh }
    }

    /// The id to put into the frame.
    pub fn wire_id(&self) -> WireId {
        self.id
    }

    /// The held value; `None` once the outcome was taken or the exchange abandoned.
    pub fn held(&self) -> Option<&H> {
        // SAFETY: this is the waiting half; abandoning and taking need it mutably.
        (self.stage != Stage::Over).then(|| unsafe { self.table.slot(self.id).held() })
    }

    /// Abandons the exchange, as dropping does, and returns what became of it, so that the caller knows whether to tell the
    /// child. Later calls return [`Abandoned::Settled`]. Polling after it panics.
    pub fn abandon(&mut self) -> Abandoned {
        if self.stage == Stage::Over {
            return Abandoned::Settled;
        }
        let slot = self.table.slot(self.id);
        if self.stage == Stage::Registered {
            // First, for once abandoned the slot may serve another exchange, with another waker.
            slot.waker.clear();
        }
        self.stage = Stage::Over;
        // Counted first, so that a tombstone is never there uncounted.
        self.table.abandoned.fetch_add(1, Relaxed);
        let became = slot.state.abandon();
        match became {
            Abandoned::InFlight => return became,
            Abandoned::Withdrawn => {
                // SAFETY: FREE and not given back yet, the slot is ours, and its outcome empty.
                let held = unsafe { slot.take_held() };
                self.table.give_back(self.id);
                drop(held);
            }
            // SAFETY: found ANSWERED, and `stage` lets this be reached once.
            Abandoned::Settled => drop(unsafe { self.take() }),
        }
        self.table.abandoned.fetch_sub(1, Relaxed);
        became
    }

    /// Empties the cells and frees the slot. The held value is dropped last, so that a request admitted by its permit finds
    /// the slot free.
    ///
    /// # Safety
    /// The slot is ANSWERED, and the outcome was not taken.
    #[inline]
    unsafe fn take(&self) -> O {
        let slot = self.table.slot(self.id);
        // SAFETY: ANSWERED, both cells are the waiting half's, and it takes them once.
        let (held, outcome) = unsafe { (slot.take_held(), slot.take_outcome()) };
        self.table.release(self.id);
        drop(held);
        outcome
    }
}

impl<H, O> Future for Pending<H, O> {
    type Output = O;

    /// # Panics
    /// When polled after the outcome was taken or the exchange abandoned.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<O> {
        assert!(self.stage != Stage::Over, "polled after the end of the exchange");
        let slot = self.table.slot(self.id);
        if !slot.state.load().is_answered() {
            slot.waker.register(context.waker());
            // Looked at again: an answer since the first look may have found no waker.
            if !slot.state.load().is_answered() {
                self.stage = Stage::Registered;
                return Poll::Pending;
            }
        }
        self.stage = Stage::Over;
        // SAFETY: ANSWERED, and `stage` lets this be reached once.
        Poll::Ready(unsafe { self.take() })
    }
}

// The cells are only ever moved out of, never pinned.
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
