//! A snapshot of metrics as families of samples, from which both Prometheus and OTLP exports are written.

use super::histogram::Distribution;
use std::borrow::Cow;

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A value that only increases.
    Counter,
    /// A value that increases and decreases.
    Gauge,
    /// A distribution of values in buckets.
    Histogram,
}

/// The start of the interval that exported sums cover (`OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temporality {
    /// Since the last export.
    Delta,
    /// Since the start of the process.
    Cumulative,
}

/// The definition of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The name for Prometheus, including the unit; counters end in `_total`.
    pub name: &'static str,
    /// The name in OTLP, if it differs.
    pub convention: Option<&'static str>,
    /// The unit in UCUM.
    pub unit: &'static str,
    /// The kind.
    pub kind: MetricKind,
    /// The help text in one line.
    pub help: &'static str,
}

/// A metric with its samples.
#[derive(Clone, Debug)]
pub struct Family {
    /// The metric's definition.
    pub definition: Definition,
    /// One sample per combination of labels.
    pub samples: Vec<Sample>,
}

/// One value of a metric.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Labels as pairs of an attribute name in OpenTelemetry's notation and a value.
    pub labels: Vec<(&'static str, Cow<'static, str>)>,
    /// The value.
    pub value: Value,
}

/// The value of a sample.
#[derive(Clone, Debug)]
pub enum Value {
    /// An integer.
    Count(u64),
    /// A floating-point number.
    Number(f64),
    /// The values of a histogram.
    Distribution(Box<Distribution>),
}

impl Definition {
    /// Returns a family of one sample without labels.
    #[inline(never)]
    pub fn alone(self, value: Value) -> Family {
        Family { definition: self, samples: vec![Sample { labels: Vec::new(), value }] }
    }

    /// Returns a family of these samples.
    pub fn family(self, samples: Vec<Sample>) -> Family {
        Family { definition: self, samples }
    }
}
