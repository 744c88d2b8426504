//! Spans. An unsampled span costs only its id. A span ends when it is dropped, and is then queued in OTLP's encoding
//! (opentelemetry/proto/trace/v1).

use super::ids;
use super::sampler::Sampler;
use crate::telemetry::clock::Begun;
use crate::telemetry::metrics::counters;
use crate::telemetry::otlp::{Attributes, Fields, cut};
use crate::telemetry::outbox::{Bounds, Outbox};
use crate::trace_context::Context;
use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::OnceLock;

/// The kind of a span, with OTLP's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Work within proxyrunner.
    Internal = 1,
    /// Handles a request of another process.
    Server = 2,
    /// Waits for another process.
    Client = 3,
}

/// Begins spans and queues the ended ones.
#[derive(Debug)]
pub struct Tracer {
    sampler: Sampler,
    propagates: bool,
    longest: usize,
    outbox: Outbox,
}

static TRACER: OnceLock<Tracer> = OnceLock::new();

/// Returns the tracer, if spans are exported.
#[inline]
pub fn tracer() -> Option<&'static Tracer> {
    TRACER.get()
}

/// The parent of a span.
#[derive(Clone, Copy, Debug)]
pub struct Parent<'a> {
    /// The parent's context.
    pub context: Context,
    /// The parent's `tracestate`.
    pub tracestate: Option<&'a str>,
    /// Whether the parent belongs to another process.
    pub remote: bool,
}

impl Tracer {
    /// Installs the process-wide tracer. Only the first call has an effect.
    pub fn install(sampler: Sampler, propagates: bool, longest: usize, bounds: Bounds) -> &'static Tracer {
        TRACER.get_or_init(|| Self::new(sampler, propagates, longest, bounds))
    }

    /// Creates a tracer without installing it.
    pub(in crate::telemetry) fn new(
        sampler: Sampler,
        propagates: bool,
        longest: usize,
        bounds: Bounds,
    ) -> Self {
        Tracer { sampler, propagates, longest, outbox: Outbox::new(bounds, &counters::DROPPED_SPANS) }
    }

    /// Returns whether the trace context is passed on to children.
    pub fn propagates(&self) -> bool {
        self.propagates
    }

    /// Returns the queue of ended spans.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Begins a span: the root of a new trace if it has no parent. Each request begins three spans, of which few are
    /// sampled under load.
    #[inline(always)]
    pub fn begin(&'static self, kind: SpanKind, parent: Option<Parent<'_>>) -> Span {
        let above = parent.as_ref().map(|parent| &parent.context);
        let trace = above.map_or_else(ids::trace, |above| above.trace);
        let sampled = self.sampler.samples(&trace, above);
        // The flag describes the trace id, which stays the same; other flags must not be set (Trace Context Level 2
        // §2.2.2.5).
        let other = above.map_or(Context::RANDOM, |above| above.flags & Context::RANDOM);
        // A span has its own id even if it is not recorded (OpenTelemetry, Trace SDK §SDK Span creation).
        let context = Context { trace, span: ids::span(), flags: other | u8::from(sampled) };
        let recording = if sampled { Some(self.record(kind, parent)) } else { None };
        Span { context, recording }
    }

    #[cold]
    fn record(&'static self, kind: SpanKind, parent: Option<Parent<'_>>) -> Box<Recording> {
        Box::new(Recording {
            tracer: self,
            kind,
            name: Cow::Borrowed(""),
            parent: parent.as_ref().map(|parent| parent.context.span),
            remote: parent.as_ref().is_some_and(|parent| parent.remote),
            tracestate: parent.and_then(|parent| parent.tracestate).map(Box::from),
            begun: Begun::now(),
            attributes: Attributes::new(ATTRIBUTES, self.longest),
            link: None,
            error: None,
        })
    }
}

/// A span that has not ended.
#[derive(Debug)]
pub struct Span {
    context: Context,
    recording: Option<Box<Recording>>,
}

