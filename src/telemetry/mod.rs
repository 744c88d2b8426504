//! What can be seen of proxyrunner: logs, spans, and the counters of everything that was dropped, refused or repaired.

pub mod access;
mod allowance;
pub(crate) mod capture;
mod child_operation;
mod clock;
pub mod counters;
#[cfg(test)]
mod documentation;
mod ids;
mod lines;
pub mod logs;
pub mod metrics;
pub mod names;
mod operation;
pub mod otlp;
mod outbox;
mod peer;
mod redact;
mod sampler;
pub mod scope;
mod span;
mod subject;
mod verdict;

pub use allowance::Allowance;
pub use child_operation::ChildOperation;
pub use lines::count_lost as count_lost_lines;
pub use operation::{Arrival, Operation, Waiting};
pub use outbox::{Batch, Bounds, Outbox};
pub use peer::Peer;
pub use sampler::Sampler;
pub use span::{Parent, Span, SpanKind, Tracer, tracer};
pub use subject::Subject;
pub use verdict::Verdict;

use lines::{EscapedFields, Lines};
use std::io::{self, IsTerminal};
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, fmt};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

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

/// Starts logging to stderr, and keeping what else is wanted. Dropping the guard writes what is still buffered.
///
/// Lines are written by a thread of their own and dropped when it can't keep up: a blocked stderr must never
/// block a request.
pub fn start(settings: &Settings) -> WorkerGuard {
    let (writer, guard) = Lines::to(io::stderr());
    let lines = fmt::layer().with_writer(writer).with_ansi(false);
    let format = fmt::format().with_target(false);
    let lines = match settings.format {
        Format::Text => {
            let ansi = io::stderr().is_terminal();
            let format = logs::Traced { lines: format.with_ansi(ansi), json: false };
            lines.with_ansi(ansi).fmt_fields(EscapedFields::default()).event_format(format).boxed()
        }
        Format::Json => {
            let format = logs::Traced { lines: format.json(), json: true };
            lines.fmt_fields(JsonFields::new()).event_format(format).boxed()
        }
    };
    let records = settings.records.map(|bounds| logs::install(bounds, settings.longest));
    let subscriber = tracing_subscriber::registry().with(settings.level).with(lines).with(records);
    // A second start, as tests do, keeps the first.
    let _ = tracing::subscriber::set_global_default(subscriber);
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
