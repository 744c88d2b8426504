//! The subscriber for log events: writes them to stderr and, if log export is enabled, records them.

use super::escape::EscapedFields;
use super::format::Traced;
use super::records;
use super::writer::{LastLines, Lines};
use crate::telemetry::outbox::Bounds;
use std::io::{self, IsTerminal};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{Layer, fmt};

/// The format of log lines (`--log-format`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Selects the events that are logged. Those of libraries are logged only at debug and trace: they are worded for the
/// libraries' authors, and clients can cause any number of them, for example with each HTTP/2 connection.
#[derive(Clone, Copy, Debug)]
struct Shown(LevelFilter);

impl Shown {
    fn shows(self, level: Level, target: &str) -> bool {
        let is_own = || target.split("::").next() == Some(env!("CARGO_CRATE_NAME"));
        level <= self.0 && (self.0 >= LevelFilter::DEBUG || is_own())
    }
}

impl<S: Subscriber> Layer<S> for Shown {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.shows(*metadata.level(), metadata.target())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0)
    }
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
    let subscriber = tracing_subscriber::registry().with(Shown(level)).with(lines).with(records);
    // Tests start more than once; the first subscriber stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
    guard
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_libraries_are_logged_only_for_debugging() {
        let info = Shown(LevelFilter::INFO);
        assert!(
            info.shows(Level::WARN, "proxyrunner::telemetry::logs") && info.shows(Level::INFO, "proxyrunner")
        );
        assert!(!info.shows(Level::DEBUG, "proxyrunner"));
        assert!(!info.shows(Level::WARN, "h2::proto::streams::recv"), "clients choose how many");
        assert!(!info.shows(Level::WARN, "proxyrunner2"));
        assert!(Shown(LevelFilter::DEBUG).shows(Level::WARN, "h2::proto::streams::recv"));
        assert!(!Shown(LevelFilter::OFF).shows(Level::ERROR, "proxyrunner"));
    }
}
