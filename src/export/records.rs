//! The export of log records by the exporter of `opentelemetry-otlp`.

use super::delivery::{Delivery, Exporting};
use crate::telemetry::Outbox;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter, SdkLogRecord};
use std::sync::Arc;

/// Exports log records, and counts those that are lost.
#[derive(Debug)]
pub(super) struct Counted {
    pub inner: opentelemetry_otlp::LogExporter,
    pub delivery: Arc<Delivery>,
    pub outbox: &'static Outbox<SdkLogRecord>,
}

impl LogExporter for Counted {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        // The space in the intake is free as soon as the export begins.
        let records = self.outbox.release_all(batch.iter().map(|(record, _)| record));
        self.delivery.begin();
        // Boxed, as the export of spans.
        let exporting: Exporting<'_> = Box::pin(self.inner.export(batch));
        let result = exporting.await;
        self.delivery.end(records, result.as_ref().err().map(|error| error as _));
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
