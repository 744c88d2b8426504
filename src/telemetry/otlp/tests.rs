//! Decodes the encoded messages with the code generated from OTLP's definitions.

use super::*;
use crate::telemetry::metrics::{Definition, Exemplar, Histogram, MetricKind, Sample, Value};
use crate::telemetry::{Bounds, Parent, Sampler, Span, SpanKind, Tracer};
use crate::trace_context::Context;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data, number_data_point::Value as Number};
use opentelemetry_proto::tonic::trace::v1::Span as Written;
use prost::Message;
use std::time::Duration;

fn tracer(sampler: &str, longest: usize) -> &'static Tracer {
    let bounds = Bounds { queued: 100, batch: 100, delay: Duration::ZERO };
    let sampler = Sampler::named(sampler, None).expect("a sampler");
    Box::leak(Box::new(Tracer::new(sampler, true, longest, bounds)))
}

/// Returns the ended spans.
fn written(tracer: &Tracer) -> Vec<Written> {
    let batch = tracer.outbox().take().expect("spans");
    let resource = Resource::new([("service.name", "me")]);
    let request = ExportTraceServiceRequest::decode(&*request(&resource, &batch.bytes)).expect("a request");
    let [resource_spans] = &request.resource_spans[..] else { panic!("{request:?}") };
    let resource = resource_spans.resource.as_ref().expect("a resource");
    assert_eq!(texts(&resource.attributes), [("service.name".to_owned(), "me".to_owned())]);
    let [scope] = &resource_spans.scope_spans[..] else { panic!("{request:?}") };
    assert_eq!(scope.scope.as_ref().expect("a scope").name, "proxyrunner");
    assert_eq!(scope.spans.len(), batch.records);
    scope.spans.clone()
}

fn texts(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let text = |value: &Any| match value {
        Any::StringValue(text) => text.clone(),
        Any::IntValue(number) => number.to_string(),
        Any::BoolValue(flag) => flag.to_string(),
        other => panic!("{other:?}"),
    };
    let value =
        |pair: &KeyValue| text(pair.value.as_ref().and_then(|any| any.value.as_ref()).expect("a value"));
    attributes.iter().map(|pair| (pair.key.clone(), value(pair))).collect()
}

#[test]
fn a_span_is_read_as_it_was_meant() {
    let tracer = tracer("always_on", 8);
    let remote = Context { trace: [7; 16], span: [8; 8], flags: 3 };
    let parent = Parent { context: remote, tracestate: Some("a=1"), remote: true };
    let mut span = tracer.begin(SpanKind::Server, Some(parent));
    span.name("tools/call echo");
    span.describe(|attributes| {
        attributes.text("text", "höchst lang");
        attributes.number("negative", -5);
        attributes.number("large", i64::MAX);
        attributes.flag("flag", true);
        attributes.text("long key, longer than one byte of length has room for: 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789", "");
    });
    let linked = Context { trace: [1; 16], span: [2; 8], flags: 1 };
    span.link(linked);
    span.fail("out of luck");
    let (context, below) = (span.context(), tracer.begin(SpanKind::Client, Some(span.as_parent())));
    assert_eq!(below.context().trace, [7; 16]);
    drop(below);
    drop(span);
    let spans = written(tracer);
    let [client, server] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((server.trace_id.as_slice(), server.span_id.as_slice()), (&[7; 16][..], &context.span[..]));
    assert_eq!((server.parent_span_id.as_slice(), server.trace_state.as_str()), (&[8; 8][..], "a=1"));
    assert_eq!((server.name.as_str(), server.kind, server.flags), ("tools/call echo", 2, 0x303));
    assert!(server.start_time_unix_nano > 1_700_000_000_000_000_000, "{server:?}");
    assert!(server.end_time_unix_nano >= server.start_time_unix_nano, "{server:?}");
    let attributes = texts(&server.attributes);
    let values: Vec<&str> = attributes.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(values, ["höchst ", "-5", "9223372036854775807", "true", ""]);
    let [link] = &server.links[..] else { panic!("{server:?}") };
    assert_eq!((link.trace_id.as_slice(), link.span_id.as_slice()), (&[1; 16][..], &[2; 8][..]));
    let status = server.status.as_ref().expect("a status");
    assert_eq!((status.code, status.message.as_str()), (2, "out of luck"));
    assert_eq!((client.parent_span_id.as_slice(), client.kind, client.flags), (&context.span[..], 3, 0x103));
    assert_eq!((client.trace_state.as_str(), client.status.is_none()), ("a=1", true));
}

#[test]
fn what_is_not_sampled_costs_no_record_but_has_a_context() {
    let tracer = tracer("parentbased_always_off", 8);
    let root = tracer.begin(SpanKind::Server, None);
    assert!(!root.is_recorded() && !root.context().is_sampled());
    assert_ne!(root.context().trace, [0; 16]);
    let below = tracer.begin(SpanKind::Client, Some(root.as_parent()));
    assert_eq!(below.context().trace, root.context().trace);
    assert_ne!(below.context().span, root.context().span);
    drop::<[Span; 2]>([root, below]);
    assert!(tracer.outbox().take().is_none());
}

