//! Counts the places that connections hold, in total and by client.

use super::connection::Connection;
use super::share::Share;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Counts of taken places.
#[derive(Debug, Default)]
pub(super) struct Seats {
    pub(super) regular: usize,
    /// The numbers of the connections on spare places.
    pub(super) spare: Vec<u64>,
    shares: HashMap<IpAddr, Arc<Share>>,
}

impl Seats {
    /// Returns the share of a client: an IPv4 address, or the /64 network of an IPv6 one.
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
    pub(super) fn leave(&mut self, connection: &Connection) {
        let streams = connection.streams.swap(0, Ordering::Relaxed);
        self.regular = self.regular.saturating_sub(streams);
        connection.share.regular.fetch_sub(streams, Ordering::Relaxed);
        if connection.is_spare() {
            self.spare.retain(|number| *number != connection.number);
        } else {
            self.regular = self.regular.saturating_sub(1);
            connection.share.regular.fetch_sub(1, Ordering::Relaxed);
        }
        if connection.share.all.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.shares.remove(&connection.share.client);
        }
    }

    /// Gives another stream of a connection a place.
    pub(super) fn seat_stream(&mut self, connection: &Connection) {
        connection.streams.fetch_add(1, Ordering::Relaxed);
        self.regular += 1;
        connection.share.regular.fetch_add(1, Ordering::Relaxed);
    }

    /// Frees the place of one such stream, unless they were all freed with their connection.
    pub(super) fn leave_stream(&mut self, connection: &Connection) {
        if connection.streams.load(Ordering::Relaxed) > 0 {
            connection.streams.fetch_sub(1, Ordering::Relaxed);
            self.regular = self.regular.saturating_sub(1);
            connection.share.regular.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Gives a connection a place.
    pub(super) fn seat(&mut self, connection: &Connection, is_spare: bool) {
        connection.is_spare.store(is_spare, Ordering::Relaxed);
        if is_spare {
            self.spare.push(connection.number);
        } else {
            self.regular += 1;
            connection.share.regular.fetch_add(1, Ordering::Relaxed);
        }
    }
}
