//! Who hears what a child says outside of any request: nobody yet, one session, or the members of a shared child.

use super::notices::Notices;
use super::watched::Load;
use super::{Changes, Holder, Kind, Post, Running, Session, SessionId};
use crate::exchange::{Class, Failure, Interim, Interruption, Mailbox, Topic};
use crate::jsonrpc::Spliced;
use crate::telemetry::counters;
use parking_lot::{Mutex, MutexGuard};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// Resources that sessions may watch at one child, all together.
const MOST_WATCHED: usize = 8 * 1024;
/// Subscriptions to end, from which on a child is sent no others: one that leaves is forgotten sooner than the child can
/// be told.
const MOST_ORPHANS: usize = 1_024;

/// The audience of one child.
#[derive(Clone, Debug)]
pub enum Audience {
    /// A child started only to see whether it starts.
    Nobody,
    /// An exclusive child's one client.
    Exclusive {
        /// Its session.
        session: Weak<Session>,
        /// Whether it may be asked for its roots (`--forward-roots`). A child may ask for what was not declared to it.
        roots: bool,
    },
    /// A shared child's sessions.
    Shared(Arc<Members>),
    /// The one exchange that has a leased child.
    Leased(Arc<Holder>),
}

impl Audience {
    /// The changes of the child's lists, where anyone has use for them.
    pub fn changes(&self) -> Option<&Changes> {
        match self {
            Audience::Shared(members) => Some(&members.changes),
            Audience::Leased(holder) => Some(&holder.changes),
            Audience::Nobody | Audience::Exclusive { .. } => None,
        }
    }

    /// The calls that run on as tasks, where it is proxyrunner that made them so.
    pub fn running(&self) -> Option<&Running> {
        match self {
            Audience::Shared(members) => Some(&members.running),
            Audience::Leased(holder) => Some(&holder.running),
            Audience::Nobody | Audience::Exclusive { .. } => None,
        }
    }
}

/// The sessions at a shared child, which resource each of them watches, and how often its lists have changed.
#[derive(Debug, Default)]
pub struct Members {
    /// Where the child serves.
    pub post: Post,
    /// Of the child's lists.
    pub changes: Changes,
    /// What runs on as a task.
    pub running: Running,
    pub(super) notices: Notices,
    state: Mutex<State>,
    turns: Mutex<HashMap<String, Weak<AsyncMutex<()>>>>,
}

/// A turn at one resource; see [`Members::turn`].
pub type Turn = OwnedMutexGuard<()>;

/// Room for one resource, from before the child is asked: so that no session watches more than it may, however many it
/// asks for at once. Dropping it gives it back.
#[derive(Debug)]
pub struct Room<'a> {
    members: &'a Members,
    uri: &'a str,
    id: &'a SessionId,
    /// The session does not watch it yet.
    is_new: bool,
}

impl Room<'_> {
    /// The session watches the resource from now on; if it has left meanwhile, its subscription is an orphan.
    pub fn watch(mut self) {
        let mut state = self.members.state();
        if std::mem::take(&mut self.is_new) {
            state.gives_back(self.uri);
        }
        if state.ears.contains_key(self.id) {
            state.watchers.entry(self.uri.to_owned()).or_default().insert(self.id.clone());
        } else {
            state.orphaned.insert(self.uri.to_owned());
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if self.is_new {
            let mut state = self.members.state();
            state.gives_back(self.uri);
            if let Some(member) = state.ears.get_mut(self.id) {
                member.load.remove(self.uri);
            }
        }
    }
}

#[derive(Debug, Default)]
struct State {
    ears: HashMap<SessionId, Member>,
    watchers: HashMap<String, HashSet<SessionId>>,
    /// Resources that someone is about to watch, and how many do.
    awaited: HashMap<String, usize>,
    orphaned: HashSet<String>,
}

impl State {
    /// Whether the child is to be sent no other subscriptions.
    fn is_full(&self) -> bool {
        let orphans = self.orphaned.len();
        orphans >= MOST_ORPHANS || self.watchers.len() + self.awaited.len() + orphans >= MOST_WATCHED
    }

    /// Someone is about to watch a resource no longer: it does, or never will.
    fn gives_back(&mut self, uri: &str) {
        if let Some(count) = self.awaited.get_mut(uri) {
            *count -= 1;
            if *count == 0 {
                self.awaited.remove(uri);
            }
        }
    }
}

