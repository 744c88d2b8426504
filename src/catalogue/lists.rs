//! Lists of shared children, answered from memory while they are fresh: `tools/list`, `prompts/list`,
//! `resources/list`, `resources/templates/list` and a modern child's `server/discover`. Time is an argument.
//!
//! A modern child's list is valid for the time and the clients that the child states (server/utilities/caching). A
//! legacy child's list is valid until it sends `list_changed`, if it declares that; or for `--cache-lists`.
//!
//! 1. An entry belongs to one process, to the client's capabilities, and to the request's parameters.
//! 2. A list that changed meanwhile is not stored: the number of changes is read before the request is sent.
//! 3. A private list belongs to its principal, and is never kept for `anonymous` (`docs/architecture.md#principal`).

use crate::audience::ListKind;
use crate::budget::Account;
use crate::era::capabilities::Capabilities;
use crate::era::results::{ResultType, Scope, result_type};
use crate::exchange::Answer;
use crate::identity::Principal;
use crate::jsonrpc::{Message, member, members, text};
use crate::telemetry::counters;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::time::{Duration, Instant};

#[cfg(test)]
#[path = "lists_tests.rs"]
mod tests;

/// Maximum number of entries.
const MOST_ENTRIES: usize = 1_024;
/// Maximum number of bytes in total, with the keys; and of one list.
const MOST_BYTES: usize = 16 << 20;
const LARGEST: usize = 2 << 20;
/// Maximum number of bytes of the parameters in a key. They are kept per entry, and no cursor is longer.
const MOST_PARAMS: usize = 4 << 10;
/// Maximum lifetime that is accepted, in milliseconds: a day.
const LONGEST: u64 = 24 * 60 * 60 * 1000;

/// The key of a list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListKey {
    /// The number of the child's process.
    pub child: u64,
    /// The client's capabilities.
    pub class: Capabilities,
    /// The method.
    pub method: String,
    /// The raw parameters without `_meta`.
    pub params: Vec<u8>,
}

/// A request for a list whose answer may be kept.
#[derive(Clone, Debug)]
pub struct ListRequest {
    /// The key.
    pub key: ListKey,
    /// The client's principal.
    pub principal: Principal,
    /// The number of changes when the request was sent.
    pub changes: u64,
    /// The lifetime of a legacy child's list; `None` for a modern child, which states it.
    pub legacy: Option<Freshness>,
    /// Whether a legacy child's list is private, since the child knows who asks.
    pub is_private: bool,
}

/// The lifetime of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// For this time.
    For(Duration),
    /// Until the child reports a change.
    UntilChanged,
}

#[derive(Debug)]
struct KeptList {
    answer: Answer,
    changes: u64,
    stored: Instant,
    until: Option<Instant>,
}

/// The key of an entry and its owner; a public list has none.
type OwnedKey = (ListKey, Option<Principal>);

/// The cached lists.
#[derive(Debug)]
pub struct Lists {
    account: Account,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<OwnedKey, KeptList>,
    bytes: usize,
}

/// A list that is still fresh.
#[derive(Debug)]
pub struct FreshList {
    /// The child's answer.
    pub answer: Answer,
    /// The remaining lifetime in milliseconds, if limited.
    pub left: Option<u64>,
}

/// Returns the kind of list of a method; `None` if it lists nothing.
pub fn kind_of(method: &str) -> Option<ListKind> {
    Some(match method {
        "tools/list" => ListKind::Tools,
        "prompts/list" => ListKind::Prompts,
        "resources/list" | "resources/templates/list" => ListKind::Resources,
        _ => return None,
    })
}

/// Returns whether answers to a method may be kept at all.
pub fn may_be_kept(method: &str) -> bool {
    kind_of(method).is_some() || method == "server/discover"
}

/// Returns the parameters that distinguish lists, raw. `None` if the answer must not be kept: the request is a retry
/// (server/utilities/caching), or the parameters are too long.
pub fn distinguishing(frame: &[u8], message: &Message) -> Option<Vec<u8>> {
    let mut distinguishing = Vec::new();
    for (key, value) in message.params.iter().flat_map(|params| members(frame, params.span.clone())) {
        match &*text(frame, &key) {
            "_meta" => continue,
            "inputResponses" | "requestState" => return None,
            _ => {}
        }
        if distinguishing.len() + key.len() + value.len() > MOST_PARAMS {
            return None;
        }
        distinguishing.extend_from_slice(&frame[key]);
        distinguishing.push(b':');
        distinguishing.extend_from_slice(&frame[value]);
        distinguishing.push(b',');
    }
    Some(distinguishing)
}

