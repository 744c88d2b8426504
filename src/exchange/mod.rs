//! The life of one request at a child: its interim messages, and its one outcome.
//!
//! [`Link`] is the callers' handle on one child. [`Link::begin`] returns an [`Exchange`], whose
//! [`next`](Exchange::next) yields the child's messages about the request and, last and exactly once, the outcome.

mod backlog;
mod failure;
mod inbox;
mod link;
mod mailbox;
mod noise;
mod orders;
mod seen;
mod uptake;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

pub use failure::{End, Failure, LastWords};
pub(crate) use inbox::Inbox;
pub use inbox::{Intake, Urgent};
pub(crate) use link::Standing;
pub use link::{Ends, Link, Refused};
pub(crate) use mailbox::{Interruption, Mailbox};
pub(crate) use noise::{Hint, Noise, quoted};
pub use orders::Order;
pub(crate) use uptake::Uptake;

use crate::admission::{Accepted, Permit};
use crate::budget::Charged;
use crate::client::Client;
use crate::jsonrpc::{ClientId, Span, Spliced, splice_one};
use crate::mux::{Abandoned, Lost, Pending, WireId};
use crate::telemetry::{ChildOperation, Operation};
use parking_lot::Mutex;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// The outcome of an exchange.
pub type Outcome = Result<Answer, Failure>;

/// The multiplexer with this program's types.
pub type Mux = crate::mux::Mux<Held, Outcome>;
/// The multiplexer's answering half, owned by a child's router.
pub type Answering = crate::mux::Answering<Held, Outcome>;

/// The contents of a slot until it is free. They include its permits, so that a cancelled call that the child still
/// processes counts as in flight.
#[derive(Debug)]
pub struct Held {
    /// The queue of messages about this request.
    pub mailbox: Arc<Mailbox>,
    /// The client's progress token in raw JSON, if it gave one.
    pub token: Option<Charged>,
    /// Whether the request's driver accepts questions of the child, where they can only concern this request.
    pub takes_questions: bool,
    /// The client in whose turn the request is sent; `None` for proxyrunner's own requests.
    pub client: Option<Client>,
    /// `None` for proxyrunner's own requests, and while the client is asked a question.
    pub places: Mutex<Option<Places>>,
    /// A subscription's place among `--max-listens`, which it keeps until the child no longer has it.
    pub listen: Option<Arc<Permit>>,
}

impl Held {
    /// Returns the data of a request that has no permits and no token, and takes no questions.
    pub fn unasked(mailbox: Arc<Mailbox>) -> Self {
        let (token, client, places, listen) = Default::default();
        Held { mailbox, token, takes_questions: false, client, places, listen }
    }
}

/// The permits of a request, given back on drop.
#[derive(Debug)]
pub struct Places {
    /// Its permit of `--max-in-flight`.
    pub all: Permit,
    /// Its permit of `--max-child-in-flight`.
    pub child: Permit,
    /// A notification's permit among the unproven ones of its child; see [`Backlog`](backlog::Backlog).
    pub notice: Option<Permit>,
    /// Lets a drain wait for a notification that is not written yet.
    pub accepted: Option<Accepted>,
}

/// A child's response: a result or an error.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The frame as the child wrote it.
    pub frame: Charged,
    /// The span of its object.
    pub object: Span,
    /// The span of the wire id.
    pub id: Span,
    /// The span of the result; `None` in an error response.
    pub result: Option<Span>,
    /// The span of the error; `None` in a result response.
    pub error: Option<Span>,
    /// Whether the result has `isError: true`.
    pub is_error: bool,
}

impl Answer {
    /// Returns the response with the client's own id. Every other byte stays as the child wrote it.
    pub fn restored(&self, id: &ClientId) -> Spliced {
        splice_one(&self.frame, &self.object, &self.id, id.raw())
    }
}

impl Lost for Outcome {
    fn lost() -> Self {
        Err(Failure::Lost)
    }
}

/// A message about a running request, ready for its client.
#[derive(Debug, PartialEq, Eq)]
pub struct Interim {
    /// The message, with the client's ids and tokens.
    pub frame: Spliced,
    /// Its handling when the client is slow.
    pub class: Class,
    /// Its subject.
    pub topic: Topic,
}

/// The subject of a message about a running request, as far as its translation depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic {
    /// `notifications/progress`
    Progress,
    /// `notifications/message`
    Log,
    /// A question of the child with this id, in raw JSON. The frame is the child's.
    Question(Charged),
    /// The child withdrew the question with this id.
    Withdrawn(Charged),
    /// The client's answer to the question with this number, which the request asked for its child.
    Answer(u64),
    /// Anything else.
    Other,
}

/// The importance of a message when there is no room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Progress and log messages: dropped, and counted.
    Droppable,
    /// A changed state: an equal message that still waits is enough.
    Idempotent,
    /// A question of the child, or an answer to the client: never dropped.
    Dear,
}

