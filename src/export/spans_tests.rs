//! Compares the requests that carry spans with those that `opentelemetry-otlp` would write.

use super::*;
use opentelemetry::trace::{
    Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Array, StringValue};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};
use std::time::{Duration, UNIX_EPOCH};

fn span(name: &'static str, attributes: Vec<KeyValue>) -> SpanData {
    let context = SpanContext::new(
        TraceId::from(u128::MAX / 3),
        SpanId::from(7),
        TraceFlags::SAMPLED,
        false,
        TraceState::from_key_value([("vendor", "a")]).expect("a trace state"),
    );
    SpanData {
        span_context: context.clone(),
        parent_span_id: SpanId::from(8),
        parent_span_is_remote: true,
        span_kind: SpanKind::Server,
        name: name.into(),
        start_time: UNIX_EPOCH + Duration::from_nanos(1_764_000_000_123_456_789),
        end_time: UNIX_EPOCH + Duration::from_nanos(1_764_000_000_987_654_321),
        attributes,
        dropped_attributes_count: 300,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::error("failed"),
        instrumentation_scope: crate::telemetry::scope_of_instrumentation(),
    }
}

fn plain() -> SpanData {
    let mut span = span("", Vec::new());
    span.parent_span_id = SpanId::INVALID;
    span.span_context = SpanContext::NONE;
    span.dropped_attributes_count = 0;
    span.status = Status::Unset;
    span
}

fn full() -> SpanData {
    let texts = [0, 1, 127, 128, 16_383, 16_384, 100_000].map(|length| "é".repeat(length));
    let texts = texts.into_iter().map(|text| KeyValue::new("text", text));
    let strings = vec![StringValue::from("a"), StringValue::from("")];
    let others = [
        KeyValue::new("", "constant"),
        KeyValue::new("shared", Value::String(Arc::<str>::from("shared").into())),
        KeyValue::new("k".repeat(200), true),
        KeyValue::new("false", false),
        KeyValue::new("least", i64::MIN),
        KeyValue::new("zero", 0),
        KeyValue::new("half", 0.5),
        KeyValue::new("strings", Value::Array(Array::String(strings))),
        KeyValue::new("integers", Value::Array(Array::I64(vec![1, -1]))),
        KeyValue::new("none", Value::Array(Array::Bool(Vec::new()))),
    ];
    let mut span = span("tools/call x", texts.chain(others).collect());
    span.links.links.push(Link::with_context(span.span_context.clone()));
    span.events.events.push(Event::new("e", span.start_time, vec![KeyValue::new("k", "v")], 1));
    span
}

/// Returns the request that `opentelemetry-otlp` would write.
fn request(batch: Vec<SpanData>) -> ExportTraceServiceRequest {
    let resource = Resource::builder_empty().with_attribute(KeyValue::new("service.name", "s"));
    let resource = ResourceAttributesWithSchema::from(&resource.build());
    ExportTraceServiceRequest { resource_spans: group_spans_by_resource_and_scope(batch, &resource) }
}

fn completed(batch: Vec<SpanData>) -> ExportTraceServiceRequest {
    let encoded = Encoded::default();
    encoded.put(batch);
    let body = encoded.complete(&request(Vec::new()).encode_to_vec().into());
    ExportTraceServiceRequest::decode(body).expect("a request")
}

#[test]
fn spans_are_encoded_as_by_opentelemetry_otlp() {
    for batch in [vec![plain()], vec![full()], vec![full(), plain(), span("n", Vec::new()), full()]] {
        assert_eq!(completed(batch.clone()), request(batch));
    }
}

#[test]
fn a_retry_sends_the_same_spans_and_the_next_delivery_others() {
    let (encoded, body) = (Encoded::default(), Bytes::from(request(Vec::new()).encode_to_vec()));
    encoded.put(vec![full()]);
    let first = encoded.complete(&body);
    assert_eq!(encoded.complete(&body), first);
    encoded.put(vec![plain()]);
    assert_ne!(encoded.complete(&body), first);
}
