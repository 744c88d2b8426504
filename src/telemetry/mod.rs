//! What can be seen of proxyrunner: logs, spans, and the counters of everything that was dropped, refused or repaired.

pub mod access;
mod child_operation;
mod clock;
pub mod counters;
mod ids;
pub mod metrics;
pub mod names;
mod operation;
pub mod otlp;
mod outbox;
mod sampler;
pub mod scope;
mod span;
mod subject;
mod verdict;

pub use child_operation::ChildOperation;
pub use operation::{Arrival, Operation, Waiting};
pub use outbox::{Batch, Bounds, Outbox};
pub use sampler::Sampler;
pub use span::{Parent, Span, SpanKind, Tracer, tracer};
pub use subject::Subject;
pub use verdict::Verdict;

use std::io::{self, IsTerminal};
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the operator wants to read.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--log-format`
    pub format: Format,
    /// `--log-level`
    pub level: LevelFilter,
}

/// Lines that wait for a slow stderr; further ones are dropped rather than waited for.
const BUFFERED_LINES: usize = 8_192;

/// Starts logging to stderr. Dropping the guard writes what is still buffered.
///
/// Lines are written by a thread of their own and dropped when it can't keep up: a blocked stderr must never
/// block a request.
pub fn start(settings: &Settings) -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(BUFFERED_LINES)
        .thread_name("log")
        .finish(io::stderr());
    let lines = fmt::fmt().with_writer(writer).with_max_level(settings.level).with_target(false);
    // A second start, as tests do, keeps the first.
    let _ = match settings.format {
        Format::Text => {
            let lines = lines.with_ansi(io::stderr().is_terminal()).finish();
            tracing::subscriber::set_global_default(lines)
        }
        Format::Json => tracing::subscriber::set_global_default(lines.json().finish()),
    };
    guard
}