#[derive(Debug)]
struct Recording {
    tracer: &'static Tracer,
    kind: SpanKind,
    name: Cow<'static, str>,
    parent: Option<[u8; 8]>,
    remote: bool,
    tracestate: Option<Box<str>>,
    begun: Begun,
    attributes: Attributes,
    link: Option<Context>,
    /// What went wrong, if anything did.
    error: Option<String>,
}

impl Span {
    /// Returns the span's context.
    pub fn context(&self) -> Context {
        self.context
    }

    /// Returns the span as a parent of another span of this process.
    pub fn as_parent(&self) -> Parent<'_> {
        let tracestate = self.recording.as_ref().and_then(|recording| recording.tracestate.as_deref());
        Parent { context: self.context, tracestate, remote: false }
    }

    /// Returns whether the span is recorded.
    pub fn is_recorded(&self) -> bool {
        self.recording.is_some()
    }

    /// Sets the name.
    pub fn name(&mut self, name: impl Into<Cow<'static, str>>) {
        if let Some(recording) = &mut self.recording {
            recording.name = name.into();
        }
    }

    /// Adds attributes, if the span is recorded.
    pub fn describe(&mut self, attributes: impl FnOnce(&mut Attributes)) {
        if let Some(recording) = &mut self.recording {
            attributes(&mut recording.attributes);
        }
    }

    /// Links the span to one that is not its ancestor.
    pub fn link(&mut self, other: Context) {
        if let Some(recording) = &mut self.recording {
            recording.link = Some(other);
        }
    }

    /// Sets the error status, with a description that may be empty.
    pub fn fail(&mut self, why: impl Into<String>) {
        if let Some(recording) = &mut self.recording {
            recording.error = Some(why.into());
        }
    }
}

impl Drop for Span {
    #[inline]
    fn drop(&mut self) {
        if let Some(recording) = self.recording.take() {
            recording.end(&self.context);
        }
    }
}

/// `ScopeSpans.spans`
const SPANS: u32 = 2;
/// `Span.attributes`
const ATTRIBUTES: u32 = 9;
/// `SpanFlags`: whether the parent is remote is known, and that it is.
const HAS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
/// `Status.STATUS_CODE_ERROR`
const STATUS_ERROR: u64 = 2;
/// Maximum length of a status message in bytes.
const LONGEST_ERROR: usize = 1024;

impl Recording {
    #[cold]
    fn end(&self, context: &Context) {
        thread_local! {
            /// Buffers for encoding, reused to avoid allocations.
            static ENCODED: RefCell<(Vec<u8>, Vec<u8>)> = RefCell::default();
        }
        // The buffers are gone when a thread ends.
        let _ = ENCODED.try_with(|encoded| {
            let (span, record) = &mut *encoded.borrow_mut();
            span.clear();
            record.clear();
            self.encode(context, span);
            record.bytes(SPANS, span);
            self.tracer.outbox.put(record);
        });
    }

    fn encode(&self, context: &Context, out: &mut Vec<u8>) {
        let end = self.begun.unix_nanos_now();
        out.bytes(1, &context.trace);
        out.bytes(2, &context.span);
        if let Some(tracestate) = &self.tracestate {
            out.bytes(3, tracestate.as_bytes());
        }
        if let Some(parent) = &self.parent {
            out.bytes(4, parent);
        }
        out.bytes(5, self.name.as_bytes());
        out.varint(6, self.kind as u64);
        out.fixed64(7, self.begun.unix_nanos());
        out.fixed64(8, end);
        out.extend_from_slice(self.attributes.encoded());
        if let Some(link) = &self.link {
            out.message(13, |out| {
                out.bytes(1, &link.trace);
                out.bytes(2, &link.span);
                out.fixed32(6, u32::from(link.flags) | HAS_REMOTE);
            });
        }
        if let Some(error) = &self.error {
            out.message(15, |out| {
                if !error.is_empty() {
                    out.bytes(2, cut(error, LONGEST_ERROR).as_bytes());
                }
                out.varint(3, STATUS_ERROR);
            });
        }
        let remote = HAS_REMOTE | if self.remote { IS_REMOTE } else { 0 };
        out.fixed32(16, u32::from(context.flags) | remote);
    }
}
