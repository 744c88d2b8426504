//! The order in which bodies that wait for room get it.
//!
//! 1. A client that holds little goes first: what it waits for comes out of the reserve.
//! 2. A body that holds a part already, since its length was not known, goes before those that hold nothing: they may
//!    wait for what it holds.
//! 3. A client that stays within half of the limit goes before one that would not.
//! 4. Then the body that came first is served first, however much less room one behind it would need: else a stream of
//!    short bodies would starve a long one.

use super::{Account, Charge};
use crate::client::Client;
use std::collections::{BTreeMap, HashMap};
use tokio::sync::oneshot;

/// The queue, by client.
#[derive(Debug, Default)]
pub(super) struct Turns {
    last: u64,
    waiting: HashMap<Client, BTreeMap<Order, Turn>>,
}

/// A turn's place within its client's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    holds_nothing: bool,
    number: u64,
}

/// Where a turn is found again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    client: Client,
    order: Order,
}

/// A body that waits.
#[derive(Debug)]
struct Turn {
    account: Account,
    bytes: usize,
    grant: oneshot::Sender<Charge>,
}

/// A turn that has come.
#[derive(Debug)]
pub(super) struct Due {
    pub charge: Charge,
    pub grant: oneshot::Sender<Charge>,
}

impl Turns {
    /// Queues a body that needs `bytes` more.
    pub fn enter(
        &mut self,
        account: Account,
        bytes: usize,
        holds_nothing: bool,
        grant: oneshot::Sender<Charge>,
    ) -> Number {
        self.last += 1;
        let order = Order { holds_nothing, number: self.last };
        let client = account.client();
        self.waiting.entry(client).or_default().insert(order, Turn { account, bytes, grant });
        Number { client, order }
    }

    /// Takes out a body that waits no longer; whether it was there.
    pub fn leave(&mut self, number: &Number) -> bool {
        self.take(number).is_some()
    }

    /// The turn that is next, if there is room for it.
    pub fn next_due(&mut self, limit: usize) -> Option<Due> {
        let (number, turn) = self.first(limit)?;
        let charge = turn.account.try_charge(turn.bytes)?;
        let turn = self.take(&number)?;
        Some(Due { charge, grant: turn.grant })
    }

    /// What the next turn needs, in bytes.
    pub fn needed(&self, limit: usize) -> usize {
        self.first(limit).map_or(0, |(_, turn)| turn.bytes)
    }

    /// Whose turn is next.
    pub fn first_account(&self, limit: usize) -> Option<Account> {
        self.first(limit).map(|(_, turn)| turn.account.clone())
    }

    fn first(&self, limit: usize) -> Option<(Number, &Turn)> {
        let heads = self.waiting.iter().filter_map(|(client, queue)| {
            let (order, turn) = queue.first_key_value()?;
            Some((Number { client: *client, order: *order }, turn))
        });
        heads.min_by_key(|(number, turn)| {
            let little = turn.account.is_little(turn.bytes);
            let within_half = turn.account.client_used().saturating_add(turn.bytes) <= limit / 2;
            (!little, number.order.holds_nothing, !within_half, number.order.number)
        })
    }

    fn take(&mut self, number: &Number) -> Option<Turn> {
        let queue = self.waiting.get_mut(&number.client)?;
        let turn = queue.remove(&number.order);
        if queue.is_empty() {
            self.waiting.remove(&number.client);
        }
        turn
    }
}
