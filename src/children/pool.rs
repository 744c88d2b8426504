//! Children that one exchange has for itself, since only then it is known whose their questions and log messages are
//! (D6). Legacy ones are initialised with every question that can be translated; each is checked against what its own
//! request declared.
//!
//! A child never changes owner, and is leased again only once nothing is in flight on it. What it says late would reach
//! the next exchange, so the child of an exchange without an owner is closed with it. `--warm` hides the next one's start.

use super::places::{Taken, Use};
use crate::catalogue::tools::ToolCache;
use crate::client::Client;
use crate::clock::now;
use crate::era::Era;
use crate::exchange::{Link, Mailbox};
use crate::session::{Holder, Principal, Running, Session, SessionId};
use parking_lot::{Mutex, MutexGuard};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Mutex as AsyncMutex;

/// The children that nobody has at the moment.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: Mutex<Vec<Idle>>,
    /// Legacy ones that nobody had yet.
    warm: Mutex<Vec<Leasable>>,
    /// Locked while a warm one starts.
    pub(super) warming: AsyncMutex<()>,
    /// How long a cancelled call may keep a child from being leased again.
    grace: Duration,
}

#[derive(Debug)]
struct Idle {
    child: Leasable,
    owner: Owner,
    since: Instant,
}

/// Identifies the one client that may be leased a child again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A named principal.
    Principal(Principal),
    /// An anonymous session.
    Session(SessionId),
}

impl Owner {
    /// The owner of a modern request's child; an anonymous request has none.
    pub fn of_request(principal: &Principal) -> Option<Self> {
        (!principal.is_anonymous()).then(|| Owner::Principal(principal.clone()))
    }

    /// The owner of the child of a session's request.
    pub fn of_session(session: &Session) -> Self {
        Owner::of_request(session.principal()).unwrap_or_else(|| Owner::Session(session.id().clone()))
    }
}

/// A child that can be leased.
#[derive(Clone, Debug)]
pub(crate) struct Leasable {
    /// The child.
    pub link: Arc<Link>,
    /// Who has it.
    pub holder: Arc<Holder>,
    /// How it is spoken to.
    pub era: Era,
    /// From which level on it logs, as far as it was told.
    pub level: Arc<Mutex<Option<&'static str>>>,
    /// Its tools, which may be more than those of a shared child.
    pub tools: Arc<ToolCache>,
    /// Its place among `--max-children`, as long as its process holds it.
    pub(super) place: Weak<Taken>,
}

impl Leasable {
    fn count_for(&self, wanted: Use) {
        if let Some(place) = self.place.upgrade() {
            place.pass_to(wanted);
        }
    }
}

/// A child in the hands of one exchange; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Lease {
    child: Leasable,
    owner: Option<Owner>,
    pool: Weak<Pool>,
}

impl Pool {
    /// An empty one.
    pub fn new(grace: Duration) -> Arc<Self> {
        Arc::new(Pool {
            idle: Mutex::default(),
            warm: Mutex::default(),
            warming: AsyncMutex::default(),
            grace,
        })
    }

    /// The child of that era that `owner` used last, if one is idle, for this client.
    pub(super) fn take(self: &Arc<Self>, owner: Option<&Owner>, client: Client, era: Era) -> Option<Lease> {
        let owner = owner?;
        let mut idle = self.idle();
        idle.retain(|idle| !idle.child.link.is_closed());
        let at = idle.iter().rposition(|idle| idle.owner == *owner && idle.child.era == era)?;
        let child = idle.remove(at).child;
        drop(idle);
        Some(self.lease(child, Some(owner), client))
    }

    /// A legacy child that nobody had yet, if one is ready.
    pub(super) fn take_warm(&self) -> Option<Leasable> {
        let mut warm = self.warm();
        warm.retain(|child| !child.link.is_closed());
        warm.pop()
    }

    pub(super) fn count_warm(&self) -> usize {
        let mut warm = self.warm();
        warm.retain(|child| !child.link.is_closed());
        warm.len()
    }

    /// A child that was just started, for `owner` and this client.
    pub(super) fn lease(self: &Arc<Self>, child: Leasable, owner: Option<&Owner>, client: Client) -> Lease {
        child.count_for(Use::Call(client));
        Lease { child, owner: owner.cloned(), pool: Arc::downgrade(self) }
    }

    /// Closes the one that has been idle longest, or one that nobody had yet; false when there is none.
    pub fn evict(&self) -> bool {
        let mut idle = self.idle();
        let longest = (0..idle.len()).min_by_key(|&at| idle[at].since);
        let evicted = longest.map(|at| idle.remove(at).child).or_else(|| self.take_warm());
        evicted.inspect(|child| child.link.stop()).is_some()
    }

    /// Closes those that have been idle for `patience`.
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
    /// The child.
    pub fn child(&self) -> &Leasable {
        &self.child
    }

    /// The way to it.
    pub fn link(&self) -> &Arc<Link> {
        &self.child.link
    }

    /// What runs on at it as a task.
    pub fn running(&self) -> &Running {
        &self.child.holder.running
    }

    /// Whether the child is known to log from `level` on.
    pub(super) fn logs_from(&self, level: &'static str) -> bool {
        *self.child.level.lock() == Some(level)
    }

    /// From now on, what the child says of its own accord goes to `mailbox`.
    pub fn hear(&self, mailbox: &Arc<Mailbox>) {
        self.child.holder.hear(mailbox);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.child.holder.hear_nobody();
        let Some(owner) = self.owner.take() else { return self.child.link.stop() };
        let (child, pool) = (self.child.clone(), self.pool.clone());
        let give_back = move |idle: bool| match pool.upgrade() {
            Some(pool) if idle && !child.link.is_closed() => pool.put(child, owner),
            _ => child.link.stop(),
        };
        if self.child.link.in_flight() == 0 {
            return give_back(true);
        }
        // A cancelled call is still there: the child is leased again only once it has answered.
        let grace = self.pool.upgrade().map_or(Duration::ZERO, |pool| pool.grace);
        let link = Arc::clone(&self.child.link);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move { give_back(quiet(&link, grace).await) })),
            Err(_) => give_back(false),
        }
    }
}

/// Whether what is in flight is answered within the grace. What counts no longer after it was never answered.
async fn quiet(link: &Link, grace: Duration) -> bool {
    // A little less: once the grace has passed, the child's slot is free as if it had answered.
    let until = now() + grace.mul_f64(0.9);
    while link.in_flight() > 0 && now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    now() < until
}
