//! The export of metrics: one request with all values at each interval. The SDK's metrics are not used: its histograms
//! have no observable form and no exemplars, and its deltas would lose the values of a failed export.

use super::transport::Transport;
use crate::telemetry::metrics::{
    self, Definition, Distribution, Exemplar, Family, Levels, MetricKind, Sample, Temporality, Value, started,
};
use crate::telemetry::{scope_of_instrumentation, unix_nanos};
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1 as common;
use opentelemetry_proto::tonic::metrics::v1 as otlp;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_sdk::Resource;
use prost::Message;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

/// The values to export, and what was delivered of them.
pub(super) struct Metrics {
    levels: Box<dyn Fn() -> Levels + Send + Sync>,
    resource: OtlpResource,
    temporality: Temporality,
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

impl Metrics {
    /// Creates the metrics of a resource; `levels` returns the current levels.
    pub(super) fn new(
        resource: &Resource,
        temporality: Temporality,
        levels: impl Fn() -> Levels + Send + Sync + 'static,
    ) -> Self {
        let attributes = resource.iter().map(|(key, value)| attribute(key.as_str(), &value.as_str()));
        let resource = OtlpResource { attributes: attributes.collect(), ..Default::default() };
        let (delivered, since) = (Points::new(), started());
        let pending = (Points::new(), since);
        Metrics { levels: Box::new(levels), resource, temporality, delivered, since, pending }
    }

    /// Exports the metrics at each interval, and once more when `ending` is cancelled.
    pub(super) async fn run(mut self, every: Duration, transport: Transport, ending: CancellationToken) {
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_last = tokio::select! {
                biased;
                () = ending.cancelled() => true,
                _ = ticks.tick() => false,
            };
            let request = self.encoded(&metrics::gather((self.levels)()));
            if transport.deliver(request).await {
                self.note_delivered();
            }
            if is_last {
                return;
            }
        }
    }

    /// Returns a request with these metrics.
    pub(super) fn encoded(&mut self, families: &[Family]) -> Bytes {
        self.request(families, unix_nanos()).encode_to_vec().into()
    }

    fn request(&mut self, families: &[Family], now: u64) -> ExportMetricsServiceRequest {
        let families = families.iter().filter(|family| !family.samples.is_empty());
        let mut metrics: Vec<_> = families.map(|family| metric(family, now)).collect();
        self.set_temporality(&mut metrics, now);
        let scope = scope_of_instrumentation();
        let scope = common::InstrumentationScope {
            name: scope.name().to_owned(),
            version: scope.version().unwrap_or_default().to_owned(),
            ..Default::default()
        };
        let scope_metrics = vec![otlp::ScopeMetrics { scope: Some(scope), metrics, ..Default::default() }];
        let resource = Some(self.resource.clone());
        let resource_metrics = otlp::ResourceMetrics { resource, scope_metrics, ..Default::default() };
        ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] }
    }

    /// Records that the last request was delivered.
    fn note_delivered(&mut self) {
        if self.temporality == Temporality::Delta {
            (self.delivered, self.since) = std::mem::take(&mut self.pending);
        }
    }

    fn set_temporality(&mut self, metrics: &mut [otlp::Metric], now: u64) {
        let Metrics { delivered, since, pending, .. } = self;
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

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("temporality", &self.temporality).finish_non_exhaustive()
    }
}

fn subtract_number(point: &mut otlp::NumberDataPoint, before: &otlp::NumberDataPoint) {
    point.value = match (point.value, before.value) {
        (Some(Number::AsInt(value)), Some(Number::AsInt(before))) => {
            Some(Number::AsInt((value - before).max(0)))
        }
        (Some(Number::AsDouble(value)), Some(Number::AsDouble(before))) => {
            Some(Number::AsDouble(value - before))
        }
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

fn metric(family: &Family, now: u64) -> otlp::Metric {
    let Definition { name, convention, unit, kind, help } = family.definition;
    let numbers = || family.samples.iter().filter_map(|sample| number(sample, now)).collect();
    let data = match kind {
        MetricKind::Counter => {
            Data::Sum(otlp::Sum { data_points: numbers(), is_monotonic: true, ..Default::default() })
        }
        MetricKind::Gauge => Data::Gauge(otlp::Gauge { data_points: numbers() }),
        MetricKind::Histogram => {
            let points = family.samples.iter().filter_map(|sample| match &sample.value {
                Value::Distribution(values) => Some(distribution(sample, values, now)),
                _ => None,
            });
            Data::Histogram(otlp::Histogram { data_points: points.collect(), ..Default::default() })
        }
    };
    otlp::Metric {
        name: convention.unwrap_or(name).to_owned(),
        description: help.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
        ..Default::default()
    }
}

fn number(sample: &Sample, now: u64) -> Option<otlp::NumberDataPoint> {
    let value = match &sample.value {
        Value::Count(count) => Number::AsInt(i64::try_from(*count).unwrap_or(i64::MAX)),
        Value::Number(number) => Number::AsDouble(*number),
        Value::Distribution(_) => return None,
    };
    let attributes = attributes(sample);
    Some(otlp::NumberDataPoint { attributes, time_unix_nano: now, value: Some(value), ..Default::default() })
}

fn distribution(sample: &Sample, values: &Distribution, now: u64) -> otlp::HistogramDataPoint {
    otlp::HistogramDataPoint {
        attributes: attributes(sample),
        time_unix_nano: now,
        count: values.count(),
        sum: Some(values.seconds()),
        bucket_counts: values.buckets.to_vec(),
        explicit_bounds: values.bounds.seconds.to_vec(),
        exemplars: values.exemplars.iter().flatten().map(exemplar).collect(),
        ..Default::default()
    }
}

fn attributes(sample: &Sample) -> Vec<common::KeyValue> {
    sample.labels.iter().map(|(key, value)| attribute(key, value)).collect()
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
