//! Formats log lines and adds the ids of the current trace and span.

use super::escape::escaped_json;
use crate::telemetry::trace::scope;
use std::fmt;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// A log line format that adds the ids of the current trace and span.
#[derive(Debug)]
pub(super) struct Traced<F> {
    /// The format of the rest of the line.
    pub lines: F,
    /// Whether that format writes one JSON object.
    pub json: bool,
}

impl<S, N, F> FormatEvent<S, N> for Traced<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let span = scope::current();
        if span.is_none() && !self.json {
            return self.lines.format_event(context, out, event);
        }
        let mut line = String::with_capacity(256);
        self.lines.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        let line = if self.json { escaped_json(line) } else { line.into() };
        let Some(span) = span else { return writeln!(out, "{line}") };
        let (trace, span) = (span.trace_id(), span.span_id());
        match line.strip_suffix('}').filter(|_| self.json) {
            Some(object) => writeln!(out, "{object},\"trace_id\":\"{trace}\",\"span_id\":\"{span}\"}}"),
            None => writeln!(out, "{line} trace_id={trace} span_id={span}"),
        }
    }
}
