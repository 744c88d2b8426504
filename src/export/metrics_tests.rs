//! Tests the requests that carry metrics, as a collector decodes them.

use super::*;
use crate::telemetry::metrics::{CONVENTION, Histogram};
use crate::trace_context::Context;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;

const HISTOGRAM: Definition = Definition {
    name: "h_seconds",
    convention: Some("h.duration"),
    unit: "s",
    kind: MetricKind::Histogram,
    help: "How long.",
};

fn completion(temporality: Temporality) -> Completion {
    Completion::new(Arc::new(Snapshot::new(Levels::default)), temporality, 1_000)
}

/// Returns a request as the SDK writes it, with one sum.
fn request(count: i64) -> Bytes {
    let point = otlp::NumberDataPoint {
        attributes: vec![attribute("k", "v")],
        start_time_unix_nano: 7,
        value: Some(Number::AsInt(count)),
        ..Default::default()
    };
    let sum = otlp::Sum { data_points: vec![point], is_monotonic: true, aggregation_temporality: 2 };
    let metric = otlp::Metric { name: "c".to_owned(), data: Some(Data::Sum(sum)), ..Default::default() };
    let scope = otlp::ScopeMetrics { metrics: vec![metric], ..Default::default() };
    let resource = otlp::ResourceMetrics { scope_metrics: vec![scope], ..Default::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![resource] }.encode_to_vec().into()
}

/// Completes a request; returns its sum and its histogram.
fn completed(
    completion: &Completion,
    count: i64,
    values: &Distribution,
) -> (otlp::Sum, otlp::Histogram, otlp::Metric) {
    let value = Value::Distribution(Box::new(values.clone()));
    *completion.snapshot.families.lock() = Arc::new(vec![HISTOGRAM.alone(value)]);
    let request =
        ExportMetricsServiceRequest::decode(completion.complete(&request(count))).expect("a request");
    let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
    let [sum, histogram] = &metrics[..] else { panic!("{metrics:?}") };
    let (Some(Data::Sum(sum)), Some(Data::Histogram(values))) = (&sum.data, &histogram.data) else {
        panic!("{metrics:?}")
    };
    (sum.clone(), values.clone(), histogram.clone())
}

#[test]
fn histograms_are_added_with_their_exemplars() {
    let histogram = Histogram::new(&CONVENTION);
    let context = Context { trace: [3; 16], span: [4; 8], flags: 1 };
    histogram.record(15_000_000, Some(&context));
    histogram.record(1_000_000_000_000, None);
    let (sum, values, metric) = completed(&completion(Temporality::Cumulative), 7, &histogram.read());
    assert_eq!(
        (metric.name.as_str(), metric.unit.as_str(), metric.description.as_str()),
        ("h.duration", "s", "How long.")
    );
    assert_eq!((sum.aggregation_temporality, values.aggregation_temporality), (2, 2));
    assert_eq!(sum.data_points[0].start_time_unix_nano, 1_000);
    assert_eq!(sum.data_points[0].value, Some(Number::AsInt(7)));
    let point = &values.data_points[0];
    assert_eq!((point.count, point.sum), (2, Some(1000.015)));
    assert_eq!((point.bucket_counts.len(), point.bucket_counts[1], point.bucket_counts[14]), (15, 1, 1));
    assert_eq!((point.explicit_bounds.len(), point.explicit_bounds[1]), (14, 0.02));
    let exemplar = &point.exemplars[0];
    assert_eq!((exemplar.trace_id.as_slice(), exemplar.span_id.as_slice()), (&[3; 16][..], &[4; 8][..]));
}

#[test]
fn a_delta_counts_since_the_last_delivery() {
    let values = |count, nanos| {
        let mut values = Distribution::empty(&CONVENTION);
        (values.buckets[0], values.nanos) = (count, nanos);
        let context = Context { trace: [1; 16], span: [1; 8], flags: 1 };
        values.exemplars[0] = Some(Exemplar { seconds: 0.0, context, unix_nanos: 2_000 });
        values
    };
    let completion = completion(Temporality::Delta);
    let read = |count: i64| {
        let (sum, values, _) = completed(&completion, count, &values(count as u64, 10));
        assert_eq!((sum.aggregation_temporality, values.aggregation_temporality), (1, 1));
        let (number, values) = (&sum.data_points[0], &values.data_points[0]);
        (
            number.start_time_unix_nano,
            number.value,
            values.count,
            values.bucket_counts[0],
            values.exemplars.len(),
        )
    };
    assert_eq!(read(3), (1_000, Some(Number::AsInt(3)), 3, 3, 1));
    assert_eq!(read(5), (1_000, Some(Number::AsInt(5)), 5, 5, 1), "the first was not delivered");
    completion.note_delivered();
    let (start, value, count, bucket, exemplars) = read(7);
    assert!(start > 1_000);
    assert_eq!((value, count, bucket, exemplars), (Some(Number::AsInt(2)), 2, 2, 0));
}

#[test]
fn a_malformed_request_stays_unchanged() {
    let malformed = Bytes::from_static(b"\xff\xff");
    assert_eq!(completion(Temporality::Delta).complete(&malformed), malformed);
}
