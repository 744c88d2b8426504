//! A histogram of durations that any thread records with two atomic additions, and that keeps a recent trace per
//! bucket as an exemplar.

use crate::telemetry::clock;
use crate::trace_context::Context;
use parking_lot::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The number of buckets, including the one above the last bound.
pub const BUCKETS: usize = BOUNDS + 1;
const BOUNDS: usize = 14;

/// The upper bounds of all buckets but the last.
#[derive(Debug, PartialEq)]
pub struct BucketBounds {
    /// The bounds in seconds.
    pub seconds: [f64; BOUNDS],
    nanos: [u64; BOUNDS],
}

impl BucketBounds {
    const fn new(seconds: [f64; BOUNDS]) -> Self {
        let mut nanos = [0; BOUNDS];
        let mut at = 0;
        while at < BOUNDS {
            nanos[at] = (seconds[at] * 1e9) as u64;
            at += 1;
        }
        BucketBounds { seconds, nanos }
    }
}

/// The bounds of the MCP conventions (gen-ai/mcp.md §Metrics).
pub static CONVENTION: BucketBounds =
    BucketBounds::new([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0]);
/// Bounds for durations that are normally microseconds.
pub static FINE: BucketBounds = BucketBounds::new([
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0,
]);

/// A histogram of durations.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static BucketBounds,
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
    /// One exemplar per bucket; allocated for the first value that belongs to a trace.
    exemplars: OnceLock<Box<[Mutex<Option<Exemplar>>; BUCKETS]>>,
}

/// A value and the span in which it was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// The value in seconds.
    pub seconds: f64,
    /// The context of the span.
    pub context: Context,
    /// The time in nanoseconds since the Unix epoch.
    pub unix_nanos: u64,
}

/// A snapshot of one or several histograms.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// The bounds of the buckets.
    pub bounds: &'static BucketBounds,
    /// The number of values per bucket.
    pub buckets: [u64; BUCKETS],
    /// The sum of all values in nanoseconds.
    pub nanos: u64,
    /// The latest exemplar per bucket.
    pub exemplars: [Option<Exemplar>; BUCKETS],
}

impl Histogram {
    /// Creates an empty histogram.
    pub fn new(bounds: &'static BucketBounds) -> Self {
        Histogram {
            bounds,
            buckets: Default::default(),
            nanos: AtomicU64::new(0),
            exemplars: OnceLock::new(),
        }
    }

    /// Records a value in nanoseconds, and as an exemplar the span, if given.
    #[inline]
    pub fn record(&self, nanos: u64, span: Option<&Context>) {
        let bucket = self.bounds.nanos.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.nanos.fetch_add(nanos, Relaxed);
        if let Some(context) = span {
            self.show(bucket, nanos, *context);
        }
    }

    #[cold]
    fn show(&self, bucket: usize, nanos: u64, context: Context) {
        let exemplars = self.exemplars.get_or_init(Box::default);
        // If another thread holds the lock, its exemplar is as good.
        if let Some(mut exemplar) = exemplars[bucket].try_lock() {
            let seconds = nanos as f64 / 1e9;
            *exemplar = Some(Exemplar { seconds, context, unix_nanos: clock::unix_nanos() });
        }
    }

    /// Returns a snapshot. A value recorded concurrently may be included in some fields only.
    pub fn read(&self) -> Distribution {
        let exemplars = self.exemplars.get();
        let exemplar = |at: usize| exemplars.and_then(|all| *all[at].lock());
        Distribution {
            bounds: self.bounds,
            buckets: std::array::from_fn(|at| self.buckets[at].load(Relaxed)),
            nanos: self.nanos.load(Relaxed),
            exemplars: std::array::from_fn(exemplar),
        }
    }
}

impl Distribution {
    /// Returns an empty distribution.
    pub fn empty(bounds: &'static BucketBounds) -> Self {
        Distribution { bounds, buckets: [0; BUCKETS], nanos: 0, exemplars: [None; BUCKETS] }
    }

    /// Returns the number of values.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Returns the sum of all values in seconds.
    pub fn seconds(&self) -> f64 {
        self.nanos as f64 / 1e9
    }

    /// Adds another distribution with the same bounds.
    pub fn add(&mut self, other: &Distribution) {
        self.nanos = self.nanos.wrapping_add(other.nanos);
        for at in 0..BUCKETS {
            self.buckets[at] += other.buckets[at];
            let newer = |one: &Exemplar, two: &Exemplar| one.unix_nanos > two.unix_nanos;
            let taken = match (&self.exemplars[at], &other.exemplars[at]) {
                (Some(own), Some(other)) => newer(other, own),
                (None, _) => true,
                (Some(_), None) => false,
            };
            if taken {
                self.exemplars[at] = other.exemplars[at];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_is_below_it() {
        let histogram = Histogram::new(&CONVENTION);
        for (millis, bucket) in [(0, 0), (10, 0), (11, 1), (300_000, 13), (300_001, 14), (u64::MAX / 2, 14)] {
            let before = histogram.read().buckets[bucket];
            histogram.record(millis.saturating_mul(1_000_000), None);
            assert_eq!(histogram.read().buckets[bucket], before + 1, "{millis} ms");
        }
        assert_eq!(histogram.read().count(), 6);
    }

    #[test]
    fn exemplars_are_the_latest_of_their_buckets_also_after_merging() {
        let span = |span: u8| Context { trace: [1; 16], span: [span; 8], flags: 1 };
        let (one, two) = (Histogram::new(&CONVENTION), Histogram::new(&CONVENTION));
        one.record(1_000_000, Some(&span(1)));
        one.record(2_000_000, Some(&span(2)));
        one.record(3_000_000, None);
        two.record(4_000_000, Some(&span(4)));
        two.record(1_000_000_000, Some(&span(5)));
        let mut both = one.read();
        assert_eq!(both.exemplars[0].map(|exemplar| exemplar.context), Some(span(2)));
        both.add(&two.read());
        let contexts: Vec<_> = both.exemplars.iter().flatten().map(|exemplar| exemplar.context).collect();
        assert_eq!(contexts, [span(4), span(5)]);
        assert_eq!((both.count(), both.nanos), (5, 1_010_000_000));
    }
}
