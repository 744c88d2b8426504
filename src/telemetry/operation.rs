//! The telemetry of one client message, from its arrival to its outcome: its SERVER span, the parent of its CLIENT
//! spans, its metrics, and its access log line. It is shared by everything that works on the message.

use super::clock::Moment;
use super::evidence::{self, Details, Ended, Evidence, Visitor};
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
use crate::identity::Identity;
use crate::trace_context::{Context, Trace};
use parking_lot::{Mutex, MutexGuard};
use std::borrow::Cow;
use std::fmt::{self, Debug};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Notify;

/// Maximum length of an id in the audit log, which leaves out longer ones.
const LONGEST_ID: usize = 128;

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
    /// The HTTP request and the caller, for the audit log.
    pub audited: Option<(&'a Arc<Visitor>, &'a Arc<Identity>)>,
}

/// The telemetry of one client message.
#[derive(Debug, Default)]
pub struct Operation {
    waits: AtomicBool,
    waited: AtomicU64,
    turned: Notify,
    /// Whether `held` is set; avoids taking the lock.
    holds: AtomicBool,
    /// Dropped when the operation ends.
    held: Mutex<Option<Held>>,
    seen: Option<Seen>,
}

/// A guard that an operation holds.
type Held = Box<dyn Guard>;

/// What is only dropped. Its own representation is of no use, but would be a part of the binary.
pub trait Guard: Send + Sync {}

impl<T: Send + Sync> Guard for T {}

impl Debug for dyn Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
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
    /// What the audit log reports.
    evidence: Option<Box<Evidence>>,
}

impl Operation {
    /// Begins the operation of a message that has just arrived.
    pub fn begin(subject: impl FnOnce() -> Subject, arrival: Arrival<'_>) -> Arc<Self> {
        let (tracer, counted) = (tracer(), metrics::is_enabled() || access::is_enabled());
        let is_seen = counted || arrival.audited.is_some();
        if tracer.is_none() && !is_seen && arrival.carried.is_none() && arrival.http.is_none() {
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
            evidence: evidence_of(&arrival),
        };
        let (waits, waited, turned, holds, held) = Default::default();
        Arc::new(Operation { waits, waited, turned, holds, held, seen: Some(seen) })
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
        self.note(|details| details.revision = Some(name.into()));
    }

    /// Adds facts for the audit log, if there is one.
    pub fn note(&self, note: impl FnOnce(&mut Details)) {
        if let Some(evidence) = self.seen.as_ref().and_then(|seen| seen.evidence.as_ref()) {
            note(&mut evidence.details.lock());
        }
    }

    /// Adds attributes to the span, if it is recorded.
    pub fn describe(&self, attributes: impl FnOnce(&mut Attributes)) {
        if let Some(seen) = &self.seen {
            seen.describe(attributes);
        }
    }

    /// Adds the arguments of a tool call, in JSON, to the span (`--trace-arguments`).
    pub fn record_arguments<'a>(&self, arguments: impl Fn() -> Option<&'a [u8]>) {
        self.note(|details| note_arguments(details, arguments()));
        self.describe_tool(|attributes| {
            if let Some(shown) = capture::arguments(arguments) {
                attributes.text(names::ARGUMENTS, &shown);
            }
        });
    }

    /// Adds the result of a tool call, in JSON, to the span (`--trace-results`).
    pub(super) fn record_result<'a>(&self, result: impl Fn() -> Option<&'a [u8]>) {
        if evidence::wants_content() {
            self.note(|details| details.response = result().map(capture::for_audit));
        }
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

    /// Adds time that a child, or the server behind a gateway, spent on the message.
    pub fn add_child_time(&self, nanos: u64) {
        if let Some(seen) = &self.seen {
            seen.child.fetch_add(nanos, Relaxed);
        }
    }

    /// Keeps a guard until the operation ends.
    pub fn hold(&self, held: impl Guard + 'static) {
        *self.held.lock() = Some(Box::new(held));
        self.holds.store(true, Relaxed);
    }

    /// Ends the operation. Only the first call has an effect.
    pub fn end(&self, verdict: &Verdict) {
        if self.holds.load(Relaxed) {
            drop(self.held.lock().take());
        }
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
        if let Some(evidence) = &seen.evidence {
            evidence::tell(&Ended {
                method: seen.subject.method(),
                target: seen.subject.target(),
                evidence,
                context: seen.context,
                took: Duration::from_nanos(took),
                verdict,
            });
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

fn evidence_of(arrival: &Arrival<'_>) -> Option<Box<Evidence>> {
    let (visitor, identity) = arrival.audited?;
    let id = arrival.id.filter(|id| id.len() <= LONGEST_ID).map(|id| String::from_utf8_lossy(id).into());
    let details = Mutex::new(Details { id, ..Details::default() });
    Some(Box::new(Evidence { visitor: Arc::clone(visitor), identity: Arc::clone(identity), details }))
}

fn note_arguments(details: &mut Details, arguments: Option<&[u8]>) {
    let Some(arguments) = arguments else { return };
    let digest = ring::digest::digest(&ring::digest::SHA256, arguments);
    details.arguments = digest.as_ref().try_into().ok();
    if evidence::wants_content() {
        details.request = Some(capture::for_audit(arguments));
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
