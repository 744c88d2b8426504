//! The outcomes of one signal's deliveries. Losses are counted. The first failure is logged; further ones are only
//! counted until a delivery succeeds.

use super::endpoint::{Endpoint, Signal};
use crate::telemetry::counters::{self, Counter};
use opentelemetry_sdk::error::OTelSdkResult;
use parking_lot::Mutex;
use std::pin::Pin;
use std::time::{Duration, Instant};

/// Delay before the first retry.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// Maximum delay, unless the collector asks for a longer one.
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// A delivery under way.
pub(super) type Exporting<'a> = Pin<Box<dyn Future<Output = OTelSdkResult> + Send + 'a>>;

/// The deliveries of one signal.
#[derive(Debug)]
pub(super) struct Delivery {
    signal: Signal,
    address: String,
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The time at which the current delivery began.
    begun: Instant,
    /// The delay before its next retry.
    next: Duration,
    /// The reason why its last attempt failed, or why records were rejected.
    why: String,
    /// The number of records that the collector rejected.
    rejected: usize,
    /// Whether the current failure was logged.
    is_failing: bool,
}

impl Delivery {
    pub(super) fn new(endpoint: &Endpoint, signal: Signal) -> Self {
        let state = State {
            begun: Instant::now(),
            next: FIRST_RETRY,
            why: String::new(),
            rejected: 0,
            is_failing: false,
        };
        Delivery { signal, address: endpoint.shown(), patience: endpoint.patience, state: Mutex::new(state) }
    }

    /// Begins a delivery, of which there is one at a time.
    pub(super) fn begin(&self) {
        let mut state = self.state.lock();
        (state.begun, state.next, state.rejected) = (Instant::now(), FIRST_RETRY, 0);
        state.why.clear();
    }

    /// Returns the delay before the next attempt: exponential with jitter, or longer if the collector `asked` for it
    /// (OTLP §OTLP/HTTP Throttling, §OTLP/gRPC Throttling). `None` if no time is left. `chance`, from 0 to 1, is the
    /// jitter.
    ///
    /// The SDK's own delay blocks a thread, and a shutdown could not cut it short.
    pub(super) fn delay(&self, asked: Option<Duration>, chance: f64) -> Option<Duration> {
        let mut state = self.state.lock();
        let own = state.next.mul_f64(0.5 + 0.5 * chance);
        state.next = (state.next * 2).min(LONGEST_RETRY);
        // A collector can prolong the delay but not shorten it.
        let delay = asked.map_or(own, |asked| asked.max(own));
        (delay < self.patience.saturating_sub(state.begun.elapsed())).then_some(delay)
    }

    /// Records why an attempt failed.
    pub(super) fn note_failure(&self, why: String) {
        self.state.lock().why = why;
    }

    /// Records that the collector accepted a request, and how many records of it were rejected.
    pub(super) fn note_accepted(&self, rejected: usize, why: String) {
        let mut state = self.state.lock();
        (state.rejected, state.why) = (rejected, why);
    }

    /// Ends a delivery of `records` records, which are lost if it failed.
    pub(super) fn end(&self, records: usize, error: Option<&dyn std::error::Error>) {
        let mut state = self.state.lock();
        let (rejected, why) = (state.rejected, std::mem::take(&mut state.why));
        let (lost, problem) = match error {
            Some(error) if why.is_empty() => (records, Some(error.to_string())),
            Some(_) => (records, Some(why)),
            None if rejected > 0 || !why.is_empty() => {
                let lost = rejected.min(records);
                (
                    lost,
                    Some(format!("the collector rejected {rejected} of the {}: {why}", self.signal.things())),
                )
            }
            None => (0, None),
        };
        let was_failing = std::mem::replace(&mut state.is_failing, problem.is_some());
        drop(state);
        self.count(lost);
        match problem {
            Some(why) if !was_failing => tracing::warn!(
                "{} are not delivered to {}: {why}; requests are not affected, and further failures are only counted",
                self.signal.things(),
                self.address
            ),
            None if was_failing => tracing::info!("delivering {} again", self.signal.things()),
            _ => {}
        }
    }

    fn count(&self, lost: usize) {
        let counter: &Counter = match self.signal {
            Signal::Traces => &counters::DROPPED_SPANS,
            Signal::Logs => &counters::DROPPED_LOG_RECORDS,
            // Cumulative values are not lost, since the next export includes them. The failed export is counted.
            Signal::Metrics => &counters::FAILED_METRIC_EXPORTS,
        };
        if lost > 0 {
            counter.add(lost as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::Protocol;
    use crate::outbound::Tls;

    fn delivery() -> Delivery {
        let endpoint = Endpoint {
            uri: hyper::Uri::from_static("http://collector:4318/"),
            protocol: Protocol::Http,
            headers: Vec::new(),
            timeout: Duration::from_secs(10),
            patience: Duration::from_secs(30),
            gzip: false,
            tls: Tls::default(),
        };
        Delivery::new(&endpoint, Signal::Traces)
    }

    #[test]
    fn delays_grow_up_to_a_limit_and_start_again() {
        let delivery = delivery();
        let delays = |count| -> Vec<_> {
            (0..count).map(|_| delivery.delay(None, 1.0).map(|delay| delay.as_millis())).collect()
        };
        assert_eq!(delays(5), [500, 1000, 2000, 4000, 5000].map(Some));
        delivery.begin();
        assert_eq!(delays(1), [Some(500)]);
    }

    #[test]
    fn a_collector_can_prolong_a_delay_but_not_shorten_it() {
        let delivery = delivery();
        let seven = Some(Duration::from_secs(7));
        assert_eq!(delivery.delay(seven, 0.0), seven);
        assert_eq!(delivery.delay(Some(Duration::MAX), 0.0), None, "no time is left for it");
        delivery.begin();
        assert_eq!(delivery.delay(Some(Duration::ZERO), 0.0), Some(FIRST_RETRY / 2));
    }

    #[test]
    fn losses_are_counted() {
        let (delivery, before) = (delivery(), counters::DROPPED_SPANS.value());
        delivery.begin();
        delivery.note_accepted(2, "too old".to_owned());
        delivery.end(5, None);
        delivery.begin();
        delivery.note_failure("refused".to_owned());
        delivery.end(5, Some(&std::io::Error::other("failed")));
        delivery.begin();
        delivery.end(5, None);
        assert_eq!(counters::DROPPED_SPANS.value() - before, 7);
    }
}
