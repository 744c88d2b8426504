//! Chooses a replica, and decides whether a request may be tried at another one.

use super::replica::Replica;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Instant;

/// One retry. The budget counts in billionths, so that it adds up exactly.
const ONE: u128 = 1_000_000_000;
/// What each request adds: a fifth of the requests may be retries.
const PART: u128 = ONE / 5;
/// Retries per second that are always possible.
const ALWAYS: u128 = 3;
/// Maximum number of these retries that are kept: those of ten seconds.
const KEPT: u128 = 10 * ALWAYS * ONE;
/// Maximum number of retries that are kept.
const MOST: u128 = 100 * ONE;

/// Chooses among the replicas that take requests: of two random ones, the one with fewer requests for its weight. Replicas
/// of more weight are drawn more often.
pub(super) fn least(replicas: &[Arc<Replica>], now: Instant) -> Option<Arc<Replica>> {
    let able = able(replicas, now);
    let weights: Vec<_> = able.iter().map(|replica| replica.weight(now)).collect();
    let at = lighter(&weights, fastrand::f64, |at| able[at].in_flight() as f64 / weights[at])?;
    Some(Arc::clone(able[at]))
}

/// Returns the index of the lighter of two different random ones; `random` gives numbers from 0 to below 1.
fn lighter(weights: &[f64], mut random: impl FnMut() -> f64, load: impl Fn(usize) -> f64) -> Option<usize> {
    let mut draw = |but: Option<usize>| {
        let others = || weights.iter().enumerate().filter(|(at, _)| Some(*at) != but);
        let mut mark = random() * others().map(|(_, weight)| weight).sum::<f64>();
        let drawn = others().find(|(_, weight)| {
            mark -= **weight;
            mark < 0.0
        });
        // The sum may be a little more than its parts.
        drawn.or_else(|| others().next_back()).map(|(at, _)| at)
    };
    let first = draw(None)?;
    let second = draw(Some(first)).unwrap_or(first);
    Some(if load(second) < load(first) { second } else { first })
}

/// Chooses the same replica for the same key as long as it takes requests: a modern client's retry with the answers to
/// questions must reach the replica that has asked them. If replicas come or go, few keys change their replica.
/// With `is_retry`, those that are shutting down count, too.
pub(super) fn by_key(
    replicas: &[Arc<Replica>],
    key: &[u8; 32],
    is_retry: bool,
    now: Instant,
) -> Option<Arc<Replica>> {
    let rank = |replica: &Arc<Replica>| {
        let mut digest = Sha256::new();
        digest.update(key);
        digest.update(replica.endpoint.address());
        <[u8; 32]>::from(digest.finalize())
    };
    let mut able = able(replicas, now);
    if is_retry {
        able.extend(replicas.iter().filter(|replica| replica.is_draining()));
    }
    able.into_iter().max_by_key(|replica| rank(replica)).map(Arc::clone)
}

/// Returns the replicas that take requests. If there are none, those that may hold one until they are ready.
fn able(replicas: &[Arc<Replica>], now: Instant) -> Vec<&Arc<Replica>> {
    let able: Vec<_> = replicas.iter().filter(|replica| replica.takes(now)).collect();
    match able.is_empty() {
        true => replicas.iter().filter(|replica| replica.may_hold()).collect(),
        false => able,
    }
}

/// The retries that are possible now. Retries must not multiply the load on servers that fail.
#[derive(Debug)]
pub(super) struct RetryBudget {
    left: u128,
    seen: Instant,
}

impl RetryBudget {
    /// Creates a budget with the retries of one second.
    pub(super) fn new(now: Instant) -> Self {
        RetryBudget { left: ALWAYS * ONE, seen: now }
    }

    /// Notes a request that is not a retry.
    pub(super) fn note_request(&mut self, now: Instant) {
        self.refill(now);
        self.left = (self.left + PART).min(MOST);
    }

