//! Places for connections, and the choice of the connection that gives way at `--max-connections`.
//!
//! Beside `--max-connections` regular places there are [`SPARE`] ones. When all regular places are taken, a new
//! connection gets a spare place, and a regular one once its whole request is read. Probes are answered on spare
//! places. A connection that sends no whole request can therefore neither keep probes out nor take a place from
//! another.
//!
//! Shares are work-conserving: one client address may hold all places. When others wait, the address that holds most
//! gives way first: idle connections before busy ones.

use super::connection::Connection;
use super::connections::{Connections, Table};
use super::socket::Line;
use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::timeout;

/// Number of connections above `--max-connections`.
pub const SPARE: usize = 32;
/// Number of spare places whose connections may wait for a regular one; the rest is for requests that are answered at
/// once.
const WAITING: usize = SPARE / 2;
/// Maximum time that each of them may wait.
const PATIENCE: Duration = Duration::from_secs(2);
/// Interval between searches for a connection that has become idle.
const IDLE_LOOK: Duration = Duration::from_millis(50);
/// Minimum time that a new connection keeps its spare place, since its request follows at once.
const HEAD_ARRIVES: Duration = Duration::from_millis(10);
/// Time without a request after which a connection counts as idle, since its request may be in transit.
const FRESH: Duration = Duration::from_millis(100);

/// The places of one listener.
#[derive(Debug)]
pub struct Places {
    limit: usize,
    connections: Arc<Connections>,
}

impl Places {
    /// Creates `limit` regular places and the spare ones for these connections.
    pub fn new(limit: usize, connections: Arc<Connections>) -> Arc<Self> {
        Arc::new(Places { limit, connections })
    }

    /// Returns the connections that hold the places.
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// Gives a new connection a place: a regular one if one is free, else a spare one, which is taken from another
    /// connection without a request if need be. Waits while each of those may still be about to send its request.
    pub async fn take(&self, client: IpAddr, line: Option<Line>) -> Arc<Connection> {
        while !self.make_room() {
            let _ = timeout(HEAD_ARRIVES, self.connections.freed.notified()).await;
        }
        self.connections.enter(client, line, |table, connection| {
            let is_spare = table.seats.regular >= self.limit;
            table.seats.seat(connection, is_spare);
        })
    }

    /// Closes a connection on a spare place if no place is free; returns false if none may be closed yet.
    fn make_room(&self) -> bool {
        let (silent, slow) = (self.connections.before(HEAD_ARRIVES), self.connections.before(FRESH));
        let mut table = self.connections.table();
        if table.seats.regular < self.limit || table.seats.spare.len() < SPARE {
            return true;
        }
        let victim = spare_victim(&table, silent, slow);
        victim.inspect(|victim| table.cut(victim)).is_some()
    }