/// One who listens, and how much it watches.
#[derive(Debug)]
struct Member {
    ear: Ear,
    load: Load,
}

impl Member {
    fn new(ear: Ear) -> Self {
        Member { ear, load: Load::default() }
    }
}

/// Who listens at a shared child.
#[derive(Debug)]
enum Ear {
    /// A legacy session hears of every change.
    Session(Weak<Session>),
    /// A modern subscription hears of what it asked for.
    Listener(Filter, Arc<Mailbox>),
}

/// The lists whose changes a modern subscription hears of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// `toolsListChanged`
    pub tools: bool,
    /// `promptsListChanged`
    pub prompts: bool,
    /// `resourcesListChanged`
    pub resources: bool,
}

impl Filter {
    fn lets_through(self, method: &str) -> bool {
        match Kind::changed_by(method) {
            Some(Kind::Tools) => self.tools,
            Some(Kind::Prompts) => self.prompts,
            Some(Kind::Resources) => self.resources,
            None => false,
        }
    }
}

/// A message out of the lock.
enum Told {
    Session(Arc<Session>),
    Listener(Arc<Mailbox>),
}

impl Told {
    fn tell(self, frame: Spliced) {
        match self {
            Told::Session(session) => session.notify(frame, Class::Idempotent),
            Told::Listener(mailbox) => {
                let interim = Interim { frame, class: Class::Idempotent, topic: Topic::Other };
                if mailbox.push(interim).is_err() {
                    counters::DROPPED_EVENTS.increment();
                }
            }
        }
    }
}

impl Ear {
    fn reach(&self) -> Option<Told> {
        match self {
            Ear::Session(session) => session.upgrade().map(Told::Session),
            Ear::Listener(_, mailbox) => Some(Told::Listener(Arc::clone(mailbox))),
        }
    }
}

impl Members {
    /// A modern subscription hears of what `filter` names, and of the resources that it will watch.
    pub fn listen(&self, ear: &SessionId, filter: Filter, mailbox: &Arc<Mailbox>) {
        let listener = Ear::Listener(filter, Arc::clone(mailbox));
        match self.state().ears.entry(ear.clone()) {
            // One that is opened again watches what it watched.
            Entry::Occupied(mut known) => known.get_mut().ear = listener,
            Entry::Vacant(vacant) => drop(vacant.insert(Member::new(listener))),
        }
    }

    /// Ends all modern subscriptions.
    pub fn end_listeners(&self, failure: &Failure) {
        for member in self.state().ears.values() {
            if let Ear::Listener(_, mailbox) = &member.ear {
                mailbox.interrupt(Interruption { failure: failure.clone(), cancellation: None });
            }
        }
    }