impl Lists {
    /// Creates an empty cache, charged to `account`.
    pub fn new(account: Account) -> Self {
        Lists { account, state: Mutex::default() }
    }

    /// Removes all lists, since messages need the memory.
    pub fn forget(&self) {
        *self.state() = State::default();
    }

    /// Returns the kept answer if it is fresh for this request.
    pub fn find(&self, asked: &ListRequest, now: Instant) -> Option<FreshList> {
        let mut state = self.state();
        let mut owners = [None, Some(asked.principal.clone())].into_iter();
        let fresh = owners.find_map(|owner| {
            let key = (asked.key.clone(), owner);
            let entry = state.entries.get(&key)?;
            if entry.changes != asked.changes {
                counters::OUTDATED_LISTS.increment();
                state.remove(&key);
                return None;
            }
            let good = entry.until.is_none_or(|until| now < until);
            good.then(|| FreshList {
                answer: entry.answer.clone(),
                left: entry.until.map(|until| (until - now).as_millis() as u64),
            })
        });
        drop(state);
        match &fresh {
            Some(_) => counters::CACHED_LISTS.increment(),
            None => counters::UNCACHED_LISTS.increment(),
        }
        fresh
    }

    /// Keeps an answer, if it may be kept; `changes` is the current number of changes.
    pub fn put(&self, asked: &ListRequest, answer: &Answer, changes: u64, now: Instant) {
        if changes != asked.changes || answer.frame.len() > LARGEST {
            return;
        }
        let Some(result) = &answer.result else { return };
        let (is_private, until) = match asked.legacy {
            Some(Freshness::UntilChanged) => (asked.is_private, None),
            Some(Freshness::For(period)) => (asked.is_private, Some(now + period)),
            None => {
                let Some((ttl, scope)) = hint(&answer.frame, result) else { return };
                (scope == Scope::Private, Some(now + ttl))
            }
        };
        let owner = is_private.then(|| asked.principal.clone());
        if owner.as_ref().is_some_and(Principal::is_anonymous) {
            return;
        }
        // A copy, since the answer is charged to the first client.
        let Some(frame) = self.account.try_hold(answer.frame.to_vec()) else { return };
        let answer = Answer { frame, ..answer.clone() };
        let entry = KeptList { answer, changes, stored: now, until };
        self.state().insert((asked.key.clone(), owner), entry, now);
    }

    /// Removes the lists whose lifetime is over.
    pub fn expire(&self, now: Instant) {
        self.state().retain(|entry| entry.until.is_none_or(|until| now < until));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn insert(&mut self, key: OwnedKey, entry: KeptList, now: Instant) {
        self.remove(&key);
        self.bytes += size(&key, &entry);
        self.entries.insert(key, entry);
        if self.entries.len() > MOST_ENTRIES || self.bytes > MOST_BYTES {
            self.retain(|entry| entry.until.is_none_or(|until| now < until));
        }
        while self.entries.len() > MOST_ENTRIES || self.bytes > MOST_BYTES {
            let oldest =
                self.entries.iter().min_by_key(|(_, entry)| entry.stored).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { return };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &OwnedKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= size(key, &entry);
        }
    }

    fn retain(&mut self, good: impl Fn(&KeptList) -> bool) {
        let mut bytes = 0;
        self.entries.retain(|key, entry| {
            let keep = good(entry);
            bytes += if keep { size(key, entry) } else { 0 };
            keep
        });
        self.bytes = bytes;
    }
}

/// Returns the bytes of an entry.
fn size((key, owner): &OwnedKey, entry: &KeptList) -> usize {
    let owner = owner.as_ref().map_or(0, |owner| owner.name().len());
    entry.answer.frame.len() + key.params.len() + owner
}

/// Returns the lifetime and the scope of a modern child's complete result; `None` if it must not be kept.
fn hint(frame: &[u8], result: &crate::jsonrpc::Span) -> Option<(Duration, Scope)> {
    if result_type(frame, result) != ResultType::Complete {
        return None;
    }
    let ttl =
        member(frame, result, "ttlMs").and_then(|ttl| std::str::from_utf8(&frame[ttl]).ok()?.parse().ok());
    let scope = member(frame, result, "cacheScope");
    let public = scope.is_some_and(|scope| text(frame, &scope) == "public");
    let scope = if public { Scope::Public } else { Scope::Private };
    let ttl: u64 = ttl.filter(|ttl| *ttl > 0)?;
    Some((Duration::from_millis(ttl.min(LONGEST)), scope))
}
