//! The telemetry of one client message, from its arrival to its outcome: its SERVER span, the parent of its CLIENT
//! spans, its metrics, and its access log line. It is shared by everything that works on the message.

use super::clock::Moment;
use super::logs::access;
use super::metrics;
use super::metrics::labels::{Labels, Revision, Side};
use super::names;
use super::peer::Peer;
use super::subject::Subject;
use super::trace::Attributes;
use super::trace::{Parent, Span, SpanKind, Tracer, tracer};
use super::trace::{capture, scope};
use super::verdict::Verdict;
use crate::trace_context::{Context, Trace};
use parking_lot::{Mutex, MutexGuard};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Notify;

/// The circumstances in which a message arrived.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrival<'a> {
    /// The client's span from the message's `_meta`, if any.
    pub carried: Option<Parent<'a>>,
    /// The span of the HTTP request.
    pub http: Option<Context>,
    /// The `tracestate` of the HTTP request.
    pub http_tracestate: Option<&'a str>,
    /// The message's id in raw JSON; `None` for a notification.
    pub id: Option<&'a [u8]>,
    /// The remote end of the connection.
    pub peer: Option<&'a Peer>,
}

/// The telemetry of one client message.
#[derive(Debug, Default)]
pub struct Operation {
    waits: AtomicBool,
    waited: AtomicU64,
    turned: Notify,
    seen: Option<Seen>,
}

/// The recorded part, present only if telemetry is enabled or a trace context must be passed on.
#[derive(Debug)]
struct Seen {
    subject: Subject,
    begun: Moment,
    peer: Option<SocketAddr>,
    /// The context for log lines and for spans below this one.
    context: Option<Context>,
    tracestate: Option<Box<str>>,
    /// The span, until it ends, if it is recorded.
    span: Mutex<Option<Span>>,
    /// Whether there is a span; avoids taking the lock.
    is_recorded: bool,
    revision: AtomicU8,
    child: AtomicU64,
    over: AtomicBool,
}

impl Operation {
    /// Begins the operation of a message that has just arrived.
    pub fn begin(subject: impl FnOnce() -> Subject, arrival: Arrival<'_>) -> Arc<Self> {
        let (tracer, counted) = (tracer(), metrics::is_enabled() || access::is_enabled());
        if tracer.is_none() && !counted && arrival.carried.is_none() && arrival.http.is_none() {
            return Arc::default();
        }
        let subject = subject();
        // The message's own context is the parent, and the HTTP request becomes a link. Without one, the HTTP request
        // is the parent (gen-ai/mcp.md §Context propagation).
        let ambient = || {
            let (context, tracestate) = (arrival.http?, arrival.http_tracestate);
            Some(Parent { context, tracestate, remote: false })
        };
        let parent = arrival.carried.or_else(ambient);
        let span = tracer.map(|tracer| {
            let mut span = tracer.begin(SpanKind::Server, parent);
            if let (Some(_), Some(http)) = (arrival.carried, arrival.http) {
                span.link(http);
            }
            if span.is_recorded() {
                span.describe(|attributes| {
                    subject.describe(attributes);
                    describe_arrival(&arrival, attributes);
                });
            }
            span
        });
        let seen = Seen {
            subject,
            begun: Moment::now(),
            peer: arrival.peer.map(|peer| peer.socket),
            context: span.as_ref().map(Span::context).or(parent.map(|parent| parent.context)),
            tracestate: parent.and_then(|parent| parent.tracestate).map(Box::from),
            is_recorded: span.as_ref().is_some_and(Span::is_recorded),
            span: Mutex::new(span.filter(Span::is_recorded)),
            revision: AtomicU8::default(),
            child: AtomicU64::new(0),
            over: AtomicBool::new(false),
        };
        let (waits, waited, turned) = Default::default();
        Arc::new(Operation { waits, waited, turned, seen: Some(seen) })
    }

    /// Returns the trace context, if there is one.
    pub fn context(&self) -> Option<Context> {
        self.seen.as_ref()?.context
    }

    /// Sets the protocol revision of the client.
    pub fn set_revision(&self, revision: Revision, name: &str) {
        if let Some(seen) = &self.seen {
            seen.revision.store(revision.bits(), Relaxed);
            seen.describe(|attributes| attributes.text(names::PROTOCOL, name));
        }
    }

    /// Adds attributes to the span, if it is recorded.
    pub fn describe(&self, attributes: impl FnOnce(&mut Attributes)) {
        if let Some(seen) = &self.seen {
            seen.describe(attributes);
        }
    }

