//! Places for connections, and which connection gives way at `--max-connections`.
//!
//! Beside `--max-connections` regular places there are [`SPARE`] ones. When all regular places are taken, a new
//! connection gets a spare place, and a regular one once its whole request is read. Probes are answered on spare
//! places. A connection that sends no whole request can therefore neither keep probes out nor take a place from
//! another.
//!
//! Shares are work-conserving: one client address may hold all places. When others wait, the address that holds most
//! gives way first: idle connections before busy ones.

use super::connections::{Connections, Pulse, Table};
use super::socket::Line;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::timeout;

/// Connections above `--max-connections`.
pub const SPARE: usize = 32;
/// Spare places whose connections may wait for a regular one; the rest is for requests that are answered at once.
const WAITING: usize = SPARE / 2;
/// How long each of them may wait.
const PATIENCE: Duration = Duration::from_secs(2);
/// Interval between searches for a connection that has become idle.
const IDLE_LOOK: Duration = Duration::from_millis(50);
/// How long a new connection keeps its spare place at least: its request follows it at once.
const HEAD_ARRIVES: Duration = Duration::from_millis(10);
/// A connection counts as idle after this time without a request: its request may be in transit.
const FRESH: Duration = Duration::from_millis(100);

/// All places of one listener.
#[derive(Debug)]
pub struct Places {
    limit: usize,
    connections: Arc<Connections>,
}

/// Counts of taken places.
#[derive(Debug, Default)]
pub(super) struct Seats {
    regular: usize,
    /// The numbers of the connections on spare places.
    spare: Vec<u64>,
    shares: HashMap<IpAddr, Arc<Share>>,
}

/// The places that one client address holds.
#[derive(Debug)]
pub(super) struct Share {
    client: IpAddr,
    regular: AtomicUsize,
    all: AtomicUsize,
}

impl Default for Share {
    fn default() -> Self {
        Share { client: Ipv6Addr::UNSPECIFIED.into(), regular: AtomicUsize::new(0), all: AtomicUsize::new(0) }
    }
}

impl Share {
    /// The number of its connections.
    pub(super) fn all(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }

    fn regular(&self) -> usize {
        self.regular.load(Ordering::Relaxed)
    }
}

