//! The subscriber for log events: writes them to stderr and, if log export is enabled, records them.

use super::escape::EscapedFields;
use super::format::Traced;
use super::records;
use super::writer::{LastLines, Lines};
use crate::telemetry::outbox::Bounds;
use std::io::{self, IsTerminal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, fmt};

/// The format of log lines (`--log-format`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Installs the subscriber. Dropping the guard writes the lines that are still buffered.
///
/// A separate thread writes the lines and drops them when it falls behind: a blocked stderr must never block a
/// request.
pub(in crate::telemetry) fn start(
    format: LogFormat,
    level: LevelFilter,
    records: Option<Bounds>,
    longest: usize,
) -> LastLines {
    let (writer, guard) = Lines::to(io::stderr());
    let lines = fmt::layer().with_writer(writer).with_ansi(false);
    let event = fmt::format().with_target(false);
    let lines = match format {
        LogFormat::Text => {
            let ansi = io::stderr().is_terminal();
            let event = Traced { lines: event.with_ansi(ansi), json: false };
            lines.with_ansi(ansi).fmt_fields(EscapedFields::default()).event_format(event).boxed()
        }
        LogFormat::Json => {
            let event = Traced { lines: event.json(), json: true };
            lines.fmt_fields(JsonFields::new()).event_format(event).boxed()
        }
    };
    let records = records.map(|bounds| records::install(bounds, longest));
    let subscriber = tracing_subscriber::registry().with(level).with(lines).with(records);
    // Tests start more than once; the first subscriber stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
    guard
}
