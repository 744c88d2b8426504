//! The export of metrics: observable instruments of the SDK read the counters and levels, and a [`Completion`] adds
//! the data that the SDK lacks to each request. The SDK's histograms have no observable form and no exemplars, and
//! its deltas would lose the values of a failed export.

use super::delivery::Delivery;
use super::transport::Complete;
use crate::telemetry::metrics::{
    self, Definition, Distribution, Exemplar, Family, Levels, MetricKind, Sample, Temporality, Value,
};
use crate::telemetry::unix_nanos;
use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1 as common;
use opentelemetry_proto::tonic::metrics::v1 as otlp;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality as SdkTemporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use parking_lot::Mutex;
use prost::Message;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A snapshot of all metrics, taken once per export.
pub(super) struct Snapshot {
    levels: Box<dyn Fn() -> Levels + Send + Sync>,
    families: Mutex<Arc<Vec<Family>>>,
}

impl Snapshot {
    pub(super) fn new(levels: impl Fn() -> Levels + Send + Sync + 'static) -> Self {
        Snapshot { levels: Box::new(levels), families: Mutex::default() }
    }

    fn refresh(&self) {
        *self.families.lock() = Arc::new(metrics::gather((self.levels)()));
    }

    fn families(&self) -> Arc<Vec<Family>> {
        Arc::clone(&self.families.lock())
    }

    fn observe<T>(&self, name: &str, to: &dyn AsyncInstrument<T>, convert: impl Fn(&Value) -> Option<T>) {
        let families = self.families();
        let samples = families.iter().filter(|family| family.definition.name == name);
        for sample in samples.flat_map(|family| &family.samples) {
            if let Some(value) = convert(&sample.value) {
                to.observe(value, &attributes(sample));
            }
        }
    }
}

fn attributes(sample: &Sample) -> Vec<KeyValue> {
    sample.labels.iter().map(|(key, value)| KeyValue::new(*key, value.clone())).collect()
}

/// Creates an observable instrument for each counter and gauge.
pub(super) fn instrument(meter: &Meter, snapshot: &Arc<Snapshot>) {
    // The first instrument is read first, and takes the snapshot for all others.
    let mut is_first = true;
    for family in metrics::gather(Levels::default()) {
        if family.definition.kind != MetricKind::Histogram {
            register(meter, family.definition, Arc::clone(snapshot), std::mem::take(&mut is_first));
        }
    }
}

