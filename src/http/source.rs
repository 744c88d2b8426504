//! The source of messages: the trace context, peer and account that all messages of one HTTP request share.

use super::Settings;
use super::peers::Persistence;
use crate::budget::{Account, Charged};
use crate::jsonrpc::{self, Carried, Kind, Message, Params, Span, rewrite, unescaped};
use crate::telemetry::{Arrival, Operation, Parent, Peer, Subject};
use crate::trace_context::{Context, Trace};
use crate::upstream::{Incoming, Received};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The source of messages.
#[derive(Clone, Debug)]
pub struct Source {
    /// The trace context in the headers.
    pub trace: Trace,
    /// The span of the HTTP request, else that of its client.
    pub span: Option<Context>,
    /// The client that sent them.
    pub peer: Peer,
    /// The account that they are charged to.
    pub account: Account,
    /// Set once a message was read; only with an access log.
    pub brought: Option<Arc<AtomicBool>>,
    /// Whether the request is handled to its end if its client disconnects.
    pub persistence: Persistence,
}

impl Source {
    /// Returns the source of a request that is not traced.
    pub fn unseen(peer: Peer, account: Account) -> Self {
        let (trace, persistence) = Default::default();
        Source { trace, span: None, peer, account, brought: None, persistence }
    }

    /// Begins the operation of a message.
    pub fn incoming(&self, settings: &Settings, frame: Charged, message: Message) -> Incoming {
        if let Some(brought) = &self.brought.as_ref().filter(|_| message.kind != Kind::Response) {
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
        // An answer of the client belongs to the operation of the child's question.
        let operation = match message.kind {
            Kind::Response => Arc::default(),
            _ => Operation::begin(|| subject(&frame, &message), arrival),
        };
        operation.record_arguments(|| {
            let arguments = jsonrpc::member(&frame, &message.params.as_ref()?.span, "arguments")?;
            Some(&frame[arguments])
        });
        let (frame, message) = match names_a_request(&frame, &message) {
            true => inject(frame, message, &operation.traced(&trace)),
            false => (frame, message),
        };
        Received { frame, message, trace, operation }.into()
    }
}

/// Returns whether a message is a notification that reaches the child with only its id or token rewritten.
fn names_a_request(frame: &Charged, message: &Message) -> bool {
    let method = message.method.as_ref().filter(|_| message.kind == Kind::Notification);
    let method = method.map(|method| unescaped(&frame[method.clone()]));
    matches!(method.as_deref(), Some(b"notifications/cancelled" | b"notifications/progress"))
}

/// Writes the trace context into a message, and removes baggage that is not allowed.
fn inject(frame: Charged, message: Message, trace: &Trace) -> (Charged, Message) {
    if !trace.replaces_context() && !trace.replaces_baggage() {
        return (frame, message);
    }
    let placed = rewrite::request_for_child(&frame, &message, None, None, trace).flatten();
    let Ok(placed) = placed else { return (frame, message) };
    match jsonrpc::scan(&placed) {
        Ok(message) => (placed, message),
        Err(_) => (frame, message),
    }
}

/// Returns the subject of a message.
fn subject(frame: &Charged, message: &Message) -> Subject {
    let string = |span: &Option<Span>| {
        let span = span.as_ref().filter(|span| frame[span.start] == b'"')?;
        Some(unescaped(&frame[span.clone()]))
    };
    let method = string(&message.method).unwrap_or_default();
    let params = message.params.as_ref();
    let of = |part: fn(&Params) -> &Option<Span>| params.and_then(|params| string(part(params)));
    Subject::new(&method, || of(|params| &params.name), || of(|params| &params.uri))
}
