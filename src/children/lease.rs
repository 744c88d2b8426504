//! Leases a child to one exchange: the child that its owner used last, a warm one, or a new one.

use super::Children;
use super::guest::{Greeted, Guest};
use super::initialize;
use super::places::{ChildPlace, Use};
use super::pool::{Leasable, Lease, Owner};
use crate::audience::{Audience, LeaseHolder};
use crate::client::Client;
use crate::era::Era;
use crate::era::probe::Choice;
use crate::exchange::Failure;
use crate::identity::Variables;
use crate::ingress::Refusal;
use crate::inquiry;
use crate::tasks;
use crate::telemetry::counters;
use std::sync::Arc;

/// Number of slots of a leased child: it has one request in flight, and cancelled ones that it has not answered.
const LEASED_SLOTS: usize = 16;

impl Children {
    /// Leases a legacy child; `None` if the exchange is to share one, without questions.
    pub async fn lease(
        self: &Arc<Self>,
        owner: Option<&Owner>,
        client: Client,
        variables: Option<Variables>,
    ) -> Result<Option<Lease>, Refusal> {
        if let Some(lease) = self.pool.take(owner, client, Era::Legacy, variables.as_ref()) {
            return Ok(Some(lease));
        }
        // A warm child was started before its caller was known.
        let warm = if variables.is_none() { self.pool.take_warm() } else { None };
        if let Some(child) = warm {
            self.keep_warm();
            return Ok(Some(self.pool.lease(child, owner, client)));
        }
        let place = if self.single_instance.is_known() { None } else { self.place(Use::Call(client)).await };
        match place {
            Some(place) => {
                let started = self.start_leasable(Era::Legacy, place, variables).await;
                let is_only_one = self.shares(Era::Legacy) && self.single_instance.note(&started);
                if is_only_one && self.settings.may_share() {
                    counters::SHARED_AT_CAP.increment();
                    return Ok(None);
                }
                started.map(|child| Some(self.pool.lease(child, owner, client)))
            }
            None if self.settings.may_share() => {
                counters::SHARED_AT_CAP.increment();
                Ok(None)
            }
            None => Err(Refusal::Busy("--max-children servers are running, and none is idle")),
        }
    }

    /// Leases a modern child; `None` if the exchange is to share one, without log messages.
    pub async fn lease_modern(
        self: &Arc<Self>,
        owner: Option<&Owner>,
        client: Client,
        variables: Option<Variables>,
    ) -> Option<Lease> {
        if let Some(lease) = self.pool.take(owner, client, Era::Modern, variables.as_ref()) {
            return Some(lease);
        }
        if self.single_instance.is_known() {
            return None;
        }
        let place = self.place(Use::Call(client)).await?;
        let started = self.start_leasable(Era::Modern, place, variables).await;
        if self.shares(Era::Modern) {
            self.single_instance.note(&started);
        }
        started.ok().map(|child| self.pool.lease(child, owner, client))
    }

    async fn start_leasable(
        self: &Arc<Self>,
        era: Era,
        place: ChildPlace,
        variables: Option<Variables>,
    ) -> Result<Leasable, Refusal> {
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
            variables: variables.clone(),
        };
        let greeted = self.greet(guest, Arc::clone(&place)).await.map_err(Refusal::Failed);
        let Greeted { link, renewal, .. } = place.outcome(greeted)?;
        let (level, tools) = Default::default();
        let place = Arc::downgrade(&place);
        let child = Leasable { link, holder, era, level, tools, place, renewal, variables };
        let (children, watched) = (Arc::clone(self), child.clone());
        tasks::spawn(async move {
            children.accompany(&watched.link, era, || watched.holder.is_waiting()).await;
            children.keep_warm();
        });
        Ok(child)
    }

    /// Starts children until `--warm` of them are ready, as far as places are free. Only a legacy server needs them.
    pub(super) fn keep_warm(self: &Arc<Self>) {
        if self.settings.warm == 0 || self.crew.serves(Era::Modern) == Some(true) {
            return;
        }
        let children = Arc::clone(self);
        tasks::spawn(async move {
            let Ok(_turn) = children.pool.warming.try_lock() else { return };
            while children.pool.count_warm() < children.settings.warm {
                let Some(place) = children.places.try_take(Use::Shared) else { return };
                match children.start_leasable(Era::Legacy, place, None).await {
                    Ok(child) => children.pool.warm().push(child),
                    Err(Refusal::Failed(Failure::ShuttingDown)) => return,
                    Err(_) => return tracing::warn!("a warm server did not start (--warm)"),
                }
            }
        });
    }

    /// Sets the log level of a leased child before the request that wants it.
    pub async fn set_level(&self, lease: &Lease, level: &'static str) {
        if lease.logs_from(level) {
            return;
        }
        if inquiry::ask_level(lease.link(), level, self.settings.request_timeout).await {
            *lease.child().level.lock() = Some(level);
        }
    }
}