    /// Waits while more connections are open than there are places: closed connections need a moment to end.
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
            .filter(|connection| !connection.is_cut() && connection.is_idle(latest))
            .max_by_key(|connection| {
                (connection.share.all(), Reverse(connection.active.load(Ordering::Relaxed)))
            })
            .cloned();
        if let Some(victim) = victim {
            table.cut(&victim);
        }
    }

    /// Exchanges a spare place for a regular one; returns false if none becomes free in time.
    pub async fn settle(&self, connection: &Connection) -> bool {
        if self.promote(connection) {
            return true;
        }
        if !self.queue(connection) {
            return false;
        }
        let promoted = async {
            loop {
                let _ = timeout(IDLE_LOOK, self.connections.freed.notified()).await;
                if self.promote(connection) {
                    break true;
                }
                if !connection.is_waiting() {
                    break false;
                }
            }
        };
        let settled = timeout(PATIENCE, promoted).await.unwrap_or(false);
        connection.waits.store(false, Ordering::Relaxed);
        settled
    }

    /// Queues a connection for a regular place; returns false if the queue is full and no client has two more in it.
    fn queue(&self, connection: &Connection) -> bool {
        let table = self.connections.table();
        let waiting = table.waiting();
        if waiting.len() >= WAITING {
            let of = |share| waiting.iter().filter(|other| Arc::ptr_eq(&other.share, share)).count();
            let own = of(&connection.share);
            let Some(last) = waiting.iter().max_by_key(|other| (of(&other.share), other.number)) else {
                return false;
            };
            if of(&last.share) < own + 2 {
                return false;
            }
            last.waits.store(false, Ordering::Relaxed);
        }
        connection.waits.store(true, Ordering::Relaxed);
        drop(table);
        self.connections.freed.notify_waiters();
        true
    }

    /// Takes a regular place for one more stream of a connection that has others in progress: many streams of one
    /// connection hold as many places as if each had a connection. `None` if no place is free.
    pub fn take_stream(&self, connection: &Arc<Connection>) -> Option<StreamPlace> {
        let latest = self.connections.before(FRESH);
        let mut table = self.connections.table();
        if connection.is_cut() {
            return None;
        }
        if table.seats.regular >= self.limit {
            let victim = victim(&table, connection, self.limit, latest);
            let victim = victim.filter(|victim| victim.number != connection.number)?;
            table.cut(&victim);
        }
        table.seats.seat_stream(connection);
        drop(table);
        Some(StreamPlace { connection: Arc::clone(connection), connections: Arc::clone(&self.connections) })
    }

    fn promote(&self, connection: &Connection) -> bool {
        let latest = self.connections.before(FRESH);
        let mut table = self.connections.table();
        if connection.is_cut() || !connection.is_spare() {
            return !connection.is_cut();
        }
        let held = connection.share.regular();
        if table.waiting().iter().any(|other| other.share.regular() < held) {
            return false;
        }
        if table.seats.regular >= self.limit {
            let Some(victim) = victim(&table, connection, self.limit, latest) else { return false };
            if victim.is_busy() {
                tracing::warn!(client = %victim.share.client, "--max-connections is reached; closed a busy connection of the address that holds the most");
            }
            table.cut(&victim);
        }
        table.seats.spare.retain(|number| *number != connection.number);
        table.seats.seat(connection, false);
        true
    }
}

/// The place of one stream, which is freed on drop.
#[derive(Debug)]
pub struct StreamPlace {
    connection: Arc<Connection>,
    connections: Arc<Connections>,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.connections.table().seats.leave_stream(&self.connection);
        self.connections.freed.notify_waiters();
    }
}

/// Returns the connection that loses its regular place to `newcomer`.
fn victim(table: &Table, newcomer: &Connection, limit: usize, latest: u64) -> Option<Arc<Connection>> {
    let own = newcomer.share.regular();
    let regular = table.open.values().filter(|connection| !connection.is_spare() && !connection.is_cut());
    let ranked = regular.filter_map(|connection| {
        let is_own = Arc::ptr_eq(&connection.share, &newcomer.share);
        let active = connection.active.load(Ordering::Relaxed);
        if connection.is_idle(latest) {
            let may = is_own || own <= limit / 2;
            return may.then(|| ((true, connection.share.regular(), true, u64::MAX - active), connection));
        }
        // Work is interrupted only for a client that holds much less.
        let held = connection.share.regular();
        let may = connection.is_busy() && !is_own && (held > limit.div_ceil(2) || held >= 2 * (own + 1));
        // Streams can be resumed, and the newest request has cost the least.
        may.then(|| ((false, held, connection.is_get.load(Ordering::Relaxed), active), connection))
    });
    ranked.max_by_key(|(rank, _)| *rank).map(|(_, connection)| Arc::clone(connection))
}

