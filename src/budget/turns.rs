//! The order in which waiting bodies get room.
//!
//! 1. Clients that hold little go first: they are served from the reserve.
//! 2. Bodies of unknown length that already hold some bytes go before bodies that hold none, which may be waiting for
//!    those bytes.
//! 3. Clients that stay within half of the limit go before clients that would exceed it.
//! 4. Then bodies are served in the order of arrival, even if a later one needs less. Otherwise a stream of short
//!    bodies would starve a long one.

use super::{Account, Budget, Charge};
use crate::client::Client;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

/// The waiting bodies, by client.
#[derive(Debug, Default)]
pub(super) struct Turns {
    last: u64,
    waiting: HashMap<Client, BTreeMap<Rank, Turn>>,
}

/// The position of a body within its client's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    holds_nothing: bool,
    number: u64,
}

/// The key of a waiting body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    client: Client,
    rank: Rank,
}

/// A waiting body.
#[derive(Debug)]
struct Turn {
    account: Account,
    /// The bytes that it holds already, and those that it needs in addition.
    part: usize,
    bytes: usize,
    grant: oneshot::Sender<Charge>,
}

/// A body whose turn has come.
#[derive(Debug)]
pub(super) struct Due {
    pub charge: Charge,
    pub grant: oneshot::Sender<Charge>,
}

impl Turns {
    /// Queues a body that holds a `part` of its bytes and needs `bytes` more.
    pub fn enter(
        &mut self,
        account: Account,
        part: usize,
        bytes: usize,
        grant: oneshot::Sender<Charge>,
    ) -> Number {
        self.last += 1;
        let rank = Rank { holds_nothing: part == 0, number: self.last };
        let client = account.client();
        self.waiting.entry(client).or_default().insert(rank, Turn { account, part, bytes, grant });
        Number { client, rank }
    }

    /// Removes a body; returns whether it was still waiting.
    pub fn leave(&mut self, number: &Number) -> bool {
        self.take(number).is_some()
    }

    /// Takes the next body, if there is room for it.
    pub fn next_due(&mut self, limit: usize) -> Option<Due> {
        let (number, turn) = self.first(limit)?;
        let charge = turn.account.try_charge_rest(turn.part, turn.bytes)?;
        let turn = self.take(&number)?;
        Some(Due { charge, grant: turn.grant })
    }

    /// Returns the number of bytes that the next body needs.
    pub fn needed(&self, limit: usize) -> usize {
        self.first(limit).map_or(0, |(_, turn)| turn.bytes)
    }

    /// Returns the account of the next body.
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

/// A waiting body's entry in the queue, removed on drop.
struct TurnGuard<'a> {
    budget: &'a Budget,
    number: Number,
}

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        if self.budget.turns().leave(&self.number) {
            self.budget.0.waiting.fetch_sub(1, Ordering::SeqCst);
            // There may be room for the bodies behind it.
            self.budget.serve();
        }
    }
}

impl Charge {
    /// Waits until the charge covers `bytes`. The caller bounds the wait.
    pub async fn cover(&mut self, bytes: usize) {
        if !self.try_cover(bytes) {
            let granted = self.turn(bytes - self.bytes()).await;
            self.absorb(granted);
        }
    }

    /// Waits for the body's turn.
    async fn turn(&self, more: usize) -> Charge {
        let budget = self.account().budget();
        let (grant, granted) = oneshot::channel();
        let others = budget.0.waiting.fetch_add(1, Ordering::SeqCst);
        let number = budget.turns().enter(self.account().clone(), self.bytes(), more, grant);
        let _waiting = TurnGuard { budget, number };
        budget.serve();
        if others == 0 && budget.is_awaited() {
            budget.0.awaited.notify_waiters();
        }
        budget.remind();
        granted.await.expect("a turn leaves the queue with its waiter, or is granted")
    }
}
