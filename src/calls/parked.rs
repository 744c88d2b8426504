//! Parked exchanges: a legacy child asked a question, the modern client was answered `input_required`, and its retry
//! with the answers is awaited (basic/patterns/mrtr).
//!
//! The table is bounded in total, per client and in time; each exchange is claimed once.

use crate::admission::{Admission, Bounds, Permit};
use crate::client::Client;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A table of parked exchanges of type `T`.
#[derive(Debug)]
pub struct Parked<T> {
    places: Arc<Admission>,
    patience: Duration,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    last: u64,
    waiting: HashMap<u64, ParkedEntry<T>>,
}

#[derive(Debug)]
struct ParkedEntry<T> {
    until: Instant,
    exchange: T,
    _place: Permit,
}

/// The reason why an exchange cannot be parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// `--max-parked` is reached.
    ForAll,
    /// The client's share of `--max-parked` is used up.
    ForClient,
}

impl<T> Parked<T> {
    /// Creates a table for `capacity` exchanges (`--max-parked`), each for `patience` (`--park-timeout`).
    pub fn new(capacity: usize, patience: Duration) -> Self {
        let places = Admission::new(Bounds::shared_out(capacity));
        Parked { places, patience, state: Mutex::new(State { last: 0, waiting: HashMap::new() }) }
    }

    /// Parks an exchange of a client, and returns its handle.
    ///
    /// # Errors
    /// When there are too many; then it is dropped.
    pub fn park(&self, client: Client, exchange: T, now: Instant) -> Result<u64, Full> {
        let Some(place) = self.places.take(client) else {
            let own = self.places.is_at_own_bound(client);
            return Err(if own { Full::ForClient } else { Full::ForAll });
        };
        let waiting = ParkedEntry { until: now + self.patience, exchange, _place: place };
        let mut state = self.state();
        state.last += 1;
        let handle = state.last;
        state.waiting.insert(handle, waiting);
        Ok(handle)
    }

    /// Inspects a parked exchange without claiming it.
    pub fn look<R>(&self, handle: u64, look: impl FnOnce(&T) -> R) -> Option<R> {
        self.state().waiting.get(&handle).map(|waiting| look(&waiting.exchange))
    }

    /// Takes an exchange out; `None` if it was claimed before or has expired.
    pub fn claim(&self, handle: u64, now: Instant) -> Option<T> {
        let ParkedEntry { until, exchange, .. } = self.state().waiting.remove(&handle)?;
        // An expired exchange is dropped here, as the sweep would do.
        (now < until).then_some(exchange)
    }

    /// Takes out one exchange that satisfies the predicate.
    pub fn claim_where(&self, holds: impl Fn(&T) -> bool) -> Option<T> {
        let mut state = self.state();
        let found = state.waiting.iter().find(|(_, one)| holds(&one.exchange)).map(|(handle, _)| *handle);
        state.waiting.remove(&found?).map(|waiting| waiting.exchange)
    }

    /// Takes out the expired exchanges; dropping them cancels them at the child.
    pub fn expire(&self, now: Instant) -> Vec<T> {
        let mut state = self.state();
        let over: Vec<u64> =
            state.waiting.iter().filter(|(_, one)| one.until <= now).map(|(handle, _)| *handle).collect();
        over.into_iter()
            .filter_map(|handle| state.waiting.remove(&handle))
            .map(|waiting| waiting.exchange)
            .collect()
    }

    /// Takes out all exchanges: proxyrunner shuts down.
    pub fn drain(&self) -> Vec<T> {
        self.state().waiting.drain().map(|(_, waiting)| waiting.exchange).collect()
    }

    /// Returns the number of parked exchanges.
    pub fn count(&self) -> usize {
        self.state().waiting.len()
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_exchange_is_claimed_once_within_its_time() {
        let now = Instant::now();
        let [ann, bob] = ["ann", "bob"].map(Client::named);
        let parked = Parked::new(2, Duration::from_secs(10));
        let first = parked.park(ann, "first", now).unwrap();
        let second = parked.park(bob, "second", now + Duration::from_secs(5)).unwrap();
        assert_eq!(parked.park(Client::named("carl"), "third", now), Err(Full::ForAll));
        assert_eq!(parked.claim(first, now + Duration::from_secs(9)), Some("first"));
        assert_eq!(parked.claim(first, now), None, "claimed already");
        assert!(parked.expire(now + Duration::from_secs(14)).is_empty());
        assert_eq!(parked.expire(now + Duration::from_secs(15)), ["second"]);
        assert_eq!(parked.claim(second, now), None);
        let late = parked.park(ann, "late", now).unwrap();
        assert_eq!(parked.claim(late, now + Duration::from_secs(10)), None, "expired");
        assert_eq!(parked.count(), 0);
    }

    #[test]
    fn one_client_has_at_most_a_quarter_and_gets_it_back() {
        let now = Instant::now();
        let [ann, bob] = ["ann", "bob"].map(Client::named);
        let parked = Parked::new(8, Duration::from_secs(10));
        let first = parked.park(ann, 1, now).unwrap();
        parked.park(ann, 2, now).unwrap();
        assert_eq!(parked.park(ann, 3, now), Err(Full::ForClient));
        assert!(parked.park(bob, 4, now).is_ok());
        assert_eq!(parked.claim(first, now), Some(1));
        assert!(parked.park(ann, 5, now).is_ok());
        assert_eq!(parked.park(ann, 6, now), Err(Full::ForClient));
        assert_eq!(parked.expire(now + Duration::from_secs(10)).len(), 3);
        assert!(parked.park(ann, 7, now).is_ok());
    }
}
