//! The format of an id on the child's stdin: `generation << index_bits | index`, below 2^53.

use std::{fmt, num::NonZeroU64};

/// The exclusive upper bound of ids, because a child may parse every JSON number as a double.
const LIMIT: u64 = 1 << 53;

/// The id of a request on a child's stdin: a positive integer below 2^53.
///
/// The multiplexer mints it and never uses it twice during the lifetime of its table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WireId(NonZeroU64);

impl WireId {
    /// Returns the wire id for a number that a child sent back, or `None` for 0 and for 2^53 and above, which are never
    /// minted.
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).filter(|number| number.get() < LIMIT).map(Self)
    }

    /// Returns the number as it appears in a frame.
    pub fn as_u64(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for WireId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for WireId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WireId({})", self.0)
    }
}

/// The division of one table's ids into slot index and generation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    index_bits: u32,
    last_generation: u64,
}

impl Layout {
    /// Creates a layout of `1 << index_bits` slots, each of which serves the generations 1 to `last_generation`, or
    /// fewer if 2^53 is reached first.
    pub(super) fn new(index_bits: u32, last_generation: u64) -> Self {
        Self { index_bits, last_generation: last_generation.min((LIMIT >> index_bits) - 1) }
    }

    pub(super) fn slots(self) -> usize {
        1 << self.index_bits
    }

    /// Returns the last generation, after which the ids of a slot are used up.
    pub(super) fn last_generation(self) -> u64 {
        self.last_generation
    }

    #[inline]
    pub(super) fn mint(self, index: usize, generation: u64) -> WireId {
        let number = generation << self.index_bits | index as u64;
        WireId(NonZeroU64::new(number).expect("generations begin at 1"))
    }

    #[inline]
    pub(super) fn index(self, id: WireId) -> usize {
        (id.as_u64() & ((1 << self.index_bits) - 1)) as usize
    }

    #[inline]
    pub(super) fn generation(self, id: WireId) -> u64 {
        id.as_u64() >> self.index_bits
    }
}
