//! The source of messages: the caller, trace context, peer and account that all messages of one HTTP request share.

use super::Settings;
use super::peers::Persistence;
use super::reject::Rejection;
use crate::budget::{Account, Charged};
#[cfg(feature = "gateway")]
use crate::gateway::Ticket;
use crate::identity::{Identity, META_PREFIX};
use crate::jsonrpc::{self, Carried, Kind, Message, Params, Span, rewrite, unescaped};
use crate::telemetry::{Arrival, Operation, Parent, Peer, Subject, Visitor, cut};
use crate::trace_context::{Context, Trace};
use crate::upstream::{Incoming, Received};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Maximum length in bytes of the name and the version of a client's software in the audit log.
const LONGEST_INFO: usize = 128;

/// The source of messages.
#[derive(Clone, Debug)]
pub struct Source {
    /// The trace context in the headers.
    pub trace: Trace,
    /// The span of the HTTP request, else that of its client.
    pub span: Option<Context>,
    /// The caller.
    pub identity: Arc<Identity>,
    /// The gateways that the request has passed before this one; empty without any, and at a sidecar.
    pub gateways: Box<str>,
    /// What the sibling says that has passed the request on; `None` if it comes from a client.
    #[cfg(feature = "gateway")]
    pub ticket: Option<Box<Ticket>>,
    /// What the audit log reports of the HTTP request; only with an audit log.
    pub visitor: Option<Arc<Visitor>>,
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
        let (trace, persistence, gateways) = Default::default();
        let identity = Identity::anonymous();
        Source {
            trace,
            span: None,
            identity,
            gateways,
            #[cfg(feature = "gateway")]
            ticket: None,
            visitor: None,
            peer,
            account,
            brought: None,
            persistence,
        }
    }

    /// Returns the account of the caller: its principal's, else that of the client's address.
    pub fn account_of_caller(&self) -> Account {
        match self.identity.principal.client_or(|| self.account.client()) {
            client if client == self.account.client() => self.account.clone(),
            client => self.account.sibling(client),
        }
    }

    /// Notes that another replica records the request.
    #[cfg(feature = "gateway")]
    pub fn leave_record(&self) {
        if let Some(brought) = &self.brought {
            brought.store(true, Ordering::Relaxed);
        }
    }

    /// Begins the operation of a message. With `--child-identity meta`, writes the caller into it.
    ///
    /// # Errors
    /// 503 when `--max-buffered` has no room for a long message with the caller's identity.
    pub fn incoming(
        &self,
        settings: &Settings,
        mut frame: Charged,
        mut message: Message,
    ) -> Result<Incoming, Rejection> {
        // A message is long, so it is moved only when it changes.
        if let Some(disclosure) = &settings.disclosure
            && message.kind != Kind::Response
        {
            let mut member = disclosure.member(&self.identity);
            if !self.gateways.is_empty() {
                member = format!("{member},\"{META_PREFIX}gateways\":\"{}\"", self.gateways);
            }
            (frame, message) = identified(frame, message, &member)?;
        }
        Ok(self.unidentified(settings, frame, message))
    }

    /// Begins the operation of a message that another proxyrunner may write the caller into.
    pub fn unidentified(&self, settings: &Settings, mut frame: Charged, mut message: Message) -> Incoming {
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
            audited: self.visitor.as_ref().map(|visitor| (visitor, &self.identity)),
        };
        // An answer of the client belongs to the operation of the child's question.
        let operation = match message.kind {
            Kind::Response => Arc::default(),
            _ => Operation::begin(|| subject(&frame, &message), arrival),
        };
        operation.note(|details| details.client = client_info(&frame, &message));
        operation.record_arguments(|| {
            let arguments = jsonrpc::member(&frame, &message.params.as_ref()?.span, "arguments")?;
            Some(&frame[arguments])
        });
        if names_a_request(&frame, &message) {
            (frame, message) = inject(frame, message, &operation.traced(&trace));
        }
        let identity = Arc::clone(&self.identity);
        Received { frame, message, trace, identity, operation }.into()
    }
}

/// Writes the caller's identity into a message, in place of what the client wrote there.
fn identified(frame: Charged, message: Message, member: &str) -> Result<(Charged, Message), Rejection> {
    let Some(identified) = rewrite::with_reserved(&frame, &message, META_PREFIX, member.as_bytes()) else {
        return Ok((frame, message));
    };
    let refused = |rejection: Rejection| rejection.of(message.id.clone().map_or(&[], |id| &frame[id]));
    let identified = identified.flatten().map_err(|no_room| refused(Rejection::busy(no_room.to_string())))?;
    match jsonrpc::scan(&identified) {
        Ok(message) => Ok((identified, message)),
        Err(fault) => Err(refused(Rejection::invalid(fault.to_string()))),
    }
}

/// Returns name and version of the client's software, from `initialize` or from a modern envelope.
fn client_info(frame: &Charged, message: &Message) -> Option<Arc<(Box<str>, Box<str>)>> {
    let params = message.params.as_ref()?;
    let meta = params.meta.as_ref().and_then(|meta| meta.client_info.as_ref());
    let info = params.client_info.as_ref().or(meta)?;
    let text = |name: &str| {
        let value = jsonrpc::string_member(frame, info, name).unwrap_or_default();
        Box::<str>::from(cut(&value, LONGEST_INFO))
    };
    Some(Arc::new((text("name"), text("version"))))
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
