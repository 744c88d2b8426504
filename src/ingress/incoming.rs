//! A client's message on its way to a child, and the reasons to refuse it.

use crate::budget::Charged;
use crate::era::headers::Mismatch;
use crate::exchange::{Failure, Link, Mailbox, Refused};
use crate::identity::Identity;
use crate::jsonrpc::{ClientId, Message, codes, text};
use crate::telemetry::{ChildOperation, Operation, Verdict};
use crate::trace_context::Trace;
use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

/// A client's message as received. One word, since messages are passed through many futures.
#[derive(Clone, Debug)]
pub struct Incoming(Box<Received>);

/// The parts of an [`Incoming`] message.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its bytes.
    pub frame: Charged,
    /// The spans of its parts.
    pub message: Message,
    /// The trace context of its HTTP request.
    pub trace: Trace,
    /// The caller.
    pub identity: Arc<Identity>,
    /// The recorded operation.
    pub operation: Arc<Operation>,
}

impl From<Received> for Incoming {
    fn from(received: Received) -> Self {
        Incoming(Box::new(received))
    }
}

impl Deref for Incoming {
    type Target = Received;

    fn deref(&self) -> &Received {
        &self.0
    }
}

impl Incoming {
    /// Returns the message without its operation, for use long after its request.
    pub(crate) fn unseen(&self) -> Incoming {
        Received { operation: Arc::default(), ..Received::clone(self) }.into()
    }

    /// Creates a mailbox for the child's interim messages, charged to the same account.
    pub(crate) fn mailbox(&self) -> Arc<Mailbox> {
        Mailbox::charging(self.frame.account())
    }

    /// Begins the operation at a child.
    pub(crate) fn ask(&self, link: &Link) -> Option<ChildOperation> {
        self.operation.ask(link.revision(), link.number())
    }

    /// Returns the trace context for the child: that of the operation there, or the client's.
    pub(crate) fn trace_for(&self, asked: Option<&ChildOperation>) -> Cow<'_, Trace> {
        asked.map_or(Cow::Borrowed(&self.trace), |asked| asked.traced(&self.trace))
    }

    /// Returns the method; empty for a response.
    pub fn method(&self) -> Cow<'_, str> {
        let Some(method) = &self.message.method else { return Cow::default() };
        match &self.frame[method.clone()] {
            // The most frequent method need not be unescaped, each time it is asked for.
            b"\"tools/call\"" => "tools/call".into(),
            _ => text(&self.frame, method),
        }
    }

    /// Returns the id as a value that outlives the message.
    pub fn client_id(&self) -> ClientId {
        ClientId::new(self.id())
    }

    /// Returns the id as the client wrote it.
    pub fn id(&self) -> &[u8] {
        self.message.id.clone().map_or(&[], |id| &self.frame[id])
    }
}

/// The reason why a request is not sent to a child.
#[derive(Debug)]
pub enum Refusal {
    /// A bound is reached: 503, with the reason.
    Busy(&'static str),
    /// The request failed; the client gets the error.
    Failed(Failure),
    /// The request is refused: the error code and the reason.
    Withheld(i64, &'static str),
    /// The headers contradict the body.
    Mismatch(Mismatch),
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => Refusal::Busy("the server has reached its limit of requests in flight"),
            Refused::Closed(failure) => Refusal::Failed(failure),
        }
    }
}

impl Refusal {
    /// Returns the recorded outcome of the request.
    pub fn verdict(&self) -> Verdict {
        let error = |code, message| Verdict::Error { code, message };
        let refused = |status, code, message| Verdict::Refused { status, code, message };
        match self {
            Refusal::Busy(why) => refused(503, codes::INTERNAL_ERROR, (*why).into()),
            Refusal::Failed(failure) => failure.verdict(),
            Refusal::Withheld(code, why) => error(*code, (*why).into()),
            Refusal::Mismatch(mismatch) => refused(400, codes::HEADER_MISMATCH, mismatch.to_string().into()),
        }
    }
}
