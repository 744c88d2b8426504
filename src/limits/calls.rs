//! The number of calls of each caller at the same time.

use crate::client::{BuildClientHasher, Client};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// The calls in flight by caller. A caller without calls has no entry.
#[derive(Debug, Default)]
pub(super) struct Calls(Mutex<HashMap<Client, u32, BuildClientHasher>>);

impl Calls {
    /// Counts another call of a caller, until the guard is dropped. `None` if there are `most` already.
    pub fn begin(self: &Arc<Self>, client: Client, most: u32) -> Option<Call> {
        let mut calls = self.0.lock();
        let number = calls.entry(client).or_default();
        if *number >= most {
            return None;
        }
        *number += 1;
        Some(Call { calls: Arc::clone(self), client })
    }

    #[cfg(test)]
    pub fn callers(&self) -> usize {
        self.0.lock().len()
    }
}

/// A call that is counted.
#[derive(Debug)]
pub struct Call {
    calls: Arc<Calls>,
    client: Client,
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut calls = self.calls.0.lock();
        if let Entry::Occupied(mut number) = calls.entry(self.client) {
            *number.get_mut() -= 1;
            if *number.get() == 0 {
                number.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_at_most_so_many_calls_and_no_entry_without_one() {
        let calls = Arc::<Calls>::default();
        let (a, b) = (Client::numbered(1), Client::numbered(2));
        let first = calls.begin(a, 2).expect("a place");
        let second = calls.begin(a, 2).expect("a place");
        assert!(calls.begin(a, 2).is_none());
        let other = calls.begin(b, 2).expect("callers have their own places");
        drop(first);
        let third = calls.begin(a, 2).expect("a place");
        drop((second, third, other));
        assert_eq!(calls.callers(), 0);
    }
}
