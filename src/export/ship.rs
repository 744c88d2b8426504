//! Takes batches of records out of a queue and delivers them. The first failure is logged, further ones are only
//! counted until a delivery succeeds.

use super::collector::{Again, Collector};
use super::endpoint::Signal;
use super::retry::Attempts;
use crate::telemetry::Outbox;
use crate::telemetry::otlp::{Resource, rejected, request};
use std::sync::Arc;
use std::time::Instant;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// The records of one delivery.
#[derive(Clone, Copy, Debug)]
pub struct Shipment<'a> {
    /// The encoded records.
    pub records: &'a [u8],
    /// The number of records.
    pub count: usize,
}

/// The collector accepted nothing.
#[derive(Clone, Copy, Debug)]
pub struct Untaken;

/// Delivers the records of one signal to its collector.
#[derive(Debug)]
pub struct Delivery {
    collector: Collector,
    signal: Signal,
    resource: Arc<Resource>,
    /// Whether the current failure was logged.
    is_failing: bool,
}

impl Delivery {
    /// Creates the delivery of one signal.
    pub fn new(collector: Collector, signal: Signal, resource: Arc<Resource>) -> Self {
        Delivery { collector, signal, resource, is_failing: false }
    }

    /// Delivers records and returns how many the collector rejected. Once `ends` is cancelled, a pending request is
    /// still awaited, a pending delay is skipped, and there is one last attempt.
    pub async fn deliver(
        &mut self,
        shipment: Shipment<'_>,
        ends: &CancellationToken,
    ) -> Result<usize, Untaken> {
        let request = bytes::Bytes::from(request(&self.resource, shipment.records));
        let mut attempts = Attempts::new(Instant::now(), self.collector.endpoint().patience);
        loop {
            let last = ends.is_cancelled();
            let undelivered = match self.collector.send(request.clone()).await {
                Ok(answer) => return Ok(self.delivered(&answer, shipment.count)),
                Err(undelivered) => undelivered,
            };
            let asked = match undelivered.again {
                Again::After(asked) => Some(asked),
                Again::Later | Again::Never => None,
            };
            let chance = getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX));
            let pause = attempts.pause(Instant::now(), asked, chance);
            match pause.filter(|_| undelivered.again != Again::Never && !last) {
                Some(pause) => tokio::select! {
                    () = sleep(pause) => {}
                    () = ends.cancelled() => {}
                },
                None => {
                    self.warn_once(&undelivered.why);
                    return Err(Untaken);
                }
            }
        }
    }

    fn delivered(&mut self, answer: &[u8], count: usize) -> usize {
        let (lost, why) = rejected(answer);
        if lost > 0 || !why.is_empty() {
            self.warn_once(&format!("the collector rejected {lost} of {count}: {why}"));
        } else if std::mem::take(&mut self.is_failing) {
            tracing::info!("{} are delivered again", self.signal.things());
        }
        lost.min(count)
    }

    /// Logs a failure, once until a delivery succeeds.
    fn warn_once(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(
                "{} are not delivered to {}: {why}; requests are not affected, and further failures are only counted",
                self.signal.things(),
                self.collector.endpoint().shown()
            );
        }
    }
}

/// Delivers the records of a queue until `ends` is cancelled, and then the remaining ones.
pub async fn records(mut delivery: Delivery, outbox: &'static Outbox, ends: CancellationToken) {
    loop {
        let last = tokio::select! {
            () = outbox.filled() => false,
            () = sleep(outbox.delay()) => false,
            () = ends.cancelled() => true,
        };
        while let Some(batch) = outbox.take() {
            let shipment = Shipment { records: &batch.bytes, count: batch.records };
            outbox.count_lost(delivery.deliver(shipment, &ends).await.unwrap_or(shipment.count));
        }
        if last {
            return;
        }
    }
}
