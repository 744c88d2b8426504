//! The export queue: encoded records in batches, bounded in number and bytes. Recording never waits; a record that
//! does not fit is dropped and counted.

use super::metrics::counters::Counter;
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::Notify;

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

/// Maximum size of one queue in bytes, whatever the number of records: a span can be long.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// A batch of encoded records for one export.
#[derive(Debug, Default)]
pub struct Batch {
    /// The encoded records, as a repeated field.
    pub bytes: Vec<u8>,
    /// The number of records.
    pub records: usize,
}

/// The queue of one signal.
#[derive(Debug)]
pub struct Outbox {
    bounds: Bounds,
    state: Mutex<State>,
    full: Notify,
    dropped: &'static Counter,
}

#[derive(Debug, Default)]
struct State {
    whole: VecDeque<Batch>,
    open: Batch,
    records: usize,
    bytes: usize,
}

impl Outbox {
    /// Creates an empty queue; `dropped` counts the records that do not fit.
    pub fn new(bounds: Bounds, dropped: &'static Counter) -> Self {
        Outbox { bounds, state: Mutex::default(), full: Notify::new(), dropped }
    }

    /// Adds a record, or drops and counts it if the queue is full.
    pub fn put(&self, record: &[u8]) {
        let mut state = self.state();
        if state.records >= self.bounds.queued || state.bytes + record.len() > MOST_BYTES {
            drop(state);
            return self.dropped.increment();
        }
        state.records += 1;
        state.bytes += record.len();
        state.open.records += 1;
        state.open.bytes.extend_from_slice(record);
        if state.open.records >= self.bounds.batch {
            let batch = std::mem::take(&mut state.open);
            // The next batch is likely to be as large.
            state.open.bytes.reserve(batch.bytes.len());
            state.whole.push_back(batch);
            drop(state);
            self.full.notify_one();
        }
    }

    /// Removes the oldest batch; `None` if the queue is empty.
    pub fn take(&self) -> Option<Batch> {
        let mut state = self.state();
        let open = |state: &mut State| (state.open.records > 0).then(|| std::mem::take(&mut state.open));
        let batch = state.whole.pop_front().or_else(|| open(&mut state))?;
        state.records -= batch.records;
        state.bytes -= batch.bytes.len();
        Some(batch)
    }

    /// Resolves when a batch is full.
    pub async fn filled(&self) {
        self.full.notified().await;
    }

    /// Returns the maximum delay before an export.
    pub fn delay(&self) -> Duration {
        self.bounds.delay
    }

    /// Counts records that were removed but not delivered.
    pub fn count_lost(&self, records: usize) {
        self.dropped.add(records as u64);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(queued: usize, batch: usize) -> (Outbox, &'static Counter) {
        let dropped = Box::leak(Box::new(Counter::new("dropped", "")));
        (Outbox::new(Bounds { queued, batch, delay: Duration::ZERO }, dropped), dropped)
    }

    #[test]
    fn batches_leave_in_their_order_and_no_larger_than_they_may_be() {
        let (outbox, _) = outbox(10, 2);
        b"abcde".chunks(1).for_each(|record| outbox.put(record));
        let taken: Vec<_> =
            std::iter::from_fn(|| outbox.take()).map(|batch| (batch.bytes, batch.records)).collect();
        assert_eq!(taken, [(b"ab".to_vec(), 2), (b"cd".to_vec(), 2), (b"e".to_vec(), 1)]);
    }

    #[test]
    fn what_finds_no_room_is_counted_and_room_comes_back() {
        let (outbox, dropped) = outbox(3, 2);
        (0..5).for_each(|_| outbox.put(b"x"));
        assert_eq!(dropped.value(), 2);
        assert_eq!(outbox.take().map(|batch| batch.records), Some(2));
        (0..3).for_each(|_| outbox.put(b"y"));
        assert_eq!(dropped.value(), 3);
    }

    #[tokio::test]
    async fn a_full_batch_is_told() {
        let (outbox, _) = outbox(10, 2);
        outbox.put(b"a");
        let mut filled = std::pin::pin!(outbox.filled());
        assert!(futures_pending(filled.as_mut()).await);
        outbox.put(b"b");
        filled.await;
    }

    async fn futures_pending(future: std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
        tokio::select! {
            biased;
            () = future => false,
            () = std::future::ready(()) => true,
        }
    }
}
