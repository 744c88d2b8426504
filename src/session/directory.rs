//! The table of sessions: bounded, searched by id and principal, swept by age.

use super::{Principal, Session, SessionId, Settings};
use crate::budget::Budget;
use crate::client::Client;
use crate::exchange::Failure;
use crate::telemetry::counters;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// All sessions of this process.
#[derive(Debug)]
pub struct Directory {
    settings: Settings,
    budget: Budget,
    places: Arc<Semaphore>,
    sessions: RwLock<HashMap<SessionId, Arc<Session>>>,
}

/// There are `--max-sessions` already, or no randomness for an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Directory {
    /// An empty one.
    pub fn new(settings: Settings, budget: Budget) -> Self {
        let places = Arc::new(Semaphore::new(settings.max_sessions.min(Semaphore::MAX_PERMITS)));
        Directory { settings, budget, places, sessions: RwLock::default() }
    }

    /// A session for the client at `address` that nobody can find yet: [`list`](Self::list) it once its handshake is
    /// complete.
    ///
    /// # Errors
    /// When there are too many.
    pub fn open(
        &self,
        principal: Principal,
        address: Option<IpAddr>,
        now: Instant,
    ) -> Result<Arc<Session>, Full> {
        let opener = principal.client_or(|| Client::at(address));
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Full)?;
        let id = SessionId::mint().map_err(|_| Full)?;
        Ok(Arc::new(Session::new(id, principal, opener, &self.settings, self.budget.clone(), place, now)))
    }

    /// From now on the session can be found, unless it has ended already.
    pub fn list(&self, session: &Arc<Session>) {
        counters::OPENED_SESSIONS.increment();
        self.write().insert(session.id().clone(), Arc::clone(session));
        // Looked at after it was listed: an end in between found nothing to forget.
        if session.is_ended() {
            self.write().remove(session.id());
        }
    }

    /// The session of this id, if it is this principal's: another's is as unknown as one that never was.
    pub fn find(&self, id: &str, principal: &Principal) -> Option<Arc<Session>> {
        let session = self.read().get(id).cloned()?;
        (session.principal() == principal && !session.is_ended()).then_some(session)
    }

    /// Ends a session and forgets it.
    pub fn end(&self, session: &Session, failure: &Failure) {
        self.write().remove(session.id());
        session.end(failure);
    }

    /// Ends a session and forgets it if it is quiet, and has been without a message for `idle`; whether it was.
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

    /// Ends the sessions that have been idle too long or are too old.
    pub fn expire(&self, now: Instant) {
        for session in self.all() {
            if session.end_if_expired(&self.settings, &Failure::SessionEnded, now) {
                counters::EXPIRED_SESSIONS.increment();
                tracing::debug!(session = %session.id(), "session expired");
                self.write().remove(session.id());
            }
        }
    }

    /// Drops what is owed to clients that left, one answer after the other and the oldest first, until it is `enough`.
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

    /// Every session there is.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.read().values().cloned().collect()
    }

    /// Whether a session has an answer for a client that is expected back.
    pub fn expects_anybody(&self, now: Instant) -> bool {
        self.read().values().any(|session| session.is_client_expected(now))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.read().len()
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<SessionId, Arc<Session>>> {
        self.sessions.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<SessionId, Arc<Session>>> {
        self.sessions.write().unwrap_or_else(PoisonError::into_inner)
    }
}
