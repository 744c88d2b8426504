//! Children that one exchange has for itself, since only then it is known whose their questions and log messages are
//! (D6). Legacy ones are initialised with every question that can be translated; each is checked against what its own
//! request declared.
//!
//! A child never changes owner, and is leased again only once nothing is in flight on it. What it says late would reach
//! the next exchange, so the child of an exchange without an owner is closed with it. `--warm` hides the next one's start.

use super::greet::{Greeted, Guest};
use super::places::Taken;
use super::tools::Catalogue;
use super::{Place, Refusal, Upstream, Use, initialize, now};
use crate::audience::{Audience, LeaseHolder, Running, SessionId};
use crate::client::Client;
use crate::era::Era;
use crate::era::probe::Choice;
use crate::exchange::{Failure, Link, Mailbox};
use crate::jsonrpc::{Spliced, rewrite};
use crate::mux::WireId;
use crate::session::{Principal, Session};
use crate::telemetry::counters;
use parking_lot::{Mutex, MutexGuard};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Mutex as AsyncMutex;

/// A leased child has one request in flight, and cancelled ones that it has not answered.
const LEASED_SLOTS: usize = 16;

/// The children that nobody has at the moment.
#[derive(Debug)]
pub struct Pool {
    idle: Mutex<Vec<Idle>>,
    /// Legacy ones that nobody had yet.
    warm: Mutex<Vec<Leasable>>,
    /// Locked while a warm one starts.
    warming: AsyncMutex<()>,
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
pub enum Owner {
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
pub struct Leasable {
    /// The child.
    pub link: Arc<Link>,
    /// Who has it.
    pub holder: Arc<LeaseHolder>,
    /// How it is spoken to.
    pub era: Era,
    /// From which level on it logs, as far as it was told.
    pub level: Arc<Mutex<Option<&'static str>>>,
    /// Its tools, which may be more than those of a shared child.
    pub catalogue: Arc<Catalogue>,
    /// Its place among `--max-children`, as long as its process holds it.
    place: Weak<Taken>,
}

impl Leasable {
    fn is_for(&self, wanted: Use) {
        if let Some(place) = self.place.upgrade() {
            place.pass_to(wanted);
        }
    }
}

/// A child in the hands of one exchange; dropping it gives it back.
#[derive(Debug)]
pub struct Lease {
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
    fn take(self: &Arc<Self>, owner: Option<&Owner>, client: Client, era: Era) -> Option<Lease> {
        let owner = owner?;
        let mut idle = self.idle();
        idle.retain(|idle| !idle.child.link.is_closed());
        let at = idle.iter().rposition(|idle| idle.owner == *owner && idle.child.era == era)?;
        let child = idle.remove(at).child;
        drop(idle);
        Some(self.lease(child, Some(owner), client))
    }

    /// A legacy child that nobody had yet, if one is ready.
    fn take_warm(&self) -> Option<Leasable> {
        let mut warm = self.warm();
        warm.retain(|child| !child.link.is_closed());
        warm.pop()
    }

    fn count_warm(&self) -> usize {
        let mut warm = self.warm();
        warm.retain(|child| !child.link.is_closed());
        warm.len()
    }

    /// A child that was just started, for `owner` and this client.
    fn lease(self: &Arc<Self>, child: Leasable, owner: Option<&Owner>, client: Client) -> Lease {
        child.is_for(Use::Call(client));
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
        child.is_for(Use::Shared);
        self.idle().push(Idle { child, owner, since: now() });
    }

    fn warm(&self) -> MutexGuard<'_, Vec<Leasable>> {
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
    fn logs_from(&self, level: &'static str) -> bool {
        *self.child.level.lock() == Some(level)
    }

