//! The rank in which bodies that wait for room get it.
//!
//! 1. A client that holds little goes first: what it waits for comes out of the reserve.
//! 2. A body that holds a part already, since its length was not known, goes before those that hold nothing: they may
//!    wait for what it holds.
//! 3. A client that stays within half of the limit goes before one that would not.
//! 4. Then the body that came first is served first, however much less room one behind it would need: else a stream of
//!    short bodies would starve a long one.

use super::{Account, Budget, Charge};
use crate::client::Client;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

/// The queue, by client.
#[derive(Debug, Default)]
pub(super) struct Turns {
    last: u64,
    waiting: HashMap<Client, BTreeMap<Rank, Turn>>,
}

/// A turn's place within its client's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    holds_nothing: bool,
    number: u64,
}

/// Where a turn is found again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    client: Client,
    rank: Rank,
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
        let rank = Rank { holds_nothing, number: self.last };
        let client = account.client();
        self.waiting.entry(client).or_default().insert(rank, Turn { account, bytes, grant });
        Number { client, rank }
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
            let (rank, turn) = queue.first_key_value()?;
            Some((Number { client: *client, rank: *rank }, turn))
        });
        heads.min_by_key(|(number, turn)| {
            let little = turn.account.is_little(turn.bytes);
            let within_half = turn.account.client_used().saturating_add(turn.bytes) <= limit / 2;
            (!little, number.rank.holds_nothing, !within_half, number.rank.number)
        })
    }

    fn take(&mut self, number: &Number) -> Option<Turn> {
        let queue = self.waiting.get_mut(&number.client)?;
        let turn = queue.remove(&number.rank);
        if queue.is_empty() {
            self.waiting.remove(&number.client);
        }
        turn
    }
}

/// A place in the queue for room, until it is dropped.
struct TurnGuard<'a> {
    budget: &'a Budget,
    number: Number,
}

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        if self.budget.turns().leave(&self.number) {
            self.budget.0.waiting.fetch_sub(1, Ordering::SeqCst);
            // There may be room for those behind it.
            self.budget.serve();
        }
    }
}

impl Charge {
    /// Waits until it covers `bytes` together. The caller bounds the wait.
    pub async fn cover(&mut self, bytes: usize) {
        if !self.try_cover(bytes) {
            let granted = self.turn(bytes - self.bytes()).await;
            self.absorb(granted);
        }
    }

    /// Waits for its turn.
    async fn turn(&self, more: usize) -> Charge {
        let budget = self.account().budget();
        let (grant, granted) = oneshot::channel();
        let others = budget.0.waiting.fetch_add(1, Ordering::SeqCst);
        let number = budget.turns().enter(self.account().clone(), more, self.is_empty(), grant);
        let _waiting = TurnGuard { budget, number };
        budget.serve();
        if others == 0 && budget.is_awaited() {
            budget.0.awaited.notify_waiters();
        }
        budget.remind();
        granted.await.expect("a turn leaves the queue with its waiter, or is granted")
    }
}
