//! What can be seen of proxyrunner: logs, spans, and the counters of everything that was dropped, refused or repaired.

mod child_operation;
mod clock;
#[cfg(test)]
mod documentation;
pub mod logs;
pub mod metrics;
pub mod names;
mod operation;
pub mod otlp;
mod outbox;
mod peer;
mod subject;
mod trace;
mod verdict;

pub use child_operation::ChildOperation;
pub use clock::unix_nanos;
pub use logs::{Allowance, Format, access, count_lost_lines};
pub use metrics::counters;
pub use operation::{Arrival, Operation, Waiting};
pub use outbox::{Batch, Bounds, Outbox};
pub use peer::Peer;
pub use subject::Subject;
pub(crate) use trace::capture;
pub use trace::{Parent, Sampler, Span, SpanKind, Tracer, scope, tracer};
pub use verdict::Verdict;

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::WorkerGuard;

/// What the operator wants to see.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--log-format`
    pub format: Format,
    /// `--log-level`
    pub level: LevelFilter,
    /// `--access-log`
    pub access_log: bool,
    /// `--metrics`
    pub metrics: bool,
    /// What of tools' arguments and results is put into spans.
    pub capture: capture::Settings,
    /// Spans, if they are exported.
    pub spans: Option<SpanSettings>,
    /// Log records, if they are exported.
    pub records: Option<Bounds>,
    /// `OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT`
    pub longest: usize,
    /// `OTEL_METRICS_EXEMPLAR_FILTER`: whether metrics name traces.
    pub exemplars: bool,
}

/// Which spans are recorded.
#[derive(Clone, Copy, Debug)]
pub struct SpanSettings {
    /// `OTEL_TRACES_SAMPLER`
    pub sampler: Sampler,
    /// `OTEL_PROPAGATORS`: whether the child is told where they stand.
    pub propagates: bool,
    /// How many may wait to be exported.
    pub bounds: Bounds,
}

/// Starts logging to stderr, and recording what the settings ask for. Dropping the guard writes the lines that are still
/// buffered.
pub fn start(settings: &Settings) -> WorkerGuard {
    let guard = logs::start(settings.format, settings.level, settings.records, settings.longest);
    if settings.access_log {
        access::keep();
    }
    if settings.metrics {
        metrics::keep(settings.exemplars);
    }
    if let Some(SpanSettings { sampler, propagates, bounds }) = settings.spans {
        Tracer::install(sampler, propagates, settings.longest, bounds);
        capture::install(&settings.capture);
    }
    guard
}
