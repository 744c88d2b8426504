//! One message of a client, from its arrival to its one outcome, as it is seen: its SERVER span, the CLIENT spans below it,
//! what is counted of it, and its line in the access log. All of it is shared by whoever has to do with the message.

use super::clock::Moment;
use super::metrics;
use super::metrics::labels::{Labels, Revision, Side};
use super::otlp::Attributes;
use super::peer::Peer;
use super::trace::{Parent, Span, SpanKind, Tracer, tracer};
use super::subject::Subject;
use super::verdict::Verdict;
use super::logs::access;
use super::names;
use super::trace::{capture, scope};
use crate::trace_context::{Context, Trace};
use parking_lot::{Mutex, MutexGuard};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Notify;

/// How a message came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrival<'a> {
    /// Its client's span, if the message says one; and the state beside it.
    pub carried: Option<Parent<'a>>,
    /// The span of its HTTP request.
    pub http: Option<Context>,
    /// The state beside that.
    pub http_tracestate: Option<&'a str>,
    /// Its id, in raw JSON; none of a notification.
    pub id: Option<&'a [u8]>,
    /// Who sent it.
    pub peer: Option<&'a Peer>,
}

/// One message of a client.
#[derive(Debug, Default)]
pub struct Operation {
    waits: AtomicBool,
    waited: AtomicU64,
    turned: Notify,
    seen: Option<Seen>,
}

/// What is only there where somebody wants to know.
#[derive(Debug)]
struct Seen {
    subject: Subject,
    begun: Moment,
    peer: Option<SocketAddr>,
    /// Where it stands in its trace, for logs and for what is below it.
    context: Option<Context>,
    tracestate: Option<Box<str>>,
    /// Its span, while that is under way and if it is recorded.
    span: Mutex<Option<Span>>,
    /// Whether there was one, so that the lock is not taken in vain.
    is_recorded: bool,
    revision: AtomicU8,
    child: AtomicU64,
    over: AtomicBool,
}

impl Operation {
    /// A message has arrived.
    pub fn begin(subject: impl FnOnce() -> Subject, arrival: Arrival<'_>) -> Arc<Self> {
        let (tracer, counted) = (tracer(), metrics::are_kept() || access::is_kept());
        if tracer.is_none() && !counted && arrival.carried.is_none() && arrival.http.is_none() {
            return Arc::default();
        }
        let subject = subject();
        // The message's own context is the parent, and the HTTP request is linked to; where it has none, that is the
        // parent (gen-ai/mcp.md §Context propagation).
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

    /// Where it stands in its trace, if it is in one.
    pub fn context(&self) -> Option<Context> {
        self.seen.as_ref()?.context
    }

    /// The revision that its client speaks.
    pub fn speaks(&self, revision: Revision, name: &str) {
        if let Some(seen) = &self.seen {
            seen.revision.store(revision.bits(), Relaxed);
            seen.describe(|attributes| attributes.text(names::PROTOCOL, name));
        }
    }

    /// Gives its span attributes, if they are kept.
    pub fn describe(&self, attributes: impl FnOnce(&mut Attributes)) {
        if let Some(seen) = &self.seen {
            seen.describe(attributes);
        }
    }

    /// What a tool is given, in JSON, for its span; where that is wanted (`--trace-arguments`).
    pub fn given<'a>(&self, arguments: impl FnOnce() -> Option<&'a [u8]>) {
        self.of_tool(|attributes| {
            if let Some(shown) = capture::arguments(arguments) {
                attributes.text(names::ARGUMENTS, &shown);
            }
        });
    }

