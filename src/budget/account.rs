//! Accounts and charges: the bytes of each account, and how accounts give way.

use super::Budget;
use crate::client::Client;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::time::timeout;

/// Messages up to this size in bytes are small, however many bytes their client holds.
const LEAST_LARGE: usize = 4 * 1024;

/// Makes an account's owner release bytes; false if it has none to release.
type GiveWay = Box<dyn Fn() -> bool + Send + Sync>;

/// An account that bytes are charged to: a connection, a session, a child. Clones are the same account.
#[derive(Clone, Debug)]
pub struct Account(Arc<Inner>);

struct Inner {
    number: u64,
    budget: Budget,
    total: Arc<Total>,
    used: AtomicUsize,
    gives_way: OnceLock<GiveWay>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("number", &self.number).field("used", &self.used).finish()
    }
}

/// The bytes in all accounts of one client.
#[derive(Debug)]
struct Total {
    client: Client,
    used: AtomicUsize,
    /// The bytes of its largest message; 0 after that has been released.
    largest: AtomicUsize,
}

/// All open accounts by number, and the totals of their clients.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    open: HashMap<u64, Weak<Inner>>,
    totals: HashMap<Client, Weak<Total>>,
}

impl Accounts {
    /// Returns all open accounts.
    pub fn open(&self) -> Vec<Account> {
        self.open.values().filter_map(Weak::upgrade).map(Account).collect()
    }
}

impl Account {
    pub(super) fn open(budget: &Budget, client: Client) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut accounts = budget.accounts();
        let known = accounts.totals.get(&client).and_then(Weak::upgrade);
        let total = known.unwrap_or_else(|| {
            let new = Arc::new(Total { client, used: AtomicUsize::new(0), largest: AtomicUsize::new(0) });
            accounts.totals.insert(client, Arc::downgrade(&new));
            new
        });
        let inner = Inner {
            number,
            budget: budget.clone(),
            total,
            used: AtomicUsize::new(0),
            gives_way: OnceLock::new(),
        };
        let account = Account(Arc::new(inner));
        accounts.open.insert(number, Arc::downgrade(&account.0));
        account
    }

    /// Opens another account in the same budget, for this client or another.
    pub fn sibling(&self, client: Client) -> Account {
        Account::open(&self.0.budget, client)
    }

    /// Returns the account's budget.
    pub fn budget(&self) -> &Budget {
        &self.0.budget
    }

    /// Returns the bytes charged to it.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Returns the bytes charged to all accounts of its client.
    pub fn client_used(&self) -> usize {
        self.0.total.used.load(Ordering::Relaxed)
    }

    /// Returns whether both are the same account.
    pub fn is(&self, other: &Account) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns whether both belong to the same client.
    pub fn is_of_same_client(&self, other: &Account) -> bool {
        Arc::ptr_eq(&self.0.total, &other.0.total)
    }

    /// Returns the account's client.
    pub fn client(&self) -> Client {
        self.0.total.client
    }

    /// Sets, once, the function that releases bytes. It returns false if there are none to release.
    pub fn on_give_way(&self, give_way: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.0.gives_way.set(Box::new(give_way));
    }

    /// Releases bytes; false if there are none, or no function was set.
    pub fn give_way(&self) -> bool {
        self.0.gives_way.get().is_some_and(|give_way| give_way())
    }

    /// Returns an empty charge.
    pub fn charge(&self) -> Charge {
        Charge { account: self.clone(), bytes: 0 }
    }

    /// Returns a charge of `bytes`, if there is room for them now.
    pub fn try_charge(&self, bytes: usize) -> Option<Charge> {
        let mut charge = self.charge();
        charge.try_add(bytes).then_some(charge)
    }

    /// Returns a charge of `bytes`, the rest of a message of which the account holds a `part`, if there is room.
    pub(super) fn try_charge_rest(&self, part: usize, bytes: usize) -> Option<Charge> {
        let mut charge = self.charge();
        charge.try_add_up_to(bytes, self.most(part, bytes)).then_some(charge)
    }

    /// Returns a charge of `bytes`: at once if there is room, or after a wait of at most `patience` if the client
    /// holds little and few others wait like this, since a waiting request is not charged. `None` if there is no
    /// room.
    pub async fn charge_soon(&self, bytes: usize, patience: Duration) -> Option<Charge> {
        match self.try_charge(bytes) {
            Some(charge) => Some(charge),
            None if self.is_little(bytes) => self.wait_for(bytes, patience).await,
            None => None,
        }
    }

    /// Waits for room, unless too many others wait without a charge.
    async fn wait_for(&self, bytes: usize, patience: Duration) -> Option<Charge> {
        let _patient = self.0.budget.be_patient()?;
        let mut charge = self.charge();
        Box::pin(timeout(patience, charge.cover(bytes))).await.ok().map(|()| charge)
    }

    /// Returns whether there is room for `bytes` more.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.0.budget.used().saturating_add(bytes) <= self.most(0, bytes)
    }

    /// Returns whether `bytes` that are charged to another account may be moved to this one.
    pub fn may_take_over(&self, bytes: usize) -> bool {
        self.0.budget.used() <= self.most(0, bytes)
    }

    /// Returns the maximum use of the budget at which the account may still take `bytes`, in addition to the part of
    /// the same message that it holds. The reserve is for small messages, half of it only for clients that hold
    /// little, and for a single message that is too large ever to fit below the limit.
    fn most(&self, part: usize, bytes: usize) -> usize {
        let budget = &self.0.budget;
        let besides = self.client_used().saturating_sub(part);
        let alone = part.saturating_add(bytes) > budget.0.limit / 2 && besides <= budget.reserve();
        let reserve = if self.is_little(bytes) || alone {
            budget.reserve()
        } else if self.is_small(bytes) {
            budget.reserve() / 2
        } else {
            0
        };
        budget.0.limit + reserve
    }

    /// Returns whether the account is within its share of the reserve, with `bytes` more.
    fn is_small(&self, bytes: usize) -> bool {
        self.used().saturating_add(bytes) <= self.0.budget.small()
    }

    /// Returns whether the client's total is within its share of the reserve, with `bytes` more. Its largest message
    /// does not count: what goes with a large message, and a short answer to it, must not be refused for its length.
    pub(super) fn is_little(&self, bytes: usize) -> bool {
        let besides = self.client_used().saturating_sub(self.0.total.largest.load(Ordering::Relaxed));
        besides.saturating_add(bytes) <= self.0.budget.small()
    }

    fn add(&self, bytes: usize) {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
        self.0.total.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn subtract(&self, bytes: usize) {
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
        self.0.total.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut accounts = self.budget.accounts();
        accounts.open.remove(&self.number);
        // A client's total ends with its last account.
        if Arc::strong_count(&self.total) == 1 {
            accounts.totals.remove(&self.total.client);
        }
    }
}

