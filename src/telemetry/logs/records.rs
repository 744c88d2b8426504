//! Converts log events to log records of the SDK for a collector (`OTEL_LOGS_EXPORTER`).

use crate::telemetry::metrics::counters;
use crate::telemetry::outbox::{Bounds, Outbox, Weighed};
use crate::telemetry::text::cut;
use crate::telemetry::trace::scope;
use opentelemetry::logs::{AnyValue, LogRecord, Logger, LoggerProvider, Severity};
use opentelemetry::{Key, SpanId, TraceFlags, TraceId};
use opentelemetry_sdk::logs::{SdkLogRecord, SdkLogger, SdkLoggerProvider};
use std::fmt;
use std::sync::OnceLock;
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

static OUTBOX: OnceLock<Outbox<SdkLogRecord>> = OnceLock::new();

/// Returns the queue of log records; `None` if they are not exported.
pub fn outbox() -> Option<&'static Outbox<SdkLogRecord>> {
    OUTBOX.get()
}

/// Creates the layer that converts events to log records, and its queue. Only the first call has an effect.
pub(super) fn install(bounds: Bounds, longest: usize) -> Records {
    OUTBOX.get_or_init(|| Outbox::new(bounds, &counters::DROPPED_LOG_RECORDS));
    // It only creates records: they pass through the queue first, which knows their size.
    let logger = SdkLoggerProvider::builder().build().logger(env!("CARGO_PKG_NAME"));
    Records { logger, longest }
}

/// A layer that converts events to log records.
#[derive(Debug)]
pub(super) struct Records {
    logger: SdkLogger,
    /// Maximum length of a string in bytes.
    longest: usize,
}

/// Exports a line of the audit log. Returns false if there is no room for it.
pub fn put_audit_line(line: &str) -> bool {
    static LOGGER: OnceLock<SdkLogger> = OnceLock::new();
    let Some(outbox) = outbox() else { return false };
    let logger = LOGGER.get_or_init(|| SdkLoggerProvider::builder().build().logger(env!("CARGO_PKG_NAME")));
    let (mut record, now) = (logger.create_log_record(), SystemTime::now());
    record.set_event_name("audit_event");
    record.set_timestamp(now);
    record.set_observed_timestamp(now);
    record.set_severity_number(Severity::Info);
    record.set_severity_text("AUDIT");
    record.set_body(line.to_owned().into());
    outbox.offer(record)
}

impl<S: Subscriber> Layer<S> for Records {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(outbox) = outbox() else { return };
        // Exporting the libraries' own events would cause further exports.
        if event.metadata().target().starts_with(env!("CARGO_PKG_NAME")) {
            outbox.put(self.record(event));
        }
    }
}

impl Records {
    fn record(&self, event: &Event<'_>) -> SdkLogRecord {
        let (number, name) = match *event.metadata().level() {
            Level::ERROR => (Severity::Error, "ERROR"),
            Level::WARN => (Severity::Warn, "WARN"),
            Level::INFO => (Severity::Info, "INFO"),
            Level::DEBUG => (Severity::Debug, "DEBUG"),
            Level::TRACE => (Severity::Trace, "TRACE"),
        };
        let (mut record, now) = (self.logger.create_log_record(), SystemTime::now());
        record.set_timestamp(now);
        record.set_observed_timestamp(now);
        record.set_severity_number(number);
        record.set_severity_text(name);
        if let Some(span) = scope::current() {
            let (trace, id) = (TraceId::from_bytes(span.trace), SpanId::from_bytes(span.span));
            record.set_trace_context(trace, id, Some(TraceFlags::new(span.flags)));
        }
        event.record(&mut Visitor { record: &mut record, longest: self.longest });
        record
    }
}

/// Adds the fields of an event to a record: the message as the body, all others as attributes.
struct Visitor<'a> {
    record: &'a mut SdkLogRecord,
    longest: usize,
}

impl Visitor<'_> {
    fn put(&mut self, field: &Field, value: impl Into<AnyValue>) {
        match field.name() {
            "message" => self.record.set_body(value.into()),
            name => self.record.add_attribute(Key::from_static_str(name), value),
        }
    }
}

impl Visit for Visitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let value = cut(value, self.longest).to_owned();
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, i64::try_from(value).unwrap_or(i64::MAX));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

impl Weighed for SdkLogRecord {
    fn bytes(&self) -> usize {
        let text =
            |value: &AnyValue| if let AnyValue::String(text) = value { text.as_str().len() } else { 0 };
        let attributes = self.attributes_iter().map(|(_, value)| size_of::<(Key, AnyValue)>() + text(value));
        size_of::<SdkLogRecord>() + self.body().map_or(0, text) + attributes.sum::<usize>()
    }
}