    /// What a tool gives back, in the same way (`--trace-results`).
    pub(super) fn gave<'a>(&self, result: impl FnOnce() -> Option<&'a [u8]>) {
        self.of_tool(|attributes| {
            if let Some(shown) = capture::result(result) {
                attributes.text(names::RESULT, &shown);
            }
        });
    }

    fn of_tool(&self, describe: impl FnOnce(&mut Attributes)) {
        if let Some(seen) = self.seen.as_ref().filter(|seen| seen.subject.known.is_tool_call()) {
            seen.describe(describe);
        }
    }

    /// It waits for its turn, or for a child that is being replaced, until the guard is dropped; it may still be refused.
    pub fn wait(&self) -> Waiting<'_> {
        self.waits.store(true, Relaxed);
        self.wait_for_start()
    }

    /// It waits for a child's start until the guard is dropped.
    pub fn wait_for_start(&self) -> Waiting<'_> {
        Waiting { operation: self, since: Moment::now() }
    }

    /// Resolves once it waits no longer for its turn; at once if it does not wait.
    pub async fn turned(&self) {
        let turned = self.turned.notified();
        if self.waits.load(Relaxed) {
            turned.await;
        }
    }

    /// Whether it waits for its turn, or for a child that is being replaced.
    pub fn waits(&self) -> bool {
        self.waits.load(Relaxed)
    }

    /// The trace context of what its child is told of it without a request: its own, if it has one to tell.
    pub fn traced<'a>(&self, trace: &'a Trace) -> Cow<'a, Trace> {
        match self.as_parent().filter(|_| tracer().is_some_and(Tracer::propagates)) {
            Some(own) => Cow::Owned(trace.at(own.context, own.tracestate)),
            None => Cow::Borrowed(trace),
        }
    }

    /// Something that proxyrunner does about it, as a span below its own.
    pub fn internal(&self, name: &'static str) -> Option<Span> {
        let mut span = tracer()?.begin(SpanKind::Internal, Some(self.as_parent()?));
        span.name(name);
        Some(span)
    }

    pub(super) fn subject(&self) -> Option<&Subject> {
        Some(&self.seen.as_ref()?.subject)
    }

    /// Where it stands, for spans below it. Its own may be over where it was answered with a question.
    pub(super) fn as_parent(&self) -> Option<Parent<'_>> {
        let seen = self.seen.as_ref()?;
        let tracestate = seen.tracestate.as_deref();
        seen.context.map(|context| Parent { context, tracestate, remote: false })
    }

    /// A child took so long for a part of it.
    pub(super) fn child_took(&self, nanos: u64) {
        if let Some(seen) = &self.seen {
            seen.child.fetch_add(nanos, Relaxed);
        }
    }

    /// It is over. What is said first counts.
    pub fn end(&self, verdict: &Verdict) {
        let Some(seen) = &self.seen else { return };
        if seen.over.swap(true, Relaxed) {
            return;
        }
        let (took, waited) = (seen.begun.nanos(), self.waited.load(Relaxed));
        let child = seen.child.load(Relaxed);
        let span = if seen.is_recorded { seen.span().take() } else { None };
        let recorded = span.as_ref().map(Span::context);
        if metrics::are_kept() {
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
        if access::is_kept() {
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
            // Only now, since the child may have listed the tool meanwhile.
            span.name(seen.subject.span_name());
            if waited > 0 {
                let seconds = Duration::from_nanos(waited).as_secs_f64().to_string();
                span.describe(|attributes| attributes.text(names::QUEUED, &seconds));
            }
            verdict.describe(&mut span);
        }
    }
}

/// Its client left before there was an outcome.
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
        // A string's text; lone surrogates, which no text has, stay as they are written.
        let text = if id.starts_with(b"\"") { serde_json::from_slice::<String>(id).ok() } else { None };
        let raw = || String::from_utf8_lossy(id);
        attributes.text(names::REQUEST, &text.map_or_else(raw, Cow::Owned));
    }
    attributes.text(names::TRANSPORT, "tcp");
    attributes.text(names::NETWORK, "http");
    attributes.text(names::NETWORK_VERSION, "1.1");
    if let Some(peer) = arrival.peer {
        attributes.text(names::CLIENT, peer.ip());
        attributes.number(names::CLIENT_PORT, peer.socket.port().into());
    }
}

/// A message waits.
#[derive(Debug)]
pub struct Waiting<'a> {
    operation: &'a Operation,
    since: Moment,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.operation.waited.fetch_add(self.since.nanos(), Relaxed);
        self.operation.waits.store(false, Relaxed);
        self.operation.turned.notify_waiters();
    }
}