    /// Adds the arguments of a tool call, in JSON, to the span (`--trace-arguments`).
    pub fn record_arguments<'a>(&self, arguments: impl FnOnce() -> Option<&'a [u8]>) {
        self.describe_tool(|attributes| {
            if let Some(shown) = capture::arguments(arguments) {
                attributes.text(names::ARGUMENTS, &shown);
            }
        });
    }

    /// Adds the result of a tool call, in JSON, to the span (`--trace-results`).
    pub(super) fn record_result<'a>(&self, result: impl FnOnce() -> Option<&'a [u8]>) {
        self.describe_tool(|attributes| {
            if let Some(shown) = capture::result(result) {
                attributes.text(names::RESULT, &shown);
            }
        });
    }

    fn describe_tool(&self, describe: impl FnOnce(&mut Attributes)) {
        if let Some(seen) = self.seen.as_ref().filter(|seen| seen.subject.known.is_tool_call()) {
            seen.describe(describe);
        }
    }

    /// Marks the message as waiting for a permit or for a child being replaced until the guard is dropped; it may
    /// still be refused.
    pub fn wait(&self) -> QueueWait<'_> {
        self.waits.store(true, Relaxed);
        self.wait_for_start()
    }

    /// Records the wait for a child's start until the guard is dropped.
    pub fn wait_for_start(&self) -> QueueWait<'_> {
        QueueWait { operation: self, since: Moment::now() }
    }

    /// Resolves when the message no longer waits; immediately if it does not wait.
    pub async fn wait_for_turn(&self) {
        let turned = self.turned.notified();
        if self.waits.load(Relaxed) {
            turned.await;
        }
    }

    /// Returns whether the message waits for a permit or for a child being replaced.
    pub fn is_waiting(&self) -> bool {
        self.waits.load(Relaxed)
    }

    /// Returns the trace context for messages to the child other than requests: the operation's own, if it propagates
    /// one.
    pub fn traced<'a>(&self, trace: &'a Trace) -> Cow<'a, Trace> {
        match self.as_parent().filter(|_| tracer().is_some_and(Tracer::propagates)) {
            Some(own) => Cow::Owned(trace.at(own.context, own.tracestate)),
            None => Cow::Borrowed(trace),
        }
    }

    /// Begins an INTERNAL span below this operation's.
    pub fn internal(&self, name: &'static str) -> Option<Span> {
        let mut span = tracer()?.begin(SpanKind::Internal, Some(self.as_parent()?));
        span.name(name);
        Some(span)
    }

    pub(super) fn subject(&self) -> Option<&Subject> {
        Some(&self.seen.as_ref()?.subject)
    }

    /// Returns this operation as the parent of another span. Its own span may have ended already, when it was
    /// answered with a question.
    pub(super) fn as_parent(&self) -> Option<Parent<'_>> {
        let seen = self.seen.as_ref()?;
        let tracestate = seen.tracestate.as_deref();
        seen.context.map(|context| Parent { context, tracestate, remote: false })
    }

    /// Adds time that a child spent on the message.
    pub(super) fn add_child_time(&self, nanos: u64) {
        if let Some(seen) = &self.seen {
            seen.child.fetch_add(nanos, Relaxed);
        }
    }

    /// Ends the operation. Only the first call has an effect.
    pub fn end(&self, verdict: &Verdict) {
        let Some(seen) = &self.seen else { return };
        if seen.over.swap(true, Relaxed) {
            return;
        }
        let (took, waited) = (seen.begun.nanos(), self.waited.load(Relaxed));
        let child = seen.child.load(Relaxed);
        let span = if seen.is_recorded { seen.span().take() } else { None };
        let recorded = span.as_ref().map(Span::context);
        if metrics::is_enabled() {
            let labels = Labels {
                side: Side::Server,
                method: seen.subject.known,
                target: seen.subject.target_id(),
                error: verdict.counted(),
                revision: Revision::from_bits(seen.revision.load(Relaxed)),
            };
            metrics::operation(labels, took, recorded.as_ref());
            metrics::request(waited, took.saturating_sub(waited).saturating_sub(child), recorded.as_ref());
        }
        if access::is_enabled() {
            let line = access::Line {
                method: seen.subject.method(),
                target: seen.subject.target(),
                peer: seen.peer,
                error: verdict.error_type(),
                took: Duration::from_nanos(took),
                waited: Duration::from_nanos(waited),
                child: Duration::from_nanos(child),
            };
            scope::within(seen.context, || access::log(&line));
        }
        if let Some(mut span) = span {
            // The name is set now because the child may have listed the tool in the meantime.
            span.name(seen.subject.span_name());
            if waited > 0 {
                let seconds = Duration::from_nanos(waited).as_secs_f64().to_string();
                span.describe(|attributes| attributes.text(names::QUEUED, &seconds));
            }
            verdict.describe(&mut span);
        }
    }
}

/// Ends the operation: the client disconnected before there was an outcome.
impl Drop for Operation {
    fn drop(&mut self) {
        if self.seen.as_mut().is_some_and(|seen| !*seen.over.get_mut()) {
            self.end(&Verdict::Cancelled);
        }
    }
}

impl Seen {
    fn describe(&self, attributes: impl FnOnce(&mut Attributes)) {
        if self.is_recorded
            && let Some(span) = self.span().as_mut()
        {
            span.describe(attributes);
        }
    }

    fn span(&self) -> MutexGuard<'_, Option<Span>> {
        self.span.lock()
    }
}

fn describe_arrival(arrival: &Arrival<'_>, attributes: &mut Attributes) {
    if let Some(id) = arrival.id {
        // A string id without its quotes. Lone surrogates, which no Rust string can hold, stay escaped.
        let text = if id.starts_with(b"\"") { serde_json::from_slice::<String>(id).ok() } else { None };
        let raw = || String::from_utf8_lossy(id);
        attributes.text(names::REQUEST, &text.map_or_else(raw, Cow::Owned));
    }
    attributes.constant(names::TRANSPORT, "tcp");
    attributes.constant(names::NETWORK, "http");
    attributes.constant(names::NETWORK_VERSION, "1.1");
    if let Some(peer) = arrival.peer {
        attributes.text(names::CLIENT, peer.ip());
        attributes.number(names::CLIENT_PORT, peer.socket.port().into());
    }
}

/// A guard that measures how long a message waits.
#[derive(Debug)]
pub struct QueueWait<'a> {
    operation: &'a Operation,
    since: Moment,
}

impl Drop for QueueWait<'_> {
    fn drop(&mut self) {
        self.operation.waited.fetch_add(self.since.nanos(), Relaxed);
        self.operation.waits.store(false, Relaxed);
        self.operation.turned.notify_waiters();
    }
}
