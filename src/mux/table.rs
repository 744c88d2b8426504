//! The fixed table of slots, which returns a slot to the free list or retires it.

use super::{
    free_list::{FreeList, NoSlot},
    slot::Slot,
    wire_id::{Layout, WireId},
};
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::fmt;

pub(super) struct Table<H, O> {
    pub(super) layout: Layout,
    free: FreeList,
    slots: Box<[Slot<H, O>]>,
    /// The number of slots whose generations are used up. These slots are never given back.
    retired: AtomicUsize,
    /// An upper bound on the number of ABANDONED slots. Every access is Relaxed, because the number only avoids a
    /// search.
    pub(super) abandoned: AtomicUsize,
}

impl<H, O> Table<H, O> {
    pub(super) fn new(layout: Layout) -> Self {
        Self {
            layout,
            free: FreeList::new(layout.slots()),
            slots: (0..layout.slots()).map(|_| Slot::new()).collect(),
            retired: AtomicUsize::new(0),
            abandoned: AtomicUsize::new(0),
        }
    }

    #[inline]
    pub(super) fn reserve(&self, held: H) -> Result<WireId, (NoSlot, H)> {
        let index = match self.free.take() {
            Ok(index) => index,
            Err(none) => return Err((none, held)),
        };
        // SAFETY: the slot was just taken from the free list.
        match unsafe { self.slots[index].publish(held) } {
            Ok(generation) => Ok(self.layout.mint(index, generation)),
            Err(held) => {
                self.free.give(index);
                Err((NoSlot::Closed, held))
            }
        }
    }

    #[inline]
    pub(super) fn slot(&self, id: WireId) -> &Slot<H, O> {
        &self.slots[self.layout.index(id)]
    }

    pub(super) fn slots(&self) -> &[Slot<H, O>] {
        &self.slots
    }

    /// Ends the generation of `id` and frees its slot, which is ANSWERED or ABANDONED.
    ///
    /// The caller is the half that came last, and it has emptied both cells.
    #[inline]
    pub(super) fn release(&self, id: WireId) {
        self.slot(id).state.release(self.layout.generation(id));
        self.give_back(id);
    }

    /// Gives back the slot of `id` or retires it. The slot's next generation has already begun.
    #[inline]
    pub(super) fn give_back(&self, id: WireId) {
        if self.layout.generation(id) < self.layout.last_generation() {
            self.free.give(self.layout.index(id));
        } else {
            self.retired.fetch_add(1, Relaxed);
        }
    }

    /// Prevents further slots from being taken.
    pub(super) fn close(&self) {
        self.free.close();
    }

    pub(super) fn in_flight(&self) -> usize {
        self.free.taken().saturating_sub(self.retired.load(Relaxed))
    }
}

impl<H, O> fmt::Debug for Table<H, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("slots", &self.slots.len())
            .field("in_flight", &self.in_flight())
            .field("abandoned", &self.abandoned.load(Relaxed))
            .field("retired", &self.retired.load(Relaxed))
            .finish()
    }
}
