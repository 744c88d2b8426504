//! The rules of admission, without threads and clocks: which client gets a permit, and which waits.
//!
//! Invariants between method calls:
//! 1. `in_flight` is the sum of the clients' `held`, and at most `bounds.in_flight`; `held` is at most
//!    `bounds.per_client`.
//! 2. `turns` holds exactly the clients that have a waiter and are below their bound, each once.
//! 3. If `turns` is not empty, no permit is free: a free permit is never withheld from a client that may have it.
//! 4. `queued` is the sum of the queues' lengths, and at most `bounds.queued`; `lengths` holds each queue that is
//!    not empty, once.
//! 5. A client with neither permits nor waiters is not in `clients`.

use crate::client::{BuildClientHasher, Client};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The bounds of admission. Each is at least 1, except `queued`, where 0 disables waiting.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Permits of all clients.
    pub in_flight: usize,
    /// Permits of one client.
    pub per_client: usize,
    /// Waiting requests of all clients.
    pub queued: usize,
}

impl Bounds {
    /// Returns bounds for a resource that is held for long and never waited for. One client gets at most a quarter,
    /// so that it takes several clients to keep the others out.
    pub fn shared_out(most: usize) -> Self {
        Bounds { in_flight: most, per_client: most.div_ceil(4), queued: 0 }
    }
}

/// The identity of a waiter. Later tickets are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// The result of asking for a permit.
#[derive(Debug, PartialEq, Eq)]
pub enum Ruling<W> {
    /// The client has the permit.
    Granted,
    /// The request waits. If it displaced another waiter, that waiter must be woken.
    Waits(Ticket, Option<W>),
    /// The queues are full, and no other queue is long enough to give way.
    Full,
}

/// The state of a ticket.
#[derive(Debug, PartialEq, Eq)]
pub enum TicketState<'a, W> {
    /// The ticket waits; `W` wakes its waiter.
    Waiting(&'a mut W),
    /// The ticket was granted a permit.
    Granted,
    /// The ticket gave way to a client with a shorter queue. Reported once.
    Displaced,
}

/// The state in which a ticket was given up.
#[derive(Debug, PartialEq, Eq)]
pub enum Left<W> {
    /// The ticket waited; `W` wakes its waiter.
    Waiting(Option<W>),
    /// The ticket had a permit, which passes on to this waiter.
    Granted(Option<W>),
    /// The ticket had been displaced.
    Displaced,
}

/// A client's turn. Clients that hold half of all permits come after those that hold fewer.
type Turn = (bool, u64);

#[derive(Debug)]
struct Account<W> {
    held: usize,
    waiting: BTreeMap<Ticket, W>,
    turn: Option<Turn>,
}

/// The permits and the queues. A `W` wakes one waiter.
#[derive(Debug)]
pub struct Queues<W> {
    bounds: Bounds,
    in_flight: usize,
    queued: usize,
    next: u64,
    clients: HashMap<Client, Account<W>, BuildClientHasher>,
    turns: BTreeMap<Turn, Client>,
    lengths: BTreeSet<(usize, Client)>,
    displaced: BTreeSet<Ticket>,
}

impl<W> Queues<W> {
    /// Creates the queues without waiters; all permits are free.
    pub fn new(bounds: Bounds) -> Self {
        Queues {
            bounds,
            in_flight: 0,
            queued: 0,
            next: 0,
            clients: HashMap::default(),
            turns: BTreeMap::new(),
            lengths: BTreeSet::new(),
            displaced: BTreeSet::new(),
        }
    }

    /// Returns the number of permits in use.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns the number of waiting requests.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Returns whether a client has used up its own bound.
    pub fn is_at_own_bound(&self, key: Client) -> bool {
        self.clients.get(&key).is_some_and(|client| client.held >= self.bounds.per_client)
    }

    /// Takes a permit if one is free.
    pub fn take(&mut self, key: Client) -> bool {
        // Every client that may have the free permit has taken it (3), so no waiter is overtaken.
        if self.in_flight >= self.bounds.in_flight {
            return false;
        }
        let per_client = self.bounds.per_client;
        let client = self.client(key);
        let free = client.held < per_client;
        if free {
            client.held += 1;
            self.in_flight += 1;
        }
        free
    }

    /// Takes a permit, or queues for one.
    pub fn ask(&mut self, key: Client, waiter: W) -> Ruling<W> {
        if self.take(key) {
            return Ruling::Granted;
        }
        let mut told = None;
        if self.queued >= self.bounds.queued {
            let own = self.clients.get(&key).map_or(0, |client| client.waiting.len());
            match self.lengths.last() {
                Some(&(length, longest)) if length > own + 1 => told = self.displace(longest),
                _ => return Ruling::Full,
            }
        }
        let ticket = Ticket(self.number());
        self.client(key).waiting.insert(ticket, waiter);
        self.queued += 1;
        self.update_length(key, 1);
        self.settle(key);
        Ruling::Waits(ticket, told)
    }

