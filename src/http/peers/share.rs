//! The share of all places that one client address holds.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The places that one client address holds.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) client: IpAddr,
    pub(super) regular: AtomicUsize,
    pub(super) all: AtomicUsize,
}

impl Default for Share {
    fn default() -> Self {
        Share { client: Ipv6Addr::UNSPECIFIED.into(), regular: AtomicUsize::new(0), all: AtomicUsize::new(0) }
    }
}

impl Share {
    /// Returns the number of its connections.
    pub(super) fn all(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }

    /// Returns the number of its regular places.
    pub(super) fn regular(&self) -> usize {
        self.regular.load(Ordering::Relaxed)
    }
}
