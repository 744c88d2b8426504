//! The bytes that messages in transit may take together (`--max-buffered`), and each client's share of them.
//!
//! 1. Bytes of a message exist only as [`Charged`]: slices share one charge, a copy takes another. The few that carry no
//!    charge are small by construction, and counted by [`outside`].
//! 2. A charge belongs to an [`Account`], such as a connection, a session or a child; an account belongs to a client.
//! 3. Bodies wait for room ([`Charge::cover`]), in [turn](turns). Small messages have a reserve above the limit, of which
//!    each account has a small share, so that they pass while large ones wait.
//! 4. While others wait, no client keeps more than half of the limit: the client that holds most gives way first
//!    ([`Budget::fullest`]).

mod account;
mod charged;
mod turns;

#[cfg(test)]
mod tests;

pub use account::Account;
pub(crate) use account::Charge;
pub use charged::{Charged, outside};

use crate::client::Client;
use account::Accounts;
use parking_lot::{Mutex, MutexGuard};
use std::cmp::Reverse;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::Notify;
use turns::{Due, Turns};

/// What keeping a message costs beside its bytes, about: its allocations, and its place in a queue.
pub const OVERHEAD: usize = 256;

/// Room above the limit for small messages, at most.
const RESERVE: usize = 8 * 1024 * 1024;
/// The reserve, in parts of the limit.
const RESERVE_PART: usize = 8;
/// A client's share of the reserve, in parts of it.
const SMALL_PART: usize = 32;
/// That share at least, in bytes, while four of them fit.
const LEAST_SMALL: usize = 64 * 1024;

/// The limit, and what is charged to it. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    used: AtomicUsize,
    /// Entries in `turns`. Each release looks here first, and seldom finds any.
    waiting: AtomicUsize,
    turns: Mutex<Turns>,
    accounts: Mutex<Accounts>,
    awaited: Notify,
    overdrawn: Notify,
    tight: AtomicBool,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Budget(Arc::new(Shared {
            limit,
            used: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            turns: Mutex::default(),
            accounts: Mutex::default(),
            awaited: Notify::new(),
            overdrawn: Notify::new(),
            tight: AtomicBool::new(false),
        }))
    }

    /// A budget for `--max-buffered`: its limit is a little less, since small messages have a reserve above it.
    pub fn within(max_buffered: usize) -> Self {
        Budget::new(max_buffered - max_buffered / (2 * RESERVE_PART))
    }

    /// Opens an account of a client.
    pub fn account(&self, client: Client) -> Account {
        Account::open(self, client)
    }

    /// Bytes charged now; above the limit by the reserve at most, and by copies of messages that are on their way out.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// The limit, in bytes.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Bytes above the limit.
    pub fn excess(&self) -> usize {
        self.used().saturating_sub(self.0.limit)
    }

    /// Whether the reserve is used up too.
    pub fn is_far_exceeded(&self) -> bool {
        self.excess() > self.reserve()
    }

    /// Bytes that are missing: those above the limit, or those for the body that is next in turn.
    pub fn lack(&self) -> usize {
        let needed = if self.is_awaited() { self.turns().needed(self.0.limit) } else { 0 };
        (self.used() + needed).saturating_sub(self.0.limit)
    }

    /// Whether a body waits for room.
    pub fn is_awaited(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) > 0
    }

    /// Resolves when a body waits for room.
    pub async fn awaited(&self) {
        loop {
            let mut awaited = pin!(self.0.awaited.notified());
            // Registered before the look, so that a body that begins to wait in between is not missed.
            awaited.as_mut().enable();
            if self.is_awaited() {
                return;
            }
            awaited.await;
        }
    }

    /// Resolves when room should be made: a charge has exceeded the limit, or a body has begun to wait.
    pub async fn overdrawn(&self) {
        self.0.overdrawn.notified().await;
    }

    /// Asks again for room to be made.
    pub fn remind(&self) {
        self.0.overdrawn.notify_one();
    }

    /// The accounts that are asked to give way, in this order: those of the client that holds most first, and of each
    /// client the one that holds most. Only clients with more than half of the limit give way to another that waits;
    /// where one client is alone, the same between its accounts; where the reserve is used up too, everybody does.
    pub fn fullest(&self) -> Vec<Account> {
        let waiting = self.turns().first_account(self.0.limit);
        let far = self.is_far_exceeded();
        if waiting.is_none() && !far {
            return Vec::new();
        }
        let half = self.0.limit / 2;
        let gives_way = |account: &Account| match &waiting {
            _ if far => account.used() > 0,
            Some(waiting) if account.is_of_same_client(waiting) => {
                account.used() > half && !account.is(waiting)
            }
            _ => account.used() > 0 && account.client_used() > half,
        };
        // Upgraded under the lock, and dropped outside of it: the last handle on an account takes the lock itself.
        let mut open = self.accounts().open();
        open.retain(gives_way);
        open.sort_by_cached_key(|account| Reverse((account.client_used(), account.used())));
        open
    }

    /// Whether memory has been short for a while, so that waiting for room is of no use to those that cannot wait long.
    pub fn is_tight(&self) -> bool {
        self.0.tight.load(Ordering::Relaxed)
    }

    /// A wait for room was in vain.
    pub fn note_tight(&self) {
        self.0.tight.store(true, Ordering::Relaxed);
    }

    fn reserve(&self) -> usize {
        RESERVE.min(self.0.limit / RESERVE_PART)
    }

    /// What a client or an account may hold in small messages, whatever others do.
    fn small(&self) -> usize {
        (self.reserve() / SMALL_PART).max(LEAST_SMALL.min(self.reserve() / 4))
    }

    fn notice_excess(&self, used: usize) {
        if used > self.0.limit {
            self.0.overdrawn.notify_one();
        }
    }

    /// Bytes have been given back.
    fn handle_release(&self, left: usize) {
        if left < self.0.limit / 2 && self.is_tight() {
            self.0.tight.store(false, Ordering::Relaxed);
        }
        if self.0.waiting.load(Ordering::SeqCst) > 0 {
            self.serve();
        }
    }

    /// Grants room to those that wait, as far as there is any.
    fn serve(&self) {
        loop {
            let due = self.turns().next_due(self.0.limit);
            let Some(Due { charge, grant }) = due else { return };
            self.0.waiting.fetch_sub(1, Ordering::SeqCst);
            // Outside of the lock: the bytes of a receiver that is gone are given back at once.
            drop(grant.send(charge));
        }
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.0.turns.lock()
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.0.accounts.lock()
    }
}