    /// The sessions here.
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        let session = |member: &Member| match &member.ear {
            Ear::Session(session) => session.upgrade(),
            Ear::Listener(..) => None,
        };
        self.state().ears.values().filter_map(session).collect()
    }

    /// A session takes its place.
    pub(super) fn join(&self, session: &Arc<Session>) {
        let member = Member::new(Ear::Session(Arc::downgrade(session)));
        self.state().ears.insert(session.id().clone(), member);
    }

    /// A session or subscription is gone, and with it what it watched.
    pub fn leave(&self, id: &SessionId) {
        let mut state = self.state();
        state.ears.remove(id);
        let State { watchers, orphaned, .. } = &mut *state;
        watchers.retain(|uri, who| {
            if who.remove(id) && who.is_empty() {
                orphaned.insert(uri.clone());
            }
            !who.is_empty()
        });
    }

    /// Waits for its turn at a resource, to be held across a subscription's exchange with the child: so the child sees
    /// the first `subscribe` and the last `unsubscribe` of it in the order in which the members meant them. One that
    /// the child never answers holds up nobody at other resources.
    pub async fn turn(&self, uri: &str) -> Turn {
        self.turn_at(uri).lock_owned().await
    }

    /// The turn at a resource, if nobody has it.
    pub fn try_turn(&self, uri: &str) -> Option<Turn> {
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

    /// How many share the child.
    pub fn count(&self) -> usize {
        self.state().ears.len()
    }

    /// Resources, `most` at most, that only sessions watched which are gone; the child is to be told.
    pub fn take_orphaned(&self, most: usize) -> Vec<String> {
        let mut state = self.state();
        let State { orphaned, watchers, .. } = &mut *state;
        orphaned.retain(|uri| !watchers.contains_key(uri));
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(uri) = orphaned.iter().next().cloned()
        {
            orphaned.remove(&uri);
            taken.push(uri);
        }
        taken
    }

    /// All resources that anyone watches.
    pub fn watched(&self) -> Vec<String> {
        self.state().watchers.keys().cloned().collect()
    }

    /// Whether anyone watches the resource.
    pub fn is_watched(&self, uri: &str) -> bool {
        self.state().watchers.contains_key(uri)
    }

    /// Whether anyone is about to watch the resource, and has room for it.
    pub fn is_awaited(&self, uri: &str) -> bool {
        self.state().awaited.contains_key(uri)
    }

    /// Room for a resource that the session is about to watch; none if it watches as much as it may, or has left. None
    /// either for one that nobody watches, if the child has too many subscriptions already, or too many to end.
    pub fn room_for<'a>(&'a self, uri: &'a str, id: &'a SessionId) -> Option<Room<'a>> {
        let mut state = self.state();
        let watches = state.watchers.get(uri).is_some_and(|who| who.contains(id));
        if !watches {
            if !state.watchers.contains_key(uri) && state.is_full() {
                return None;
            }
            if !state.ears.get_mut(id)?.load.add(uri) {
                return None;
            }
            *state.awaited.entry(uri.to_owned()).or_default() += 1;
        }
        Some(Room { members: self, uri, id, is_new: !watches })
    }

    /// The session no longer watches it; true when nobody else does either.
    pub fn unwatch(&self, uri: &str, id: &SessionId) -> bool {
        let mut state = self.state();
        let State { ears, watchers, .. } = &mut *state;
        let Some(who) = watchers.get_mut(uri).filter(|who| who.contains(id)) else { return false };
        who.remove(id);
        if let Some(member) = ears.get_mut(id) {
            member.load.remove(uri);
        }
        let was_last = who.is_empty();
        if was_last {
            watchers.remove(uri);
        }
        was_last
    }

    /// A list changed, as `method` says: that concerns every session, and whoever asked for it.
    pub fn tell_all(&self, method: &str, frame: &Spliced) {
        let hears = |ear: &&Ear| match ear {
            Ear::Session(_) => true,
            Ear::Listener(filter, _) => filter.lets_through(method),
        };
        let state = self.state();
        let ears = state.ears.values().map(|member| &member.ear);
        let told: Vec<_> = ears.filter(hears).filter_map(Ear::reach).collect();
        drop(state);
        told.into_iter().for_each(|told| told.tell(frame.clone()));
    }

    /// A resource changed. The child may name a part of what was subscribed to
    /// (`ResourceUpdatedNotificationParams.uri`).
    pub fn tell_watchers(&self, uri: &str, frame: &Spliced) {
        let state = self.state();
        let watching: HashSet<&SessionId> = state
            .watchers
            .iter()
            .filter(|(watched, _)| is_within(watched, uri))
            .flat_map(|(_, who)| who)
            .collect();
        let told: Vec<_> = watching.iter().filter_map(|id| state.ears.get(*id)?.ear.reach()).collect();
        drop(state);
        if told.is_empty() {
            counters::WITHHELD_MESSAGES.increment();
        }
        told.into_iter().for_each(|told| told.tell(frame.clone()));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Whether `uri` is `whole` or a part of it: longer by something that begins at a delimiter, so that `note://10` is
/// no part of `note://1`. What delimits is what RFC 3986 §2 reserves; the rest belongs to names. What names no resource,
/// such as `file:///`, has no parts: its watcher would hear of all that others watch.
fn is_within(whole: &str, uri: &str) -> bool {
    let path = whole.split_once(':').map_or("", |(_, path)| path);
    if path.trim_start_matches('/').is_empty() {
        return uri == whole;
    }
    let in_name = |c: char| c.is_alphanumeric() || "-._~%".contains(c);
    uri.strip_prefix(whole)
        .is_some_and(|rest| rest.is_empty() || !rest.starts_with(in_name) || !whole.ends_with(in_name))
}
