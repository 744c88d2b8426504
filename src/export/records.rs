//! The exporters of spans and log records: those of `opentelemetry-otlp`, which free the space in the intake when an
//! export begins, and whose losses are counted.

use super::delivery::Delivery;
use crate::telemetry::Outbox;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter, SdkLogRecord};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use std::sync::Arc;

/// Exports records of one kind.
#[derive(Debug)]
pub(super) struct Counted<E, T: 'static> {
    pub inner: E,
    pub delivery: Arc<Delivery>,
    pub outbox: &'static Outbox<T>,
}

impl SpanExporter for Counted<opentelemetry_otlp::SpanExporter, SpanData> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let records = self.outbox.release_all(batch.iter());
        self.delivery.begin();
        let result = self.inner.export(batch).await;
        self.delivery.end(records, result.as_ref().err().map(|error| error as _));
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl LogExporter for Counted<opentelemetry_otlp::LogExporter, SdkLogRecord> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let records = self.outbox.release_all(batch.iter().map(|(record, _)| record));
        self.delivery.begin();
        let result = self.inner.export(batch).await;
        self.delivery.end(records, result.as_ref().err().map(|error| error as _));
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
