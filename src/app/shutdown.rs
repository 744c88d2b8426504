//! Shutdown, in its order: drain requests, close connections and children, flush telemetry. A second signal skips it.

use crate::config::Config;
use crate::exchange::Failure;
use crate::export::Exporter;
use crate::http::Server;
use crate::shutdown::{CLOSING, FLUSHING, Shutdown};
use crate::signals::{Meaning, Signals};
use crate::supervisor::Supervisor;
use std::io::{self, IsTerminal};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::signal::unix::SignalKind;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Maximum time to export the last telemetry.
const LONGEST_FLUSH: Duration = Duration::from_secs(3);
/// Time for failures at the end of the drain to reach the clients, before the children are closed.
const TELLING: Duration = Duration::from_secs(1);
/// Interval between checks for requests in flight.
const POLL: Duration = Duration::from_millis(10);

/// The reason for the shutdown.
pub(super) enum Ended {
    BySignal(i32),
    ByChild(i32),
    /// No child could be started; with the exit code.
    NotStarted(i32),
}

impl Ended {
    /// Returns how long requests are still accepted after the shutdown began (`--drain-delay`), since endpoints are
    /// removed with a delay. Zero for Ctrl-C at a terminal, and when the child has exited.
    pub(super) fn drain_delay(&self, config: &Config) -> Duration {
        match self {
            Ended::BySignal(signal)
                if *signal == SignalKind::interrupt().as_raw_value() && io::stdin().is_terminal() =>
            {
                Duration::ZERO
            }
            Ended::BySignal(_) => config.drain_delay,
            Ended::ByChild(_) | Ended::NotStarted(_) => Duration::ZERO,
        }
    }

    /// Returns the exit code: the child's own when its exit caused the shutdown.
    pub(super) fn code(&self) -> i32 {
        match self {
            Ended::BySignal(_) => 0,
            Ended::ByChild(code) | Ended::NotStarted(code) => *code,
        }
    }
}

/// Resolves with the next signal that ends proxyrunner; forwards the others to the children.
pub(super) async fn next_signal(signals: &mut Signals, supervisor: &Supervisor) -> i32 {
    loop {
        match signals.next().await {
            Meaning::End(signal) => return signal,
            Meaning::Forward(signal) => {
                tracing::info!(%signal, "signal forwarded to the server");
                supervisor.forward(signal);
            }
        }
    }
}

/// Resolves with the signal that skips the shutdown: the second one, whether or not a signal began the shutdown.
pub(super) async fn insist(ended: &Ended, signals: &mut Signals, supervisor: &Supervisor) -> i32 {
    if !matches!(ended, Ended::BySignal(_)) {
        let signal = next_signal(signals, supervisor).await;
        tracing::info!(
            signal,
            "already shutting down because the server ended; another signal exits immediately"
        );
    }
    next_signal(signals, supervisor).await
}

/// The end of the drain, which listeners wait for.
pub(super) struct Drained {
    shutdown: Shutdown,
    deadline: Arc<OnceLock<Instant>>,
}

impl Drained {
    pub(super) fn new(server: &Server) -> Self {
        Drained { shutdown: server.shutdown.clone(), deadline: Arc::default() }
    }

    /// Resolves at the end of the drain with the time that connections have to close: the rest of `--drain-timeout`,
    /// since a large answer may be on a slow connection.
    pub(super) fn closing_time(&self) -> impl Future<Output = Duration> + use<> {
        let (shutdown, deadline) = (self.shutdown.clone(), Arc::clone(&self.deadline));
        async move {
            shutdown.over().await;
            let left = deadline.get().map(|until| until.saturating_duration_since(Instant::now()));
            left.unwrap_or_default().max(CLOSING)
        }
    }
}

/// Accepts requests for `delay`, then refuses new ones and waits for those in flight. After `patience` the remaining
/// ones fail.
pub(super) async fn drain(server: &Server, delay: Duration, patience: Duration, drained: &Drained) {
    server.shutdown.begin();
    sleep(delay).await;
    server.shutdown.refuse();
    let _ = drained.deadline.set(Instant::now() + patience);
    let quiet = async {
        while server.directory.expects_anybody(Instant::now()) || underway(server) > 0 {
            sleep(POLL).await;
        }
    };
    if timeout(patience, quiet).await.is_err() {
        tracing::warn!(
            requests = underway(server),
            "--drain-timeout has passed; failing the remaining requests"
        );
    }
    for session in server.directory.all() {
        server.directory.end(&session, &Failure::ShuttingDown);
    }
    server.upstream.end_parked();
    server.upstream.end_listens();
    server.shutdown.finish();
}

/// Lets a child that is still starting continue during the drain, since clients may wait for it. Never
/// resolves.
pub(super) async fn keep_starting(ended: &Ended, children: Pin<&mut impl Future<Output = Ended>>) {
    if matches!(ended, Ended::BySignal(_)) {
        children.await;
    }
    std::future::pending::<()>().await;
}

/// Closes connections and children at the same time, since both may be slow.
pub(super) async fn stop(server: &Server, supervisor: &Supervisor, serving: JoinHandle<()>) {
    let children = async {
        let _ = timeout(TELLING, idle(server)).await;
        server.upstream.close();
        supervisor.stop().await;
        #[cfg(feature = "gateway")]
        if let Some(gateway) = &server.gateway {
            gateway.stop().await;
        }
    };
    let _ = tokio::join!(serving, children);
}

/// Resolves once no request is in flight.
async fn idle(server: &Server) {
    while underway(server) > 0 {
        sleep(POLL).await;
    }
}

/// Counts the requests that a client waits for.
fn underway(server: &Server) -> usize {
    #[cfg(feature = "gateway")]
    let forwarded = server.gateway.as_ref().map_or(0, |gateway| gateway.underway())
        + server.siblings.as_ref().map_or(0, |siblings| siblings.underway());
    #[cfg(not(feature = "gateway"))]
    let forwarded = 0;
    server.upstream.underway() + forwarded
}

/// Exports the last telemetry.
pub(super) async fn flush(exporter: Exporter, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    exporter.flush(left.clamp(FLUSHING, LONGEST_FLUSH)).await;
}
