//! Where messages come from: what all messages of one HTTP request have in common, as far as they are traced.

use super::Settings;
use crate::jsonrpc::{self, Carried, Message, unescaped};
use crate::telemetry::{Arrival, Operation, Parent, Peer, Subject};
use crate::trace_context::{Context, Trace};
use crate::upstream::Incoming;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The origin of messages.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The trace context in the headers.
    pub trace: Trace,
    /// The span of the HTTP request, or else its client's.
    pub span: Option<Context>,
    /// Who sent them.
    pub peer: Peer,
    /// Whether any was read; where somebody wants to know.
    pub brought: Option<Arc<AtomicBool>>,
}

impl Origin {
    /// That of messages which nobody follows.
    pub fn unseen(peer: Peer) -> Self {
        Origin { trace: Trace::default(), span: None, peer, brought: None }
    }

    /// A message that was read.
    pub fn incoming(&self, settings: &Settings, frame: Bytes, message: Message) -> Incoming {
        if let Some(brought) = &self.brought {
            brought.store(true, Ordering::Relaxed);
        }
        let mut carried = jsonrpc::carried(&frame, &message);
        let trace = self.trace.clone().with_allowed_baggage(carried.own_baggage(), &settings.allowed_baggage);
        if !settings.propagates {
            carried = Carried::default();
        }
        let arrival = Arrival {
            carried: carried.context.map(|context| Parent {
                context,
                tracestate: carried.tracestate.as_deref(),
                remote: true,
            }),
            http: self.span,
            http_tracestate: self.trace.tracestate(),
            id: message.id.clone().map(|id| &frame[id]),
            peer: Some(&self.peer),
        };
        let operation = Operation::begin(|| subject(&frame, &message), arrival);
        operation.given(|| {
            let arguments = jsonrpc::member(&frame, &message.params.as_ref()?.span, "arguments")?;
            Some(&frame[arguments])
        });
        Incoming { frame, message: Box::new(message), trace, operation }
    }
}

/// What a message is about. Of a response, nothing is known.
fn subject(frame: &Bytes, message: &Message) -> Subject {
    let string = |span: &Option<jsonrpc::Span>| {
        let span = span.as_ref().filter(|span| frame[span.start] == b'"')?;
        Some(unescaped(&frame[span.clone()]))
    };
    let method = string(&message.method).unwrap_or_default();
    let params = message.params.as_ref();
    let target = params.and_then(|params| string(&params.name).or_else(|| string(&params.uri)));
    Subject::new(&method, target.as_deref())
}
