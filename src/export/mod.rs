//! Ships telemetry to collectors by the OpenTelemetry Protocol, over HTTP or gRPC. It is never in the way of a request:
//! records wait in bounded outboxes, and what no collector takes is lost and counted.

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

/// Where telemetry goes; what is not set goes nowhere.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Spans.
    pub traces: Option<Endpoint>,
    /// Log records.
    pub logs: Option<Endpoint>,
    /// Metrics.
    pub metrics: Option<MetricSettings>,
    /// Who they are from: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, and what is known besides.
    pub resource: Vec<(String, String)>,
}

/// Where metrics go, and how.
#[derive(Clone, Debug)]
pub struct MetricSettings {
    /// Where.
    pub endpoint: Endpoint,
    /// `OTEL_METRIC_EXPORT_INTERVAL`
    pub interval: Duration,
    /// `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`
    pub temporality: Temporality,
}

/// Why telemetry can't be shipped at all: something about an endpoint.
#[derive(Debug)]
pub struct Unusable(String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unusable {}

/// Ships until it is [`flush`](Self::flush)ed.
#[derive(Debug)]
pub struct Exporter {
    ending: CancellationToken,
    shipping: JoinSet<()>,
}

impl Exporter {
    /// Starts shipping; `levels` says how many there are of everything. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When an endpoint's certificates can't be used.
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

    /// Ships what is left, for so long at most.
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
    // Nothing has happened yet.
    tick.tick().await;
    loop {
        let last = tokio::select! {
            _ = tick.tick() => false,
            () = ends.cancelled() => true,
        };
        let (records, delivered) = exports.encode(&metrics::gather(levels()), unix_nanos());
        match delivery.deliver(Shipment { records: &records, count: 1 }, &ends).await {
            // What a collector rejects of it, it would reject again.
            Ok(_) => exports.note(delivered),
            // What is summed up is not lost: the next export says it too.
            Err(_) => counters::FAILED_METRIC_EXPORTS.increment(),
        }
        if last {
            return;
        }
    }
}
