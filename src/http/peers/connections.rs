//! The open connections: their peers' progress in reading, their requests in progress, and the buffered bytes of
//! unfinished heads. [`places`](super::places) decides which connection gives way at `--max-connections`.

use super::connection::Connection;
use super::seats::Seats;
use super::socket::Line;
use crate::sorted::sorted_by_key;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Maximum number of bytes of unfinished heads over all connections.
const HEADS: usize = 4 * 1024 * 1024;
/// Bytes of one unfinished head that are not counted: a page of the buffer that each connection has anyway.
const FREE_HEAD: usize = 2 * 1024;
/// Bytes that are counted in addition for a longer head: the measured cost of reading it.
const READING: usize = 12 * 1024;

/// The open connections.
#[derive(Debug)]
pub struct Connections {
    since: Instant,
    numbered: AtomicU64,
    table: Mutex<Table>,
    /// Bytes of unfinished heads.
    heads: AtomicUsize,
    /// Notified when a connection closes or finishes a request.
    pub(super) freed: Notify,
}

/// The open connections and their seats.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) open: HashMap<u64, Arc<Connection>>,
    pub(super) seats: Seats,
}

impl Default for Connections {
    fn default() -> Self {
        Connections {
            since: Instant::now(),
            numbered: AtomicU64::new(0),
            table: Mutex::default(),
            heads: AtomicUsize::new(0),
            freed: Notify::new(),
        }
    }
}

impl Connections {
    /// Adds a connection of this client; `seat` gives it its place. The line shows the peer's progress in reading;
    /// without a line, written bytes count as read.
    pub(super) fn enter(
        &self,
        client: std::net::IpAddr,
        line: Option<Line>,
        seat: impl FnOnce(&mut Table, &Connection),
    ) -> Arc<Connection> {
        let number = self.numbered.fetch_add(1, Ordering::Relaxed);
        let mut table = self.table();
        let share = table.seats.share(client);
        let connection = Arc::new(Connection::new(number, line, share));
        connection.active.store(self.now(), Ordering::Relaxed);
        seat(&mut table, &connection);
        table.open.insert(number, Arc::clone(&connection));
        connection
    }

    /// Closes connections whose peer has read nothing for `patience`; returns their number.
    pub fn cut_stalled(&self, patience: Duration) -> usize {
        let latest = self.before(patience);
        let mut table = self.table();
        let is_stalled =
            |connection: &Connection| (1..=latest).contains(&connection.stalled.load(Ordering::Relaxed));
        let stalled: Vec<_> =
            table.open.values().filter(|connection| is_stalled(connection)).cloned().collect();
        stalled.iter().for_each(|connection| table.cut(connection));
        stalled.len()
    }

    /// Closes connections whose request head began and did not end within `patience`; returns their number.
    pub fn cut_slow_heads(&self, patience: Duration) -> usize {
        let latest = self.before(patience);
        let mut table = self.table();
        let is_slow = |connection: &Connection| {
            let began = connection.unasked.load(Ordering::Relaxed) > 0
                && !connection.is_busy()
                && !connection.is_cut();
            began && connection.unasked_since.load(Ordering::Relaxed) <= latest
        };
        let slow: Vec<_> = table.open.values().filter(|connection| is_slow(connection)).cloned().collect();
        slow.iter().for_each(|connection| table.cut(connection));
        slow.len()
    }

    /// Closes connections without a request for `patience`. One that has begun a request has the time of a slow head.
    pub fn cut_idle(&self, patience: Duration) {
        let latest = self.before(patience);
        let mut table = self.table();
        let is_idle = |connection: &Connection| {
            connection.is_idle(latest) && connection.has_nothing_in_progress() && !connection.is_cut()
        };
        let idle: Vec<_> = table.open.values().filter(|connection| is_idle(connection)).cloned().collect();
        idle.iter().for_each(|connection| table.cut(connection));
    }

