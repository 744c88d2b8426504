//! Accounts and charges: who holds how many bytes, and how an account gives way.

use super::Budget;
use crate::client::Client;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::time::timeout;

/// Makes an account's owner give bytes back; false if it has nothing to give.
type GiveWay = Box<dyn Fn() -> bool + Send + Sync>;

/// Whom bytes are charged to: a connection, a session, a child. Clones are the same account.
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

/// What all accounts of one client hold.
#[derive(Debug)]
struct Total {
    client: Client,
    used: AtomicUsize,
}

/// All open accounts, by number, and what their clients hold.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    open: HashMap<u64, Weak<Inner>>,
    totals: HashMap<Client, Weak<Total>>,
}

impl Accounts {
    /// All open accounts.
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
            let new = Arc::new(Total { client, used: AtomicUsize::new(0) });
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

    /// Another account in the same budget, of this client or another.
    pub fn sibling(&self, client: Client) -> Account {
        Account::open(&self.0.budget, client)
    }

    /// The budget that it is part of.
    pub fn budget(&self) -> &Budget {
        &self.0.budget
    }

    /// Bytes charged to it.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Bytes charged to its client, over all accounts.
    pub fn client_used(&self) -> usize {
        self.0.total.used.load(Ordering::Relaxed)
    }

    /// Whether both are the same account.
    pub fn is(&self, other: &Account) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether both are of the same client.
    pub fn is_of_same_client(&self, other: &Account) -> bool {
        Arc::ptr_eq(&self.0.total, &other.0.total)
    }

    /// Whose it is.
    pub fn client(&self) -> Client {
        self.0.total.client
    }

    /// Sets, once, what is called when the account is to give bytes back; false says that it has nothing to give.
    pub fn on_give_way(&self, give_way: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.0.gives_way.set(Box::new(give_way));
    }

    /// Makes it give bytes back; false if it has nothing to give, or nobody answers for it.
    pub fn give_way(&self) -> bool {
        self.0.gives_way.get().is_some_and(|give_way| give_way())
    }

    /// An empty charge, to be grown.
    pub fn charge(&self) -> Charge {
        Charge { account: self.clone(), bytes: 0 }
    }

    /// A charge of so many bytes, if there is room for them now.
    pub fn try_charge(&self, bytes: usize) -> Option<Charge> {
        let mut charge = self.charge();
        charge.try_add(bytes).then_some(charge)
    }

    /// A charge of so many bytes: at once if there is room for them, or after a wait if its client holds little. `None` when
    /// there is no room, and none within `patience` for such a client.
    pub async fn charge_soon(&self, bytes: usize, patience: Duration) -> Option<Charge> {
        if let Some(charge) = self.try_charge(bytes) {
            return Some(charge);
        }
        if !self.is_little(bytes) {
            return None;
        }
        let mut charge = self.charge();
        Box::pin(timeout(patience, charge.cover(bytes))).await.ok().map(|()| charge)
    }

    /// Whether so many more bytes have room now, without taking it.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.0.budget.used().saturating_add(bytes) <= self.most(bytes)
    }

    /// Whether `bytes` that are charged to another account already may move to this one.
    pub fn may_take_over(&self, bytes: usize) -> bool {
        self.0.budget.used() <= self.most(bytes)
    }

    /// The highest use at which the account may still take `bytes`. The reserve is there for small messages, half of it for
    /// clients that hold little altogether; and for a message so large that it could never have the limit for itself.
    fn most(&self, bytes: usize) -> usize {
        let budget = &self.0.budget;
        let alone = bytes > budget.0.limit / 2 && self.client_used() <= budget.reserve();
        let reserve = if self.is_little(bytes) || alone {
            budget.reserve()
        } else if self.is_small(bytes) {
            budget.reserve() / 2
        } else {
            0
        };
        budget.0.limit + reserve
    }

    /// Whether the account is within its share of the reserve, with so many bytes more.
    fn is_small(&self, bytes: usize) -> bool {
        self.used().saturating_add(bytes) <= self.0.budget.small()
    }

    /// Whether its client holds little altogether, with so many bytes more.
    pub(super) fn is_little(&self, bytes: usize) -> bool {
        self.client_used().saturating_add(bytes) <= self.0.budget.small()
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
        // The last account of a client takes it along.
        if Arc::strong_count(&self.total) == 1 {
            accounts.totals.remove(&self.total.client);
        }
    }
}

/// Bytes that an account holds; dropping it gives them back.
#[derive(Debug)]
pub struct Charge {
    account: Account,
    bytes: usize,
}

impl Charge {
    /// Whether it covers nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes that it covers.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whose it is.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Covers `bytes` together if that takes no waiting; whether it does. Nobody that waits is overtaken, but by small
    /// messages.
    pub fn try_cover(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return true;
        }
        (self.account.is_small(more) || !self.account.budget().is_awaited()) && self.try_add(more)
    }

    /// Takes more if there is room.
    pub(super) fn try_add(&mut self, more: usize) -> bool {
        let most = self.account.most(more);
        let room = |used: usize| used.checked_add(more).filter(|&sum| sum <= most);
        let taken = self.account.0.budget.0.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, room);
        if taken.is_ok() {
            self.account.add(more);
            self.bytes += more;
        }
        taken.is_ok()
    }

    /// Takes more, however little room there is.
    pub(super) fn add(&mut self, more: usize) {
        let budget = &self.account.0.budget;
        let before = budget.0.used.fetch_add(more, Ordering::Relaxed);
        budget.notice_excess(before + more);
        self.account.add(more);
        self.bytes += more;
    }

    /// Gives back what is above `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        self.bytes -= less;
        self.account.give_back(less);
    }

    /// Charges the same bytes to another account from now on.
    pub(super) fn move_to(&mut self, account: &Account) {
        let same_budget = Arc::ptr_eq(&self.account.0.budget.0, &account.0.budget.0);
        if same_budget && !self.account.is(account) {
            self.account.subtract(self.bytes);
            account.add(self.bytes);
            self.account = account.clone();
        }
    }

    pub(super) fn absorb(&mut self, mut other: Charge) {
        // What is taken out of it is not given back when it is dropped.
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
        // In one order with the count of those that wait: one that is counted after this look finds these bytes.
        let before = budget.0.used.fetch_sub(bytes, Ordering::SeqCst);
        budget.handle_release(before - bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.give_back(self.bytes);
    }
}
