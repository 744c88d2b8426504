//! Memory relief: the order in which bytes are released when messages take all of `--max-buffered`
//! (docs/architecture.md#bounds).

use super::Server;
use crate::budget::Account;
use crate::telemetry::counters;
use std::time::Duration;

/// Minimum lag of a client that is disconnected for memory.
const READER_PATIENCE: Duration = Duration::from_secs(2);

impl Server {
    /// Frees memory when messages exceed `--max-buffered`, or a body waits for room. The order: replay buffers and
    /// cached lists; then data kept for disconnected clients, the oldest first and only as much as needed; then data
    /// of the client that holds most; last, and only for an excess, the slowest reader. Returns false when bytes are
    /// about to be released, so that the caller should look again soon.
    pub fn relieve(&self) -> bool {
        if self.make_room() {
            return true;
        }
        if self.evict_fullest() {
            return false;
        }
        self.budget.excess() == 0 || !self.cut_slowest()
    }

    /// Measures the readers again, and wakes [`relieve`](Self::relieve) while room is needed. With `waited_before`, a
    /// body has waited since the last call, and the slowest reader is disconnected for it. Returns whether a body
    /// waits.
    pub fn relieve_bodies(&self, waited_before: bool) -> bool {
        self.connections.measure();
        if self.budget.excess() > 0 || self.budget.is_awaited() {
            self.budget.remind();
        }
        if !self.budget.is_awaited() {
            return false;
        }
        if !self.make_room() && waited_before {
            self.cut_slowest();
        }
        true
    }

    /// Drops data that no client reads now; returns whether that is enough.
    fn make_room(&self) -> bool {
        let is_enough = || self.budget.lack() == 0;
        if is_enough() {
            return true;
        }
        self.upstream.forget_lists();
        for session in self.directory.all() {
            session.forget_delivered();
        }
        self.directory.forget_owed(is_enough);
        is_enough()
    }

    fn evict_fullest(&self) -> bool {
        let gives_way = |account: &Account| account.give_way() || self.upstream.give_way(account);
        let Some(fullest) = self.budget.fullest().into_iter().find(gives_way) else { return false };
        counters::GAVE_WAY.increment();
        tracing::warn!(
            bytes = fullest.used(),
            client_bytes = fullest.client_used(),
            "--max-buffered is used up; dropping data of the client that holds the most"
        );
        true
    }

    fn cut_slowest(&self) -> bool {
        // A client that pauses briefly has not stalled, but memory is finite.
        let patience = if self.budget.is_far_exceeded() { Duration::ZERO } else { READER_PATIENCE };
        let cut = self.connections.cut_slowest(patience);
        if cut {
            counters::CUT_STREAMS.increment();
            tracing::warn!("--max-buffered is used up; closing the slowest reader's stream");
        }
        cut
    }
}
