//! Tests the requests that carry metrics, as a collector decodes them.

use super::*;
use crate::telemetry::metrics::{CONVENTION, Histogram};
use crate::trace_context::Context;
use opentelemetry::KeyValue;

const HISTOGRAM: Definition = Definition {
    name: "h_seconds",
    convention: Some("h.duration"),
    unit: "s",
    kind: MetricKind::Histogram,
    help: "How long.",
};

const COUNTER: Definition =
    Definition { name: "c", convention: None, unit: "{call}", kind: MetricKind::Counter, help: "How many." };
const GAUGE: Definition =
    Definition { name: "g", convention: None, unit: "s", kind: MetricKind::Gauge, help: "How late." };

fn metrics(temporality: Temporality) -> Metrics {
    let resource = Resource::builder_empty().with_attribute(KeyValue::new("service.name", "s")).build();
    Metrics { since: 1_000, ..Metrics::new(&resource, temporality, Levels::default) }
}

/// Builds a request with a counter and a histogram at `now`, and returns them as a collector reads them.
fn exported(
    metrics: &mut Metrics,
    count: u64,
    values: &Distribution,
    now: u64,
) -> (otlp::Sum, otlp::Histogram, otlp::Metric) {
    let labels = vec![("k", "v".into())];
    let counter =
        Family { definition: COUNTER, samples: vec![Sample { labels, value: Value::Count(count) }] };
    let families = [counter, HISTOGRAM.alone(Value::Distribution(Box::new(values.clone())))];
    let request = metrics.request(&families, now).encode_to_vec();
    let request = ExportMetricsServiceRequest::decode(&request[..]).expect("a request");
    let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
    let [sum, histogram] = &metrics[..] else { panic!("{metrics:?}") };
    let (Some(Data::Sum(sum)), Some(Data::Histogram(values))) = (&sum.data, &histogram.data) else {
        panic!("{metrics:?}")
    };
    (sum.clone(), values.clone(), histogram.clone())
}

#[test]
fn a_request_names_its_resource_and_scope_and_has_no_empty_metric() {
    let families = [GAUGE.alone(Value::Number(0.5)), Family { definition: COUNTER, samples: Vec::new() }];
    let request = metrics(Temporality::Cumulative).request(&families, 2_000);
    let resource = &request.resource_metrics[0];
    assert_eq!(resource.resource.as_ref().unwrap().attributes, [attribute("service.name", "s")]);
    let scope = &resource.scope_metrics[0];
    let named = scope.scope.as_ref().unwrap();
    assert_eq!((named.name.as_str(), named.version.as_str()), ("proxyrunner", env!("CARGO_PKG_VERSION")));
    let [gauge] = &scope.metrics[..] else { panic!("{scope:?}") };
    assert_eq!((gauge.name.as_str(), gauge.unit.as_str()), ("g", "s"));
    let Some(Data::Gauge(gauge)) = &gauge.data else { panic!("{gauge:?}") };
    assert_eq!(gauge.data_points[0].value, Some(Number::AsDouble(0.5)));
    assert_eq!(gauge.data_points[0].time_unix_nano, 2_000);
}

#[test]
fn histograms_are_added_with_their_exemplars() {
    let histogram = Histogram::new(&CONVENTION);
    let context = Context { trace: [3; 16], span: [4; 8], flags: 1 };
    histogram.record(15_000_000, Some(&context));
    histogram.record(1_000_000_000_000, None);
    let (sum, values, metric) = exported(&mut metrics(Temporality::Cumulative), 7, &histogram.read(), 2_000);
    assert_eq!(
        (metric.name.as_str(), metric.unit.as_str(), metric.description.as_str()),
        ("h.duration", "s", "How long.")
    );
    assert_eq!((sum.aggregation_temporality, values.aggregation_temporality), (2, 2));
    assert!(sum.is_monotonic);
    assert_eq!(sum.data_points[0].start_time_unix_nano, 1_000);
    assert_eq!(sum.data_points[0].attributes, [attribute("k", "v")]);
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
    let mut metrics = metrics(Temporality::Delta);
    let read = |metrics: &mut Metrics, count: u64| {
        let (sum, values, _) = exported(metrics, count, &values(count, 10), 3_000);
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
    assert_eq!(read(&mut metrics, 3), (1_000, Some(Number::AsInt(3)), 3, 3, 1));
    assert_eq!(
        read(&mut metrics, 5),
        (1_000, Some(Number::AsInt(5)), 5, 5, 1),
        "the first was not delivered"
    );
    metrics.note_delivered();
    let (start, value, count, bucket, exemplars) = read(&mut metrics, 7);
    assert_eq!(start, 3_000);
    assert_eq!((value, count, bucket, exemplars), (Some(Number::AsInt(2)), 2, 2, 0));
}
