//! Leased children: one exchange has the child for itself, since only then questions and log messages can be
//! attributed (`docs/architecture.md#isolation`). Legacy children are initialized with every capability that can be
//! translated; each question is checked against the capabilities of its own request.
//!
//! A child never changes owner, and is leased again only once nothing is in flight. Late messages would reach the
//! next exchange, so the child of an exchange without an owner is closed after it. `--warm` hides the start of the
//! next one.

use super::places::{Taken, Use};
use super::renewals::Renewals;
use crate::audience::{LeaseHolder, Running, SessionId};
use crate::catalogue::tools::ToolCache;
use crate::client::Client;
use crate::clock::now;
use crate::era::Era;
use crate::exchange::{Link, Mailbox};
use crate::identity::{Principal, Variables};
use crate::session::Session;
use crate::tasks;
use parking_lot::{Mutex, MutexGuard};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Mutex as AsyncMutex;

/// The children that are not leased.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: Mutex<Vec<Idle>>,
    /// Legacy children that were never leased.
    warm: Mutex<Vec<Leasable>>,
    /// Locked while a warm child starts.
    pub(super) warming: AsyncMutex<()>,
    /// Time a cancelled call has to be answered before its child is closed.
    grace: Duration,
    /// Children that were started before the last renewal are not leased again.
    renewals: Arc<Renewals>,
}

#[derive(Debug)]
struct Idle {
    child: Leasable,
    owner: Owner,
    since: Instant,
}

/// The client that may lease a child again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A named principal.
    Principal(Principal),
    /// An anonymous session.
    Session(SessionId),
}

impl Owner {
    /// Returns the owner for a modern request; an anonymous request has none.
    pub fn of_request(principal: &Principal) -> Option<Self> {
        (!principal.is_anonymous()).then(|| Owner::Principal(principal.clone()))
    }

    /// Returns the owner for a session's request.
    pub fn of_session(session: &Session) -> Self {
        Owner::of_request(session.principal()).unwrap_or_else(|| Owner::Session(session.id().clone()))
    }
}

/// A child that can be leased.
#[derive(Clone, Debug)]
pub(crate) struct Leasable {
    /// The child.
    pub link: Arc<Link>,
    /// Its current holder.
    pub holder: Arc<LeaseHolder>,
    /// The protocol era that it is spoken to in.
    pub era: Era,
    /// The log level that was last set.
    pub level: Arc<Mutex<Option<&'static str>>>,
    /// Its tools, which may be more than those of a shared child.
    pub tools: Arc<ToolCache>,
    /// Its place among `--max-children`, as long as its process holds it.
    pub(super) place: Weak<Taken>,
    /// The renewal that it was started after.
    pub(super) renewal: u64,
    /// What it learned about its caller.
    pub(super) variables: Option<Variables>,
}

impl Leasable {
    fn count_for(&self, wanted: Use) {
        if let Some(place) = self.place.upgrade() {
            place.pass_to(wanted);
        }
    }
}

/// A leased child; dropping the lease returns the child.
#[derive(Debug)]
pub(crate) struct Lease {
    child: Leasable,
    owner: Option<Owner>,
    pool: Weak<Pool>,
}

impl Pool {
    /// Creates an empty pool.
    pub fn new(grace: Duration, renewals: Arc<Renewals>) -> Arc<Self> {
        Arc::new(Pool {
            idle: Mutex::default(),
            warm: Mutex::default(),
            warming: AsyncMutex::default(),
            grace,
            renewals,
        })
    }

    /// Leases the idle child of that era that `owner` used last, if there is one that learned the same about its
    /// caller.
    pub(super) fn take(
        self: &Arc<Self>,
        owner: Option<&Owner>,
        client: Client,
        era: Era,
        variables: Option<&Variables>,
    ) -> Option<Lease> {
        let owner = owner?;
        let mut idle = self.idle();
        idle.retain(|idle| self.is_usable(&idle.child));
        let fits = |idle: &Idle| {
            idle.owner == *owner && idle.child.era == era && idle.child.variables.as_ref() == variables
        };
        let at = idle.iter().rposition(fits)?;
        let child = idle.remove(at).child;
        drop(idle);
        Some(self.lease(child, Some(owner), client))
    }

