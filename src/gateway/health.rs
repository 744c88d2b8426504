//! Probes all replicas, so that those that cannot serve get no requests, and closes connections to them that are idle.

use super::directory::Directory;
use super::pool::Pool;
use super::replica::{Probed, Replica, State};
use crate::shutdown::DRAINING;
use crate::tasks;
use http_body_util::{BodyExt, Limited};
use hyper::header::{HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::body::Body;

/// Interval between two probes of a replica that is not ready.
const INTERVAL: Duration = Duration::from_secs(1);
/// One in so many intervals, any other replica is probed, too.
const SELDOM: u32 = 5;
/// Maximum time of a probe.
const PATIENCE: Duration = Duration::from_secs(2);
/// Maximum number of probes at the same time.
const SIDE_BY_SIDE: usize = 32;
/// Where sidecars say whether they serve.
const PATH: &str = "/health/ready";
/// Maximum length of an answer. It is read to its end, so that the connection can be used again.
const LONGEST: usize = 16 * 1024;

/// Probes all replicas as long as the process runs.
pub(super) async fn keep_probing(directory: Arc<Directory>, pool: Arc<Pool>) {
    let mut tick = interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let places = Arc::new(Semaphore::new(SIDE_BY_SIDE));
    for round in (0..SELDOM).cycle() {
        tick.tick().await;
        for server in directory.snapshot().values() {
            for replica in server.replicas().iter() {
                replica.lines.close_idle(Instant::now());
                if round != 0 && !matches!(replica.state(), State::Unready { .. }) {
                    continue;
                }
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                let (name, replica, pool) =
                    (server.about.name.clone(), Arc::clone(replica), Arc::clone(&pool));
                tasks::spawn(async move {
                    probe(&name, &replica, &pool).await;
                    drop(place);
                });
            }
        }
    }
}

/// Asks a replica whether it serves, and notes what it says.
pub(super) async fn probe(server: &str, replica: &Replica, pool: &Pool) {
    let (probed, reason) = match timeout(PATIENCE, ask(replica, pool)).await {
        Ok(Ok((_, true))) => (Probed::Draining, "it is shutting down".to_owned()),
        Ok(Ok((status, _))) if is_ready(status) => (Probed::Ready, String::new()),
        Ok(Ok((status, _))) => (Probed::Unready, format!("{PATH} answers {status}")),
        Ok(Err(why)) => (Probed::Silent, why),
        Err(_) => (Probed::Silent, format!("no answer within {} s", PATIENCE.as_secs())),
    };
    if replica.probed(probed, Instant::now()) {
        let address = replica.endpoint.address();
        match probed {
            Probed::Ready => tracing::info!(server, address, "the replica is ready again"),
            Probed::Draining | Probed::Unready | Probed::Silent => {
                tracing::warn!(server, address, reason, "the replica is not ready; it gets no requests")
            }
        }
    }
}

/// Returns the status, and whether the replica says that it is shutting down.
async fn ask(replica: &Replica, pool: &Pool) -> Result<(StatusCode, bool), String> {
    let request = Request::get(PATH)
        .header(HOST, replica.endpoint.host())
        .header(USER_AGENT, concat!("proxyrunner/", env!("CARGO_PKG_VERSION")))
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    let endpoint = (replica.endpoint.url(), replica.endpoint.reach());
    let response = pool.send(request, endpoint, &replica.lines).await.map_err(|lost| lost.to_string())?;
    let told = (response.status(), response.headers().contains_key(DRAINING));
    let _ = Limited::new(response.into_body(), LONGEST).collect().await;
    Ok(told)
}

/// Returns whether an answer is that of a server that serves. One without this path is alive, too.
fn is_ready(status: StatusCode) -> bool {
    !status.is_server_error() || status == StatusCode::NOT_IMPLEMENTED
}
