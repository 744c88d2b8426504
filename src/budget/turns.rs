//! The order in which bodies that wait for room get it.
//!
//! 1. Who came first is served first, however much more room one behind it would need less of: else a stream of short
//!    bodies would starve a long one.
//! 2. One that holds a part already, since its length was not known, goes before those that hold nothing: they may wait
//!    for what it holds. Of such, one at a time is given more than there is, until it is complete: else two could each
//!    wait for ever for what the other holds.

use super::Charge;
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Turns {
    last: u64,
    waiting: BTreeMap<Number, Turn>,
    /// One may take more than there is, and is not complete yet.
    over: bool,
}

/// A turn's place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number {
    holds_nothing: bool,
    number: u64,
}

/// A body that waits.
#[derive(Debug)]
struct Turn {
    bytes: usize,
    grant: oneshot::Sender<Charge>,
}

/// A turn that has come.
#[derive(Debug)]
pub(super) struct Due {
    pub bytes: usize,
    /// There is too little room for it, but it may not wait for more.
    pub over: bool,
    pub grant: oneshot::Sender<Charge>,
}

impl Turns {
    /// Queues one that needs `bytes` more.
    pub fn enter(&mut self, bytes: usize, holds_nothing: bool, grant: oneshot::Sender<Charge>) -> Number {
        self.last += 1;
        let number = Number { holds_nothing, number: self.last };
        self.waiting.insert(number, Turn { bytes, grant });
        number
    }

    /// Takes one out that waits no longer; whether it was there.
    pub fn leave(&mut self, number: Number) -> bool {
        self.waiting.remove(&number).is_some()
    }

    /// The first one, if `take` finds room for it, or it may go without.
    pub fn next_due(&mut self, take: impl FnOnce(usize) -> bool) -> Option<Due> {
        let first = self.waiting.first_entry()?;
        let (bytes, may_go_over) = (first.get().bytes, !first.key().holds_nothing && !self.over);
        let over = match take(bytes) {
            true => false,
            false if may_go_over => true,
            false => return None,
        };
        self.over |= over;
        Some(Due { bytes, over, grant: first.remove().grant })
    }

    /// The one that was given more than there is is complete, or gone.
    pub fn settle(&mut self) {
        self.over = false;
    }

    /// What the first one needs; nothing where nobody waits.
    pub fn needed(&self) -> usize {
        self.waiting.first_key_value().map_or(0, |(_, turn)| turn.bytes)
    }
}
