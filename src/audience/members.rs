//! The members of a shared child, the resources that they watch, and the notifications that they get.

use super::listener::{Ear, Filter};
use super::notices::Notices;
use super::roster::{Admitted, Roster};
use super::{ListChanges, ListKind, Post, Running, SeatedSession, SessionId};
use crate::exchange::{Failure, Mailbox};
use crate::jsonrpc::Spliced;
use crate::tasks;
use crate::telemetry::counters;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use tokio::runtime::Handle;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// The legacy sessions and modern subscriptions at a shared child.
#[derive(Debug, Default)]
pub struct Members {
    /// The post at which the child serves.
    pub post: Post,
    /// The changes of the child's lists.
    pub changes: ListChanges,
    /// The calls that continue as tasks.
    pub running: Running,
    notices: Notices,
    roster: Mutex<Roster>,
    turns: Mutex<HashMap<String, Weak<AsyncMutex<()>>>>,
}

/// A member's turn at one resource; see [`Members::turn`].
pub type ResourceTurn = OwnedMutexGuard<()>;

/// Room for one resource, reserved before the child is asked, so that concurrent requests of a session cannot exceed
/// its limit. Dropping it releases the room. If the child was asked and its answer is not known, the child may have
/// subscribed, and is told to unsubscribe.
#[derive(Debug)]
pub struct WatchReservation<'a> {
    members: &'a Members,
    uri: &'a str,
    id: &'a SessionId,
    /// Unset if the member watches the resource already.
    is_reserved: bool,
    /// Whether the child was asked to subscribe, and has not answered.
    is_asked: bool,
}

impl WatchReservation<'_> {
    /// Records that the child is asked to subscribe from now on.
    pub fn ask(&mut self) {
        self.is_asked = true;
    }

    /// Records that the child has answered: unless the member watches the resource from now on, the child refused.
    pub fn note_answer(&mut self) {
        self.is_asked = false;
    }

    /// Makes the member watch the resource. If it left meanwhile, its subscription is orphaned.
    pub fn watch(mut self) {
        self.is_asked = false;
        let mut roster = self.members.roster();
        if std::mem::take(&mut self.is_reserved) {
            roster.end_reservation(self.uri);
        }
        roster.watch(self.uri, self.id);
    }
}

impl Drop for WatchReservation<'_> {
    fn drop(&mut self) {
        let mut roster = self.members.roster();
        if self.is_reserved {
            roster.end_reservation(self.uri);
            roster.unload(self.uri, self.id);
        }
        if self.is_asked {
            roster.orphan(self.uri);
        }
    }
}

impl Members {
    /// Adds a modern subscription, or replaces the one of this id, which keeps the resources that it watches.
    pub fn listen(&self, id: &SessionId, filter: Filter, mailbox: &Arc<Mailbox>) {
        self.roster().listen(id, Ear::Subscription(filter, Arc::clone(mailbox)));
    }

    /// Ends all modern subscriptions.
    pub fn end_listeners(&self, failure: &Failure) {
        self.roster().ears().for_each(|ear| ear.end_subscription(failure));
    }

    /// Returns the sessions among the members.
    pub fn sessions(&self) -> Vec<Arc<dyn SeatedSession>> {
        self.roster().ears().filter_map(Ear::session).collect()
    }

