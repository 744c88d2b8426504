//! The fixed table of slots, which returns a slot to the free list or retires it.

use super::{
    free_list::{FreeList, NoSlot},
    slot::Slot,
    wire_id::{Layout, WireId},
};
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::fmt;
use std::sync::OnceLock;

/// Slots are created in blocks, each when the first of its slots is used: most children never have as many requests
/// in flight as they may, and a whole table takes megabytes.
const BLOCK: usize = 64;

type Block<H, O> = Box<[Slot<H, O>]>;

pub(super) struct Table<H, O> {
    pub(super) layout: Layout,
    free: FreeList,
    blocks: Box<[OnceLock<Block<H, O>>]>,
    /// The number of slots whose generations are used up. These slots are never given back.
    retired: AtomicUsize,
    /// An upper bound on the number of ABANDONED slots. Every access is Relaxed, because the number only avoids a
    /// search.
    pub(super) abandoned: AtomicUsize,
}

impl<H, O> Table<H, O> {
    pub(super) fn new(layout: Layout) -> Self {
        let table = Self {
            layout,
            free: FreeList::new(layout.slots()),
            blocks: (0..layout.slots().div_ceil(BLOCK)).map(|_| OnceLock::new()).collect(),
            retired: AtomicUsize::new(0),
            abandoned: AtomicUsize::new(0),
        };
        // loom doesn't know that a block is created before it is seen.
        #[cfg(proxyrunner_loom)]
        for index in 0..layout.slots() {
            table.at(index);
        }
        table
    }

    #[inline]
    pub(super) fn reserve(&self, held: H) -> Result<WireId, (NoSlot, H)> {
        let index = match self.free.take() {
            Ok(index) => index,
            Err(none) => return Err((none, held)),
        };
        // SAFETY: the slot was just taken from the free list.
        match unsafe { self.at(index).publish(held) } {
            Ok(generation) => Ok(self.layout.mint(index, generation)),
            Err(held) => {
                self.free.give(index);
                Err((NoSlot::Closed, held))
            }
        }
    }

    #[inline]
    pub(super) fn slot(&self, id: WireId) -> &Slot<H, O> {
        self.at(self.layout.index(id))
    }

    /// Returns the slot with this index.
    #[inline]
    pub(super) fn at(&self, index: usize) -> &Slot<H, O> {
        let create = || (0..BLOCK.min(self.layout.slots())).map(|_| Slot::new()).collect();
        &self.blocks[index / BLOCK].get_or_init(create)[index % BLOCK]
    }

    /// Returns the slots that were ever used, and others, with their indexes.
    pub(super) fn used(&self) -> impl Iterator<Item = (usize, &Slot<H, O>)> {
        let blocks = self.blocks.iter().enumerate();
        let blocks = blocks.filter_map(|(number, block)| Some((number * BLOCK, block.get()?)));
        blocks.flat_map(|(first, block)| (first..).zip(block))
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
            .field("slots", &self.layout.slots())
            .field("in_flight", &self.in_flight())
            .field("abandoned", &self.abandoned.load(Relaxed))
            .field("retired", &self.retired.load(Relaxed))
            .finish()
    }
}
