//! Exports telemetry to collectors by the OpenTelemetry Protocol, over HTTP or gRPC. It never delays a request:
//! records wait in bounded queues, and those that no collector accepts are dropped and counted.

mod collector;
mod connect;
mod endpoint;
mod resolve;
mod retry;
mod ship;

pub use endpoint::{Endpoint, Header, Protocol, Signal, Tls};

use crate::telemetry::metrics::{self, Levels};
use crate::telemetry::otlp::{Exports, Resource, Temporality};
use crate::telemetry::{counters, logs, tracer, unix_nanos};
use collector::Collector;
use ship::{Delivery, Shipment};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

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

/// The collector for metrics, and how to export them.
#[derive(Clone, Debug)]
pub struct MetricSettings {
    /// The collector.
    pub endpoint: Endpoint,
    /// `OTEL_METRIC_EXPORT_INTERVAL`
    pub interval: Duration,
    /// `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`
    pub temporality: Temporality,
}

/// An endpoint setting that makes export impossible.
#[derive(Debug)]
pub struct Unusable(String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unusable {}

/// Running exports, until [`flush`](Self::flush) is called.
#[derive(Debug)]
pub struct Exporter {
    ending: CancellationToken,
    shipping: JoinSet<()>,
}

impl Exporter {
    /// Starts exporting; `levels` returns the current levels. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the certificates of an endpoint are unusable.
    pub fn start(settings: Settings, levels: impl Fn() -> Levels + Send + 'static) -> Result<Self, Unusable> {
        let ending = CancellationToken::new();
        let mut shipping = JoinSet::new();
        let resource = settings.resource.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let resource = Arc::new(Resource::new(resource));
        let delivery = |endpoint: &Endpoint, signal| -> Result<Delivery, Unusable> {
            Ok(Delivery::new(Collector::new(endpoint, signal)?, signal, Arc::clone(&resource)))
        };
        if let (Some(endpoint), Some(tracer)) = (&settings.traces, tracer()) {
            let delivery = delivery(endpoint, Signal::Traces)?;
            shipping.spawn(ship::records(delivery, tracer.outbox(), ending.clone()));
        }
        if let (Some(endpoint), Some(outbox)) = (&settings.logs, logs::outbox()) {
            let delivery = delivery(endpoint, Signal::Logs)?;
            shipping.spawn(ship::records(delivery, outbox, ending.clone()));
        }
        if let Some(metrics) = &settings.metrics {
            let delivery = delivery(&metrics.endpoint, Signal::Metrics)?;
            shipping.spawn(ship_metrics(delivery, metrics.clone(), levels, ending.clone()));
        }
        Ok(Exporter { ending, shipping })
    }

    /// Exports the remaining records within `patience`.
    pub async fn flush(mut self, patience: Duration) {
        self.ending.cancel();
        let all = async { while self.shipping.join_next().await.is_some() {} };
        let _ = timeout(patience, all).await;
    }
}

async fn ship_metrics(
    mut delivery: Delivery,
    settings: MetricSettings,
    levels: impl Fn() -> Levels,
    ends: CancellationToken,
) {
    let mut exports = Exports::new(settings.temporality, metrics::started());
    let mut tick = interval(settings.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is immediate, and there is nothing to export yet.
    tick.tick().await;
    loop {
        let last = tokio::select! {
            _ = tick.tick() => false,
            () = ends.cancelled() => true,
        };
        let (records, delivered) = exports.encode(&metrics::gather(levels()), unix_nanos());
        match delivery.deliver(Shipment { records: &records, count: 1 }, &ends).await {
            // A collector that rejects a data point would reject it again.
            Ok(_) => exports.note(delivered),
            // Sums are not lost: the next export includes them.
            Err(_) => counters::FAILED_METRIC_EXPORTS.increment(),
        }
        if last {
            return;
        }
    }
}
