//! Ids of traces and spans: random, never zero, from a generator of each thread's own that the system has seeded.

use fastrand::Rng;
use std::cell::RefCell;

thread_local! {
    static RANDOM: RefCell<Rng> = RefCell::new(Rng::with_seed(
        // Without the system's randomness, from the time and the thread.
        getrandom::u64().unwrap_or_else(|_| fastrand::u64(..)),
    ));
}

/// The id of a new trace. All of it is random, as samplers expect (Trace Context Level 2, §Random Trace ID Flag).
pub fn trace() -> [u8; 16] {
    let mut id = [0; 16];
    RANDOM.with_borrow_mut(|random| {
        let (high, low) = (random.u64(..), random.u64(..).max(1));
        id[..8].copy_from_slice(&high.to_ne_bytes());
        id[8..].copy_from_slice(&low.to_ne_bytes());
    });
    id
}

/// The id of a new span.
pub fn span() -> [u8; 8] {
    RANDOM.with_borrow_mut(|random| random.u64(..).max(1)).to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn none_comes_twice_whichever_thread_makes_it() {
        let threads: Vec<_> = (0..4)
            .map(|_| std::thread::spawn(|| (0..1000).map(|_| (trace(), span())).collect::<Vec<_>>()))
            .collect();
        let made: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        let traces: HashSet<_> = made.iter().map(|(trace, _)| *trace).collect();
        let spans: HashSet<_> = made.iter().map(|(_, span)| *span).collect();
        assert_eq!((traces.len(), spans.len()), (made.len(), made.len()));
    }
}
