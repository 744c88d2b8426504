//! Prevents a session from being ended as idle while a message of its client is handled. The check whether it is idle
//! and its end are one step.

use super::{Session, SessionState, Settings};
use crate::exchange::Failure;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A message of the client that is being handled.
#[derive(Debug)]
#[must_use = "dropping it marks the message as handled"]
pub struct Presence(Arc<Session>);

impl Session {
    /// Accepts a message of the client; returns `None` if the session has ended. The session is not idle until the
    /// presence is dropped.
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

    /// Ends the session if it is quiet and had no message for `idle`; returns whether it did.
    pub fn end_if_quiet_for(&self, idle: Duration, failure: &Failure, now: Instant) -> bool {
        self.end_if(failure, |state| {
            state.is_quiet() && now.saturating_duration_since(state.last_message) >= idle
        })
    }

    /// Ends the session if it was idle for too long or is too old; returns whether it did.
    pub(super) fn end_if_expired(&self, settings: &Settings, failure: &Failure, now: Instant) -> bool {
        let is_old = now.saturating_duration_since(self.opened) >= settings.max_age;
        self.end_if(failure, |state| {
            let idle = now.saturating_duration_since(state.last_active) >= settings.idle;
            is_old || (idle && state.in_flight.is_empty() && state.present == 0)
        })
    }

    /// Returns whether the session is quiet and had no message for `idle`. This can change at any moment.
    pub fn is_quiet_for(&self, idle: Duration, now: Instant) -> bool {
        let state = self.state();
        state.is_quiet() && now.saturating_duration_since(state.last_message) >= idle
    }

    /// Frees its place for another session, even if this session is still held for a moment.
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
    /// Returns whether no request is in flight, no message is being handled, and no answer of the client is expected.
    pub(super) fn is_quiet(&self) -> bool {
        self.present == 0 && self.in_flight.is_empty() && self.questions.is_quiet()
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.state().present -= 1;
    }
}
