//! The flow of responses by HTTP/2, which their clients control. A client that accepts nothing of a response would
//! keep it in memory, although no write to its connection waits.

use crate::tasks;
use crate::telemetry::counters;
use hyper::rt::Executor;
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// The flow of one response.
#[derive(Debug, Default)]
pub struct Flow(Mutex<Option<Instant>>);

impl Flow {
    /// Notes that a part waits until its client accepts it.
    pub fn set_blocked(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// Notes that the client has accepted all parts.
    pub fn set_free(&self) {
        *self.0.lock() = None;
    }

    fn blocked_since(&self) -> Option<Instant> {
        *self.0.lock()
    }
}

/// Runs the streams of one connection, each as a task.
#[derive(Clone, Debug)]
pub struct Streams {
    /// Time after which a stream is reset whose client accepts nothing (`--write-timeout`).
    patience: Duration,
    /// The flow of the request that hyper has begun and not passed on yet.
    begun: Arc<Mutex<Option<Arc<Flow>>>>,
}

impl Streams {
    /// Creates the executor of a connection.
    pub fn new(patience: Duration) -> Self {
        Streams { patience, begun: Arc::default() }
    }

    /// Returns the flow of the stream that is executed next.
    pub fn begin(&self) -> Arc<Flow> {
        let flow = Arc::<Flow>::default();
        *self.begun.lock() = Some(Arc::clone(&flow));
        flow
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let flow = self.begun.lock().take().unwrap_or_default();
        let stream = Box::pin(stream);
        tasks::spawn(Attended { stream, flow, patience: self.patience, timer: None });
    }
}

/// A stream that ends when its client accepts nothing for too long. Dropping it resets it.
struct Attended<F> {
    stream: Pin<Box<F>>,
    flow: Arc<Flow>,
    patience: Duration,
    /// Runs while the flow is blocked, since this moment.
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<F: Future<Output = ()>> Future for Attended<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Attended { stream, flow, patience, timer } = &mut *self;
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(since) = flow.blocked_since() else {
            *timer = None;
            return Poll::Pending;
        };
        let timer = match timer {
            Some((of, timer)) if *of == since => timer,
            other => &mut other.insert((since, Box::pin(sleep_until(since + *patience)))).1,
        };
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        counters::BLOCKED_STREAMS.increment();
        tracing::debug!("stream reset: its client accepted nothing for --write-timeout");
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_only_after_it_was_blocked_for_long() {
        let streams = Streams::new(PATIENCE);
        let (flow, (kept, ended)) = (streams.begin(), tokio::sync::oneshot::channel::<()>());
        let seen = Arc::clone(&flow);
        let (wake, woken) = tokio::sync::watch::channel(());
        streams.execute(async move {
            let (_kept, mut woken) = (kept, woken);
            seen.set_blocked();
            woken.changed().await.unwrap();
            seen.set_free();
            woken.changed().await.unwrap();
            seen.set_blocked();
            poll_fn(|_| Poll::<()>::Pending).await;
        });
        tokio::time::sleep(PATIENCE / 2).await;
        wake.send(()).unwrap();
        tokio::time::sleep(PATIENCE * 10).await;
        assert!(!wake.is_closed(), "a stream that has nothing to send may wait");
        let blocked = Instant::now();
        wake.send(()).unwrap();
        assert!(ended.await.is_err());
        assert!(blocked.elapsed() >= PATIENCE && blocked.elapsed() < PATIENCE * 2);
    }
}
