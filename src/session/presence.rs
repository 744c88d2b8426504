//! Keeps a session from being ended as idle while a message of its client is handled: whether it is idle is checked in
//! the same step that ends it.

use super::{Session, SessionState, Settings};
use crate::exchange::Failure;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A message of the client that is being handled.
#[derive(Debug)]
#[must_use = "dropping it says that the message is handled"]
pub struct Presence(Arc<Session>);

impl Session {
    /// Takes a message of the client; `None` if the session has ended. Until the presence is dropped, the session is not
    /// idle.
    pub fn receive(self: &Arc<Self>, now: Instant) -> Option<Presence> {
        let mut state = self.state();
        if self.is_ended() {
            return None;
        }
        state.last_active = now;
        state.last_message = now;
        state.present += 1;
        Some(Presence(Arc::clone(self)))
    }

    /// Ends the session if it is quiet, and has been without a message for `idle`; whether it was.
    pub fn end_if_quiet_for(&self, idle: Duration, failure: &Failure, now: Instant) -> bool {
        self.end_if(failure, |state| {
            state.is_quiet() && now.saturating_duration_since(state.last_message) >= idle
        })
    }

    /// Ends the session if it has been idle for too long or is too old; whether it was.
    pub(super) fn end_if_expired(&self, settings: &Settings, failure: &Failure, now: Instant) -> bool {
        let is_old = now.saturating_duration_since(self.opened) >= settings.max_age;
        self.end_if(failure, |state| {
            let idle = now.saturating_duration_since(state.last_active) >= settings.idle;
            is_old || (idle && state.in_flight.is_empty() && state.present == 0)
        })
    }

    /// Whether the session has been quiet for `idle`. That may be over as soon as it is known.
    pub fn is_quiet_for(&self, idle: Duration, now: Instant) -> bool {
        let state = self.state();
        state.is_quiet() && now.saturating_duration_since(state.last_message) >= idle
    }

    /// Gives its place to another session, though something may still hold this one for a moment.
    pub(super) fn give_up_place(&self) {
        drop(self.place.lock().take());
    }

    pub(super) fn has_place(&self) -> bool {
        self.place.lock().is_some()
    }

    fn end_if(&self, failure: &Failure, condition: impl FnOnce(&SessionState) -> bool) -> bool {
        let state = self.state();
        if self.is_ended() || !condition(&state) {
            return false;
        }
        self.mark_ended(failure);
        drop(state);
        self.wind_up();
        true
    }
}

impl SessionState {
    /// Nothing in flight, no message that is being handled, and nobody waits for an answer of the client.
    pub(super) fn is_quiet(&self) -> bool {
        self.present == 0 && self.in_flight.is_empty() && self.questions.is_quiet()
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.state().present -= 1;
    }
}