    /// Takes a retry; returns whether there was one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let has_one = self.left >= ONE;
        if has_one {
            self.left -= ONE;
        }
        has_one
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.seen);
        self.seen = now.max(self.seen);
        if self.left < KEPT {
            self.left = (self.left + passed.as_nanos() * ALWAYS).min(KEPT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::replica::{Endpoint, Outcome, Probed};
    use super::*;
    use std::time::Duration;

    fn replicas(count: u16) -> Vec<Arc<Replica>> {
        (1..=count)
            .map(|port| {
                let url = format!("http://127.0.0.1:{port}/mcp");
                Arc::new(Replica::new(Endpoint::parse(&url).expect("a URL"), Instant::now()))
            })
            .collect()
    }

    #[test]
    fn the_lighter_of_two_different_ones_is_chosen() {
        let loads = [5.0, 1.0, 3.0];
        let chosen = |first: f64, second: f64| {
            let mut draws = [first, second].into_iter();
            lighter(&[1.0, 1.0, 2.0], || draws.next().expect("two draws"), |at| loads[at])
        };
        assert_eq!(chosen(0.0, 0.0), Some(1), "0 and 1");
        assert_eq!(chosen(0.24, 0.4), Some(2), "0 and 2");
        assert_eq!(chosen(0.5, 0.9), Some(1), "2 and 1");
        assert_eq!(chosen(0.999, 0.49), Some(2), "2 and 0");
        assert_eq!(chosen(1.0, 1.0), Some(1), "the last ones");
        assert_eq!(lighter(&[], || 0.0, |_| 0.0), None);
        assert_eq!(lighter(&[1.0], || 0.0, |_| 0.0), Some(0));
    }

    #[test]
    fn idle_replicas_get_their_parts() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut counts = [0_u32; 3];
        for _ in 0..10_000 {
            counts[lighter(&[1.0, 1.0, 8.0], || random.f64(), |_| 0.0).expect("one")] += 1;
        }
        assert!(counts[2] > 7_700 && counts[2] < 8_300, "{counts:?}");
        assert!(counts[0] > 800 && counts[1] > 800, "{counts:?}");
    }

    #[test]
    fn only_replicas_that_take_requests_are_chosen() {
        let (all, now) = (replicas(3), Instant::now());
        all[0].probed(Probed::Silent, now);
        all[2].probed(Probed::Unready, now);
        for _ in 0..20 {
            let chosen = least(&all, now).expect("a replica");
            assert!(Arc::ptr_eq(&chosen, &all[1]));
        }
        all[1].probed(Probed::Silent, now);
        let held = least(&all, now).expect("one that may hold the request");
        assert!(Arc::ptr_eq(&held, &all[2]) && held.begin(now).is_some());
        all[2].probed(Probed::Silent, now);
        assert!(least(&all, now).is_none() && by_key(&all, &[7; 32], true, now).is_none());
    }

    #[test]
    fn busy_replicas_get_less() {
        let (all, now) = (replicas(2), Instant::now());
        let busy: Vec<_> = (0..5).filter_map(|_| all[0].begin(now)).collect();
        for _ in 0..20 {
            assert!(Arc::ptr_eq(&least(&all, now).expect("a replica"), &all[1]));
        }
        busy.into_iter().for_each(|mut one| one.note(Outcome::Answered, now));
        assert_eq!(all[0].in_flight(), 0);
    }

    #[test]
    fn a_key_keeps_its_replica_when_another_one_leaves() {
        let (all, now) = (replicas(5), Instant::now());
        let mut used = std::collections::BTreeSet::new();
        for key in 0..40 {
            let key = [key; 32];
            let chosen = by_key(&all, &key, false, now).expect("a replica");
            used.insert(chosen.endpoint.address().to_owned());
            let fewer: Vec<_> = all
                .iter()
                .filter(|replica| replica.endpoint.address() != "127.0.0.1:3")
                .map(Arc::clone)
                .collect();
            if chosen.endpoint.address() != "127.0.0.1:3" {
                assert!(Arc::ptr_eq(&chosen, &by_key(&fewer, &key, false, now).expect("a replica")));
            }
        }
        assert_eq!(used.len(), 5, "all are used");
    }

    #[test]
    fn a_retry_goes_to_the_replica_that_has_asked_while_it_is_shutting_down() {
        let (all, now) = (replicas(3), Instant::now());
        let chosen = |is_retry| by_key(&all, &[7; 32], is_retry, now).expect("a replica");
        let asked = chosen(false);
        asked.probed(Probed::Draining, now);
        assert!(!Arc::ptr_eq(&chosen(false), &asked) && Arc::ptr_eq(&chosen(true), &asked));
        assert!(asked.begin(now).is_some(), "it takes the retry");
        asked.probed(Probed::Silent, now);
        assert!(!Arc::ptr_eq(&chosen(true), &asked));
    }

    #[test]
    fn retries_are_a_part_of_the_requests_and_a_few_more() {
        let begun = Instant::now();
        let mut budget = RetryBudget::new(begun);
        let taken = |budget: &mut RetryBudget, now| (0..1000).take_while(|_| budget.take(now)).count();
        assert_eq!(taken(&mut budget, begun), 3);
        assert_eq!(taken(&mut budget, begun + Duration::from_secs(1)), 3);
        let later = begun + Duration::from_secs(1000);
        assert_eq!(taken(&mut budget, later), 30, "at most those of ten seconds");
        (0..50).for_each(|_| budget.note_request(later));
        assert_eq!(taken(&mut budget, later), 10, "a fifth of the requests");
        (0..10_000).for_each(|_| budget.note_request(later));
        assert_eq!(taken(&mut budget, later), 100);
    }
}