fn register(meter: &Meter, definition: Definition, snapshot: Arc<Snapshot>, refreshes: bool) {
    let Definition { name, unit, help, kind, .. } = definition;
    let exported = definition.convention.unwrap_or(name);
    let whole = |value: &Value| if let Value::Count(value) = value { Some(*value) } else { None };
    let fraction = |value: &Value| if let Value::Number(value) = value { Some(*value) } else { None };
    let refresh = move |snapshot: &Snapshot| {
        if refreshes {
            snapshot.refresh();
        }
    };
    macro_rules! instrument {
        ($new:ident, $convert:expr) => {{
            let observe = move |to: &dyn AsyncInstrument<_>| {
                refresh(&snapshot);
                snapshot.observe(name, to, $convert);
            };
            meter.$new(exported).with_unit(unit).with_description(help).with_callback(observe).build();
        }};
    }
    match (kind, unit) {
        (MetricKind::Counter, "s") => instrument!(f64_observable_counter, fraction),
        (MetricKind::Counter, _) => instrument!(u64_observable_counter, whole),
        (_, "s") => instrument!(f64_observable_gauge, fraction),
        _ => instrument!(u64_observable_gauge, whole),
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

/// Exports metrics by the exporter of `opentelemetry-otlp`, and counts failures.
#[derive(Debug)]
pub(super) struct Counted {
    pub inner: opentelemetry_otlp::MetricExporter,
    pub delivery: Arc<Delivery>,
    pub completion: Arc<Completion>,
}

impl PushMetricExporter for Counted {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.delivery.begin();
        let result = self.inner.export(metrics).await;
        self.delivery.end(usize::from(result.is_err()), result.as_ref().err().map(|error| error as _));
        if result.is_ok() {
            self.completion.note_delivered();
        }
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> SdkTemporality {
        SdkTemporality::Cumulative
    }
}

/// Completes the SDK's requests: adds the histograms and, if wanted, converts cumulative values to deltas since the
/// last delivery.
#[derive(Debug)]
pub(super) struct Completion {
    snapshot: Arc<Snapshot>,
    temporality: Temporality,
    state: Mutex<Deliveries>,
}

#[derive(Debug)]
struct Deliveries {
    /// The cumulative points of the last delivery, and its time in nanoseconds since the Unix epoch.
    delivered: Points,
    since: u64,
    /// The points and the time of the delivery under way.
    pending: (Points, u64),
}

type Points = HashMap<(String, String), Point>;

#[derive(Clone, Debug)]
enum Point {
    Number(otlp::NumberDataPoint),
    Histogram(otlp::HistogramDataPoint),
}

impl Complete for Completion {
    /// Returns the completed request. A malformed one is returned unchanged.
    fn complete(&self, body: &Bytes) -> Bytes {
        let Ok(mut request) = ExportMetricsServiceRequest::decode(body.clone()) else { return body.clone() };
        let scope =
            request.resource_metrics.iter_mut().flat_map(|resource| &mut resource.scope_metrics).next();
        let Some(scope) = scope else { return body.clone() };
        let (families, now) = (self.snapshot.families(), unix_nanos());
        let histograms = families.iter().filter(|family| family.definition.kind == MetricKind::Histogram);
        let histograms = histograms.filter(|family| !family.samples.is_empty());
        scope.metrics.extend(histograms.map(|family| histogram(family, now)));
        self.set_temporality(&mut scope.metrics, now);
        request.encode_to_vec().into()
    }
}

impl Completion {
    /// Creates the completion of exports that count since `started`, in nanoseconds since the Unix epoch.
    pub(super) fn new(snapshot: Arc<Snapshot>, temporality: Temporality, started: u64) -> Self {
        let pending = (Points::new(), started);
        let state = Deliveries { delivered: Points::new(), since: started, pending };
        Completion { snapshot, temporality, state: Mutex::new(state) }
    }

    /// Records that the last completed request was delivered.
    fn note_delivered(&self) {
        let mut state = self.state.lock();
        if self.temporality == Temporality::Delta {
            let (points, now) = std::mem::take(&mut state.pending);
            (state.delivered, state.since) = (points, now);
        }
    }

    fn set_temporality(&self, metrics: &mut [otlp::Metric], now: u64) {
        let mut state = self.state.lock();
        let Deliveries { delivered, since, pending } = &mut *state;
        *pending = (Points::new(), now);
        let is_delta = self.temporality == Temporality::Delta;
        let temporality = match self.temporality {
            Temporality::Delta => otlp::AggregationTemporality::Delta,
            Temporality::Cumulative => otlp::AggregationTemporality::Cumulative,
        };
        for metric in metrics {
            let key = |attributes: &Vec<common::KeyValue>| (metric.name.clone(), format!("{attributes:?}"));
            match &mut metric.data {
                Some(Data::Sum(sum)) => {
                    sum.aggregation_temporality = temporality.into();
                    for point in &mut sum.data_points {
                        point.start_time_unix_nano = *since;
                        if is_delta {
                            let key = key(&point.attributes);
                            let whole = Point::Number(point.clone());
                            if let Some(Point::Number(before)) = delivered.get(&key) {
                                subtract_number(point, before);
                            }
                            pending.0.insert(key, whole);
                        }
                    }
                }
                Some(Data::Histogram(histogram)) => {
                    histogram.aggregation_temporality = temporality.into();
                    for point in &mut histogram.data_points {
                        point.start_time_unix_nano = *since;
                        if is_delta {
                            let key = key(&point.attributes);
                            let whole = Point::Histogram(point.clone());
                            if let Some(Point::Histogram(before)) = delivered.get(&key) {
                                subtract_histogram(point, before, *since);
                            }
                            pending.0.insert(key, whole);
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

fn subtract_number(point: &mut otlp::NumberDataPoint, before: &otlp::NumberDataPoint) {
    use otlp::number_data_point::Value::{AsDouble, AsInt};
    point.value = match (point.value, before.value) {
        (Some(AsInt(value)), Some(AsInt(before))) => Some(AsInt((value - before).max(0))),
        (Some(AsDouble(value)), Some(AsDouble(before))) => Some(AsDouble(value - before)),
        (value, _) => value,
    };
}

fn subtract_histogram(point: &mut otlp::HistogramDataPoint, before: &otlp::HistogramDataPoint, since: u64) {
    for (count, before) in point.bucket_counts.iter_mut().zip(&before.bucket_counts) {
        *count = count.saturating_sub(*before);
    }
    point.count = point.bucket_counts.iter().sum();
    point.sum = point.sum.zip(before.sum).map(|(sum, before)| (sum - before).max(0.0));
    point.exemplars.retain(|exemplar| exemplar.time_unix_nano >= since);
}

fn histogram(family: &Family, now: u64) -> otlp::Metric {
    let definition = family.definition;
    let points = family.samples.iter().filter_map(|sample| match &sample.value {
        Value::Distribution(values) => Some(point(sample, values, now)),
        _ => None,
    });
    let data = otlp::Histogram { data_points: points.collect(), ..Default::default() };
    otlp::Metric {
        name: definition.convention.unwrap_or(definition.name).to_owned(),
        description: definition.help.to_owned(),
        unit: definition.unit.to_owned(),
        data: Some(Data::Histogram(data)),
        ..Default::default()
    }
}

fn point(sample: &Sample, values: &Distribution, now: u64) -> otlp::HistogramDataPoint {
    otlp::HistogramDataPoint {
        attributes: sample.labels.iter().map(|(key, value)| attribute(key, value)).collect(),
        time_unix_nano: now,
        count: values.count(),
        sum: Some(values.seconds()),
        bucket_counts: values.buckets.to_vec(),
        explicit_bounds: values.bounds.seconds.to_vec(),
        exemplars: values.exemplars.iter().flatten().map(exemplar).collect(),
        ..Default::default()
    }
}

fn attribute(key: &str, value: &str) -> common::KeyValue {
    let value = common::any_value::Value::StringValue(value.to_owned());
    let value = Some(common::AnyValue { value: Some(value) });
    common::KeyValue { key: key.to_owned(), value, ..Default::default() }
}

fn exemplar(exemplar: &Exemplar) -> otlp::Exemplar {
    otlp::Exemplar {
        time_unix_nano: exemplar.unix_nanos,
        span_id: exemplar.context.span.to_vec(),
        trace_id: exemplar.context.trace.to_vec(),
        value: Some(otlp::exemplar::Value::AsDouble(exemplar.seconds)),
        ..Default::default()
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
