//! Marks connections that have a request in progress, from its head to the end of its response.

use super::connection::Connection;
use super::connections::Connections;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Marks a connection as busy.
#[derive(Clone, Debug)]
pub struct Marker(Arc<Connection>, Arc<Connections>);

impl Marker {
    /// Returns a marker for a connection.
    pub fn new(connection: Arc<Connection>, connections: Arc<Connections>) -> Self {
        Marker(connection, connections)
    }

    /// Marks the connection as busy until the mark is dropped.
    pub fn mark(&self, is_get: bool, has_body: bool) -> Mark {
        let Marker(connection, connections) = self;
        connection.busy.fetch_add(1, Ordering::Relaxed);
        connection.has_asked.store(true, Ordering::Relaxed);
        connection.is_get.store(is_get, Ordering::Relaxed);
        if !connection.is_multiplexed.load(Ordering::Relaxed) {
            connection.has_body.store(has_body, Ordering::Relaxed);
            connections.forget_head(connection);
        }
        connection.active.store(connections.now(), Ordering::Relaxed);
        Mark(self.clone())
    }
}

/// One request on a connection.
#[derive(Debug)]
pub struct Mark(Marker);

impl Drop for Mark {
    fn drop(&mut self) {
        let Marker(connection, connections) = &self.0;
        if !connection.leaves_body.load(Ordering::Relaxed) {
            connection.has_body.store(false, Ordering::Relaxed);
        }
        let now = connections.now();
        connection.active.store(now, Ordering::Relaxed);
        // Bytes that the peer sent meanwhile waited for this answer, so their time begins now.
        connection.unasked_since.store(now, Ordering::Relaxed);
        connection.busy.fetch_sub(1, Ordering::Relaxed);
        connections.freed.notify_waiters();
    }
}
