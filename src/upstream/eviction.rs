//! Room for one more child when there are `--max-children`: as many idle ones are closed as newcomers wait for a place,
//! those that are ending anyway included.

use super::{Place, Upstream, now};
use crate::client::Client;
use crate::exchange::Failure;
use crate::session::Session;
use crate::telemetry::counters;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long an evicted child may take to make room before the newcomer is refused.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a newcomer looks whether the place that it counts on is still to come.
const LOOK: Duration = Duration::from_millis(100);

/// How many wait for the place of a child that is ending.
#[derive(Debug, Default)]
pub(super) struct Newcomers(Mutex<usize>);

/// One of them, until it is dropped.
struct Newcomer<'a>(&'a Newcomers);

impl Newcomers {
    fn arrive(&self) -> Newcomer<'_> {
        *self.count() += 1;
        Newcomer(self)
    }

    fn count(&self) -> MutexGuard<'_, usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Newcomer<'_> {
    fn drop(&mut self) {
        *self.0.count() -= 1;
    }
}

impl Upstream {
    /// A place for one more child of a client; if need be that of a child which is idle, or of a client that has more.
    pub(super) async fn place(&self, client: Client) -> Option<Place> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(Arc::new(place));
        }
        let _newcomer = self.newcomers.arrive();
        if !self.makes_room(client) {
            return None;
        }
        let mut place = pin!(Arc::clone(&self.places).acquire_owned());
        let coming = async {
            loop {
                match timeout(LOOK, &mut place).await {
                    Ok(place) => return place.ok(),
                    // One that was counted on may have made room for its own successor.
                    Err(_) => self.makes_room(client),
                };
            }
        };
        timeout(PATIENCE, coming).await.ok()?.map(Arc::new)
    }

    /// Closes idle children until each newcomer has one that is ending to wait for; false if there are too few.
    fn makes_room(&self, client: Client) -> bool {
        // Held meanwhile, so that no two count on the same one.
        let newcomers = self.newcomers.count();
        while self.ending() < *newcomers {
            if !self.pool.evict() && !self.evict(now()) && !self.gives_way(client, now()) {
                return false;
            }
        }
        true
    }

    /// Children that are on their way out.
    fn ending(&self) -> usize {
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.iter().filter_map(Weak::upgrade).filter(|link| link.is_ending()).count()
    }

    /// Takes a child from the client that has most of its own, sessions' and leased ones, if that has more than the
    /// newcomer will have: the idlest of its quiet sessions ends. Where a newcomer without any would be refused, or that
    /// client has more than half of `--max-children`, it loses one in use: the leased one that it has had longest, or its
    /// idlest session.
    fn gives_way(&self, newcomer: Client, now: Instant) -> bool {
        let exclusive = self.exclusive.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sessions: Vec<_> = exclusive.iter().filter_map(Weak::upgrade).collect();
        drop(exclusive);
        sessions.retain(|session| !session.is_ended());
        let mut owners = self.pool.clients();
        owners.extend(sessions.iter().map(|session| session.opener()));
        let count = |client| owners.iter().filter(|&&owner| owner == client).count();
        let most = owners.iter().copied().max_by_key(|&client| count(client));
        let Some(most) = most.filter(|&most| count(most) > count(newcomer) + 1) else { return false };
        sessions.retain(|session| session.opener() == most);
        sessions.sort_by_cached_key(|session| session.last_message());
        let failure = Failure::SessionEnded;
        let ends =
            |session: &&Arc<Session>| self.directory.end_if_quiet_for(Duration::ZERO, session, &failure, now);
        if let Some(quiet) = sessions.iter().find(ends) {
            counters::EVICTED_SESSIONS.increment();
            tracing::info!(session = %quiet.id(), "evicted: --max-children is reached, and its client has most of them");
            return true;
        }
        let has_most = count(most) * 2 > self.settings.max_children;
        if self.may_share() || !has_most && count(newcomer) > 0 {
            return false;
        }
        if self.pool.end_one_of(most) {
            tracing::warn!(
                "a call lost its server: --max-children is reached, and its client has most of them"
            );
            return true;
        }
        let Some(idlest) = sessions.first() else { return false };
        self.directory.end(idlest, &failure);
        counters::EVICTED_SESSIONS.increment();
        tracing::info!(session = %idlest.id(), "evicted: --max-children is reached, and its client has most of them");
        true
    }

    /// Ends the session that has been quiet longest, if that is longer than `--evict-after`.
    fn evict(&self, now: Instant) -> bool {
        let patience = self.settings.evict_after;
        let exclusive = self.exclusive.lock().unwrap_or_else(PoisonError::into_inner);
        let mut quiet: Vec<_> = exclusive.iter().filter_map(Weak::upgrade).collect();
        drop(exclusive);
        quiet.retain(|session| !session.is_ended() && session.is_quiet_for(patience, now));
        quiet.sort_by_key(|session| session.last_message());
        let ends = |session: &&Arc<Session>| {
            self.directory.end_if_quiet_for(patience, session, &Failure::SessionEnded, now)
        };
        let Some(longest) = quiet.iter().find(ends) else { return false };
        counters::EVICTED_SESSIONS.increment();
        tracing::info!(session = %longest.id(), "evicted: --max-children is reached, and it was idle longest");
        true
    }
}
