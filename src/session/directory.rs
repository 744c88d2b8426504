//! The table of sessions: limited in number, searched by id and principal, and swept for expired sessions.

use super::{Session, Settings};
use crate::admission::{Holder, Share, Shares, Taken};
use crate::audience::{Members, SessionId};
use crate::budget::Account;
use crate::client::Client;
use crate::exchange::Failure;
use crate::identity::Principal;
use crate::sorted::sorted_by_key;
use crate::telemetry::counters;
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::IpAddr;
use std::ptr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// All sessions of this process.
#[derive(Debug)]
pub struct Directory {
    settings: Settings,
    places: Arc<Shares>,
    /// Sessions whose handshake is not complete.
    opening: Mutex<Vec<Weak<Session>>>,
    sessions: RwLock<HashMap<SessionId, Arc<Session>>>,
}

/// There are `--max-sessions` sessions already, or the system provided no randomness for an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryFull;

impl Directory {
    /// Returns an empty directory.
    pub fn new(settings: Settings) -> Self {
        let places = Shares::new(settings.max_sessions);
        Directory { settings, places, opening: Mutex::default(), sessions: RwLock::default() }
    }

    /// Opens a session with a random id; see [`open_as`](Self::open_as).
    ///
    /// # Errors
    /// Fails if there are too many sessions.
    pub fn open(
        &self,
        principal: Principal,
        address: Option<IpAddr>,
        account: Account,
        now: Instant,
    ) -> Result<Arc<Session>, DirectoryFull> {
        let id = SessionId::mint().map_err(|_| DirectoryFull)?;
        self.open_as(id, principal, address, account, now)
    }

    /// Opens a session for the client at `address`. It cannot be found before [`list`](Self::list), which is called
    /// once its handshake is complete. Its messages are charged to its own account, `account`.
    ///
    /// # Errors
    /// Fails if there are too many sessions.
    pub fn open_as(
        &self,
        id: SessionId,
        principal: Principal,
        address: Option<IpAddr>,
        account: Account,
        now: Instant,
    ) -> Result<Arc<Session>, DirectoryFull> {
        let opener = principal.client_or(|| Client::at(address));
        let place = self.place(opener, now)?;
        let session = Arc::new(Session::new(id, principal, opener, &self.settings, account, place, now));
        let weak = Arc::downgrade(&session);
        session.account().on_give_way(move || weak.upgrade().is_some_and(|session| session.give_way()));
        let mut opening = self.opening();
        opening.retain(|session| session.strong_count() > 0);
        opening.push(Arc::downgrade(&session));
        drop(opening);
        Ok(session)
    }

    /// Takes a place for another session of a client. If all places are taken, evicts a session of the client that
    /// has most, else the one that has been quiet longest.
    fn place(&self, opener: Client, now: Instant) -> Result<Share, DirectoryFull> {
        loop {
            match self.places.take(opener) {
                Ok(place) => return Ok(place),
                Err(Taken { by: Some(holder) }) if self.evict_from(holder, now) => {}
                Err(_) if self.evict_quietest(now) => {}
                Err(_) => return Err(DirectoryFull),
            }
        }
    }

    /// Ends the session of a client that has been idle longest, a quiet one first; returns whether one was ended.
    /// Only a client that holds more than half of all places loses a busy session.
    fn evict_from(&self, holder: Holder, now: Instant) -> bool {
        let opening: Vec<_> = self.opening().iter().filter_map(Weak::upgrade).collect();
        let own = |session: &Arc<Session>| session.opener() == holder.client && session.has_place();
        let sessions: Vec<_> = self.read().values().cloned().chain(opening).filter(own).collect();
        let sessions = sorted_by_key(sessions, |session| session.last_message());
        let failure = Failure::SessionEnded;
        let quiet =
            sessions.iter().find(|session| self.end_if_quiet_for(Duration::ZERO, session, &failure, now));
        let Some(idlest) = quiet.or_else(|| sessions.first().filter(|_| holder.has_most)) else {
            return false;
        };
        self.end(idlest, &failure);
        note_evicted(idlest, "its client holds the most sessions");
        true
    }

