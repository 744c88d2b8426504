//! Results by the digest of their token, of limited number.

use super::denied::Denied;
use crate::identity::Identity;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Maximum number of results.
const MOST: usize = 1_000;

/// The digest of a token.
pub(super) type Digest = [u8; 32];
/// The result of a verification.
pub(super) type Outcome = Result<Arc<Identity>, Denied>;

/// A cache, of which the oldest result is dropped for a new one.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Results>);

#[derive(Debug, Default)]
struct Results {
    /// The number of times that the cache was emptied.
    generation: u64,
    by_digest: HashMap<Digest, (u64, Outcome)>,
    /// The digests in `by_digest`, oldest first.
    order: VecDeque<Digest>,
}

impl Cache {
    /// Returns the result of a token, unless it is too old.
    pub(super) fn get(&self, digest: &Digest, now: u64) -> Option<Outcome> {
        let results = self.0.lock();
        let (until, outcome) = results.by_digest.get(digest)?;
        (now < *until).then(|| outcome.clone())
    }

    /// Returns the generation of results that are worked out from now on.
    pub(super) fn generation(&self) -> u64 {
        self.0.lock().generation
    }

    /// Keeps a result, unless the cache was emptied since it was begun.
    pub(super) fn put(&self, generation: u64, digest: Digest, until: u64, outcome: &Outcome) {
        let mut results = self.0.lock();
        if results.generation != generation {
            return;
        }
        if results.by_digest.insert(digest, (until, outcome.clone())).is_none() {
            results.order.push_back(digest);
        }
        while results.order.len() > MOST {
            if let Some(oldest) = results.order.pop_front() {
                results.by_digest.remove(&oldest);
            }
        }
    }

    /// Drops all results, and those that are being worked out.
    pub(super) fn clear(&self) {
        let mut results = self.0.lock();
        results.generation += 1;
        results.by_digest.clear();
        results.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        Ok(Identity::anonymous())
    }

    #[test]
    fn results_last_until_their_time() {
        let cache = Cache::default();
        cache.put(0, [1; 32], 10, &outcome());
        cache.put(0, [2; 32], 10, &Err(Denied::Busy));
        assert!(cache.get(&[1; 32], 9).is_some_and(|outcome| outcome.is_ok()));
        assert_eq!(cache.get(&[2; 32], 9).and_then(Result::err), Some(Denied::Busy));
        assert!(cache.get(&[1; 32], 10).is_none());
        assert!(cache.get(&[3; 32], 0).is_none());
        cache.put(0, [1; 32], 20, &outcome());
        assert!(cache.get(&[1; 32], 19).is_some());
    }

    #[test]
    fn a_cleared_cache_takes_no_result_that_was_begun_before() {
        let cache = Cache::default();
        let before = cache.generation();
        cache.put(before, [1; 32], 10, &outcome());
        cache.clear();
        assert!(cache.get(&[1; 32], 0).is_none());
        cache.put(before, [1; 32], 10, &outcome());
        assert!(cache.get(&[1; 32], 0).is_none());
        cache.put(cache.generation(), [1; 32], 10, &outcome());
        assert!(cache.get(&[1; 32], 0).is_some());
    }

    #[test]
    fn the_number_of_results_is_limited() {
        let cache = Cache::default();
        let digest = |at: u16| {
            let mut digest = [0; 32];
            digest[..2].copy_from_slice(&at.to_be_bytes());
            digest
        };
        for at in 0..3_000 {
            cache.put(0, digest(at), 10, &outcome());
            cache.put(0, digest(at), 10, &outcome());
        }
        let results = cache.0.lock();
        assert_eq!((results.by_digest.len(), results.order.len()), (MOST, MOST));
        assert!(
            results.by_digest.contains_key(&digest(2_000)) && !results.by_digest.contains_key(&digest(1_999))
        );
    }
}