    /// From now on, what the child says of its own accord goes to `mailbox`.
    pub fn hear(&self, mailbox: &Arc<Mailbox>) {
        self.child.holder.attach(mailbox);
    }
}

impl Upstream {
    /// A legacy child for one exchange; `None` when it is to share one, without being asked.
    pub(super) async fn lease(
        self: &Arc<Self>,
        owner: Option<&Owner>,
        client: Client,
    ) -> Result<Option<Lease>, Refusal> {
        if let Some(lease) = self.pool.take(owner, client, Era::Legacy) {
            return Ok(Some(lease));
        }
        if let Some(child) = self.pool.take_warm() {
            self.keep_warm();
            return Ok(Some(self.pool.lease(child, owner, client)));
        }
        let place = if self.solitude.is_known() { None } else { self.place(Use::Call(client)).await };
        match place {
            Some(place) => {
                let started = self.start_leasable(Era::Legacy, place).await;
                if self.notes_solitude(Era::Legacy, &started) && self.may_share() {
                    counters::SHARED_AT_CAP.increment();
                    return Ok(None);
                }
                started.map(|child| Some(self.pool.lease(child, owner, client)))
            }
            None if self.may_share() => {
                counters::SHARED_AT_CAP.increment();
                Ok(None)
            }
            None => Err(Refusal::Busy("--max-children servers run already, and none is idle")),
        }
    }

    /// A modern child for one exchange; `None` when it is to share one, without log messages.
    pub(super) async fn lease_modern(
        self: &Arc<Self>,
        owner: Option<&Owner>,
        client: Client,
    ) -> Option<Lease> {
        if let Some(lease) = self.pool.take(owner, client, Era::Modern) {
            return Some(lease);
        }
        if self.solitude.is_known() {
            return None;
        }
        let place = self.place(Use::Call(client)).await?;
        let started = self.start_leasable(Era::Modern, place).await;
        self.notes_solitude(Era::Modern, &started);
        started.ok().map(|child| self.pool.lease(child, owner, client))
    }

    async fn start_leasable(self: &Arc<Self>, era: Era, place: Place) -> Result<Leasable, Refusal> {
        let holder = Arc::new(LeaseHolder::default());
        let guest = Guest {
            audience: Audience::Leased(Arc::clone(&holder)),
            slots: LEASED_SLOTS.min(self.settings.max_in_flight),
            choice: Choice::from(era),
            initialize: if self.settings.forward_roots {
                initialize::for_leased_with_roots
            } else {
                initialize::for_leased
            },
            patience: self.start_timeout,
        };
        let greeted = self.greet(guest, Arc::clone(&place)).await.map_err(Refusal::Failed);
        let Greeted { link, .. } = place.outcome(greeted)?;
        let (level, catalogue) = Default::default();
        let child = Leasable { link, holder, era, level, catalogue, place: Arc::downgrade(&place) };
        let (upstream, watched) = (Arc::clone(self), child.clone());
        tokio::spawn(async move {
            upstream.accompany(&watched.link, era, || watched.holder.is_waiting()).await;
            upstream.keep_warm();
        });
        Ok(child)
    }

    /// Starts children until `--warm` of them are ready, as far as there are places for them. Only a legacy server
    /// needs them.
    pub(super) fn keep_warm(self: &Arc<Self>) {
        if self.settings.warm == 0 || self.crew.serves(Era::Modern) == Some(true) {
            return;
        }
        let upstream = Arc::clone(self);
        tokio::spawn(async move {
            let Ok(_turn) = upstream.pool.warming.try_lock() else { return };
            while upstream.pool.count_warm() < upstream.settings.warm {
                let Some(place) = upstream.places.try_take(Use::Shared) else { return };
                match upstream.start_leasable(Era::Legacy, place).await {
                    Ok(child) => upstream.pool.warm().push(child),
                    Err(Refusal::Failed(Failure::ShuttingDown)) => return,
                    Err(_) => return tracing::warn!("a child of --warm did not start"),
                }
            }
        });
    }

    /// Has a leased child log from a level on, before the request that wants it.
    pub(super) async fn set_level(&self, lease: &Lease, level: &'static str) {
        if lease.logs_from(level) {
            return;
        }
        let params = serde_json::json!({"level": level}).to_string();
        let write = |wire_id: WireId| {
            let id = wire_id.as_u64().to_string();
            Spliced::from(rewrite::request(id.as_bytes(), "logging/setLevel", Some(params.as_bytes())))
        };
        let answer = self.ask(lease.link(), "logging/setLevel", self.settings.request_timeout, write).await;
        if matches!(answer, Ok(Ok(answer)) if answer.result.is_some()) {
            *lease.child.level.lock() = Some(level);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.child.holder.detach();
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
