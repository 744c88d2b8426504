//! Exports telemetry to collectors by the OpenTelemetry Protocol, over HTTP or gRPC: spans and log records with the
//! SDK's batch processors and the exporters of `opentelemetry-otlp`, metrics by requests of our own. It never delays a
//! request: records wait in bounded queues, and those that no collector accepts are dropped and counted.

mod delivery;
mod endpoint;
mod metrics;
mod records;
mod rpc;
mod spans;
mod transport;
mod unusable;

pub use endpoint::{Endpoint, Header, Protocol, Signal};
pub use transport::rejected;

use crate::tasks;
use crate::telemetry::metrics::{Family, Levels, Temporality};
use crate::telemetry::{Outbox, logs, scope_of_instrumentation, tracer};
use delivery::Delivery;
use metrics::Metrics;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{RetryPolicy, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{BatchLogProcessor, LogProcessor, SdkLogRecord};
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanProcessor};
use opentelemetry_sdk::{logs as sdk_logs, trace as sdk_trace};
use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use transport::{Complete, Transport};
use unusable::Unusable;

/// The collectors per signal; a signal without one is not exported.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Collector for spans.
    pub traces: Option<Endpoint>,
    /// Collector for log records.
    pub logs: Option<Endpoint>,
    /// Collector for metrics.
    pub metrics: Option<MetricSettings>,
    /// Attributes of the resource: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, and attributes of this process.
    pub resource: Vec<(String, String)>,
}

/// The collector for metrics, and the format of the export.
#[derive(Clone, Debug)]
pub struct MetricSettings {
    /// The collector.
    pub endpoint: Endpoint,
    /// `OTEL_METRIC_EXPORT_INTERVAL`
    pub interval: Duration,
    /// `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`
    pub temporality: Temporality,
}

/// Maximum length of an attribute value of the resource in bytes.
const LONGEST_VALUE: usize = 4_096;

type ShutDown = Box<dyn FnOnce(Duration) -> OTelSdkResult + Send>;

/// Running exports, until [`flush`](Self::flush) is called.
pub struct Exporter {
    ending: CancellationToken,
    running: Vec<ShutDown>,
    metrics: Option<JoinHandle<()>>,
}

impl Exporter {
    /// Starts exporting; `levels` returns the current levels. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the certificates of an endpoint are unusable.
    pub fn start(
        settings: Settings,
        levels: impl Fn() -> Levels + Send + Sync + 'static,
    ) -> Result<Self, Unusable> {
        let mut exporter = Exporter { ending: CancellationToken::new(), running: Vec::new(), metrics: None };
        let resource = resource(&settings.resource);
        if let (Some(endpoint), Some(tracer)) = (&settings.traces, tracer()) {
            exporter.start_spans(endpoint, tracer.outbox(), &resource)?;
        }
        if let (Some(endpoint), Some(outbox)) = (&settings.logs, logs::outbox()) {
            exporter.start_records(endpoint, outbox, &resource)?;
        }
        if let Some(metrics) = &settings.metrics {
            exporter.start_metrics(metrics, levels, &resource)?;
        }
        Ok(exporter)
    }

    fn start_spans(
        &mut self,
        endpoint: &Endpoint,
        outbox: &'static Outbox<SpanData>,
        resource: &Resource,
    ) -> Result<(), Unusable> {
        let encoded = Arc::new(spans::Encoded::default());
        let (delivery, transport) = self.transport(endpoint, Signal::Traces, Some(encoded.clone()))?;
        let inner = opentelemetry_otlp::SpanExporter::builder().with_http();
        let inner = configured(inner, endpoint, transport).build().map_err(unusable)?;
        let bounds = outbox.bounds();
        let config = sdk_trace::BatchConfigBuilder::default()
            .with_max_queue_size(bounds.queued)
            .with_max_export_batch_size(bounds.batch)
            .with_scheduled_delay(bounds.delay);
        let exporter = spans::Counted { inner, delivery, outbox, encoded };
        let mut processor = BatchSpanProcessor::new(exporter, config.build());
        processor.set_resource(resource);
        let processor = Arc::new(processor);
        let sink = Arc::clone(&processor);
        outbox.connect(Box::new(move |span| sink.on_end(span)));
        self.running.push(Box::new(move |patience| processor.shutdown_with_timeout(patience)));
        Ok(())
    }

