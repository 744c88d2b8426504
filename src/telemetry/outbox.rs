//! The intake of an export pipeline: bounds the records that wait for the SDK's batch processor, in number and bytes.
//! Recording never waits; a record that does not fit is dropped and counted.

use super::metrics::counters::Counter;
use parking_lot::Mutex;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// The limits of one export queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Maximum number of queued records (`OTEL_BSP_MAX_QUEUE_SIZE`, `OTEL_BLRP_MAX_QUEUE_SIZE`).
    pub queued: usize,
    /// Maximum number of records per export (`…_MAX_EXPORT_BATCH_SIZE`).
    pub batch: usize,
    /// Maximum delay before an export (`…_SCHEDULE_DELAY`).
    pub delay: Duration,
}

/// Maximum size of one queue in bytes, regardless of the number of records, since a span can be long.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// A record whose size is known.
pub trait Weighed {
    /// Returns the memory that the record occupies in bytes.
    fn bytes(&self) -> usize;
}

type Sink<T> = Box<dyn Fn(T) + Send + Sync>;

/// The intake of one signal.
pub struct Outbox<T> {
    bounds: Bounds,
    records: AtomicUsize,
    bytes: AtomicUsize,
    dropped: &'static Counter,
    /// The batch processor, once it is connected.
    sink: OnceLock<Sink<T>>,
    /// Records from the time before it is connected.
    early: Mutex<Vec<T>>,
}

impl<T: Weighed> Outbox<T> {
    /// Creates an intake; `dropped` counts the records that do not fit.
    pub fn new(bounds: Bounds, dropped: &'static Counter) -> Self {
        let (records, bytes) = Default::default();
        Outbox { bounds, records, bytes, dropped, sink: OnceLock::new(), early: Mutex::default() }
    }

    /// Passes a record on, or drops and counts it if the queue is full.
    pub fn put(&self, record: T) {
        self.offer(record);
    }

    /// As [`put`](Self::put); returns false if the record was dropped.
    pub fn offer(&self, record: T) -> bool {
        let size = record.bytes();
        let records = self.records.fetch_add(1, Relaxed);
        let bytes = self.bytes.fetch_add(size, Relaxed);
        if records >= self.bounds.queued || bytes + size > MOST_BYTES {
            self.release(1, size);
            self.dropped.increment();
            return false;
        }
        match self.sink.get() {
            Some(sink) => sink(record),
            None => self.hold(record),
        }
        true
    }

    #[cold]
    fn hold(&self, record: T) {
        let mut early = self.early.lock();
        match self.sink.get() {
            Some(sink) => sink(record),
            None => early.push(record),
        }
    }

    /// Connects the batch processor and passes it the earlier records. Only the first call has an effect.
    pub fn connect(&self, sink: Sink<T>) {
        let mut early = self.early.lock();
        let _ = self.sink.set(sink);
        if let Some(sink) = self.sink.get() {
            early.drain(..).for_each(sink);
        }
    }

    /// Frees the space of the records of a batch, whose export begins.
    pub fn release_all<'a>(&self, batch: impl Iterator<Item = &'a T>) -> usize
    where
        T: 'a,
    {
        let (mut records, mut bytes) = (0, 0);
        batch.for_each(|record| {
            records += 1;
            bytes += record.bytes();
        });
        self.release(records, bytes);
        records
    }

    fn release(&self, records: usize, bytes: usize) {
        self.records.fetch_sub(records, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    /// Returns the limits.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }
}

impl<T> fmt::Debug for Outbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    impl Weighed for usize {
        fn bytes(&self) -> usize {
            *self
        }
    }

    fn outbox(queued: usize) -> (Outbox<usize>, &'static Counter) {
        let dropped = Box::leak(Box::new(Counter::new("dropped", "")));
        (Outbox::new(Bounds { queued, batch: 2, delay: Duration::ZERO }, dropped), dropped)
    }

    #[test]
    fn records_beyond_the_limits_are_counted_and_space_is_freed() {
        let (outbox, dropped) = outbox(3);
        (0..5).for_each(|_| outbox.put(1));
        assert_eq!(dropped.value(), 2);
        assert_eq!(outbox.release_all([1, 1].iter()), 2);
        (0..3).for_each(|_| outbox.put(1));
        assert_eq!(dropped.value(), 3);
        outbox.release_all([1, 1, 1].iter());
        outbox.put(MOST_BYTES);
        outbox.put(1);
        assert_eq!(dropped.value(), 4, "the bytes are bounded, too");
    }

    #[test]
    fn records_from_before_the_processor_is_connected_are_kept_in_order() {
        let (outbox, _) = outbox(10);
        outbox.put(1);
        outbox.put(2);
        let taken = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&taken);
        outbox.connect(Box::new(move |record| sink.lock().push(record)));
        outbox.put(3);
        assert_eq!(*taken.lock(), [1, 2, 3]);
    }
}
