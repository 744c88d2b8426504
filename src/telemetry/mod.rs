//! Telemetry: log lines, traces and metrics. `docs/observability.md` describes them for operators.

mod child_operation;
mod clock;
#[cfg(test)]
mod documentation;
pub mod evidence;
pub mod logs;
pub mod metrics;
pub mod names;
mod operation;
mod outbox;
mod peer;
mod seldom;
mod subject;
mod text;
mod trace;
mod verdict;

pub use child_operation::ChildOperation;
pub use clock::unix_nanos;
pub use evidence::{Details, Ended, Visitor};
pub use logs::{Allowance, LogFormat, access, count_lost_lines};
pub use metrics::counters;
pub use operation::{Arrival, Operation};
pub use outbox::{Bounds, Outbox};
pub use peer::Peer;
pub use seldom::Seldom;
pub use subject::Subject;
pub(crate) use text::cut;
pub(crate) use trace::capture;
pub use trace::{Attributes, Parent, Sampler, Span, SpanKind, Tracer, scope, tracer};
pub use verdict::Verdict;

use opentelemetry::InstrumentationScope;
use tracing::level_filters::LevelFilter;

/// The telemetry that the operator requests.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--log-format`
    pub format: LogFormat,
    /// `--log-level`
    pub level: LevelFilter,
    /// `--access-log`
    pub access_log: bool,
    /// `--metrics`
    pub metrics: bool,
    /// The tool arguments and results that spans include.
    pub capture: capture::Settings,
    /// Sampling and queueing of spans; `None` if they are not exported.
    pub spans: Option<SpanSettings>,
    /// Queueing of log records; `None` if they are not exported.
    pub records: Option<Bounds>,
    /// Maximum length of an exported string in bytes (`OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT`).
    pub longest: usize,
    /// Whether histograms keep exemplars (`OTEL_METRICS_EXEMPLAR_FILTER`).
    pub exemplars: bool,
}

/// Sampling, propagation and queueing of spans.
#[derive(Clone, Copy, Debug)]
pub struct SpanSettings {
    /// `OTEL_TRACES_SAMPLER`
    pub sampler: Sampler,
    /// Whether the child receives the trace context (`OTEL_PROPAGATORS`).
    pub propagates: bool,
    /// Limits of the export queue.
    pub bounds: Bounds,
}

/// Returns the instrumentation scope of all telemetry.
pub fn scope_of_instrumentation() -> InstrumentationScope {
    InstrumentationScope::builder(env!("CARGO_PKG_NAME")).with_version(env!("CARGO_PKG_VERSION")).build()
}

/// Starts logging to stderr, and recording the requested telemetry. Dropping the guard writes the lines that are
/// still buffered.
pub fn start(settings: &Settings) -> logs::LastLines {
    let guard = logs::start(settings.format, settings.level, settings.records, settings.longest);
    if settings.access_log {
        access::enable();
    }
    if settings.metrics {
        metrics::enable(settings.exemplars);
    }
    if let Some(SpanSettings { sampler, propagates, bounds }) = settings.spans {
        Tracer::install(sampler, propagates, settings.longest, bounds, scope_of_instrumentation());
    }
    capture::install(&settings.capture);
    guard
}
