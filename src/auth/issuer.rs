//! The key set of one issuer: refreshed in the background, and fetched early for a key that it does not know.

use super::algorithm::Algorithm;
use super::cache::Cache;
use super::claims::Rules;
use super::denied::Denied;
use super::discovery::{Fetched, Source};
use super::keys::KeySet;
use super::settings::TokenType;
use super::time;
use crate::audit;
use crate::backoff::{self, Backoff};
use crate::telemetry::metrics::counters::{AUTH_KEYS_REFRESHED, FAILED_KEY_FETCHES};
use jsonwebtoken::DecodingKey;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout};

/// Minimum time between two fetches for the sake of an unknown key.
const APART: Duration = Duration::from_secs(10);
/// Maximum time that a request waits for keys.
const PATIENCE: Duration = Duration::from_secs(2);
/// Maximum number of requests that wait for keys. The others are answered from the set that is there.
const MOST_WAITING: usize = 256;
/// Delays before a failed fetch is repeated.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// An issuer and its keys.
#[derive(Debug)]
pub(super) struct Issuer {
    pub rules: Rules,
    pub algorithms: Vec<Algorithm>,
    pub token_type: TokenType,
    /// Maximum age of the set.
    longest: Duration,
    source: Source,
    held: watch::Sender<Held>,
    attempt: Mutex<Attempt>,
    wake: Notify,
    waiting: Semaphore,
    ages: Arc<Ages>,
    at: usize,
}

/// The key set in use. Each attempt to fetch one is published, even if it failed.
#[derive(Debug, Default)]
pub(super) struct Held {
    set: Option<(Arc<KeySet>, Instant)>,
}

/// The last attempt to fetch the key set.
#[derive(Debug)]
struct Attempt {
    began: Instant,
    is_running: bool,
}

/// The times at which the key sets were refreshed, for the metric.
#[derive(Debug)]
pub(super) struct Ages(Mutex<Vec<u64>>);

impl Ages {
    /// Creates the times of this many issuers. One that has no keys yet counts from now on.
    pub(super) fn new(issuers: usize) -> Self {
        let ages = Ages(Mutex::new(vec![time::now(); issuers]));
        if issuers > 0 {
            AUTH_KEYS_REFRESHED.set(time::now());
        }
        ages
    }

    fn refreshed(&self, at: usize) {
        let mut times = self.0.lock();
        if let Some(time) = times.get_mut(at) {
            *time = time::now();
        }
        times.iter().min().into_iter().for_each(|oldest| AUTH_KEYS_REFRESHED.set(*oldest));
    }
}

impl Issuer {
    /// Creates an issuer without keys. [`refresh`](Self::refresh) fetches them.
    pub(super) fn new(
        rules: Rules,
        algorithms: Vec<Algorithm>,
        token_type: TokenType,
        source: Source,
        longest: Duration,
        (ages, at): (Arc<Ages>, usize),
    ) -> Self {
        let attempt = Mutex::new(Attempt { began: Instant::now(), is_running: true });
        let (held, waiting) = (watch::Sender::new(Held::default()), Semaphore::new(MOST_WAITING));
        let wake = Notify::new();
        Issuer { rules, algorithms, token_type, longest, source, held, attempt, wake, waiting, ages, at }
    }

    /// Returns the keys that may have signed a token.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Vec<DecodingKey>, Denied> {
        let held = self.held.borrow();
        match &held.set {
            Some((set, fetched)) if !set.is_empty() && fetched.elapsed() <= self.longest => {
                set.find(kid, algorithm).map_err(Denied::Invalid)
            }
            _ => Err(Denied::NoKeys),
        }
    }

    /// Waits for a fetch that all waiting requests share, unless the last one was a moment ago.
    pub(super) async fn fetch_again(&self) {
        let mut held = self.held.subscribe();
        {
            let attempt = self.attempt.lock();
            if !attempt.is_running && attempt.began.elapsed() < APART {
                return;
            }
        }
        let Ok(_place) = self.waiting.try_acquire() else { return };
        self.wake.notify_one();
        let _ = timeout(PATIENCE, held.changed()).await;
    }

    /// Waits until there are keys.
    pub(super) async fn have_keys(&self) {
        let usable = |held: &Held| held.set.as_ref().is_some_and(|(set, _)| !set.is_empty());
        // The sender lives as long as this.
        let _ = self.held.subscribe().wait_for(usable).await;
    }

    /// Returns a watch on attempts to fetch keys.
    #[cfg(test)]
    pub(super) fn watch(&self) -> watch::Receiver<Held> {
        self.held.subscribe()
    }

    /// Fetches the key set, again and again. `cache` is emptied when the set changes.
    pub(super) async fn refresh(&self, cache: &Cache) {
        let mut retry = Backoff::new(RETRY.0, RETRY.1);
        let mut failure = None;
        loop {
            *self.attempt.lock() = Attempt { began: Instant::now(), is_running: true };
            let pause = match self.source.fetch().await {
                Ok(fetched) => {
                    if failure.take().is_some() {
                        tracing::info!(issuer = %self.rules.issuer, "the key set is available again");
                    }
                    retry.reset();
                    self.accept(fetched, cache)
                }
                Err(why) => {
                    FAILED_KEY_FETCHES.increment();
                    if failure.as_ref() != Some(&why) {
                        tracing::error!(issuer = %self.rules.issuer, "cannot fetch the key set, and will retry: {why}");
                        failure = Some(why);
                    }
                    self.keep(cache);
                    backoff::jittered(retry.advance(), backoff::chance())
                }
            };
            self.attempt.lock().is_running = false;
            // After that, so that whoever was waiting starts no other attempt.
            self.held.send_modify(|_| {});
            self.pause(pause).await;
        }
    }

    /// Waits until a fetch is due, or wanted and not too soon.
    async fn pause(&self, pause: Duration) {
        let due = Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(due) => return,
                () = self.wake.notified() => {
                    if self.attempt.lock().began.elapsed() >= APART {
                        return;
                    }
                }
            }
        }
    }

    /// Uses a fetched set. Returns the time until the next fetch.
    fn accept(&self, Fetched { read, fresh }: Fetched, cache: &Cache) -> Duration {
        let changed = match &self.held.borrow().set {
            Some((old, _)) => !old.is_same(&read.set),
            None => true,
        };
        if changed {
            let issuer = &self.rules.issuer;
            read.skipped
                .iter()
                .for_each(|why| tracing::warn!(%issuer, "a key was left out of the key set: {why}"));
            tracing::info!(%issuer, keys = read.set.len(), "a new key set is in use");
            audit::reloaded(&format!("key set of {issuer}"));
        }
        let set = Arc::new(read.set);
        // Cached results go after the keys: a result of the old keys is either dropped here or not kept.
        self.held.send_modify(|held| held.set = Some((set, Instant::now())));
        if changed {
            cache.clear();
        }
        self.ages.refreshed(self.at);
        if self.source.is_file() { fresh } else { fresh.mul_f64(1.0 - 0.1 * backoff::chance()) }
    }

    /// Keeps the set after a failure, unless it is too old.
    fn keep(&self, cache: &Cache) {
        let is_old =
            |held: &Held| held.set.as_ref().is_some_and(|(_, fetched)| fetched.elapsed() > self.longest);
        let dropped = self.held.send_if_modified(|held| {
            let is_old = is_old(held);
            if is_old {
                held.set = None;
            }
            is_old
        });
        if dropped {
            tracing::error!(issuer = %self.rules.issuer, "the key set is too old to be used any longer (--auth-keys-max-age)");
            cache.clear();
        }
    }
}
