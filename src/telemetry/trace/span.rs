//! Spans. An unsampled span costs only its id. A span ends when it is dropped, and is then queued in OTLP's encoding
//! (opentelemetry/proto/trace/v1).

use super::attributes::Attributes;
use super::ids;
use super::sampler::Sampler;
use crate::telemetry::clock::Begun;
use crate::telemetry::metrics::counters;
use crate::telemetry::outbox::{Bounds, Outbox, Weighed};
use crate::telemetry::text::cut;
use crate::trace_context::Context;
use opentelemetry::trace::{Link, SpanContext, Status, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use std::borrow::Cow;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use opentelemetry::trace::SpanKind;

/// Begins spans and queues the ended ones.
#[derive(Debug)]
pub struct Tracer {
    sampler: Sampler,
    propagates: bool,
    longest: usize,
    scope: InstrumentationScope,
    outbox: Outbox<SpanData>,
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
    pub fn install(
        sampler: Sampler,
        propagates: bool,
        longest: usize,
        bounds: Bounds,
        scope: InstrumentationScope,
    ) -> &'static Tracer {
        TRACER.get_or_init(|| Self::new(sampler, propagates, longest, bounds, scope))
    }

    /// Creates a tracer without installing it.
    pub(in crate::telemetry) fn new(
        sampler: Sampler,
        propagates: bool,
        longest: usize,
        bounds: Bounds,
        scope: InstrumentationScope,
    ) -> Self {
        Tracer { sampler, propagates, longest, scope, outbox: Outbox::new(bounds, &counters::DROPPED_SPANS) }
    }

    /// Returns whether the trace context is passed on to children.
    pub fn propagates(&self) -> bool {
        self.propagates
    }

    /// Returns the queue of ended spans.
    pub fn outbox(&self) -> &Outbox<SpanData> {
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
            attributes: Attributes::new(self.longest),
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
    /// The description of the error, if any.
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
            let outbox = &recording.tracer.outbox;
            outbox.put((*recording).finish(&self.context));
        }
    }
}

/// Maximum length of a status message in bytes.
const LONGEST_ERROR: usize = 1024;

impl Recording {
    #[cold]
    fn finish(mut self, context: &Context) -> SpanData {
        let end = self.begun.unix_nanos_now();
        let mut links = SpanLinks::default();
        if let Some(link) = &self.link {
            links.links.push(Link::with_context(span_context(link, TraceState::default())));
        }
        let state = self.tracestate.as_deref().and_then(|state| TraceState::from_str(state).ok());
        SpanData {
            span_context: span_context(context, state.unwrap_or_default()),
            parent_span_id: self.parent.map_or(SpanId::INVALID, SpanId::from_bytes),
            parent_span_is_remote: self.remote,
            span_kind: self.kind,
            name: self.name,
            start_time: at(self.begun.unix_nanos()),
            end_time: at(end),
            attributes: self.attributes.take(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: self.error.map_or(Status::Unset, |error| match cut(&error, LONGEST_ERROR).len() {
                whole if whole == error.len() => Status::error(error),
                shorter => Status::error(error[..shorter].to_owned()),
            }),
            instrumentation_scope: self.tracer.scope.clone(),
        }
    }
}

fn at(unix_nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(unix_nanos)
}

fn span_context(context: &Context, state: TraceState) -> SpanContext {
    let (trace, span) = (TraceId::from_bytes(context.trace), SpanId::from_bytes(context.span));
    SpanContext::new(trace, span, TraceFlags::new(context.flags), false, state)
}

impl Weighed for SpanData {
    fn bytes(&self) -> usize {
        let text = |value: &Value| if let Value::String(text) = value { text.as_str().len() } else { 0 };
        let attributes = self.attributes.iter().map(|pair| size_of::<KeyValue>() + text(&pair.value));
        let status = if let Status::Error { description } = &self.status { description.len() } else { 0 };
        size_of::<SpanData>() + self.name.len() + status + attributes.sum::<usize>()
    }
}

#[cfg(test)]
#[path = "span_tests.rs"]
mod tests;