    /// Gives a permit back, and returns the waiter that gets it, to be woken.
    pub fn release(&mut self, key: Client) -> Option<W> {
        let calm = self.turns.is_empty();
        let client = self.client(key);
        client.held -= 1;
        let (held, waits) = (client.held, !client.waiting.is_empty());
        self.in_flight -= 1;
        if calm && !waits {
            // The usual case: no client's turn changes.
            if held == 0 {
                self.clients.remove(&key);
            }
            return None;
        }
        self.settle(key);
        self.grant()
    }

    /// Returns the state of a ticket.
    pub fn ticket_state(&mut self, key: Client, ticket: Ticket) -> TicketState<'_, W> {
        if self.displaced.remove(&ticket) {
            return TicketState::Displaced;
        }
        // A ticket leaves its queue when it is granted, displaced or given up; it is not queried afterwards.
        match self.clients.get_mut(&key).and_then(|client| client.waiting.get_mut(&ticket)) {
            Some(waiter) => TicketState::Waiting(waiter),
            None => TicketState::Granted,
        }
    }

    /// Gives up a ticket.
    pub fn leave(&mut self, key: Client, ticket: Ticket) -> Left<W> {
        match self.ticket_state(key, ticket) {
            TicketState::Displaced => Left::Displaced,
            TicketState::Granted => Left::Granted(self.release(key)),
            TicketState::Waiting(_) => Left::Waiting(self.remove(key, ticket)),
        }
    }

    fn client(&mut self, key: Client) -> &mut Account<W> {
        let new = || Account { held: 0, waiting: BTreeMap::new(), turn: None };
        self.clients.entry(key).or_insert_with(new)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Gives the free permit, if any, to the client whose turn it is. One grant is enough: either no permit was free
    /// before, or only the client that gave one back may take one (3).
    fn grant(&mut self) -> Option<W> {
        if self.in_flight >= self.bounds.in_flight {
            return None;
        }
        let (_, key) = self.turns.pop_first()?;
        let client = self.client(key);
        client.turn = None;
        client.held += 1;
        self.in_flight += 1;
        let &first = self.client(key).waiting.keys().next().expect("a turn has a waiter (2)");
        self.remove(key, first)
    }

    /// Displaces the newest waiter of the longest queue, which has the longest wait ahead.
    fn displace(&mut self, longest: Client) -> Option<W> {
        let &newest = self.client(longest).waiting.keys().next_back()?;
        self.displaced.insert(newest);
        self.remove(longest, newest)
    }

    fn remove(&mut self, key: Client, ticket: Ticket) -> Option<W> {
        let waiter = self.client(key).waiting.remove(&ticket);
        self.queued -= 1;
        self.update_length(key, -1);
        self.settle(key);
        waiter
    }

    /// Updates a queue's length, which has just changed by `by`.
    fn update_length(&mut self, key: Client, by: isize) {
        let length = self.client(key).waiting.len();
        self.lengths.remove(&(length.wrapping_add_signed(-by), key));
        if length > 0 {
            self.lengths.insert((length, key));
        }
    }

    /// Updates a client's turn, and removes a client without permits and waiters (2, 5).
    fn settle(&mut self, key: Client) {
        let (Bounds { in_flight, per_client, .. }, next) = (self.bounds, self.next + 1);
        let client = self.client(key);
        let has_half = client.held * 2 >= in_flight;
        let may = !client.waiting.is_empty() && client.held < per_client;
        let idle = client.waiting.is_empty() && client.held == 0;
        match client.turn {
            None if may => {
                client.turn = Some((has_half, next));
                self.next = next;
                self.turns.insert((has_half, next), key);
            }
            Some(turn) if !may => {
                client.turn = None;
                self.turns.remove(&turn);
            }
            Some(turn) if turn.0 != has_half => {
                client.turn = Some((has_half, turn.1));
                self.turns.remove(&turn);
                self.turns.insert((has_half, turn.1), key);
            }
            _ => {}
        }
        if idle {
            self.clients.remove(&key);
        }
    }
}

#[cfg(test)]
impl<W> Queues<W> {
    /// Returns the number of known clients.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Panics if an invariant of this file is broken.
    pub fn check(&self) {
        let sum = |of: &dyn Fn(&Account<W>) -> usize| self.clients.values().map(of).sum::<usize>();
        assert_eq!(self.in_flight, sum(&|client| client.held));
        assert_eq!(self.queued, sum(&|client| client.waiting.len()));
        assert!(self.in_flight <= self.bounds.in_flight && self.queued <= self.bounds.queued);
        for (key, client) in &self.clients {
            let may = !client.waiting.is_empty() && client.held < self.bounds.per_client;
            assert!(client.held <= self.bounds.per_client);
            assert!(client.held > 0 || !client.waiting.is_empty());
            assert_eq!(client.turn.is_some(), may);
            assert!(client.turn.is_none_or(|turn| self.turns.get(&turn) == Some(key)));
            assert!(client.turn.is_none_or(|turn| turn.0 == (client.held * 2 >= self.bounds.in_flight)));
            let length = client.waiting.len();
            assert_eq!(self.lengths.contains(&(length, *key)), length > 0);
        }
        assert_eq!(self.turns.len(), self.clients.values().filter(|client| client.turn.is_some()).count());
        assert!(self.turns.is_empty() || self.in_flight == self.bounds.in_flight);
    }
}
