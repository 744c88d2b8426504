//! Random, nonzero ids of traces and spans, from a generator per thread that is seeded by the operating system.

use fastrand::Rng;
use std::cell::Cell;

thread_local! {
    /// The generator's state; 0 before its first use, and practically never afterwards.
    static STATE: Cell<u64> = const { Cell::new(0) };
}

/// Returns a new trace id. All of it is random, as samplers expect (Trace Context Level 2, §Random Trace ID Flag).
pub fn trace() -> [u8; 16] {
    let (high, low) = with_random(|random| (random.u64(..), random.u64(..).max(1)));
    (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
}

/// Returns a new span id.
pub fn span() -> [u8; 8] {
    with_random(|random| random.u64(..).max(1)).to_ne_bytes()
}

fn with_random<T>(make: impl FnOnce(&mut Rng) -> T) -> T {
    let state = STATE.get();
    let mut random = Rng::with_seed(if state == 0 { seed() } else { state });
    let made = make(&mut random);
    STATE.set(random.get_seed());
    made
}

#[cold]
fn seed() -> u64 {
    // If the operating system's source fails, the seed comes from the time and the thread.
    getrandom::u64().unwrap_or_else(|_| fastrand::u64(..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_unique_across_threads() {
        let threads: Vec<_> = (0..4)
            .map(|_| std::thread::spawn(|| (0..1000).map(|_| (trace(), span())).collect::<Vec<_>>()))
            .collect();
        let made: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        let traces: HashSet<_> = made.iter().map(|(trace, _)| *trace).collect();
        let spans: HashSet<_> = made.iter().map(|(_, span)| *span).collect();
        assert_eq!((traces.len(), spans.len()), (made.len(), made.len()));
    }
}