    /// Makes connections that were idle for `patience` drop their buffers.
    pub fn shrink_idle(&self, patience: Duration) {
        let latest = self.before(patience);
        for connection in self.table().open.values() {
            if connection.may_rest.load(Ordering::Relaxed)
                && connection.active.load(Ordering::Relaxed) <= latest
                && connection.has_nothing_in_progress()
            {
                connection.rests.store(true, Ordering::Release);
                connection.task.wake();
            }
        }
    }

    /// Measures how far each peer lags behind. The difference between two measurements is the number of bytes read.
    pub fn measure(&self) {
        let now = self.now();
        self.table().open.values().for_each(|connection| {
            connection.behind(now);
        });
    }

    /// Closes the connection that lags farthest behind and has a write that waits; returns false if none lags by
    /// `patience`.
    pub fn cut_slowest(&self, patience: Duration) -> bool {
        let now = self.now();
        let mut table = self.table();
        let stalled = table
            .open
            .values()
            .filter(|connection| connection.stalled.load(Ordering::Relaxed) > 0 && !connection.is_cut());
        let slowest =
            stalled.map(|connection| (connection.behind(now), connection)).max_by_key(|(behind, _)| *behind);
        let slowest =
            slowest.filter(|(behind, _)| *behind >= patience).map(|(_, connection)| Arc::clone(connection));
        slowest.inspect(|connection| table.cut(connection)).is_some()
    }

    /// Returns the number of open connections.
    pub fn count(&self) -> usize {
        self.table().open.len()
    }

    /// Counts bytes of an unfinished head; closes connections when all heads together exceed their bound.
    pub(super) fn count_head(&self, connection: &Connection, bytes: usize) {
        let before = connection.unasked.fetch_add(bytes, Ordering::Relaxed);
        if before == 0 {
            connection.unasked_since.store(self.now(), Ordering::Relaxed);
        }
        let unasked = before + bytes;
        let mut counted = unasked.saturating_sub(FREE_HEAD).min(bytes);
        if counted == 0 {
            return;
        }
        if before <= FREE_HEAD {
            counted += READING;
        }
        connection.head.fetch_add(counted, Ordering::Relaxed);
        if self.heads.fetch_add(counted, Ordering::Relaxed) + counted > HEADS {
            self.cut_heads();
        }
    }

    /// Closes the connections with the longest unfinished heads of the clients with the most connections, until a
    /// quarter of the bound is free.
    fn cut_heads(&self) {
        let mut table = self.table();
        let heads: Vec<_> = (table.open.values())
            .filter(|connection| connection.head.load(Ordering::Relaxed) > 0 && !connection.is_cut())
            .map(|connection| {
                ((connection.share.all(), connection.head.load(Ordering::Relaxed)), Arc::clone(connection))
            })
            .collect();
        let mut cut = 0;
        for (_, connection) in sorted_by_key(heads, |(rank, _)| std::cmp::Reverse(*rank)) {
            if self.heads.load(Ordering::Relaxed) <= HEADS / 4 * 3 {
                break;
            }
            self.forget_head(&connection);
            table.cut(&connection);
            cut += 1;
        }
        if cut > 0 {
            tracing::warn!(
                connections = cut,
                "closed connections: unfinished request heads exceed {HEADS} bytes"
            );
        }
    }

    pub(super) fn forget_head(&self, connection: &Connection) {
        connection.unasked.store(0, Ordering::Relaxed);
        self.heads.fetch_sub(connection.head.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    pub(super) fn before(&self, ago: Duration) -> u64 {
        self.now().saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }
}

impl Table {
    /// Closes a connection, and frees its place at once.
    pub(super) fn cut(&mut self, connection: &Connection) {
        if !connection.cut.swap(true, Ordering::AcqRel) {
            self.seats.leave(connection);
        }
        connection.closing.wake();
        connection.task.wake();
    }

    /// Returns the connections that wait for a regular place.
    pub(super) fn waiting(&self) -> Vec<&Arc<Connection>> {
        let spare = self.seats.spare.iter().filter_map(|number| self.open.get(number));
        spare.filter(|connection| connection.is_waiting()).collect()
    }
}
