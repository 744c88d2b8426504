//! Detects clients that open streams by HTTP/2 only to reset them, which costs them less than it costs here. Hyper
//! bounds those that are reset before they are accepted; here are the others.

use crate::telemetry::{Seldom, counters};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A stream that is reset within this time was reset soon.
const SOON: Duration = Duration::from_secs(1);
/// Streams of a connection that may be reset soon, before their share counts.
const ALLOWED: u64 = 100;

/// The resets on one connection.
pub struct Resets {
    opened: AtomicU64,
    soon: AtomicU64,
    is_flooded: AtomicBool,
    cut: Box<dyn Fn() -> bool + Send + Sync>,
    client: IpAddr,
}

impl Resets {
    /// Counts the resets on a connection; `cut` closes it.
    pub fn new(cut: impl Fn() -> bool + Send + Sync + 'static, client: IpAddr) -> Arc<Self> {
        Arc::new(Resets {
            opened: AtomicU64::new(0),
            soon: AtomicU64::new(0),
            is_flooded: AtomicBool::new(false),
            cut: Box::new(cut),
            client,
        })
    }

    /// Counts a stream.
    pub fn begin(self: &Arc<Self>) -> Stay {
        self.opened.fetch_add(1, Ordering::Relaxed);
        Stay { resets: Arc::clone(self), begun: Instant::now(), is_complete: false }
    }

    fn count(&self) {
        let soon = self.soon.fetch_add(1, Ordering::Relaxed) + 1;
        let is_flood = soon > ALLOWED && soon > self.opened.load(Ordering::Relaxed) / 2;
        if is_flood && !self.is_flooded.swap(true, Ordering::Relaxed) && (self.cut)() {
            tell(self.client, "its client reset most of its streams at once");
        }
    }
}

/// Counts a connection that is closed for a flood, and logs it if no other one was logged within a minute.
pub fn tell(client: IpAddr, why: &str) {
    static FLOODS: Seldom = Seldom::new();
    counters::RESET_FLOODS.increment();
    if FLOODS.is_due() {
        tracing::warn!(%client, why, "closed an HTTP/2 connection");
    }
}

/// One stream, from its begin to the end of its response. If it is dropped before that, its client has reset it.
pub struct Stay {
    resets: Arc<Resets>,
    begun: Instant,
    is_complete: bool,
}

impl Stay {
    /// Notes the end of the response.
    pub fn complete(&mut self) {
        self.is_complete = true;
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        if !self.is_complete && self.begun.elapsed() < SOON {
            self.resets.count();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(streams: impl IntoIterator<Item = bool>) -> bool {
        let is_cut = Arc::new(AtomicBool::new(false));
        let cut = Arc::clone(&is_cut);
        let resets = Resets::new(move || !cut.swap(true, Ordering::Relaxed), "10.0.0.1".parse().unwrap());
        for completes in streams {
            let mut stay = resets.begin();
            if completes {
                stay.complete();
            }
        }
        is_cut.load(Ordering::Relaxed)
    }

    #[test]
    fn a_connection_is_cut_only_if_most_of_many_streams_are_reset_soon() {
        assert!(!counted((0..ALLOWED).map(|_| false)));
        assert!(counted((0..=ALLOWED).map(|_| false)));
        assert!(!counted((0..1_000).map(|at| at % 2 == 0)), "half of them are answered");
        assert!(counted((0..1_000).map(|at| at % 3 == 0)));
    }
}
