//! A sidecar's registration at a gateway (`--register`): it announces its server, renews the lease, and withdraws when it
//! shuts down (docs/gateway.md#registration).
//!
//! The state of registrations is in each gateway's memory, so every address of the gateway's name is told, although gateways
//! may tell each other. Nothing that
//! happens here delays a request or makes the sidecar unready.

mod message;
mod settings;

pub use settings::Settings;

use crate::backoff::{self, Backoff};
use crate::outbound::{BadTls, Fetcher, Limits, resolve};
use crate::sorted::sorted;
use crate::tasks;
use crate::telemetry::counters::{ANNOUNCEMENTS, Announced, REGISTERED_AT};
use message::{Failure, Message};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Maximum time between renewals. The lease is three times as long.
const RENEWAL: Duration = Duration::from_secs(10);
/// Delays after a failure.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
const MOST_PAUSE: Duration = Duration::from_secs(30);
/// Interval between look-ups of the gateway's name.
const LOOK_UP: Duration = Duration::from_secs(10);
/// Limits of a request.
const LIMITS: Limits = Limits { time: Duration::from_secs(5), size: 16 * 1024 };
/// Maximum time for the withdrawal.
const WITHDRAWAL: Duration = Duration::from_millis(500);
/// Maximum number of gateways.
const MOST: usize = 64;

/// The registration of this sidecar.
#[derive(Debug)]
pub struct Registration {
    inner: Arc<Inner>,
    running: TaskTracker,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    /// Cancelled when the sidecar withdraws.
    ending: CancellationToken,
    /// The number of gateways at which it is registered.
    count: AtomicU64,
    /// The last failure to find the gateway.
    lost: Mutex<Option<String>>,
}

impl Registration {
    /// Creates a registration that is not announced yet.
    ///
    /// # Errors
    /// When the authorities are unusable.
    pub fn new(settings: Settings) -> Result<Self, BadTls> {
        Fetcher::new(&settings.tls, Default::default(), LIMITS)?;
        let ending = CancellationToken::new();
        let inner = Inner { settings, ending, count: AtomicU64::new(0), lost: Mutex::default() };
        REGISTERED_AT.set(0);
        Ok(Registration { inner: Arc::new(inner), running: TaskTracker::new() })
    }

    /// Returns the URL by which the gateway reaches this sidecar, if the operator has given it.
    pub fn url(&self) -> Option<&str> {
        self.inner.settings.url.as_deref()
    }

    /// Announces the server, and keeps it announced. `card` describes it.
    pub fn announce(&self, card: &Value, url: &str) {
        let message = Arc::new(Message::new(&self.inner.settings, card, url));
        let (inner, running) = (Arc::clone(&self.inner), self.running.clone());
        tasks::spawn(self.running.track_future(async move {
            tokio::select! {
                () = inner.follow(&message, &running) => {}
                () = inner.ending.cancelled() => {}
            }
        }));
    }

    /// Withdraws from all gateways; waits for that at most half a second.
    pub async fn withdraw(&self) {
        self.inner.ending.cancel();
        self.running.close();
        if timeout(WITHDRAWAL, self.running.wait()).await.is_err() {
            tracing::warn!(
                "cannot withdraw from the gateway in time; it notices when the lease ends (--register)"
            );
        }
    }
}

impl Inner {
    /// Follows the addresses of the gateway's name, with a task for each.
    async fn follow(self: &Arc<Self>, message: &Arc<Message>, running: &TaskTracker) {
        let mut known: HashMap<IpAddr, DropGuard> = HashMap::new();
        loop {
            match addresses(message.host()).await {
                Ok(found) => {
                    self.complain(None);
                    known.retain(|address, _| found.contains(address));
                    for address in found {
                        known.entry(address).or_insert_with(|| {
                            let gone = CancellationToken::new();
                            let (inner, message) = (Arc::clone(self), Arc::clone(message));
                            tasks::spawn(running.track_future(inner.keep(message, address, gone.clone())));
                            gone.drop_guard()
                        });
                    }
                }
                // Those that are known go on: a name server that is down has not removed the gateway.
                Err(why) => self.complain(Some(why)),
            }
            sleep(LOOK_UP).await;
        }
    }

