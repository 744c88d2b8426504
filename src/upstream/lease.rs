//! Legacy children that one exchange of a modern client has for itself, since only then it is known whose their
//! questions are (D6). They are initialised with every question that can be translated; each is checked against
//! what its own request declared.
//!
//! A child never changes principal, and is leased again only once nothing is in flight on it.

use crate::exchange::{Link, Mailbox};
use crate::session::{Holder, Principal};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// The children that nobody has at the moment.
#[derive(Debug)]
pub struct Pool {
    idle: Mutex<Vec<Idle>>,
    /// How long a cancelled call may keep a child from being leased again.
    grace: Duration,
}

#[derive(Debug)]
struct Idle {
    child: Leasable,
    principal: Principal,
    since: Instant,
}

/// A child that can be leased.
#[derive(Clone, Debug)]
pub struct Leasable {
    /// The child.
    pub link: Arc<Link>,
    /// Who has it.
    pub holder: Arc<Holder>,
}

/// A child in the hands of one exchange; dropping it gives it back.
#[derive(Debug)]
pub struct Lease {
    child: Leasable,
    principal: Principal,
    pool: Weak<Pool>,
}

impl Pool {
    /// An empty one.
    pub fn new(grace: Duration) -> Arc<Self> {
        Arc::new(Pool { idle: Mutex::default(), grace })
    }

    /// The child that `principal` used last, if one is idle.
    pub fn take(self: &Arc<Self>, principal: &Principal) -> Option<Lease> {
        let mut idle = self.idle();
        idle.retain(|idle| !idle.child.link.is_closed());
        let at = idle.iter().rposition(|idle| idle.principal == *principal)?;
        let child = idle.remove(at).child;
        drop(idle);
        Some(self.lease(child, principal))
    }

    /// A child that was just started, for `principal`.
    pub fn lease(self: &Arc<Self>, child: Leasable, principal: &Principal) -> Lease {
        Lease { child, principal: principal.clone(), pool: Arc::downgrade(self) }
    }

    /// Closes the one that has been idle longest; false when there is none.
    pub fn evict(&self) -> bool {
        let mut idle = self.idle();
        let Some(at) = (0..idle.len()).min_by_key(|&at| idle[at].since) else { return false };
        idle.remove(at).child.link.stop();
        true
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

    fn put(&self, child: Leasable, principal: Principal) {
        self.idle().push(Idle { child, principal, since: Instant::now() });
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// The child.
    pub fn link(&self) -> &Arc<Link> {
        &self.child.link
    }

    /// From now on, what the child says of its own accord goes to `mailbox`.
    pub fn hear(&self, mailbox: &Arc<Mailbox>) {
        self.child.holder.hear(mailbox);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.child.holder.hear_nobody();
        let (child, principal, pool) = (self.child.clone(), self.principal.clone(), self.pool.clone());
        let give_back = move |idle: bool| match pool.upgrade() {
            Some(pool) if idle && !child.link.is_closed() => pool.put(child, principal),
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
    let until = Instant::now() + grace.mul_f64(0.9);
    while link.in_flight() > 0 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Instant::now() < until
}
