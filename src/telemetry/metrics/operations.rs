//! How long operations took, by their labels: a table that is looked up without a lock, and bounded. When it is full,
//! further combinations are counted without what may be of many kinds.

use super::histogram::{CONVENTION, Distribution, Histogram};
use super::labels::Labels;
use crate::trace_context::Context;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Combinations that are told apart.
const MOST: usize = 2_048;
/// Places: more than combinations, so that each is found within a few steps, and all coarse ones have theirs.
const PLACES: usize = 8_192;

/// The histograms of all operations.
#[derive(Debug)]
pub struct Operations {
    places: Box<[Place; PLACES]>,
    taken: AtomicUsize,
}

#[derive(Debug, Default)]
struct Place {
    /// The labels' bits; 0 while it is free.
    labels: AtomicU64,
    histogram: OnceLock<Box<Histogram>>,
}

impl Default for Operations {
    fn default() -> Self {
        // Made on the heap: it is too long for a thread's stack.
        let places: Box<[Place]> = (0..PLACES).map(|_| Place::default()).collect();
        Operations { places: places.try_into().expect("so many"), taken: AtomicUsize::new(0) }
    }
}

impl Operations {
    /// One is over that took so many nanoseconds; `span` is where, if that is recorded.
    #[inline(always)]
    pub fn record(&self, labels: Labels, took: u64, span: Option<&Context>) {
        let bits = labels.bits();
        // Nearly always it is there already, where it is looked for first.
        let first = &self.places[start(bits) % PLACES];
        match first.histogram.get() {
            Some(histogram) if first.labels.load(Ordering::Relaxed) == bits => histogram.record(took, span),
            _ => self.record_elsewhere(labels, took, span),
        }
    }

    #[cold]
    fn record_elsewhere(&self, labels: Labels, took: u64, span: Option<&Context>) {
        let place = self.place(labels.bits(), MOST).or_else(|| self.place(labels.coarse().bits(), PLACES));
        if let Some(place) = place {
            let histogram = place.histogram.get_or_init(|| Box::new(Histogram::new(&CONVENTION)));
            histogram.record(took, span);
        }
    }

    /// The place of these labels; `None` if they have none, and so many are taken.
    fn place(&self, labels: u64, most: usize) -> Option<&Place> {
        let start = start(labels);
        for step in 0..PLACES {
            let place = &self.places[(start + step) % PLACES];
            let mut found = place.labels.load(Ordering::Relaxed);
            if found == 0 {
                if self.taken.load(Ordering::Relaxed) >= most {
                    return None;
                }
                // What is in a place is its labels and a histogram that synchronises itself, so that no order is needed.
                match place.labels.compare_exchange(0, labels, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => {
                        self.taken.fetch_add(1, Ordering::Relaxed);
                        return Some(place);
                    }
                    Err(other) => found = other,
                }
            }
            if found == labels {
                return Some(place);
            }
        }
        None
    }

    /// All of them.
    pub fn read(&self) -> Vec<(Labels, Distribution)> {
        let read = |place: &Place| {
            let labels = Labels::from_bits(place.labels.load(Ordering::Relaxed));
            Some((labels, place.histogram.get()?.read()))
        };
        self.places.iter().filter_map(read).collect()
    }
}

/// Where labels are looked for first. They differ in few bits; multiplying spreads them (Fibonacci hashing).
fn start(labels: u64) -> usize {
    (labels.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::super::labels::{ErrorType, Method, NameId, Revision, Side};
    use super::*;

    fn labels(tool: NameId) -> Labels {
        let revision = Revision::of("2025-11-25");
        Labels { side: Side::Server, method: Method::of("tools/call"), target: tool, error: None, revision }
    }

    #[test]
    fn operations_are_counted_by_their_labels_from_every_thread() {
        let operations = Operations::default();
        let failed = Labels { error: Some(ErrorType::of("tool_error")), ..labels(NameId::default()) };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        operations.record(labels(NameId::default()), 1_000_000, None);
                        operations.record(failed, 1_000_000_000, None);
                    }
                });
            }
        });
        let mut read = operations.read();
        read.sort_by_key(|(labels, _)| labels.error.is_some());
        let counted: Vec<_> = read.iter().map(|(labels, values)| (*labels, values.count())).collect();
        assert_eq!(counted, [(labels(NameId::default()), 4000), (failed, 4000)]);
    }

    #[test]
    fn a_full_table_counts_the_rest_together() {
        let operations = Operations::default();
        let mut recorded = 0;
        for tool in 1..=1000u64 {
            for error in [None, Some(ErrorType::of("tool_error")), Some(ErrorType::of("-32603"))] {
                let plain = Labels { error, ..labels(NameId::default()) };
                let labels = Labels::from_bits(plain.bits() | tool << 16);
                operations.record(labels, 1_000_000, None);
                recorded += 1;
            }
        }
        let read = operations.read();
        assert!(read.len() <= MOST + 3, "{}", read.len());
        assert_eq!(read.iter().map(|(_, values)| values.count()).sum::<u64>(), recorded);
        let coarse = read.iter().filter(|(labels, _)| labels.target == NameId::default());
        assert_eq!(coarse.map(|(_, values)| values.count()).sum::<u64>(), recorded - MOST as u64);
    }
}