/// Returns the connection that loses its spare place, if any may. A connection without a whole request must be open
/// since `silent`; a connection with a request must have sent it before `slow`.
fn spare_victim(table: &Table, silent: u64, slow: u64) -> Option<Arc<Connection>> {
    let spare = table.seats.spare.iter().filter_map(|number| table.open.get(number));
    let spare = spare.filter(|connection| !connection.is_waiting());
    let spare =
        spare.filter(|connection| match (connection.is_busy(), connection.active.load(Ordering::Relaxed)) {
            (true, since) => since <= slow,
            // Bytes that have arrived are read first: they may be the request of a probe.
            (false, since) => since <= silent && !connection.has_unread(),
        });
    let rank = |connection: &&Arc<Connection>| {
        (!connection.is_busy(), connection.share.all(), Reverse(connection.active.load(Ordering::Relaxed)))
    };
    spare.max_by_key(rank).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    /// Opens connections on spare places from these addresses, one after the other.
    fn spare(addresses: &[&str]) -> (Arc<Connections>, Vec<Arc<Connection>>) {
        let connections = Arc::new(Connections::default());
        let enter = |address: &&str| {
            connections
                .enter(address.parse().unwrap(), None, |table, connection| table.seats.seat(connection, true))
        };
        let opened: Vec<_> = addresses.iter().map(enter).collect();
        (1..).zip(&opened).for_each(|(at, connection)| connection.active.store(at, Ordering::Relaxed));
        (connections, opened)
    }

    #[test]
    fn a_client_cannot_take_all_waiting_places() {
        let mut addresses = vec!["10.0.0.1"; WAITING];
        addresses.extend(["10.0.0.2", "10.0.0.1"]);
        let (connections, opened) = spare(&addresses);
        let places = Places::new(0, connections);
        assert!(opened[..WAITING].iter().all(|connection| places.queue(connection)));
        assert!(places.queue(&opened[WAITING]), "another client has none");
        let waiting =
            |opened: &[Arc<Connection>]| opened.iter().filter(|connection| connection.is_waiting()).count();
        assert_eq!(waiting(&opened[..WAITING]), WAITING - 1, "one connection gave way to it");
        assert!(!opened[WAITING - 1].is_waiting(), "the connection with the shortest wait");
        assert!(!places.queue(&opened[WAITING + 1]), "this client has the most");
    }

    #[tokio::test]
    async fn a_place_goes_to_the_client_with_the_fewest() {
        let (connections, opened) = spare(&["10.0.0.1", "10.0.0.1", "10.0.0.2"]);
        let places = Places::new(2, connections);
        assert!(places.settle(&opened[0]).await);
        assert!(places.queue(&opened[1]) && places.queue(&opened[2]));
        assert!(!places.promote(&opened[1]), "another client without a place waits");
        assert!(places.promote(&opened[2]));
    }

    #[test]
    fn each_further_stream_takes_a_place() {
        let connections = Arc::new(Connections::default());
        let enter = |address: &str, is_spare| {
            connections.enter(address.parse().unwrap(), None, |table, connection| {
                table.seats.seat(connection, is_spare);
            })
        };
        let regular = || connections.table().seats.regular;
        let places = Places::new(4, Arc::clone(&connections));
        let many = enter("10.0.0.1", false);
        many.busy.store(1, Ordering::Relaxed);
        let mut streams: Vec<_> = (0..3).map(|_| places.take_stream(&many).expect("a place")).collect();
        assert_eq!(regular(), 4);
        assert!(places.take_stream(&many).is_none(), "all places are its own");
        streams.pop();
        assert_eq!(regular(), 3);
        streams.push(places.take_stream(&many).expect("the freed place"));
        let other = enter("10.0.0.2", true);
        let mut table = connections.table();
        assert_eq!(victim(&table, &other, 4, HOUR).map(|victim| victim.number), Some(many.number));
        table.cut(&many);
        drop(table);
        assert_eq!(regular(), 0, "the places of its streams are free with it");
        drop(streams);
        assert_eq!(regular(), 0);
        assert_eq!(many.share.regular(), 0);
    }

    #[test]
    fn a_new_connection_keeps_its_spare_place() {
        let (connections, opened) = spare(&["10.0.0.1", "10.0.0.2", "10.0.0.2"]);
        let loser = |silent, slow| {
            spare_victim(&connections.table(), silent, slow).map(|connection| connection.number)
        };
        assert_eq!(loser(0, 0), None, "its request may be on its way");
        assert_eq!(loser(HOUR, 0), Some(1), "the oldest of the address with the most");
        opened[1].waits.store(true, Ordering::Relaxed);
        assert_eq!(loser(HOUR, 0), Some(2), "one that waits for a regular place stays");
        opened.iter().for_each(|connection| connection.busy.store(1, Ordering::Relaxed));
        assert_eq!(loser(HOUR, 0), None, "its answer is on its way");
        assert_eq!(loser(HOUR, HOUR), Some(2));
    }
}