    fn start_records(
        &mut self,
        endpoint: &Endpoint,
        outbox: &'static Outbox<SdkLogRecord>,
        resource: &Resource,
    ) -> Result<(), Unusable> {
        let (delivery, transport) = self.transport(endpoint, Signal::Logs, None)?;
        let inner = opentelemetry_otlp::LogExporter::builder().with_http();
        let inner = configured(inner, endpoint, transport).build().map_err(unusable)?;
        let bounds = outbox.bounds();
        let config = sdk_logs::BatchConfigBuilder::default()
            .with_max_queue_size(bounds.queued)
            .with_max_export_batch_size(bounds.batch)
            .with_scheduled_delay(bounds.delay);
        let exporter = records::Counted { inner, delivery, outbox };
        let mut processor = BatchLogProcessor::builder(exporter).with_batch_config(config.build()).build();
        processor.set_resource(resource);
        let (processor, scope) = (Arc::new(processor), scope_of_instrumentation());
        let sink = Arc::clone(&processor);
        outbox.connect(Box::new(move |mut record| sink.emit(&mut record, &scope)));
        self.running.push(Box::new(move |patience| processor.shutdown_with_timeout(patience)));
        Ok(())
    }

    fn start_metrics(
        &mut self,
        settings: &MetricSettings,
        levels: impl Fn() -> Levels + Send + Sync + 'static,
        resource: &Resource,
    ) -> Result<(), Unusable> {
        let (_, transport) = self.transport(&settings.endpoint, Signal::Metrics, None)?;
        let metrics = Metrics::new(resource, settings.temporality, levels);
        self.metrics = Some(tasks::spawn(metrics.run(settings.interval, transport, self.ending.clone())));
        Ok(())
    }

    fn transport(
        &self,
        endpoint: &Endpoint,
        signal: Signal,
        completion: Option<Arc<dyn Complete>>,
    ) -> Result<(Arc<Delivery>, Transport), Unusable> {
        let delivery = Arc::new(Delivery::new(endpoint, signal));
        let ending = self.ending.clone();
        let transport = Transport::new(endpoint, signal, Arc::clone(&delivery), completion, ending)?;
        Ok((delivery, transport))
    }

    /// Exports the remaining records within `patience`.
    pub async fn flush(mut self, patience: Duration) {
        self.ending.cancel();
        let (ended, mut all_ended) = mpsc::channel::<()>(1);
        for shut_down in std::mem::take(&mut self.running) {
            let ended = ended.clone();
            // The SDK blocks until its last export is over.
            let work = move || {
                let _ = shut_down(patience);
                drop(ended);
            };
            let _ = thread::Builder::new().name("flush".into()).spawn(work);
        }
        drop(ended);
        let metrics = self.metrics.take();
        let ending = async {
            all_ended.recv().await;
            if let Some(metrics) = metrics {
                let _ = metrics.await;
            }
        };
        let _ = timeout(patience, ending).await;
    }
}

impl Drop for Exporter {
    /// Without a flush, the process ends at once: the SDK's providers would block for a last export when they are
    /// dropped.
    fn drop(&mut self) {
        std::mem::forget(std::mem::take(&mut self.running));
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("signals", &self.running.len()).finish()
    }
}

/// Configures an exporter, since the SDK would otherwise read the environment, which was validated before.
fn configured<B: WithExportConfig + WithHttpConfig>(builder: B, endpoint: &Endpoint, client: Transport) -> B {
    // The transport itself waits before a retry.
    let retries = RetryPolicy::disabled().with_max_retries(usize::MAX);
    builder
        .with_endpoint(endpoint.uri.to_string())
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .with_timeout(endpoint.patience)
        .with_http_client(client)
        .with_retry_policy(retries)
}

/// Delivers metrics once. Must be called within a tokio runtime.
///
/// # Errors
/// In words, when the collector is unusable or does not accept them.
pub(crate) async fn deliver(
    endpoint: &Endpoint,
    attributes: &[(String, String)],
    families: &[Family],
) -> Result<(), String> {
    let delivery = Arc::new(Delivery::new(endpoint, Signal::Metrics));
    let transport = Transport::new(endpoint, Signal::Metrics, delivery, None, CancellationToken::new());
    let transport = transport.map_err(|unusable| unusable.to_string())?;
    let mut metrics = Metrics::new(&resource(attributes), Temporality::Cumulative, Levels::default);
    transport.attempt(metrics.encoded(families)).await
}

fn unusable(error: impl fmt::Display) -> Unusable {
    Unusable(error.to_string())
}

fn resource(attributes: &[(String, String)]) -> Resource {
    let attributes = attributes.iter().map(|(key, value)| {
        let value = crate::telemetry::cut(value, LONGEST_VALUE).to_owned();
        KeyValue::new(key.clone(), value)
    });
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(attributes)
        .build()
}