impl Seats {
    /// The share of a client: an IPv4 address, or the /64 network of an IPv6 one.
    pub(super) fn share(&mut self, client: IpAddr) -> Arc<Share> {
        let client = match client.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
            v4 => v4,
        };
        let share =
            self.shares.entry(client).or_insert_with(|| Arc::new(Share { client, ..Share::default() }));
        share.all.fetch_add(1, Ordering::Relaxed);
        Arc::clone(share)
    }

    /// Frees the place of a connection.
    pub(super) fn leave(&mut self, pulse: &Pulse) {
        if pulse.is_spare() {
            self.spare.retain(|number| *number != pulse.number);
        } else {
            self.regular = self.regular.saturating_sub(1);
            pulse.share.regular.fetch_sub(1, Ordering::Relaxed);
        }
        if pulse.share.all.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.shares.remove(&pulse.share.client);
        }
    }

    fn seat(&mut self, pulse: &Pulse, is_spare: bool) {
        pulse.is_spare.store(is_spare, Ordering::Relaxed);
        if is_spare {
            self.spare.push(pulse.number);
        } else {
            self.regular += 1;
            pulse.share.regular.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Places {
    /// `limit` regular places and the spare ones, for these connections.
    pub fn new(limit: usize, connections: Arc<Connections>) -> Arc<Self> {
        Arc::new(Places { limit, connections })
    }

    /// Gives a new connection a place: a regular one if one is free, else a spare one, which another connection without
    /// a request loses if need be. Waits while each of those may still be about to send its request.
    pub async fn take(&self, client: IpAddr, line: Option<Line>) -> Arc<Pulse> {
        while !self.makes_room() {
            let _ = timeout(HEAD_ARRIVES, self.connections.freed.notified()).await;
        }
        self.connections.enter(client, line, |table, pulse| {
            let is_spare = table.seats.regular >= self.limit;
            table.seats.seat(pulse, is_spare);
        })
    }

    /// Closes a connection on a spare place if no place is free; false if none may be closed yet.
    fn makes_room(&self) -> bool {
        let (silent, slow) = (self.connections.before(HEAD_ARRIVES), self.connections.before(FRESH));
        let mut table = self.connections.table();
        if table.seats.regular < self.limit || table.seats.spare.len() < SPARE {
            return true;
        }
        let victim = spare_victim(&table, silent, slow);
        victim.inspect(|victim| table.cut(victim)).is_some()
    }

    /// Waits while more connections are open than there are places: closed ones need a moment to end.
    pub async fn bounded(&self) {
        while self.connections.count() >= self.limit.saturating_add(2 * SPARE) {
            let _ = timeout(IDLE_LOOK, self.connections.freed.notified()).await;
        }
    }

    /// Closes one idle connection, if any, so that its file can be used.
    pub fn free_file(&self) {
        let mut table = self.connections.table();
        let latest = self.connections.before(FRESH);
        let victim = (table.open.values())
            .filter(|pulse| !pulse.is_cut() && pulse.is_idle(latest))
            .max_by_key(|pulse| (pulse.share.all(), Reverse(pulse.active.load(Ordering::Relaxed))))
            .cloned();
        if let Some(victim) = victim {
            table.cut(&victim);
        }
    }

    /// Exchanges a spare place for a regular one; false when none becomes free in time.
    pub async fn settle(&self, pulse: &Pulse) -> bool {
        if self.promote(pulse) {
            return true;
        }
        if !self.queue(pulse) {
            return false;
        }
        let promoted = async {
            loop {
                let _ = timeout(IDLE_LOOK, self.connections.freed.notified()).await;
                if self.promote(pulse) {
                    break true;
                }
                if !pulse.waits() {
                    break false;
                }
            }
        };
        let settled = timeout(PATIENCE, promoted).await.unwrap_or(false);
        pulse.waits.store(false, Ordering::Relaxed);
        settled
    }

    /// Has a connection wait for a regular place; false when enough others wait, and no client has two more of them.
    fn queue(&self, pulse: &Pulse) -> bool {
        let table = self.connections.table();
        let waiting = table.waiting();
        if waiting.len() >= WAITING {
            let of = |share| waiting.iter().filter(|other| Arc::ptr_eq(&other.share, share)).count();
            let own = of(&pulse.share);
            let Some(last) = waiting.iter().max_by_key(|other| (of(&other.share), other.number)) else {
                return false;
            };
            if of(&last.share) < own + 2 {
                return false;
            }
            last.waits.store(false, Ordering::Relaxed);
        }
        pulse.waits.store(true, Ordering::Relaxed);
        drop(table);
        self.connections.freed.notify_waiters();
        true
    }

    fn promote(&self, pulse: &Pulse) -> bool {
        let latest = self.connections.before(FRESH);
        let mut table = self.connections.table();
        if pulse.is_cut() || !pulse.is_spare() {
            return !pulse.is_cut();
        }
        let held = pulse.share.regular();
        if table.waiting().iter().any(|other| other.share.regular() < held) {
            return false;
        }
        if table.seats.regular >= self.limit {
            let Some(victim) = victim(&table, pulse, self.limit, latest) else { return false };
            if victim.is_busy() {
                tracing::warn!(client = %victim.share.client, "closed a busy connection of the client address that holds most of --max-connections");
            }
            table.cut(&victim);
        }
        table.seats.spare.retain(|number| *number != pulse.number);
        table.seats.seat(pulse, false);
        true
    }
}

impl Table {
    /// The connections that wait for a regular place.
    fn waiting(&self) -> Vec<&Arc<Pulse>> {
        let spare = self.seats.spare.iter().filter_map(|number| self.open.get(number));
        spare.filter(|pulse| pulse.waits()).collect()
    }
}

impl Pulse {
    fn waits(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// Whether it has a spare place, which is for one answer only.
    pub fn is_spare(&self) -> bool {
        self.is_spare.load(Ordering::Relaxed)
    }

    fn is_idle(&self, latest: u64) -> bool {
        !self.is_busy() && self.active.load(Ordering::Relaxed) <= latest
    }
}

/// The connection whose regular place goes to `newcomer`.
fn victim(table: &Table, newcomer: &Pulse, limit: usize, latest: u64) -> Option<Arc<Pulse>> {
    let own = newcomer.share.regular();
    let regular = table.open.values().filter(|pulse| !pulse.is_spare() && !pulse.is_cut());
    let ranked = regular.filter_map(|pulse| {
        let is_own = Arc::ptr_eq(&pulse.share, &newcomer.share);
        let active = pulse.active.load(Ordering::Relaxed);
        if pulse.is_idle(latest) {
            let may = is_own || own <= limit / 2;
            return may.then(|| ((true, pulse.share.regular(), true, u64::MAX - active), pulse));
        }
        // Work is interrupted only for a client that holds much less.
        let held = pulse.share.regular();
        let may = pulse.is_busy() && !is_own && (held > limit.div_ceil(2) || held >= 2 * (own + 1));
        // Streams can be resumed, and the newest request has cost the least.
        may.then(|| ((false, held, pulse.is_get.load(Ordering::Relaxed), active), pulse))
    });
    ranked.max_by_key(|(rank, _)| *rank).map(|(_, pulse)| Arc::clone(pulse))
}

/// The connection that loses its spare place, if any may. One without a whole request must be open since `silent`; one
/// with a request must have sent it before `slow`.
fn spare_victim(table: &Table, silent: u64, slow: u64) -> Option<Arc<Pulse>> {
    let spare = table.seats.spare.iter().filter_map(|number| table.open.get(number));
    let spare = spare.filter(|pulse| !pulse.waits());
    let spare = spare.filter(|pulse| match (pulse.is_busy(), pulse.active.load(Ordering::Relaxed)) {
        (true, since) => since <= slow,
        // What has arrived is read first: it may be the request of a probe.
        (false, since) => since <= silent && !pulse.has_unread(),
    });
    let rank = |pulse: &&Arc<Pulse>| {
        (!pulse.is_busy(), pulse.share.all(), Reverse(pulse.active.load(Ordering::Relaxed)))
    };
    spare.max_by_key(rank).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    /// Connections on spare places from these addresses, one after the other.
    fn spare(addresses: &[&str]) -> (Arc<Connections>, Vec<Arc<Pulse>>) {
        let connections = Arc::new(Connections::default());
        let enter = |address: &&str| {
            connections.enter(address.parse().unwrap(), None, |table, pulse| table.seats.seat(pulse, true))
        };
        let pulses: Vec<_> = addresses.iter().map(enter).collect();
        (1..).zip(&pulses).for_each(|(at, pulse)| pulse.active.store(at, Ordering::Relaxed));
        (connections, pulses)
    }

    #[test]
    fn a_client_cannot_take_all_places_in_which_requests_wait() {
        let mut addresses = vec!["10.0.0.1"; WAITING];
        addresses.extend(["10.0.0.2", "10.0.0.1"]);
        let (connections, pulses) = spare(&addresses);
        let places = Places::new(0, connections);
        assert!(pulses[..WAITING].iter().all(|pulse| places.queue(pulse)));
        assert!(places.queue(&pulses[WAITING]), "another client has none");
        let waiting = |pulses: &[Arc<Pulse>]| pulses.iter().filter(|pulse| pulse.waits()).count();
        assert_eq!(waiting(&pulses[..WAITING]), WAITING - 1, "one gave way to it");
        assert!(!pulses[WAITING - 1].waits(), "the one that had waited the shortest");
        assert!(!places.queue(&pulses[WAITING + 1]), "this client has most");
    }

    #[tokio::test]
    async fn a_place_goes_to_the_client_that_has_fewest() {
        let (connections, pulses) = spare(&["10.0.0.1", "10.0.0.1", "10.0.0.2"]);
        let places = Places::new(2, connections);
        assert!(places.settle(&pulses[0]).await);
        assert!(places.queue(&pulses[1]) && places.queue(&pulses[2]));
        assert!(!places.promote(&pulses[1]), "another waits that has none");
        assert!(places.promote(&pulses[2]));
    }

    #[test]
    fn a_connection_that_has_just_come_keeps_its_spare_place() {
        let (connections, pulses) = spare(&["10.0.0.1", "10.0.0.2", "10.0.0.2"]);
        let loser = |silent, slow| spare_victim(&connections.table(), silent, slow).map(|pulse| pulse.number);
        assert_eq!(loser(0, 0), None, "its request may be on its way");
        assert_eq!(loser(HOUR, 0), Some(1), "the oldest of the address that has most");
        pulses[1].waits.store(true, Ordering::Relaxed);
        assert_eq!(loser(HOUR, 0), Some(2), "one that waits for a regular place stays");
        pulses.iter().for_each(|pulse| pulse.busy.store(1, Ordering::Relaxed));
        assert_eq!(loser(HOUR, 0), None, "its answer is on its way");
        assert_eq!(loser(HOUR, HOUR), Some(2));
    }
}