const COUNTER: Definition =
    Definition { name: "c_total", convention: None, unit: "1", kind: MetricKind::Counter, help: "How many." };
const HISTOGRAM: Definition = Definition {
    name: "h_seconds",
    convention: Some("h.duration"),
    unit: "s",
    kind: MetricKind::Histogram,
    help: "How long.",
};

fn metrics(exports: &Exports, families: &[crate::telemetry::metrics::Family]) -> (Vec<Metric>, Delivered) {
    let (records, delivered) = exports.encode(families, 5_000);
    let request = request(&Resource::new([]), &records);
    let request = ExportMetricsServiceRequest::decode(&*request).expect("a request");
    (request.resource_metrics[0].scope_metrics[0].metrics.clone(), delivered)
}

#[test]
fn metrics_are_read_as_they_were_meant() {
    let histogram = Histogram::new(&crate::telemetry::metrics::CONVENTION);
    let context = Context { trace: [3; 16], span: [4; 8], flags: 1 };
    histogram.record(15_000_000, Some(&context));
    histogram.record(1_000_000_000_000, None);
    let labels = vec![("gen_ai.tool.name", "echo".into())];
    let gauge = Definition { name: "g", kind: MetricKind::Gauge, ..COUNTER };
    let families = [
        COUNTER.family(vec![Sample { labels, value: Value::Count(7) }]),
        gauge.alone(Value::Number(0.5)),
        HISTOGRAM.alone(Value::Distribution(Box::new(histogram.read()))),
        COUNTER.family(Vec::new()),
    ];
    let (metrics, _) = metrics(&Exports::new(Temporality::Cumulative, 1_000), &families);
    let [counter, gauge, histogram] = &metrics[..] else { panic!("{metrics:?}") };
    assert_eq!(
        (counter.name.as_str(), counter.unit.as_str(), counter.description.as_str()),
        ("c_total", "1", "How many.")
    );
    let Some(Data::Sum(sum)) = &counter.data else { panic!("{counter:?}") };
    assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
    let point = &sum.data_points[0];
    assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (1_000, 5_000));
    assert_eq!(point.value, Some(Number::AsInt(7)));
    assert_eq!(texts(&point.attributes), [("gen_ai.tool.name".to_owned(), "echo".to_owned())]);
    let Some(Data::Gauge(gauge)) = &gauge.data else { panic!("{gauge:?}") };
    assert_eq!(gauge.data_points[0].value, Some(Number::AsDouble(0.5)));
    assert_eq!(histogram.name, "h.duration");
    let Some(Data::Histogram(histogram)) = &histogram.data else { panic!("{histogram:?}") };
    let point = &histogram.data_points[0];
    assert_eq!((point.count, point.sum), (2, Some(1000.015)));
    assert_eq!((point.bucket_counts.len(), point.bucket_counts[1], point.bucket_counts[14]), (15, 1, 1));
    assert_eq!((point.explicit_bounds.len(), point.explicit_bounds[1]), (14, 0.02));
    let exemplar = &point.exemplars[0];
    assert_eq!((exemplar.trace_id.as_slice(), exemplar.span_id.as_slice()), (&[3; 16][..], &[4; 8][..]));
}

#[test]
fn a_delta_is_what_has_come_since_the_last_delivery() {
    let values = |count, nanos| {
        let mut values =
            crate::telemetry::metrics::Distribution::empty(&crate::telemetry::metrics::CONVENTION);
        (values.buckets[0], values.nanos) = (count, nanos);
        values.exemplars[0] = Some(Exemplar {
            seconds: 0.0,
            context: Context { trace: [1; 16], span: [1; 8], flags: 1 },
            unix_nanos: 2_000,
        });
        let histogram = HISTOGRAM.alone(Value::Distribution(Box::new(values)));
        [COUNTER.alone(Value::Count(count)), histogram]
    };
    let mut exports = Exports::new(Temporality::Delta, 1_000);
    let read = |exports: &Exports, families: &[_]| {
        let (metrics, delivered) = metrics(exports, families);
        let Some(Data::Sum(sum)) = &metrics[0].data else { panic!("{metrics:?}") };
        let Some(Data::Histogram(histogram)) = &metrics[1].data else { panic!("{metrics:?}") };
        assert_eq!((sum.aggregation_temporality, histogram.aggregation_temporality), (1, 1));
        let (point, values) = (&sum.data_points[0], &histogram.data_points[0]);
        let counts = (point.value, values.count, values.bucket_counts[0], values.exemplars.len());
        ((point.start_time_unix_nano, counts), delivered)
    };
    let (first, delivered) = read(&exports, &values(3, 30));
    assert_eq!(first, (1_000, (Some(Number::AsInt(3)), 3, 3, 1)));
    let (again, _) = read(&exports, &values(5, 50));
    assert_eq!(again, (1_000, (Some(Number::AsInt(5)), 5, 5, 1)), "the first was not delivered");
    exports.note(delivered);
    let (rest, _) = read(&exports, &values(5, 50));
    assert_eq!(rest, (5_000, (Some(Number::AsInt(2)), 2, 2, 0)));
}
