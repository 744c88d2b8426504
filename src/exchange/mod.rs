//! One request's life at a child: what it says meanwhile, and its one outcome.
//!
//! [`Link`] is one child as its callers see it; [`Link::begin`] gives an [`Exchange`], whose [`next`](Exchange::next)
//! yields what the child says about the request and, last and exactly once, the outcome.

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
use crate::jsonrpc::{ClientId, Edits, Span, Spliced, splice};
use crate::mux::{Abandoned, Lost, Pending, WireId};
use crate::telemetry::{ChildOperation, Operation};
use parking_lot::Mutex;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// The one end of an exchange.
pub type Outcome = Result<Answer, Failure>;

/// The multiplexer as this program uses it.
pub type Mux = crate::mux::Mux<Held, Outcome>;
/// The multiplexer's answering half, owned by a child's router.
pub type Answering = crate::mux::Answering<Held, Outcome>;

/// What a slot holds until it is free: its places with it, so a cancelled call that the child still
/// works on counts as in flight.
#[derive(Debug)]
pub struct Held {
    /// Where messages about this request go while it runs.
    pub mailbox: Arc<Mailbox>,
    /// The client's progress token as it wrote it, if it gave one.
    pub token: Option<Charged>,
    /// Whether its driver takes the child's questions, where they can only be about this request.
    pub takes_questions: bool,
    /// Whose turn it takes on the way to the child; none for proxyrunner's own requests.
    pub client: Option<Client>,
    /// None for proxyrunner's own requests, nor while its client is asked.
    pub places: Mutex<Option<Places>>,
}

/// What a request is admitted by; given up when it is dropped.
#[derive(Debug)]
pub struct Places {
    /// Its place among `--max-in-flight`.
    pub all: Permit,
    /// Its place among `--max-child-in-flight`.
    pub child: Permit,
    /// A notification's place among the unproven ones of its child; see [`Backlog`].
    pub notice: Option<Permit>,
    /// Counts a notification that is not written yet among what a drain waits for.
    pub accepted: Option<Accepted>,
}

/// A child's response: a result or an error of its own.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The frame as the child wrote it.
    pub frame: Charged,
    /// Where its object stands in it.
    pub object: Span,
    /// Where the wire id stands.
    pub id: Span,
    /// Where the result stands; `None` when the child answered with an error.
    pub result: Option<Span>,
    /// Where the error stands.
    pub error: Option<Span>,
    /// Whether the result says of itself that it is an error.
    pub is_error: bool,
}

impl Answer {
    /// The response with the client's own id; every other byte as the child wrote it.
    pub fn restored(&self, id: &ClientId) -> Spliced {
        let mut edits = Edits::new();
        edits.replace(&self.id, id.raw());
        splice(&self.frame, &self.object, edits)
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
    /// The message, ids and tokens already the client's.
    pub frame: Spliced,
    /// What may become of it when its client is slow.
    pub class: Class,
    /// What it is about.
    pub topic: Topic,
}

/// What a message about a running request is, as far as translating it needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic {
    /// `notifications/progress`
    Progress,
    /// `notifications/message`
    Log,
    /// A question of the child, under this id of its own, in raw JSON; the frame is the child's.
    Question(Charged),
    /// The child took the question of this id back.
    Withdrawn(Charged),
    /// The client's answer to the question of this number, which the request asked on its child's behalf.
    Answer(u64),
    /// Anything else, or what needs no translation.
    Other,
}

/// How dear a message is when there is no room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Progress, logs: dropped, and counted.
    Droppable,
    /// A state that changed: saying it twice adds nothing, so an equal one that still waits replaces it.
    Idempotent,
    /// A question of the child or an answer to the client: never dropped.
    Dear,
}

/// What [`Exchange::next`] yields.
#[derive(Debug)]
pub enum Step {
    /// The child said something about the request.
    Interim(Interim),
    /// It is over; nothing follows.
    Outcome(Outcome),
}

/// A request on its way. Dropping it before its outcome cancels it at the child.
#[derive(Debug)]
pub struct Exchange {
    pending: Option<Pending<Held, Outcome>>,
    outcome: Option<Outcome>,
    mailbox: Arc<Mailbox>,
    inbox: Inbox,
    wire_id: WireId,
    /// How it is seen, until its outcome.
    operation: Option<ChildOperation>,
}

impl Exchange {
    fn new(
        pending: Pending<Held, Outcome>,
        mailbox: Arc<Mailbox>,
        inbox: Inbox,
        operation: Option<ChildOperation>,
    ) -> Self {
        let wire_id = pending.wire_id();
        Exchange { pending: Some(pending), outcome: None, mailbox, inbox, wire_id, operation }
    }

    /// The id under which the child knows the request.
    pub fn wire_id(&self) -> WireId {
        self.wire_id
    }

    /// Where messages about this request are put.
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// The next thing that happens. Safe to drop and call again; not to be called after the outcome.
    pub async fn next(&mut self) -> Step {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// It has these places from now on: none while it waits for its client, and no longer for the child.
    pub fn set_places(&self, places: Option<Places>) {
        let held = self.pending.as_ref().and_then(Pending::held);
        // One that is answered needs none.
        let Some(held) = held else { return };
        let before = {
            let mut has = held.places.lock();
            std::mem::replace(&mut *has, places)
        };
        drop(before);
    }

    /// Ends the exchange before its outcome, telling the child why.
    pub fn cancel(mut self, reason: &str) {
        self.withdraw(None, reason);
    }

    /// The same, for a failure of the request, as which it is seen.
    pub fn fail(mut self, failure: &Failure) {
        self.end_operation(failure);
        self.withdraw(None, &failure.to_string());
    }

    /// From now on it is seen as caused by another message: the retry of the one that was.
    pub fn set_cause(&mut self, message: &Arc<Operation>) {
        if let Some(operation) = &mut self.operation {
            operation.caused_by(message);
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
        // What the child said before its answer is delivered before it.
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

    /// Gives the slot up. A request that was not begun to be written never is; else the child is told.
    fn withdraw(&mut self, cancellation: Option<Spliced>, reason: &str) {
        let Some(mut pending) = self.pending.take() else { return };
        match pending.abandon() {
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
