//! Requests of a session's client that have no outcome yet, so that they can be cancelled by the client's id.

use super::Session;
use crate::budget::Charged;
use crate::exchange::{Failure, Interim, Interruption, Mailbox};
use crate::jsonrpc::{ClientId, Message, rewrite};
use crate::mux::WireId;
use crate::telemetry::counters;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// A request of the client that has no outcome yet.
#[derive(Debug)]
pub(super) struct InFlight {
    client_id: ClientId,
    /// Unset while it waits to be sent: the child has not heard of it, and says nothing about it.
    wire_id: Option<WireId>,
    pub(super) mailbox: Arc<Mailbox>,
    /// It was interrupted for the memory that it holds.
    pub(super) gave_way: bool,
}

/// What a cancellation found.
#[derive(Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// The one request of that id was interrupted.
    One,
    /// None is in flight: it was answered meanwhile.
    None,
    /// Several are; none was interrupted, since which one was meant can't be known.
    Several,
}

/// Notes a request in its session until this is finished or dropped: from the start, so that the client can cancel it
/// while it waits its turn; and from before the child can read it, so that what the child says of it finds its way.
#[derive(Debug)]
#[must_use = "dropping it says that the request is over"]
pub struct Underway {
    session: Arc<Session>,
    /// Tells it from the session's other requests; a wire id does not, where they are at several children.
    mailbox: Arc<Mailbox>,
}

impl Underway {
    /// Notes a request that waits to be sent.
    pub fn begin(session: &Arc<Session>, client_id: ClientId, mailbox: Arc<Mailbox>) -> Self {
        session.began(client_id, None, Arc::clone(&mailbox));
        Underway { session: Arc::clone(session), mailbox }
    }

    /// It is about to be sent under this id. It is the newest from now on, since the child hears of it now.
    pub fn sent(&self, wire_id: WireId) {
        let mut state = self.session.state();
        if let Some(at) =
            state.in_flight.iter().position(|request| Arc::ptr_eq(&request.mailbox, &self.mailbox))
        {
            let request = state.in_flight.remove(at);
            state.in_flight.push(InFlight { wire_id: Some(wire_id), ..request });
        }
    }

    /// Resolves when the request is to end before it was sent: its client cancelled it, or the session ends.
    pub async fn interrupted(&self) -> Failure {
        loop {
            // The child does not know of it yet, so nothing else is said.
            if let Err(interruption) = self.mailbox.next().await {
                return interruption.failure;
            }
        }
    }

    /// Why it has ended already, if it has.
    pub fn over(&self) -> Option<Failure> {
        match pin!(self.interrupted()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(failure) => Some(failure),
            Poll::Pending => None,
        }
    }

    /// The request has its outcome.
    pub fn finish(self, now: Instant) {
        self.session.finished(&self.mailbox, now);
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.session.forget(&self.mailbox);
    }
}

impl Session {
    /// Notes a request as in flight, so that it can be cancelled by the client's id.
    pub(super) fn began(&self, client_id: ClientId, wire_id: Option<WireId>, mailbox: Arc<Mailbox>) {
        let request = InFlight { client_id, wire_id, mailbox: Arc::clone(&mailbox), gave_way: false };
        self.state().in_flight.push(request);
        // Looked at after it was noted: an end before would have missed it.
        if self.is_ended() {
            mailbox.interrupt(Interruption { failure: self.why_ended(), cancellation: None });
        }
    }

    /// The request has its outcome.
    pub(super) fn finished(&self, mailbox: &Arc<Mailbox>, now: Instant) {
        self.heard(now);
        self.forget(mailbox);
    }

    fn forget(&self, mailbox: &Arc<Mailbox>) {
        let mut state = self.state();
        if let Some(at) = state.in_flight.iter().position(|request| Arc::ptr_eq(&request.mailbox, mailbox)) {
            // Order is kept: the newest request is the last.
            state.in_flight.remove(at);
        }
    }

    /// The client's `notifications/cancelled` for its request `id`, with `frame` as it wrote it.
    ///
    /// It names the request by the client's id, within its session; where several in flight share that id, none
    /// is cancelled (D2).
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

    /// To the newest request whose mailbox takes it: that of one with an outcome is closed.
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