/// The result of [`Exchange::next`].
#[derive(Debug)]
pub enum Step {
    /// A message of the child about the request.
    Interim(Interim),
    /// The outcome; nothing follows.
    Outcome(Outcome),
}

/// A request in flight. Dropping it before its outcome cancels it at the child.
#[derive(Debug)]
pub struct Exchange {
    pending: Option<Pending<Held, Outcome>>,
    outcome: Option<Outcome>,
    /// The abandoned slot, until the child has been told.
    given_up: Option<Abandoned>,
    mailbox: Arc<Mailbox>,
    inbox: Arc<Inbox>,
    wire_id: WireId,
    /// The span and metrics of the request, until its outcome.
    operation: Option<ChildOperation>,
}

impl Exchange {
    fn new(
        pending: Pending<Held, Outcome>,
        mailbox: Arc<Mailbox>,
        inbox: Arc<Inbox>,
        operation: Option<ChildOperation>,
    ) -> Self {
        let wire_id = pending.wire_id();
        Exchange { pending: Some(pending), outcome: None, given_up: None, mailbox, inbox, wire_id, operation }
    }

    /// Returns the request's id at the child.
    pub fn wire_id(&self) -> WireId {
        self.wire_id
    }

    /// Returns the queue of messages about this request.
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Waits for the next step. Cancel-safe. Must not be called after the outcome.
    pub async fn next(&mut self) -> Step {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Waits for the next step of an exchange, if there is one; otherwise forever.
    pub async fn next_of(exchange: &mut Option<Self>) -> Step {
        match exchange {
            Some(exchange) => exchange.next().await,
            None => std::future::pending().await,
        }
    }

    /// Replaces the request's permits. It has none while it waits for its client instead of the child.
    pub fn set_places(&self, places: Option<Places>) {
        let held = self.pending.as_ref().and_then(Pending::held);
        // An answered request needs no permits.
        let Some(held) = held else { return };
        let before = {
            let mut has = held.places.lock();
            std::mem::replace(&mut *has, places)
        };
        drop(before);
    }

    /// Abandons the request: an answer that the child sends from now on is discarded, even before the child is told
    /// of the cancellation.
    pub fn give_up(&mut self) {
        if let Some(mut pending) = self.pending.take() {
            self.given_up = Some(pending.abandon());
        }
    }

    /// Cancels the request at the child, with a reason.
    pub fn cancel(mut self, reason: &str) {
        self.withdraw(None, reason);
    }

    /// Cancels the request at the child, and records the failure in its span and metrics.
    pub fn fail(mut self, failure: &Failure) {
        self.end_operation(failure);
        self.withdraw(None, &failure.to_string());
    }

    /// Attributes the request to another message: the retry of the one that began it.
    pub fn set_cause(&mut self, message: &Arc<Operation>) {
        if let Some(operation) = &mut self.operation {
            operation.set_cause(message);
        }
    }

    fn end_operation(&mut self, failure: &Failure) {
        if let Some(operation) = self.operation.take() {
            operation.end(&failure.verdict());
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if self.outcome.is_none() {
            if let Poll::Ready(interim) = self.mailbox.poll_pop(cx) {
                return Poll::Ready(match interim {
                    Ok(interim) => Step::Interim(interim),
                    Err(interruption) => Step::Outcome(Err(self.interrupted(interruption))),
                });
            }
            let Some(pending) = self.pending.as_mut() else {
                return Poll::Ready(Step::Outcome(Err(Failure::Lost)));
            };
            let outcome = ready!(Pin::new(pending).poll(cx));
            if let Some(operation) = self.operation.take() {
                seen::end(operation, &outcome);
            }
            self.outcome = Some(outcome);
            self.pending = None;
        }
        // Messages that the child sent before its answer are delivered before it.
        match self.mailbox.pop_or_close() {
            Some(interim) => Poll::Ready(Step::Interim(interim)),
            None => Poll::Ready(Step::Outcome(self.outcome.take().unwrap_or(Err(Failure::Lost)))),
        }
    }

    fn interrupted(&mut self, interruption: Interruption) -> Failure {
        let Interruption { failure, cancellation } = interruption;
        self.end_operation(&failure);
        self.withdraw(cancellation, &failure.to_string());
        failure
    }

    /// Gives the slot up, and cancels the request at the child. A request that has not been written yet is never
    /// written.
    fn withdraw(&mut self, cancellation: Option<Spliced>, reason: &str) {
        self.give_up();
        let Some(given_up) = self.given_up.take() else { return };
        match given_up {
            Abandoned::InFlight => {
                let frame = cancellation.unwrap_or_else(|| inbox::cancellation(self.wire_id, reason));
                self.inbox.uptake().note_notified();
                self.inbox.urge(Urgent(frame));
            }
            Abandoned::Withdrawn => self.inbox.orders.withdraw(self.wire_id),
            Abandoned::Settled => {}
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.withdraw(None, "no longer needed");
        self.mailbox.close();
    }
}
