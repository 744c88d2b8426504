//! Takes records out of an outbox and has them delivered, batch after batch. A collector that does not take them is told of
//! once, however long that lasts; what is lost meanwhile is counted.

use super::collector::{Again, Collector};
use super::endpoint::Signal;
use super::retry::Attempts;
use crate::telemetry::Outbox;
use crate::telemetry::otlp::{Resource, rejected, request};
use std::sync::Arc;
use std::time::Instant;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Records that are delivered together.
#[derive(Clone, Copy, Debug)]
pub struct Shipment<'a> {
    /// One after the other.
    pub records: &'a [u8],
    /// How many.
    pub count: usize,
}

/// No collector took anything of it.
#[derive(Clone, Copy, Debug)]
pub struct Untaken;

/// The way of one signal to its collector.
#[derive(Debug)]
pub struct Delivery {
    collector: Collector,
    signal: Signal,
    resource: Arc<Resource>,
    /// It was told that nothing arrives.
    told: bool,
}

impl Delivery {
    /// None was tried yet.
    pub fn new(collector: Collector, signal: Signal, resource: Arc<Resource>) -> Self {
        Delivery { collector, signal, resource, told: false }
    }

    /// Delivers records; how many were lost, or that nothing was taken. Once proxyrunner `ends`, what is under way is still waited for, a pause is
    /// over at once, and there are no more of them.
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
                    self.tell(&undelivered.why);
                    return Err(Untaken);
                }
            }
        }
    }

    fn delivered(&mut self, answer: &[u8], count: usize) -> usize {
        let (lost, why) = rejected(answer);
        if lost > 0 || !why.is_empty() {
            self.tell(&format!("it rejected {lost} of {count}: {why}"));
        } else if std::mem::take(&mut self.told) {
            tracing::info!("{} are delivered again", self.signal.things());
        }
        lost.min(count)
    }

    /// Once, until something is delivered again.
    fn tell(&mut self, why: &str) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(
                "{} are not delivered to {}: {why}; nothing else is affected, and more of this is only counted",
                self.signal.things(),
                self.collector.endpoint().shown()
            );
        }
    }
}

/// Ships what comes into an outbox, until the end, and then what is left.
pub async fn records(mut delivery: Delivery, outbox: &'static Outbox, ends: CancellationToken) {
    loop {
        let last = tokio::select! {
            () = outbox.filled() => false,
            () = sleep(outbox.delay()) => false,
            () = ends.cancelled() => true,
        };
        while let Some(batch) = outbox.take() {
            let shipment = Shipment { records: &batch.bytes, count: batch.records };
            outbox.lost(delivery.deliver(shipment, &ends).await.unwrap_or(shipment.count));
        }
        if last {
            return;
        }
    }
}