    /// Ends the session that has been quiet longest, if it has been for `--evict-after`; returns whether it did.
    fn evict_quietest(&self, now: Instant) -> bool {
        let patience = self.settings.evict_after;
        let quiet: Vec<_> =
            self.all().into_iter().filter(|session| session.is_quiet_for(patience, now)).collect();
        let quiet = sorted_by_key(quiet, |session| session.last_message());
        let failure = Failure::SessionEnded;
        let ended = quiet.iter().find(|session| self.end_if_quiet_for(patience, session, &failure, now));
        if let Some(session) = ended {
            note_evicted(session, "it has been quiet longest");
        }
        ended.is_some()
    }

    /// Makes the session findable, unless it has ended already.
    pub fn list(&self, session: &Arc<Session>) {
        counters::OPENED_SESSIONS.increment();
        session.announce();
        self.opening().retain(|opening| !ptr::eq(opening.as_ptr(), Arc::as_ptr(session)));
        self.write().insert(session.id().clone(), Arc::clone(session));
        // Checked after the session was listed, since an end before that found nothing to remove.
        if session.is_ended() {
            self.write().remove(session.id());
        }
    }

    /// Returns the session of this id if it belongs to this principal; a session of another one counts as unknown.
    pub fn find(&self, id: &str, principal: &Principal) -> Option<Arc<Session>> {
        let session = self.read().get(id).cloned()?;
        (session.principal() == principal && !session.is_ended()).then_some(session)
    }

    /// Ends and removes a session.
    pub fn end(&self, session: &Session, failure: &Failure) {
        self.write().remove(session.id());
        session.end(failure);
    }

    /// Ends and removes all sessions at a shared child.
    pub fn end_seated(&self, members: &Members, failure: &Failure) {
        for session in members.sessions() {
            self.write().remove(session.id());
            session.end(failure);
        }
    }

    /// Ends and removes a session if it is quiet and had no message for `idle`; returns whether it did.
    pub fn end_if_quiet_for(
        &self,
        idle: Duration,
        session: &Session,
        failure: &Failure,
        now: Instant,
    ) -> bool {
        let ended = session.end_if_quiet_for(idle, failure, now);
        if ended {
            self.write().remove(session.id());
        }
        ended
    }

    /// Ends and removes the sessions that were idle for too long or are too old.
    pub fn expire(&self, now: Instant) {
        for session in self.all() {
            if session.end_if_expired(&self.settings, &Failure::SessionEnded, now) {
                counters::EXPIRED_SESSIONS.increment();
                tracing::debug!(session = %session.id(), "session expired");
                self.write().remove(session.id());
            }
        }
    }

    /// Drops the events kept for disconnected clients, the oldest first, until `enough` returns true.
    pub fn forget_owed(&self, enough: impl Fn() -> bool) {
        let sessions = self.all();
        let owing = |at: usize| Some((Reverse(sessions[at].oldest_owed()?), at));
        let mut oldest: BinaryHeap<_> = (0..sessions.len()).filter_map(owing).collect();
        while !enough()
            && let Some((_, at)) = oldest.pop()
        {
            sessions[at].forget_oldest_owed();
            oldest.extend(owing(at));
        }
    }

    /// Returns all sessions.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.read().values().cloned().collect()
    }

    /// Returns whether a session has an answer for a client that is expected to resume.
    pub fn expects_anybody(&self, now: Instant) -> bool {
        self.read().values().any(|session| session.is_client_expected(now))
    }

    /// Returns the number of sessions.
    pub fn count(&self) -> usize {
        self.read().len()
    }

    fn opening(&self) -> MutexGuard<'_, Vec<Weak<Session>>> {
        self.opening.lock()
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<SessionId, Arc<Session>>> {
        self.sessions.read()
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<SessionId, Arc<Session>>> {
        self.sessions.write()
    }
}

/// Frees the place of a session that was ended to make room.
fn note_evicted(session: &Session, why: &str) {
    session.give_up_place();
    counters::EVICTED_SESSIONS.increment();
    tracing::info!(session = %session.id(), "evicted a session: --max-sessions is reached, and {why}");
}