    /// Takes a warm child, if one is ready.
    pub(super) fn take_warm(&self) -> Option<Leasable> {
        let mut warm = self.warm();
        warm.retain(|child| self.is_usable(child));
        warm.pop()
    }

    pub(super) fn count_warm(&self) -> usize {
        let mut warm = self.warm();
        warm.retain(|child| self.is_usable(child));
        warm.len()
    }

    /// Returns whether a child can be leased; stops a child that was started before the last renewal.
    fn is_usable(&self, child: &Leasable) -> bool {
        if child.renewal < self.renewals.current() {
            child.link.stop();
        }
        !child.link.is_closed()
    }

    /// Stops all children that were started before the last renewal; leased ones follow when they are returned.
    pub(super) fn renew(&self) {
        self.idle().retain(|idle| self.is_usable(&idle.child));
        self.warm().retain(|child| self.is_usable(child));
    }

    /// Leases a child to `owner`, for this client.
    pub(super) fn lease(self: &Arc<Self>, child: Leasable, owner: Option<&Owner>, client: Client) -> Lease {
        child.count_for(Use::Call(client));
        Lease { child, owner: owner.cloned(), pool: Arc::downgrade(self) }
    }

    /// Closes the child that has been idle longest, or a warm one; returns false if there is none.
    pub fn evict(&self) -> bool {
        let mut idle = self.idle();
        let longest = (0..idle.len()).min_by_key(|&at| idle[at].since);
        let evicted = longest.map(|at| idle.remove(at).child).or_else(|| self.take_warm());
        evicted.inspect(|child| child.link.stop()).is_some()
    }

    /// Closes the children that have been idle for `patience`.
    pub fn expire(&self, patience: Duration, now: Instant) {
        self.idle().retain(|idle| {
            let keep = now.saturating_duration_since(idle.since) < patience;
            if !keep {
                idle.child.link.stop();
            }
            keep && !idle.child.link.is_closed()
        });
    }

    fn put(&self, child: Leasable, owner: Owner) {
        child.count_for(Use::Shared);
        self.idle().push(Idle { child, owner, since: now() });
    }

    pub(super) fn warm(&self) -> MutexGuard<'_, Vec<Leasable>> {
        self.warm.lock()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock()
    }
}

impl Lease {
    /// Returns the child.
    pub fn child(&self) -> &Leasable {
        &self.child
    }

    /// Returns the child's link.
    pub fn link(&self) -> &Arc<Link> {
        &self.child.link
    }

    /// Returns the tasks that continue at the child.
    pub fn running(&self) -> &Running {
        &self.child.holder.running
    }

    /// Returns whether the child is known to log from `level` on.
    pub(super) fn logs_from(&self, level: &'static str) -> bool {
        *self.child.level.lock() == Some(level)
    }

    /// Sends the child's messages outside of requests to `mailbox` from now on.
    pub fn hear(&self, mailbox: &Arc<Mailbox>) {
        self.child.holder.attach(mailbox);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.child.holder.detach();
        let Some(owner) = self.owner.take() else { return self.child.link.stop() };
        let (child, pool) = (self.child.clone(), self.pool.clone());
        let give_back = move |idle: bool| match pool.upgrade() {
            Some(pool) if idle && pool.is_usable(&child) => pool.put(child, owner),
            _ => child.link.stop(),
        };
        if self.child.link.in_flight() == 0 {
            return give_back(true);
        }
        // A cancelled call is still in flight: the child is leased again only once it has answered.
        let grace = self.pool.upgrade().map_or(Duration::ZERO, |pool| pool.grace);
        let link = Arc::clone(&self.child.link);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                drop(runtime.spawn(tasks::boxed(async move { give_back(quiet(&link, grace).await) })))
            }
            Err(_) => give_back(false),
        }
    }
}

/// Waits until nothing is in flight; returns false if the grace ends first. A slot that is released after the grace
/// was not answered.
async fn quiet(link: &Link, grace: Duration) -> bool {
    // Slightly shorter, since the slot is released after the grace as if the child had answered.
    let until = now() + grace.mul_f64(0.9);
    while link.in_flight() > 0 && now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    now() < until
}