/// Bytes charged to an account, given back on drop.
#[derive(Debug)]
pub struct Charge {
    account: Account,
    bytes: usize,
}

impl Charge {
    /// Returns whether it covers no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Returns the number of bytes that it covers.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the account that holds it.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Extends the charge to `bytes` if there is room now; returns whether it did. Only small messages overtake
    /// waiting ones.
    pub fn try_cover(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return true;
        }
        (self.account.is_small(more) || !self.account.budget().is_awaited()) && self.try_add(more)
    }

    /// Takes `more` bytes if there is room.
    pub(super) fn try_add(&mut self, more: usize) -> bool {
        self.try_add_up_to(more, self.account.most(self.bytes, more))
    }

    /// Takes `more` bytes if the use of the budget then stays within `most`.
    fn try_add_up_to(&mut self, more: usize, most: usize) -> bool {
        let room = |used: usize| used.checked_add(more).filter(|&sum| sum <= most);
        let taken = self.account.0.budget.0.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, room);
        if taken.is_ok() {
            self.account.add(more);
            self.bytes += more;
        }
        taken.is_ok()
    }

    /// Takes `more` bytes, even above the limit.
    pub(super) fn add(&mut self, more: usize) {
        let budget = &self.account.0.budget;
        let before = budget.0.used.fetch_add(more, Ordering::Relaxed);
        budget.notice_excess(before + more);
        self.account.add(more);
        self.bytes += more;
    }

    /// Shrinks the charge to `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        self.bytes -= less;
        self.account.give_back(less);
    }

    /// Moves the charge to another account.
    pub(super) fn move_to(&mut self, account: &Account) {
        let same_budget = Arc::ptr_eq(&self.account.0.budget.0, &account.0.budget.0);
        if same_budget && !self.account.is(account) {
            self.forget_message();
            self.account.subtract(self.bytes);
            account.add(self.bytes);
            self.account = account.clone();
            self.note_message();
        }
    }

    /// Records that it covers a whole message from now on, until it is dropped or moved.
    pub(super) fn note_message(&self) {
        if self.bytes > LEAST_LARGE {
            self.account.0.total.largest.fetch_max(self.bytes, Ordering::Relaxed);
        }
    }

    /// Records that its message, if any, is released. After that, no message is exempt until the next one is recorded.
    fn forget_message(&self) {
        if self.bytes > LEAST_LARGE {
            let largest = &self.account.0.total.largest;
            let _ = largest.compare_exchange(self.bytes, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    pub(super) fn absorb(&mut self, mut other: Charge) {
        // Emptied, so that dropping it gives nothing back.
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Account {
    fn give_back(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.subtract(bytes);
        let budget = &self.0.budget;
        // SeqCst orders this after the count of waiters: a waiter that is counted later sees these bytes.
        let before = budget.0.used.fetch_sub(bytes, Ordering::SeqCst);
        budget.handle_release(before - bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.forget_message();
        self.account.give_back(self.bytes);
    }
}
