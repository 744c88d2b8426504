//! Exchanges of modern clients that wait for a retry: a legacy child asked something, the client was told
//! `input_required`, and will come back with the answers, or never (protocol C2a).
//!
//! Bounded in number and time; each is claimed once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The table; `T` is what waits.
#[derive(Debug)]
pub struct Parked<T> {
    capacity: usize,
    patience: Duration,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    last: u64,
    waiting: HashMap<u64, (Instant, T)>,
}

impl<T> Parked<T> {
    /// For `capacity` exchanges (`--max-parked`), each for `patience` (`--park-timeout`).
    pub fn new(capacity: usize, patience: Duration) -> Self {
        Parked { capacity, patience, state: Mutex::new(State { last: 0, waiting: HashMap::new() }) }
    }

    /// Lets an exchange wait; `None`, and it is dropped, when there are too many.
    pub fn park(&self, exchange: T, now: Instant) -> Option<u64> {
        let mut state = self.state();
        if state.waiting.len() >= self.capacity {
            return None;
        }
        state.last += 1;
        let handle = state.last;
        state.waiting.insert(handle, (now + self.patience, exchange));
        Some(handle)
    }

    /// Looks at one that waits, without claiming it.
    pub fn look<R>(&self, handle: u64, look: impl FnOnce(&T) -> R) -> Option<R> {
        self.state().waiting.get(&handle).map(|(_, exchange)| look(exchange))
    }

    /// The exchange, once.
    pub fn claim(&self, handle: u64, now: Instant) -> Option<T> {
        let (until, exchange) = self.state().waiting.remove(&handle)?;
        // One that is past its time is dropped here just as the sweep would have.
        (now < until).then_some(exchange)
    }

    /// Takes out those whose time is over; dropping them cancels at the child.
    pub fn expire(&self, now: Instant) -> Vec<T> {
        let mut state = self.state();
        let over: Vec<u64> =
            state.waiting.iter().filter(|(_, (until, _))| *until <= now).map(|(handle, _)| *handle).collect();
        over.into_iter()
            .filter_map(|handle| state.waiting.remove(&handle))
            .map(|(_, exchange)| exchange)
            .collect()
    }

    /// Takes all out: proxyrunner ends.
    pub fn drain(&self) -> Vec<T> {
        self.state().waiting.drain().map(|(_, (_, exchange))| exchange).collect()
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        self.state().waiting.len()
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_claim_each_within_its_time() {
        let now = Instant::now();
        let parked = Parked::new(2, Duration::from_secs(10));
        let first = parked.park("first", now).unwrap();
        let second = parked.park("second", now + Duration::from_secs(5)).unwrap();
        assert_eq!(parked.park("third", now), None, "the table is full");
        assert_eq!(parked.claim(first, now + Duration::from_secs(9)), Some("first"));
        assert_eq!(parked.claim(first, now), None, "claimed already");
        assert!(parked.expire(now + Duration::from_secs(14)).is_empty());
        assert_eq!(parked.expire(now + Duration::from_secs(15)), ["second"]);
        assert_eq!(parked.claim(second, now), None);
        let late = parked.park("late", now).unwrap();
        assert_eq!(parked.claim(late, now + Duration::from_secs(10)), None, "past its time");
        assert_eq!(parked.count(), 0);
    }
}
