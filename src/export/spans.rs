//! The export of spans by the exporter of `opentelemetry-otlp`. proxyrunner itself encodes the attributes: the
//! exporter would copy each key and value, which costs more than everything else about a span.

use super::delivery::{Delivery, Exporting};
use super::transport::Complete;
use crate::telemetry::Outbox;
use bytes::Bytes;
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1 as common;
use opentelemetry_proto::tonic::trace::v1 as otlp;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use parking_lot::Mutex;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use std::sync::Arc;

/// Exports spans, and counts those that are lost.
#[derive(Debug)]
pub(super) struct Counted {
    pub inner: opentelemetry_otlp::SpanExporter,
    pub delivery: Arc<Delivery>,
    pub outbox: &'static Outbox<SpanData>,
    pub encoded: Arc<Encoded>,
}

impl SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let records = self.outbox.release_all(batch.iter());
        self.delivery.begin();
        self.encoded.put(batch);
        // The request has a resource but no spans until it is completed. Boxed, since the processor would contain the
        // code of the exporter once for each of its calls.
        let exporting: Exporting<'_> = Box::pin(self.inner.export(Vec::new()));
        let result = exporting.await;
        self.encoded.clear();
        self.delivery.end(records, result.as_ref().err().map(|error| error as _));
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// The encoded spans of the delivery under way, which complete its request.
#[derive(Debug, Default)]
pub(super) struct Encoded(Mutex<Bytes>);

/// Field numbers of opentelemetry/proto/collector/trace/v1, trace/v1 and common/v1.
const RESOURCE_SPANS: u32 = 1;
const SCOPE_SPANS: u32 = 2;
const SPANS: u32 = 2;
const ATTRIBUTES: u32 = 9;
const KEY: u32 = 1;
const VALUE: u32 = 2;
const STRING_VALUE: u32 = 1;

/// The usual size of an encoded span in bytes.
const USUAL: usize = 512;

impl Encoded {
    fn put(&self, batch: Vec<SpanData>) {
        let Some(first) = batch.first() else { return self.clear() };
        // All spans are of proxyrunner's own scope.
        let mut scope_spans = scope_only(&first.instrumentation_scope).encode_to_vec();
        scope_spans.reserve(batch.len() * USUAL);
        batch.into_iter().for_each(|span| put_span(span, &mut scope_spans));
        *self.0.lock() = scope_spans.into();
    }

    fn clear(&self) {
        *self.0.lock() = Bytes::new();
    }
}

impl Complete for Encoded {
    /// Adds the spans to the request's resource.
    fn complete(&self, body: &Bytes) -> Bytes {
        let scope_spans = self.0.lock().clone();
        let request = ExportTraceServiceRequest::decode(body.clone()).unwrap_or_default();
        let resource = request.resource_spans.into_iter().next().unwrap_or_default();
        let length = resource.encoded_len() + field_len(scope_spans.len());
        let mut completed = Vec::with_capacity(length + USUAL);
        put_header(RESOURCE_SPANS, length, &mut completed);
        put_message(&resource, &mut completed);
        put_field(SCOPE_SPANS, &scope_spans, &mut completed);
        completed.into()
    }
}

fn scope_only(scope: &InstrumentationScope) -> otlp::ScopeSpans {
    let schema_url = scope.schema_url().unwrap_or_default().to_owned();
    otlp::ScopeSpans { scope: Some((scope, None).into()), schema_url, ..Default::default() }
}

fn put_span(mut span: SpanData, out: &mut Vec<u8>) {
    let attributes = std::mem::take(&mut span.attributes);
    let rest = otlp::Span::from(span);
    let lengths = attributes.iter().map(|attribute| field_len(attribute_len(attribute)));
    put_header(SPANS, rest.encoded_len() + lengths.sum::<usize>(), out);
    put_message(&rest, out);
    attributes.iter().for_each(|attribute| put_attribute(attribute, out));
}

fn attribute_len(attribute: &KeyValue) -> usize {
    field_len(attribute.key.as_str().len()) + field_len(value_len(&attribute.value))
}

fn value_len(value: &Value) -> usize {
    match value {
        Value::String(text) => field_len(text.as_str().len()),
        other => common::AnyValue::from(other.clone()).encoded_len(),
    }
}

fn put_attribute(attribute: &KeyValue, out: &mut Vec<u8>) {
    put_header(ATTRIBUTES, attribute_len(attribute), out);
    put_field(KEY, attribute.key.as_str().as_bytes(), out);
    put_header(VALUE, value_len(&attribute.value), out);
    match &attribute.value {
        Value::String(text) => put_field(STRING_VALUE, text.as_str().as_bytes(), out),
        other => put_message(&common::AnyValue::from(other.clone()), out),
    }
}

/// Returns the encoded length of a field whose content has this length. All field numbers here fit into one byte.
fn field_len(content: usize) -> usize {
    1 + encoded_len_varint(content as u64) + content
}

fn put_field(number: u32, content: &[u8], out: &mut Vec<u8>) {
    put_header(number, content.len(), out);
    out.extend_from_slice(content);
}

fn put_header(number: u32, length: usize, out: &mut Vec<u8>) {
    // Most lengths fit into one byte.
    if let (Ok(key), Ok(length @ ..0x80)) = (u8::try_from(number << 3), u8::try_from(length)) {
        return out.extend_from_slice(&[key | WireType::LengthDelimited as u8, length]);
    }
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

fn put_message(message: &impl Message, out: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    let _ = message.encode(out);
}

#[cfg(test)]
#[path = "spans_tests.rs"]
mod tests;
