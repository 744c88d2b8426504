//! Decisions that do not depend on arguments, remembered for one set of policies.
//!
//! The key is a hash of 128 bits over the claims, the thing and its annotations, keyed with secrets of the process, so
//! that nobody can construct two requests with one key.

use super::super::{Asker, Decision, Request};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

/// Maximum number of decisions: two generations of half as many.
const MOST: usize = 8_192;

/// The hashers, one per half of a key.
static HASHERS: LazyLock<(RandomState, RandomState)> = LazyLock::new(Default::default);

/// A key.
type Key = (u64, u64);

/// The remembered decisions.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Generations>);

/// New entries go to the young generation. When it is full, it becomes the old one.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Key, Arc<Decision>>,
    old: HashMap<Key, Arc<Decision>>,
}

/// Returns the key of a request.
pub(super) fn key(asker: &Asker<'_>, request: &Request<'_>) -> Key {
    let claims = *asker.digest.get_or_init(|| hashed(|hasher| asker.identity.claims.hash(hasher)));
    hashed(|hasher| (claims, request.server, request.feature, request.name, request.hints).hash(hasher))
}

fn hashed(feed: impl Fn(&mut std::hash::DefaultHasher)) -> Key {
    let finish = |state: &RandomState| {
        let mut hasher = state.build_hasher();
        feed(&mut hasher);
        hasher.finish()
    };
    (finish(&HASHERS.0), finish(&HASHERS.1))
}

impl Cache {
    /// Returns the remembered decision, or the one that `decide` makes.
    pub fn remembered(&self, key: Key, decide: impl FnOnce() -> Arc<Decision>) -> Arc<Decision> {
        if let Some(decision) = self.0.lock().find(&key) {
            return decision;
        }
        let decision = decide();
        self.0.lock().put(key, Arc::clone(&decision));
        decision
    }
}

impl Generations {
    fn find(&mut self, key: &Key) -> Option<Arc<Decision>> {
        if let Some(found) = self.young.get(key) {
            return Some(Arc::clone(found));
        }
        let found = self.old.remove(key)?;
        self.put(*key, Arc::clone(&found));
        Some(found)
    }

    fn put(&mut self, key: Key, decision: Arc<Decision>) {
        if self.young.len() >= MOST / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, decision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_decisions_is_bounded_and_those_in_use_stay() {
        let cache = Cache::default();
        let made = std::cell::Cell::new(0);
        let decide = || {
            made.set(made.get() + 1);
            Arc::new(Decision::allowed(Vec::new()))
        };
        for at in 0..100_000 {
            cache.remembered((at, at), decide);
            cache.remembered((0, 0), decide);
            let generations = cache.0.lock();
            assert!(generations.young.len() + generations.old.len() <= MOST);
        }
        assert_eq!(made.get(), 100_000);
    }
}
