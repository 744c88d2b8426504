//! Bounds the bytes of messages in transit (`--max-buffered`), and shares them among clients
//! (`docs/architecture.md#bounds`).
//!
//! 1. Message bytes exist only as [`Charged`]: slices share one charge, a copy takes another. The few bytes without a
//!    charge are small by construction, and counted by [`outside`].
//! 2. A charge belongs to an [`Account`], such as a connection, a session or a child. An account belongs to a client.
//! 3. Bodies wait for room ([`Charge::cover`]), in [turn](turns). Small messages have a reserve above the limit, of
//!    which each account has a small share, so that they pass while large ones wait.
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
use crate::sorted::sorted_by_key;
use account::Accounts;
use parking_lot::{Mutex, MutexGuard};
use std::cmp::Reverse;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::Notify;
use turns::{Due, Turns};

/// The approximate overhead of keeping a message: its allocations, and its entry in a queue.
pub const OVERHEAD: usize = 256;

/// The largest reserve above the limit, in bytes.
const RESERVE: usize = 8 * 1024 * 1024;
/// The reserve is the limit divided by this.
const RESERVE_PART: usize = 8;
/// A client's share is the reserve divided by this.
const SMALL_PART: usize = 32;
/// The smallest share, in bytes, as long as four of them fit.
const LEAST_SMALL: usize = 64 * 1024;

/// Requests that may wait for room without a charge. Each holds a head and the buffers of a connection.
const MOST_PATIENT: usize = 64;

/// The limit, and all charges. Clones share them.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    used: AtomicUsize,
    /// Number of entries in `turns`, checked first by each release. Usually 0.
    waiting: AtomicUsize,
    turns: Mutex<Turns>,
    accounts: Mutex<Accounts>,
    awaited: Notify,
    overdrawn: Notify,
    tight: AtomicBool,
    patient: AtomicUsize,
}

/// A wait for room that is not covered by a charge, counted until it is dropped.
struct Patient<'a>(&'a AtomicUsize);

impl Drop for Patient<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Budget {
    /// Creates a budget of `limit` bytes.
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
            patient: AtomicUsize::new(0),
        }))
    }

    /// Creates a budget for `--max-buffered`. Its limit is a little lower, to leave room for the reserve.
    pub fn within(max_buffered: usize) -> Self {
        Budget::new(max_buffered - max_buffered / (2 * RESERVE_PART))
    }

    /// Opens an account for a client.
    pub fn account(&self, client: Client) -> Account {
        Account::open(self, client)
    }

    /// Returns the bytes charged now. They exceed the limit at most by the reserve and by copies of messages that are
    /// being sent.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Returns the limit, in bytes.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Returns the number of bytes above the limit.
    pub fn excess(&self) -> usize {
        self.used().saturating_sub(self.0.limit)
    }

    /// Returns whether the reserve is used up, too.
    pub fn is_far_exceeded(&self) -> bool {
        self.excess() > self.reserve()
    }

    /// Returns the number of bytes to release: the excess, plus the bytes that the next waiting body needs.
    pub fn lack(&self) -> usize {
        let needed = if self.is_awaited() { self.turns().needed(self.0.limit) } else { 0 };
        (self.used() + needed).saturating_sub(self.0.limit)
    }

    /// Returns whether a body waits for room.
    pub fn is_awaited(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) > 0
    }

    /// Resolves when a body waits for room.
    pub async fn awaited(&self) {
        loop {
            let mut awaited = pin!(self.0.awaited.notified());
            // Registered before the check, so that a body that begins to wait in between is not missed.
            awaited.as_mut().enable();
            if self.is_awaited() {
                return;
            }
            awaited.await;
        }
    }

    /// Resolves when bytes should be released: a charge has exceeded the limit, or a body has begun to wait.
    pub async fn overdrawn(&self) {
        self.0.overdrawn.notified().await;
    }

    /// Repeats the request to release bytes.
    pub fn remind(&self) {
        self.0.overdrawn.notify_one();
    }

    /// Returns the accounts that have to give way, in order: the client that holds most first, and of each client its
    /// largest account. Usually only clients with more than half of the limit give way to a waiting one. If there is
    /// only one client, the same applies among its accounts. If the reserve is used up, every account gives way. An
    /// account that holds little is never asked: that would harm its owner and help no other client.
    pub fn fullest(&self) -> Vec<Account> {
        let waiting = self.turns().first_account(self.0.limit);
        let far = self.is_far_exceeded();
        if waiting.is_none() && !far {
            return Vec::new();
        }
        let (half, little) = (self.0.limit / 2, self.small());
        let gives_way = |account: &Account| match &waiting {
            _ if account.used() <= little => false,
            _ if far => true,
            Some(waiting) if account.is_of_same_client(waiting) => {
                account.used() > half && !account.is(waiting)
            }
            _ => account.client_used() > half,
        };
        // Upgraded under the lock, but dropped after its release: dropping the last handle of an account takes the
        // lock.
        let mut open = self.accounts().open();
        open.retain(gives_way);
        sorted_by_key(open, |account| Reverse((account.client_used(), account.used())))
    }

    /// Returns whether memory has been short for a while, so that short waits for room are pointless.
    pub fn is_tight(&self) -> bool {
        self.0.tight.load(Ordering::Relaxed)
    }

    /// Records that a wait for room was in vain.
    pub fn note_tight(&self) {
        self.0.tight.store(true, Ordering::Relaxed);
    }

    /// Registers one more wait that is not covered by a charge; `None` if [`MOST_PATIENT`] are registered.
    fn be_patient(&self) -> Option<Patient<'_>> {
        let patient = Patient(&self.0.patient);
        (self.0.patient.fetch_add(1, Ordering::Relaxed) < MOST_PATIENT).then_some(patient)
    }

    fn reserve(&self) -> usize {
        RESERVE.min(self.0.limit / RESERVE_PART)
    }

    /// Returns the share of the reserve that each client or account may always use for small messages.
    fn small(&self) -> usize {
        (self.reserve() / SMALL_PART).max(LEAST_SMALL.min(self.reserve() / 4))
    }

    fn notice_excess(&self, used: usize) {
        if used > self.0.limit {
            self.0.overdrawn.notify_one();
        }
    }

    /// Reacts to released bytes.
    fn handle_release(&self, left: usize) {
        if left < self.0.limit / 2 && self.is_tight() {
            self.0.tight.store(false, Ordering::Relaxed);
        }
        if self.0.waiting.load(Ordering::SeqCst) > 0 {
            self.serve();
        }
    }

    /// Grants room to waiting bodies, as far as there is any.
    fn serve(&self) {
        loop {
            let due = self.turns().next_due(self.0.limit);
            let Some(Due { charge, grant }) = due else { return };
            self.0.waiting.fetch_sub(1, Ordering::SeqCst);
            // Sent after the lock is released: if the receiver is gone, the bytes are given back at once.
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
