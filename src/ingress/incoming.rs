//! A message of a client on its way to a child, and why one goes to none.

use crate::budget::Charged;
use crate::era::headers::Mismatch;
use crate::exchange::{Failure, Link, Mailbox, Refused};
use crate::jsonrpc::{ClientId, Message, codes, text};
use crate::telemetry::{ChildOperation, Operation, Verdict};
use crate::trace_context::Trace;
use std::borrow::Cow;
use std::sync::Arc;

/// A message of a client, as it came.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Its bytes.
    pub frame: Charged,
    /// Where its parts are; on the heap, since messages are handed on through many futures.
    pub message: Box<Message>,
    /// The trace context of its HTTP request.
    pub trace: Trace,
    /// How it is seen.
    pub operation: Arc<Operation>,
}

impl Incoming {
    /// The same without how it is seen: for what is kept long after its request is over.
    pub(crate) fn unseen(&self) -> Incoming {
        Incoming { operation: Arc::default(), ..self.clone() }
    }

    /// A mailbox for the child's messages about it, which are charged as it is.
    pub(crate) fn mailbox(&self) -> Arc<Mailbox> {
        Mailbox::charging(self.frame.account())
    }

    /// How it is seen at a child, as which it is sent there.
    pub(crate) fn ask(&self, link: &Link) -> Option<ChildOperation> {
        self.operation.ask(link.revision(), link.number())
    }

    /// The trace context that a child is given with it: where it is seen there, or else where it came from.
    pub(crate) fn trace_for(&self, asked: Option<&ChildOperation>) -> Cow<'_, Trace> {
        asked.map_or(Cow::Borrowed(&self.trace), |asked| asked.traced(&self.trace))
    }

    /// The method; empty for a response.
    pub fn method(&self) -> Cow<'_, str> {
        self.message.method.as_ref().map(|method| text(&self.frame, method)).unwrap_or_default()
    }

    /// The id, to outlive the message.
    pub fn client_id(&self) -> ClientId {
        ClientId::new(self.id())
    }

    /// The id as the client wrote it.
    pub fn id(&self) -> &[u8] {
        self.message.id.clone().map_or(&[], |id| &self.frame[id])
    }
}

/// Why a request goes to no child.
#[derive(Debug)]
pub enum Refusal {
    /// A bound is reached: 503, with the reason.
    Busy(&'static str),
    /// It failed; the client gets the error.
    Failed(Failure),
    /// A shared child must not see it: the code and the reason.
    Withheld(i64, &'static str),
    /// Its headers say something else than its body.
    Mismatch(Mismatch),
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => Refusal::Busy("the server has as many requests in flight as it may have"),
            Refused::Closed(failure) => Refusal::Failed(failure),
        }
    }
}

impl Refusal {
    /// How the request came out.
    pub fn verdict(&self) -> Verdict {
        let error = |code, message| Verdict::Error { code, message };
        match self {
            Refusal::Busy(why) => error(codes::INTERNAL_ERROR, (*why).into()),
            Refusal::Failed(failure) => failure.verdict(),
            Refusal::Withheld(code, why) => error(*code, (*why).into()),
            Refusal::Mismatch(mismatch) => error(codes::HEADER_MISMATCH, mismatch.to_string().into()),
        }
    }
}
