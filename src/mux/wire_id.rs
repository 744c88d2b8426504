//! Owns what an id on the child's stdin looks like: `generation << index_bits | index`, below 2^53.

use std::{fmt, num::NonZeroU64};

/// Ids stay below this, since a child may read every JSON number into a double.
const LIMIT: u64 = 1 << 53;

/// The id of a request on a child's stdin: a positive integer below 2^53, minted by the multiplexer and
/// never used twice in the life of its table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WireId(NonZeroU64);

impl WireId {
    /// The wire id of a number that a child sent back; `None` for 0 and from 2^53 up, which are never minted.
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).filter(|number| number.get() < LIMIT).map(Self)
    }

    /// The number as it stands in a frame.
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

/// How one table divides an id between slot index and generation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    index_bits: u32,
    last_generation: u64,
}

impl Layout {
    /// A layout for `1 << index_bits` slots, each of which serves the generations 1 to `last_generation`;
    /// fewer where 2^53 comes first.
    pub(super) fn new(index_bits: u32, last_generation: u64) -> Self {
        Self { index_bits, last_generation: last_generation.min((LIMIT >> index_bits) - 1) }
    }

    pub(super) fn slots(self) -> usize {
        1 << self.index_bits
    }

    /// Past this generation the ids of a slot are used up.
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
