//! Registers the requests in flight in their session, so that the client can cancel them by its own id.

use super::in_flight::InFlight;
use super::{Session, SessionState};
use crate::budget::Charged;
use crate::exchange::{Failure, Interim, Interruption, Mailbox};
use crate::jsonrpc::{ClientId, Message, rewrite};
use crate::mux::WireId;
use crate::telemetry::counters;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// The effect of a client's cancellation.
#[derive(Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// The one request with that id was interrupted.
    One,
    /// No request with that id is in flight: it was answered meanwhile.
    None,
    /// Several requests with that id are in flight. None was interrupted, since any of them may be the intended one.
    Several,
}

/// A request that is registered in its session until this is finished or dropped. It is registered before it waits
/// for admission, so that the client can cancel it, and before the child can read it, so that the child's messages
/// about it arrive.
#[derive(Debug)]
#[must_use = "dropping it ends the request"]
pub struct Underway {
    session: Arc<Session>,
    /// Identifies the request in its session. A wire id does not, since several children may serve the session.
    mailbox: Arc<Mailbox>,
    is_finished: bool,
}

impl Underway {
    /// Registers a request that waits to be sent.
    pub fn begin(session: &Arc<Session>, client_id: ClientId, mailbox: Arc<Mailbox>) -> Self {
        session.note_request(client_id, None, Arc::clone(&mailbox));
        Underway { session: Arc::clone(session), mailbox, is_finished: false }
    }

    /// Marks the request as sent under this id. It becomes the newest request, since the child receives it now.
    pub fn mark_sent(&self, wire_id: WireId) {
        let mut state = self.session.state();
        if let Some(at) =
            state.in_flight.iter().position(|request| Arc::ptr_eq(&request.mailbox, &self.mailbox))
        {
            let request = state.in_flight.remove(at);
            state.in_flight.push(InFlight { wire_id: Some(wire_id), ..request });
        }
    }

    /// Waits until the request has to end before it was sent: its client cancelled it, or the session ends.
    pub async fn interrupted(&self) -> Failure {
        loop {
            // The child does not know the request yet, so there are no other messages about it.
            if let Err(interruption) = self.mailbox.next().await {
                return interruption.failure;
            }
        }
    }

    /// Returns the reason for the request's end, if it has ended already.
    pub fn failure(&self) -> Option<Failure> {
        match pin!(self.interrupted()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(failure) => Some(failure),
            Poll::Pending => None,
        }
    }

    /// Removes the request, which has its outcome.
    pub fn finish(mut self, now: Instant) {
        self.is_finished = true;
        self.session.finish_request(&self.mailbox, now);
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if !self.is_finished {
            self.session.state().forget(&self.mailbox);
        }
    }
}

impl Session {
    /// Registers a request as in flight, so that it can be cancelled by the client's id.
    pub(super) fn note_request(&self, client_id: ClientId, wire_id: Option<WireId>, mailbox: Arc<Mailbox>) {
        let request = InFlight { client_id, wire_id, mailbox: Arc::clone(&mailbox), gave_way: false };
        self.state().in_flight.push(request);
        // Checked after the request was registered, since an end before that would have missed it.
        if self.is_ended() {
            mailbox.interrupt(Interruption { failure: self.why_ended(), cancellation: None });
        }
    }

    /// Removes a request that has its outcome.
    pub(super) fn finish_request(&self, mailbox: &Arc<Mailbox>, now: Instant) {
        let mut state = self.state();
        state.note_message(now);
        state.forget(mailbox);
    }

    /// Handles the client's `notifications/cancelled` for its request `id`; `frame` holds the notification as
    /// received.
    ///
    /// If several requests in flight share the id, none is cancelled (`docs/architecture.md#wire-ids`).
    pub fn cancel(&self, id: &ClientId, frame: &Charged, message: &Message) -> Cancelled {
        let state = self.state();
        let mut found = state.in_flight.iter().filter(|request| request.client_id == *id);
        let Some(request) = found.next() else { return Cancelled::None };
        if found.next().is_some() {
            counters::AMBIGUOUS_CANCELLATIONS.increment();
            return Cancelled::Several;
        }
        let cancellation = request
            .wire_id
            .map(|wire_id| rewrite::with_request_id(frame, message, wire_id.as_u64().to_string().as_bytes()));
        let mailbox = Arc::clone(&request.mailbox);
        drop(state);
        mailbox.interrupt(Interruption { failure: Failure::Cancelled, cancellation });
        Cancelled::One
    }

    /// Gives a message to the newest request whose mailbox accepts it; the mailbox of a finished request is closed.
    pub(super) fn give_to_newest(&self, mut interim: Interim) -> Result<Arc<Mailbox>, Interim> {
        let state = self.state();
        for request in state.in_flight.iter().rev().filter(|request| request.wire_id.is_some()) {
            match request.mailbox.push(interim) {
                Ok(()) => return Ok(Arc::clone(&request.mailbox)),
                Err(refused) => interim = refused,
            }
        }
        Err(interim)
    }
}

impl SessionState {
    fn forget(&mut self, mailbox: &Arc<Mailbox>) {
        if let Some(at) = self.in_flight.iter().position(|request| Arc::ptr_eq(&request.mailbox, mailbox)) {
            // The order matters: the newest request is the last.
            self.in_flight.remove(at);
        }
    }
}
