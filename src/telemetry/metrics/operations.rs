//! Histograms of operations by labels, in a bounded lock-free hash table. When it is full, further combinations are
//! recorded without target and error code.

use super::histogram::{CONVENTION, Distribution, Histogram};
use super::labels::Labels;
use crate::trace_context::Context;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Maximum number of distinct combinations.
const MOST: usize = 2_048;
/// Number of entries: more than combinations, so that probing is short and all coarse combinations fit.
const ENTRIES: usize = 8_192;

/// The histograms of all operations by labels.
#[derive(Debug)]
pub struct Operations {
    entries: Box<[OperationEntry; ENTRIES]>,
    taken: AtomicUsize,
}

#[derive(Debug, Default)]
struct OperationEntry {
    /// The packed labels; 0 if the entry is free.
    labels: AtomicU64,
    histogram: OnceLock<Box<Histogram>>,
}

impl Default for Operations {
    fn default() -> Self {
        // Built on the heap: the array exceeds a thread's stack.
        let entries: Box<[OperationEntry]> = (0..ENTRIES).map(|_| OperationEntry::default()).collect();
        Operations { entries: entries.try_into().expect("so many"), taken: AtomicUsize::new(0) }
    }
}

impl Operations {
    /// Records an operation that took this many nanoseconds, and its span, if recorded, as an exemplar.
    #[inline(always)]
    pub fn record(&self, labels: Labels, took: u64, span: Option<&Context>) {
        let bits = labels.bits();
        // Almost every lookup hits the first entry.
        let first = &self.entries[start(bits) % ENTRIES];
        match first.histogram.get() {
            Some(histogram) if first.labels.load(Ordering::Relaxed) == bits => histogram.record(took, span),
            _ => self.record_elsewhere(labels, took, span),
        }
    }

    #[cold]
    fn record_elsewhere(&self, labels: Labels, took: u64, span: Option<&Context>) {
        let entry = self.entry(labels.bits(), MOST).or_else(|| self.entry(labels.coarse().bits(), ENTRIES));
        if let Some(entry) = entry {
            let histogram = entry.histogram.get_or_init(|| Box::new(Histogram::new(&CONVENTION)));
            histogram.record(took, span);
        }
    }

    /// Finds or claims the entry for the labels; `None` if they have none and `most` entries are taken.
    fn entry(&self, labels: u64, most: usize) -> Option<&OperationEntry> {
        let start = start(labels);
        for step in 0..ENTRIES {
            let entry = &self.entries[(start + step) % ENTRIES];
            let mut found = entry.labels.load(Ordering::Relaxed);
            if found == 0 {
                if self.taken.load(Ordering::Relaxed) >= most {
                    return None;
                }
                // An entry consists of its labels and a histogram that synchronizes itself, so no ordering is needed.
                match entry.labels.compare_exchange(0, labels, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => {
                        self.taken.fetch_add(1, Ordering::Relaxed);
                        return Some(entry);
                    }
                    Err(other) => found = other,
                }
            }
            if found == labels {
                return Some(entry);
            }
        }
        None
    }

    /// Returns a snapshot of all histograms.
    pub fn read(&self) -> Vec<(Labels, Distribution)> {
        let read = |entry: &OperationEntry| {
            let labels = Labels::from_bits(entry.labels.load(Ordering::Relaxed));
            Some((labels, entry.histogram.get()?.read()))
        };
        self.entries.iter().filter_map(read).collect()
    }
}

/// Returns the index at which probing starts. Labels differ in few bits; the multiplication spreads them (Fibonacci
/// hashing).
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