    /// Tells once that the gateway cannot be found.
    fn complain(&self, why: Option<String>) {
        let mut lost = self.lost.lock();
        if *lost != why {
            if let Some(why) = &why {
                ANNOUNCEMENTS.increment(Announced::Failed as usize);
                tracing::warn!("cannot look up the gateway, and will retry: {why} (--register)");
            }
            *lost = why;
        }
    }

    /// Keeps the server registered at one gateway until it has `gone`, or the sidecar withdraws.
    async fn keep(self: Arc<Self>, message: Arc<Message>, address: IpAddr, gone: CancellationToken) {
        let fetcher = match Fetcher::pinned(&self.settings.tls, address, LIMITS) {
            Ok(fetcher) => fetcher,
            Err(error) => return tracing::error!("cannot register: {error} (--register-ca)"),
        };
        let mut standing = Standing { inner: &self, address, is_registered: false, last: None };
        let mut pauses = Backoff::new(LEAST_PAUSE, MOST_PAUSE);
        loop {
            // In this order: the end of the sidecar also ends the look-ups, by which gateways go.
            let sent = tokio::select! {
                biased;
                () = self.ending.cancelled() => break,
                () = gone.cancelled() => return,
                sent = message.register(&fetcher) => sent,
            };
            let pause = match sent {
                Ok(()) => {
                    pauses.reset();
                    RENEWAL
                }
                Err(_) => pauses.advance(),
            };
            standing.note(sent.err());
            tokio::select! {
                biased;
                () = self.ending.cancelled() => break,
                () = gone.cancelled() => return,
                () = sleep(backoff::jittered(pause, backoff::chance())) => {}
            }
        }
        // A message that was interrupted may have arrived, too.
        if let Err(why) = message.withdraw(&fetcher).await
            && standing.is_registered
        {
            tracing::warn!(%address, "cannot withdraw from the gateway: {why} (--register)");
        }
    }
}

/// What one gateway knows.
struct Standing<'a> {
    inner: &'a Inner,
    address: IpAddr,
    is_registered: bool,
    last: Option<Failure>,
}

impl Standing<'_> {
    /// Notes the result of a message, and tells it if it differs from the one before.
    fn note(&mut self, failure: Option<Failure>) {
        let address = self.address;
        let result = match &failure {
            None => Announced::Ok,
            Some(Failure::Refused(_)) => Announced::Refused,
            Some(Failure::Failed(_)) => Announced::Failed,
        };
        ANNOUNCEMENTS.increment(result as usize);
        match &failure {
            None if !self.is_registered => tracing::info!(%address, "registered at the gateway (--register)"),
            Some(why) if failure != self.last => {
                tracing::warn!(%address, "cannot register at the gateway, and will retry: {why} (--register)");
            }
            _ => {}
        }
        self.set(failure.is_none());
        self.last = failure;
    }

    fn set(&mut self, is_registered: bool) {
        let count = &self.inner.count;
        let now = match (self.is_registered, is_registered) {
            (false, true) => count.fetch_add(1, Ordering::Relaxed) + 1,
            (true, false) => count.fetch_sub(1, Ordering::Relaxed) - 1,
            _ => return,
        };
        self.is_registered = is_registered;
        REGISTERED_AT.set(now);
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// Returns the addresses of the gateway's host.
async fn addresses(host: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return Ok(vec![address]);
    }
    let mut found = sorted(resolve(host).await.map_err(|error| error.to_string())?);
    found.dedup();
    found.truncate(MOST);
    if found.is_empty() { Err(format!("{host} has no address")) } else { Ok(found) }
}
