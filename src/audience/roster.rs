//! The members of a shared child and the resources that each of them watches, as plain data.

use super::SessionId;
use super::listener::{Ear, Recipient};
use super::watched::WatchLoad;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

/// Limit on the watched resources of one child, over all its members.
const MAX_WATCHED: usize = 8 * 1024;
/// Number of orphaned subscriptions from which the child is sent no new ones: sessions can leave faster than the
/// child can be told.
const MAX_ORPHANS: usize = 1_024;

/// The members of one shared child.
#[derive(Debug, Default)]
pub(super) struct Roster {
    members: HashMap<SessionId, Member>,
    watchers: HashMap<String, HashSet<SessionId>>,
    /// Resources that members are about to watch, with the number of those members.
    awaited: HashMap<String, usize>,
    /// Resources that only departed members watched, while the child has not been told.
    orphaned: HashSet<String>,
}

/// A member, and the size of its watched resources.
#[derive(Debug)]
struct Member {
    ear: Ear,
    load: WatchLoad,
}

/// The result of a request to watch a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// The member watches the resource already.
    Watching,
    /// Room for the resource is reserved.
    Reserved,
}

impl Roster {
    /// Adds a member. An existing member keeps its watched resources.
    pub(super) fn listen(&mut self, id: &SessionId, ear: Ear) {
        match self.members.entry(id.clone()) {
            Entry::Occupied(mut known) => known.get_mut().ear = ear,
            Entry::Vacant(vacant) => drop(vacant.insert(Member { ear, load: WatchLoad::default() })),
        }
    }

    /// Adds a member that watches nothing yet.
    pub(super) fn join(&mut self, id: &SessionId, ear: Ear) {
        self.members.insert(id.clone(), Member { ear, load: WatchLoad::default() });
    }

    /// Removes a member, and orphans the resources that only it watched.
    pub(super) fn leave(&mut self, id: &SessionId) {
        self.members.remove(id);
        let Roster { watchers, orphaned, .. } = self;
        watchers.retain(|uri, ids| {
            if ids.remove(id) && ids.is_empty() {
                orphaned.insert(uri.clone());
            }
            !ids.is_empty()
        });
    }

    pub(super) fn count(&self) -> usize {
        self.members.len()
    }

    pub(super) fn ears(&self) -> impl Iterator<Item = &Ear> {
        self.members.values().map(|member| &member.ear)
    }

    /// Returns the members that watch the resource `uri`, or a resource that it is a part of.
    pub(super) fn watchers_of(&self, uri: &str) -> Vec<Recipient> {
        let watching: HashSet<&SessionId> = self
            .watchers
            .iter()
            .filter(|(watched, _)| is_within(watched, uri))
            .flat_map(|(_, ids)| ids)
            .collect();
        watching.iter().filter_map(|id| self.members.get(*id)?.ear.recipient()).collect()
    }

    /// Takes at most `limit` orphaned resources.
    pub(super) fn take_orphaned(&mut self, limit: usize) -> Vec<String> {
        let Roster { orphaned, watchers, .. } = self;
        orphaned.retain(|uri| !watchers.contains_key(uri));
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some(uri) = orphaned.iter().next().cloned()
        {
            orphaned.remove(&uri);
            taken.push(uri);
        }
        taken
    }

    pub(super) fn watched(&self) -> Vec<String> {
        self.watchers.keys().cloned().collect()
    }

    pub(super) fn is_watched(&self, uri: &str) -> bool {
        self.watchers.contains_key(uri)
    }

    pub(super) fn is_awaited(&self, uri: &str) -> bool {
        self.awaited.contains_key(uri)
    }

    /// Reserves room for a resource that a member is about to watch; `None` if a limit is reached or the member left.
    pub(super) fn reserve(&mut self, uri: &str, id: &SessionId) -> Option<Admitted> {
        let ids = self.watchers.get(uri);
        if ids.is_some_and(|ids| ids.contains(id)) {
            return Some(Admitted::Watching);
        }
        if ids.is_none() && self.is_full() {
            return None;
        }
        if !self.members.get_mut(id)?.load.add(uri) {
            return None;
        }
        *self.awaited.entry(uri.to_owned()).or_default() += 1;
        Some(Admitted::Reserved)
    }

    /// Makes the member watch the resource. If it left meanwhile, its subscription is orphaned.
    pub(super) fn watch(&mut self, uri: &str, id: &SessionId) {
        if self.members.contains_key(id) {
            self.watchers.entry(uri.to_owned()).or_default().insert(id.clone());
        } else {
            self.orphaned.insert(uri.to_owned());
        }
    }

    /// Orphans the resource: unless a member watches it, the child is told to unsubscribe.
    pub(super) fn orphan(&mut self, uri: &str) {
        self.orphaned.insert(uri.to_owned());
    }

    /// Ends a reservation: the member watches the resource now, or the attempt failed.
    pub(super) fn end_reservation(&mut self, uri: &str) {
        if let Some(count) = self.awaited.get_mut(uri) {
            *count -= 1;
            if *count == 0 {
                self.awaited.remove(uri);
            }
        }
    }

    /// Removes the resource from the member's count.
    pub(super) fn unload(&mut self, uri: &str, id: &SessionId) {
        if let Some(member) = self.members.get_mut(id) {
            member.load.remove(uri);
        }
    }

    /// Ends the member's watch on the resource; returns whether it was the last one.
    pub(super) fn unwatch(&mut self, uri: &str, id: &SessionId) -> bool {
        let Some(ids) = self.watchers.get_mut(uri) else { return false };
        if !ids.remove(id) {
            return false;
        }
        let was_last = ids.is_empty();
        if was_last {
            self.watchers.remove(uri);
        }
        self.unload(uri, id);
        was_last
    }

    fn is_full(&self) -> bool {
        let orphans = self.orphaned.len();
        orphans >= MAX_ORPHANS || self.watchers.len() + self.awaited.len() + orphans >= MAX_WATCHED
    }
}

/// Returns whether `uri` is `whole` or a part of it: longer by a suffix that begins at a delimiter (RFC 3986 §2,
/// reserved characters), so that `note://10` is no part of `note://1`. A URI that names no resource, such as
/// `file:///`, has no parts; otherwise its watcher would be notified of every resource that others watch.
fn is_within(whole: &str, uri: &str) -> bool {
    let path = whole.split_once(':').map_or("", |(_, path)| path);
    if path.trim_start_matches('/').is_empty() {
        return uri == whole;
    }
    let in_name = |c: char| c.is_alphanumeric() || "-._~%".contains(c);
    uri.strip_prefix(whole)
        .is_some_and(|rest| rest.is_empty() || !rest.starts_with(in_name) || !whole.ends_with(in_name))
}
