//! Where buckets are kept in memory. All buckets of a call are taken from, or none.

use super::rate::Rate;
use crate::client::{BuildClientHasher, Client};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::collections::HashMap;

/// The buckets of one call; few calls have more than these.
pub(super) type Wanted = SmallVec<[(Client, Rate); 4]>;

/// A bucket that has no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Empty {
    /// Its position among the wanted ones.
    pub at: usize,
    /// Nanoseconds until it has a token.
    pub wait: u64,
}

/// Buckets in memory. A full bucket is the same as none, so it is forgotten.
#[derive(Debug)]
pub(super) struct Memory {
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    /// The time at which each bucket is full again.
    full_at: HashMap<Client, u64, BuildClientHasher>,
    /// The number of buckets at which full ones are looked for.
    sweep_at: usize,
}

/// Maximum number of buckets, in 5 MiB. Beyond it, those that are nearest to being full are forgotten.
pub(super) const MOST: usize = 200_000;
/// The number of buckets at which full ones are looked for first.
const FIRST_SWEEP: usize = 1_024;

impl Default for Memory {
    fn default() -> Self {
        Memory { table: Mutex::new(Table { full_at: HashMap::default(), sweep_at: FIRST_SWEEP }) }
    }
}

impl Memory {
    /// Takes one token from each bucket, or none from any.
    ///
    /// # Errors
    /// When a bucket is empty; if several are, with the one that is empty for longest.
    pub fn take(&self, wanted: &Wanted, now: u64) -> Result<(), Empty> {
        let mut table = self.table.lock();
        let mut taken: SmallVec<[(Client, u64); 4]> = SmallVec::new();
        let mut empty: Option<Empty> = None;
        for (at, (key, rate)) in wanted.iter().enumerate() {
            let mut full_at = table.full_at.get(key).copied();
            if let Some(latest) =
                full_at.map(|at| rate.within(at, now)).filter(|latest| Some(*latest) != full_at)
            {
                table.full_at.insert(*key, latest);
                full_at = Some(latest);
            }
            match rate.take(full_at, now) {
                Ok(full_at) => taken.push((*key, full_at)),
                Err(wait) if empty.is_none_or(|empty| empty.wait < wait) => empty = Some(Empty { at, wait }),
                Err(_) => {}
            }
        }
        if let Some(empty) = empty {
            return Err(empty);
        }
        table.full_at.extend(taken);
        if table.full_at.len() >= table.sweep_at {
            table.sweep(now);
        }
        Ok(())
    }

    /// Returns the number of buckets that are not full.
    pub fn count(&self) -> usize {
        self.table.lock().full_at.len()
    }
}

impl Table {
    /// Forgets buckets that are full, and if too many are left, an eighth of them: those that are full soonest.
    fn sweep(&mut self, now: u64) {
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.len() >= MOST {
            let mut times: Vec<_> = self.full_at.values().copied().collect();
            let (_, limit, _) = times.select_nth_unstable(MOST / 8);
            let limit = *limit;
            // Many may be full at the same time.
            let mut spare = MOST / 8;
            self.full_at.retain(|_, full_at| {
                let is_kept = *full_at > limit || spare == 0;
                spare -= usize::from(!is_kept);
                is_kept
            });
        }
        self.sweep_at = (self.full_at.len() * 2).clamp(FIRST_SWEEP, MOST);
        self.full_at.shrink_to(self.sweep_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: u64 = 1_000_000_000;

    fn wanted(keys: &[u64], rate: Rate) -> Wanted {
        keys.iter().map(|key| (Client::numbered(*key), rate)).collect()
    }

    #[test]
    fn all_buckets_are_taken_from_or_none() {
        let memory = Memory::default();
        let (two, one) = (Rate::new(2, Duration::from_secs(60)), Rate::new(1, Duration::from_secs(60)));
        let (two, one) = (two.expect("a rate"), one.expect("a rate"));
        let both: Wanted = [(Client::numbered(1), two), (Client::numbered(2), one)].into_iter().collect();
        assert_eq!(memory.take(&both, 0), Ok(()));
        assert_eq!(memory.take(&both, 0), Err(Empty { at: 1, wait: 60 * SECOND }));
        assert_eq!(memory.take(&wanted(&[1], two), 0), Ok(()), "the refused call took nothing");
        assert_eq!(memory.take(&wanted(&[1], two), 0), Err(Empty { at: 0, wait: 30 * SECOND }));
        assert_eq!(memory.take(&both, 0), Err(Empty { at: 1, wait: 60 * SECOND }), "the longer wait counts");
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let memory = Memory::default();
        let rate = Rate::new(10, Duration::from_secs(10)).expect("a rate");
        let mut most = 0;
        // A million principals, a thousand in each second, each of whose buckets is full again after a second.
        for number in 0..1_000_000 {
            memory.take(&wanted(&[number], rate), number * SECOND / 1_000).expect("its first token");
            most = most.max(memory.count());
        }
        assert!(most <= 4 * FIRST_SWEEP, "{most}");
    }

    #[test]
    fn the_number_of_buckets_is_bounded_and_those_that_lack_most_stay() {
        let memory = Memory::default();
        let rate = Rate::new(10, Duration::from_secs(24 * 60 * 60)).expect("a rate");
        (0..10).for_each(|_| memory.take(&wanted(&[0], rate), 0).expect("a token"));
        // In one hour, no bucket gets a token back.
        for number in 1..=1_000_000 {
            memory.take(&wanted(&[number], rate), number * 3_600).expect("its first token");
            assert!(memory.count() <= MOST);
        }
        assert!(memory.table.lock().full_at.capacity() <= 2 * MOST);
        assert!(memory.take(&wanted(&[0], rate), SECOND).is_err(), "who has used most is not forgotten");
    }

    #[test]
    #[ignore = "a measurement"]
    fn the_cost_of_a_decision() {
        let memory = Memory::default();
        let rate = Rate::new(1_000_000_000, Duration::from_secs(24 * 60 * 60)).expect("a rate");
        let begun = std::time::Instant::now();
        for number in 0..1_000_000_u64 {
            let key = number % 10_000;
            let _ = std::hint::black_box(
                memory.take(&wanted(&[key, key + 20_000, 40_000, 40_001], rate), number),
            );
        }
        eprintln!("{:?} for a decision over four buckets", begun.elapsed() / 1_000_000);
    }
}
