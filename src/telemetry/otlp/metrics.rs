//! Encodes metrics for OTLP (opentelemetry/proto/metrics/v1) with cumulative or delta temporality.

use super::Attributes;
use super::protobuf::Fields;
use crate::telemetry::metrics::{Distribution, Exemplar, Family, MetricKind, Sample, Value};
use std::borrow::Cow;
use std::collections::HashMap;

/// The start of the interval that exported sums cover (`OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`), with
/// OTLP's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temporality {
    /// Since the last export.
    Delta = 1,
    /// Since the start of the process.
    Cumulative = 2,
}

/// The values of the last export, from which deltas are computed.
#[derive(Debug)]
pub struct Exports {
    temporality: Temporality,
    before: Before,
    /// The time of the last export in nanoseconds since the Unix epoch; initially the start.
    since: u64,
}

type Labels = Vec<(&'static str, Cow<'static, str>)>;
type Before = HashMap<(&'static str, Labels), Value>;

/// The values of an export, to be passed to [`Exports::note`] when it was delivered.
#[derive(Debug)]
pub struct Delivered(Before, u64);

impl Exports {
    /// Creates the state before the first export.
    pub fn new(temporality: Temporality, started: u64) -> Self {
        Exports { temporality, before: HashMap::new(), since: started }
    }

    /// Encodes metrics as a repeated field of a scope, without those that have no samples. The export counts as
    /// delivered once it is passed to [`note`](Self::note).
    pub fn encode(&self, families: &[Family], now: u64) -> (Vec<u8>, Delivered) {
        let mut out = Vec::with_capacity(32 * 1024);
        for family in families.iter().filter(|family| !family.samples.is_empty()) {
            self.put_family(&mut out, family, now);
        }
        let kept = families.iter().filter(|family| {
            self.temporality == Temporality::Delta && family.definition.kind != MetricKind::Gauge
        });
        let kept = kept.flat_map(|family| {
            let name = family.definition.name;
            family.samples.iter().map(move |sample| ((name, sample.labels.clone()), sample.value.clone()))
        });
        (out, Delivered(kept.collect(), now))
    }

    /// Notes that an export was delivered.
    pub fn note(&mut self, Delivered(before, now): Delivered) {
        if self.temporality == Temporality::Delta {
            (self.before, self.since) = (before, now);
        }
    }

    fn put_family(&self, out: &mut Vec<u8>, family: &Family, now: u64) {
        let Family { definition, samples } = family;
        out.message(2, |out| {
            out.bytes(1, definition.convention.unwrap_or(definition.name).as_bytes());
            out.bytes(2, definition.help.as_bytes());
            out.bytes(3, definition.unit.as_bytes());
            let field = match definition.kind {
                MetricKind::Gauge => 5,
                MetricKind::Counter => 7,
                MetricKind::Histogram => 9,
            };
            out.message(field, |out| {
                for sample in samples {
                    let before = self.before.get(&(definition.name, sample.labels.clone()));
                    out.message(1, |out| self.put_point(out, sample, before, now));
                }
                if definition.kind != MetricKind::Gauge {
                    out.varint(2, self.temporality as u64);
                }
                if definition.kind == MetricKind::Counter {
                    out.varint(3, 1);
                }
            });
        });
    }

    fn put_point(&self, out: &mut Vec<u8>, sample: &Sample, before: Option<&Value>, now: u64) {
        let labels = |out: &mut Vec<u8>, field| {
            let mut attributes = Attributes::new(field, usize::MAX);
            sample.labels.iter().for_each(|(key, value)| attributes.text(key, value));
            out.extend_from_slice(attributes.encoded());
        };
        out.fixed64(2, self.since);
        out.fixed64(3, now);
        match (&sample.value, before) {
            (Value::Count(value), before) => {
                let before = if let Some(Value::Count(before)) = before { *before } else { 0 };
                labels(out, 7);
                out.fixed64(6, value.saturating_sub(before));
            }
            (Value::Number(value), before) => {
                let before = if let Some(Value::Number(before)) = before { *before } else { 0.0 };
                labels(out, 7);
                out.double(4, value - before);
            }
            (Value::Distribution(values), before) => {
                let before =
                    if let Some(Value::Distribution(before)) = before { Some(&**before) } else { None };
                labels(out, 9);
                put_distribution(out, values, before, self.since);
            }
        }
    }
}

fn put_distribution(out: &mut Vec<u8>, values: &Distribution, before: Option<&Distribution>, since: u64) {
    let counts = values
        .buckets
        .iter()
        .enumerate()
        .map(|(at, count)| count.saturating_sub(before.map_or(0, |before| before.buckets[at])));
    let counts: Vec<u64> = counts.collect();
    out.fixed64(4, counts.iter().sum());
    out.double(5, values.nanos.saturating_sub(before.map_or(0, |before| before.nanos)) as f64 / 1e9);
    out.packed(6, counts.into_iter());
    out.packed(7, values.bounds.seconds.iter().map(|bound| bound.to_bits()));
    let is_new = |exemplar: &&Exemplar| before.is_none() || exemplar.unix_nanos >= since;
    for exemplar in values.exemplars.iter().flatten().filter(is_new) {
        out.message(8, |out| {
            out.fixed64(2, exemplar.unix_nanos);
            out.double(3, exemplar.seconds);
            out.bytes(4, &exemplar.context.span);
            out.bytes(5, &exemplar.context.trace);
        });
    }
}
