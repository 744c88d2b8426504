//! The export of log records.

use super::delivery::{Delivery, Exporting};
use super::transport::Transport;
use crate::telemetry::Outbox;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::logs::tonic::group_logs_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter, SdkLogRecord};
use prost::Message;
use std::sync::Arc;

/// Exports log records, and counts those that are lost.
#[derive(Debug)]
pub(super) struct Counted {
    pub transport: Transport,
    pub delivery: Arc<Delivery>,
    pub outbox: &'static Outbox<SdkLogRecord>,
    /// Of whom the records are.
    pub resource: ResourceAttributesWithSchema,
}

impl LogExporter for Counted {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        // The space in the intake is free as soon as the export begins.
        let records = self.outbox.release_all(batch.iter().map(|(record, _)| record));
        self.delivery.begin();
        let resource_logs = group_logs_by_resource_and_scope(&batch, &self.resource);
        let request = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
        // Boxed, as the export of spans.
        let exporting: Exporting<'_> = Box::pin(self.transport.deliver_from_outside(request.into()));
        let result = exporting.await;
        self.delivery.end(records, result.as_ref().err().map(|error| error as _));
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}
