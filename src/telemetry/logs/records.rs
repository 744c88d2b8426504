//! Converts log events to log records for a collector (`OTEL_LOGS_EXPORTER`).

use crate::telemetry::clock;
use crate::telemetry::metrics::counters;
use crate::telemetry::otlp::{Fields, cut};
use crate::telemetry::outbox::{Bounds, Outbox};
use crate::telemetry::trace::scope;
use std::cell::RefCell;
use std::fmt;
use std::sync::OnceLock;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

static OUTBOX: OnceLock<Outbox> = OnceLock::new();

/// Returns the queue of log records; `None` if they are not exported.
pub fn outbox() -> Option<&'static Outbox> {
    OUTBOX.get()
}

/// Creates the layer that converts events to log records, and its queue. Only the first call has an effect.
pub(super) fn install(bounds: Bounds, longest: usize) -> Records {
    OUTBOX.get_or_init(|| Outbox::new(bounds, &counters::DROPPED_LOG_RECORDS));
    Records { longest }
}

/// A layer that converts events to log records (opentelemetry/proto/logs/v1).
#[derive(Debug)]
pub(super) struct Records {
    /// Maximum length of a string in bytes.
    longest: usize,
}

/// `ScopeLogs.log_records`
const RECORDS: u32 = 2;
/// `LogRecord.attributes`
const ATTRIBUTES: u32 = 6;

impl<S: Subscriber> Layer<S> for Records {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(outbox) = outbox() else { return };
        // Exporting the libraries' own events would cause further exports.
        if !event.metadata().target().starts_with(env!("CARGO_PKG_NAME")) {
            return;
        }
        thread_local! {
            static RECORD: RefCell<(Vec<u8>, Vec<u8>)> = RefCell::default();
        }
        // The buffer is gone when a thread ends, and in use when an event occurs while a record is written. Both
        // events are skipped.
        let _ = RECORD.try_with(|buffers| {
            let Ok(mut buffers) = buffers.try_borrow_mut() else { return };
            let (record, field) = &mut *buffers;
            record.clear();
            field.clear();
            self.encode(event, record);
            field.bytes(RECORDS, record);
            outbox.put(field);
        });
    }
}

impl Records {
    fn encode(&self, event: &Event<'_>, out: &mut Vec<u8>) {
        let now = clock::unix_nanos();
        // Severity numbers (logs/data-model §Field SeverityNumber).
        let (number, name) = match *event.metadata().level() {
            Level::ERROR => (17, "ERROR"),
            Level::WARN => (13, "WARN"),
            Level::INFO => (9, "INFO"),
            Level::DEBUG => (5, "DEBUG"),
            Level::TRACE => (1, "TRACE"),
        };
        out.fixed64(1, now);
        out.varint(2, number);
        out.bytes(3, name.as_bytes());
        out.fixed64(11, now);
        if let Some(span) = scope::current() {
            out.fixed32(8, span.flags.into());
            out.bytes(9, &span.trace);
            out.bytes(10, &span.span);
        }
        event.record(&mut Visitor { out, longest: self.longest });
    }
}

/// Writes the fields of an event: the message as the body, all others as attributes.
struct Visitor<'a> {
    out: &'a mut Vec<u8>,
    longest: usize,
}

impl Visitor<'_> {
    /// Writes a field whose `AnyValue` is encoded by `write`.
    fn value(&mut self, field: &Field, write: impl FnOnce(&mut Vec<u8>)) {
        if field.name() == "message" {
            return self.out.message(5, write);
        }
        self.out.message(ATTRIBUTES, |out| {
            out.bytes(1, field.name().as_bytes());
            out.message(2, write);
        });
    }
}

impl Visit for Visitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let value = cut(value, self.longest);
        self.value(field, |out| out.bytes(1, value.as_bytes()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field, |out| out.varint(2, value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field, |out| out.varint(3, value.cast_unsigned()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record_i64(field, i64::try_from(value).unwrap_or(i64::MAX));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.value(field, |out| out.double(4, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