    /// Adds a legacy session.
    pub fn join<S: SeatedSession + 'static>(&self, session: &Arc<S>) {
        let weak = Arc::downgrade(session);
        self.roster().join(session.id(), Ear::Session(weak));
    }

    /// Removes a session or subscription together with its watched resources.
    pub fn leave(&self, id: &SessionId) {
        self.roster().leave(id);
    }

    /// Waits for the turn at a resource, which is held during the exchange with the child: the child then sees the
    /// first `subscribe` and the last `unsubscribe` in the order in which the members sent them. A child that never
    /// answers delays no member at other resources.
    pub async fn turn(&self, uri: &str) -> ResourceTurn {
        self.turn_at(uri).lock_owned().await
    }

    /// Takes the turn at a resource if it is free.
    pub fn try_turn(&self, uri: &str) -> Option<ResourceTurn> {
        self.turn_at(uri).try_lock_owned().ok()
    }

    fn turn_at(&self, uri: &str) -> Arc<AsyncMutex<()>> {
        let mut turns = self.turns.lock();
        turns.retain(|_, turn| turn.strong_count() > 0);
        let known = turns.get(uri).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let turn = Arc::default();
            turns.insert(uri.to_owned(), Arc::downgrade(&turn));
            turn
        })
    }

    /// Returns the number of members.
    pub fn count(&self) -> usize {
        self.roster().count()
    }

    /// Takes at most `limit` resources that only departed members watched, so that the child can be told.
    pub fn take_orphaned(&self, limit: usize) -> Vec<String> {
        self.roster().take_orphaned(limit)
    }

    /// Returns all resources that any member watches.
    pub fn watched(&self) -> Vec<String> {
        self.roster().watched()
    }

    /// Returns whether any member watches the resource.
    pub fn is_watched(&self, uri: &str) -> bool {
        self.roster().is_watched(uri)
    }

    /// Returns whether any member is about to watch the resource, and has room for it.
    pub fn is_awaited(&self, uri: &str) -> bool {
        self.roster().is_awaited(uri)
    }

    /// Reserves room for a resource that the member is about to watch. Returns `None` if the member has left or
    /// reached its limit, or if the resource is new to the child and the child has too many subscriptions or orphans.
    pub fn room_for<'a>(&'a self, uri: &'a str, id: &'a SessionId) -> Option<WatchReservation<'a>> {
        let admitted = self.roster().reserve(uri, id)?;
        Some(WatchReservation {
            members: self,
            uri,
            id,
            is_reserved: admitted == Admitted::Reserved,
            is_asked: false,
        })
    }

    /// Ends the member's watch on the resource; returns whether it was the last one.
    pub fn unwatch(&self, uri: &str, id: &SessionId) -> bool {
        self.roster().unwatch(uri, id)
    }

    /// Notifies every session, and every subscription to the list, of the change that `method` names.
    pub fn tell_all(&self, method: &str, frame: &Spliced) {
        let roster = self.roster();
        let ears = roster.ears().filter(|ear| ear.hears(method));
        let recipients: Vec<_> = ears.filter_map(Ear::recipient).collect();
        drop(roster);
        recipients.into_iter().for_each(|recipient| recipient.tell(frame.clone()));
    }

    /// Notifies of a changed list as [`tell_all`](Self::tell_all) does, but combines changes in quick succession.
    pub fn tell_changed(self: &Arc<Self>, method: &str, frame: &Spliced) {
        let (Some(kind), Ok(runtime)) = (ListKind::changed_by(method), Handle::try_current()) else {
            return self.tell_all(method, frame);
        };
        if !self.notices.take_or_defer(kind, frame) {
            return;
        }
        self.tell_all(method, frame);
        let (members, method) = (Arc::downgrade(self), method.to_owned());
        runtime.spawn(tasks::boxed(async move {
            loop {
                Notices::pause().await;
                let Some(members) = members.upgrade() else { return };
                let Some(frame) = members.notices.take_deferred(kind) else { return };
                members.tell_all(&method, &frame);
            }
        }));
    }

    /// Notifies the watchers of a resource of its change. The child may name a part of the resource
    /// (`ResourceUpdatedNotificationParams.uri`).
    pub fn tell_watchers(&self, uri: &str, frame: &Spliced) {
        let recipients = self.roster().watchers_of(uri);
        if recipients.is_empty() {
            counters::WITHHELD_MESSAGES.increment();
        }
        recipients.into_iter().for_each(|recipient| recipient.tell(frame.clone()));
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock()
    }
}
