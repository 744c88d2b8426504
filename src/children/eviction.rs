//! Makes room for another child when `--max-children` is reached: closes one idle child per newcomer that waits for a
//! place, minus those that are ending already.

use super::Children;
use super::places::{ChildPlace, PlaceWait, Use};
use crate::clock::now;
use crate::exchange::Failure;
use crate::session::Session;
use crate::sorted::sorted_by_key;
use crate::telemetry::counters;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Time an evicted child has to exit before the newcomer is refused.
const PATIENCE: Duration = Duration::from_secs(10);
/// Interval at which a newcomer checks that its place is still expected.
const LOOK: Duration = Duration::from_millis(100);

/// Whether the client with the most children can lose one to the newcomer.
enum LargestHolder {
    /// One of the client's children is ending.
    Gives,
    /// A child that is being started can be ended soon.
    WillGive,
    /// The client keeps its children.
    Stays,
}

impl Children {
    /// Returns a place for another child; if need be, takes it from an idle child or from the client that holds most.
    pub(super) async fn place(&self, wanted: Use) -> Option<ChildPlace> {
        if let Some(place) = self.places.try_take(wanted) {
            return Some(place);
        }
        let mut place = pin!(self.places.wait(wanted));
        if !self.make_room(wanted, &place) {
            return None;
        }
        let coming = async {
            loop {
                match timeout(LOOK, &mut place).await {
                    Ok(place) => return place,
                    // The expected place may have gone to its own successor.
                    Err(_) => self.make_room(wanted, &place),
                };
            }
        };
        timeout(PATIENCE, coming).await.ok()
    }

    /// Closes idle children until enough of them are ending for this newcomer; returns false if there are too few.
    fn make_room(&self, newcomer: Use, place: &PlaceWait) -> bool {
        // One newcomer at a time, so that no two count on the same place.
        let _turn = self.making_room.lock();
        while self.places.ending() < place.turn() {
            if self.pool.evict() || self.evict(now()) {
                continue;
            }
            match self.take_from_largest(newcomer, now()) {
                LargestHolder::Gives => {}
                LargestHolder::WillGive => return true,
                LargestHolder::Stays => return false,
            }
        }
        true
    }

    /// Takes a child from the client that holds most, if it holds more than the newcomer will: the session that has
    /// been quiet longest ends. If a newcomer without a child would be refused, or that client holds more than half
    /// of `--max-children`, it loses a child in use: the child that a call has leased longest, or that of its idlest
    /// session.
    fn take_from_largest(&self, newcomer: Use, now: Instant) -> LargestHolder {
        let holders = self.places.clients();
        let count = |client| holders.iter().filter(|&&holder| holder == client).count();
        let own = newcomer.client().map_or(0, count);
        let most = holders.iter().copied().max_by_key(|&client| count(client));
        let Some(most) = most.filter(|&most| count(most) > own + 1) else { return LargestHolder::Stays };
        let exclusive = self.exclusive.lock();
        let mut sessions: Vec<_> = exclusive.iter().filter_map(Weak::upgrade).collect();
        drop(exclusive);
        sessions.retain(|session| !session.is_ended() && session.opener() == most);
        let sessions = sorted_by_key(sessions, |session| session.last_message());
        let failure = Failure::SessionEnded;
        let ends =
            |session: &&Arc<Session>| self.directory.end_if_quiet_for(Duration::ZERO, session, &failure, now);
        if let Some(quiet) = sessions.iter().find(ends) {
            counters::EVICTED_SESSIONS.increment();
            tracing::info!(session = %quiet.id(), "evicted a session's server: --max-children is reached, and the session's client holds the most servers");
            return LargestHolder::Gives;
        }
        let has_most = count(most) * 2 > self.settings.max_children;
        if self.settings.may_share() || !has_most && own > 0 {
            return LargestHolder::Stays;
        }
        if self.places.end_one_of(most) {
            tracing::warn!(
                "evicted a call's server: --max-children is reached, and the call's client holds the most servers"
            );
            return LargestHolder::Gives;
        }
        if let Some(idlest) = sessions.first() {
            self.directory.end(idlest, &failure);
            counters::EVICTED_SESSIONS.increment();
            tracing::info!(session = %idlest.id(), "evicted a session's server: --max-children is reached, and the session's client holds the most servers");
            return LargestHolder::Gives;
        }
        if self.places.is_starting_one_of(most) { LargestHolder::WillGive } else { LargestHolder::Stays }
    }

    /// Ends the session that has been quiet longest, and longer than `--evict-after`.
    fn evict(&self, now: Instant) -> bool {
        let patience = self.settings.evict_after;
        let exclusive = self.exclusive.lock();
        let mut quiet: Vec<_> = exclusive.iter().filter_map(Weak::upgrade).collect();
        drop(exclusive);
        quiet.retain(|session| !session.is_ended() && session.is_quiet_for(patience, now));
        let quiet = sorted_by_key(quiet, |session| session.last_message());
        let ends = |session: &&Arc<Session>| {
            self.directory.end_if_quiet_for(patience, session, &Failure::SessionEnded, now)
        };
        let Some(longest) = quiet.iter().find(ends) else { return false };
        counters::EVICTED_SESSIONS.increment();
        tracing::info!(session = %longest.id(), "evicted a session's server: --max-children is reached, and the session was idle longest");
        true
    }
}
