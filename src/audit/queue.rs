//! The queue before the writer: bounded in bytes, and never waited for by a thread that serves requests.
//!
//! With `block` and `deny` a call is admitted only while the queue has room and the last write succeeded. Its line then
//! always fits, because the number of calls in flight is bounded. Other events cannot be refused; those that do not fit
//! are counted, and the next line that is written states their number.

use super::OnFailure;
use crate::telemetry::counters;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::Notify;

/// Bytes of queued lines beyond which no call is admitted. With `drop`, lines beyond it are lost.
const MOST: usize = 8 << 20;
/// Bytes beyond which events that nobody was admitted for are lost.
const MOST_WITH_EVENTS: usize = 16 << 20;
/// Bytes beyond which every line is lost. The calls in flight cannot fill it.
const MOST_WITH_CALLS: usize = 128 << 20;
/// Bytes of queued lines for which the writer waits no longer.
const GATHERED: usize = 256 << 10;
/// Bytes that a line takes besides its text.
const OVERHEAD: usize = 64;

/// The cause of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A call that was admitted.
    Call,
    /// Any other event.
    Event,
}

/// The work that the writer takes.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Lines, each an object without its last brace.
    pub lines: Vec<String>,
    /// Set when the log ends: dropped once everything is written.
    pub stop: Option<mpsc::Sender<()>>,
}

/// A queue of lines.
#[derive(Debug)]
pub(super) struct Queue {
    on_failure: OnFailure,
    gather: Duration,
    waiting: Mutex<Waiting>,
    filled: Condvar,
    bytes: AtomicUsize,
    failing: AtomicBool,
    lost: AtomicU64,
    room: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    batch: Batch,
    sleeps: bool,
    is_over: bool,
}

impl Queue {
    /// Creates a queue whose writer waits for `gather` after the first line, so that several lines share its waking.
    pub(super) fn new(on_failure: OnFailure, gather: Duration) -> Self {
        let (waiting, filled, bytes, failing, lost, room) = Default::default();
        Queue { on_failure, gather, waiting, filled, bytes, failing, lost, room }
    }

    /// Adds a line; one that does not fit is counted.
    pub(super) fn put(&self, line: String, cause: Cause) {
        let size = line.len() + OVERHEAD;
        let most = match (self.on_failure, cause) {
            (OnFailure::Drop, _) => MOST,
            (_, Cause::Event) => MOST_WITH_EVENTS,
            (_, Cause::Call) => MOST_WITH_CALLS,
        };
        let before = self.bytes.fetch_add(size, Relaxed);
        if before + size > most {
            self.bytes.fetch_sub(size, Relaxed);
            return self.lose(1);
        }
        let mut waiting = self.waiting.lock();
        if waiting.is_over {
            drop(waiting);
            self.bytes.fetch_sub(size, Relaxed);
            return self.lose(1);
        }
        waiting.batch.lines.push(line);
        let wakes = std::mem::take(&mut waiting.sleeps) || (before < GATHERED && before + size >= GATHERED);
        drop(waiting);
        if wakes {
            self.filled.notify_one();
        }
    }

    /// Counts lines that are lost; the next line that is written states their number.
    pub(super) fn lose(&self, lines: u64) {
        self.lost.fetch_add(lines, Relaxed);
        counters::LOST_AUDIT_LINES.add(lines);
    }

    /// Takes the number of lines lost since the last call.
    pub(super) fn take_lost(&self) -> u64 {
        if self.lost.load(Relaxed) == 0 { 0 } else { self.lost.swap(0, Relaxed) }
    }

    /// Ends the queue. The receiver is disconnected once the writer has ended.
    pub(super) fn stop(&self) -> mpsc::Receiver<()> {
        let (stopped, stopping) = mpsc::channel();
        let mut waiting = self.waiting.lock();
        if !waiting.is_over {
            waiting.is_over = true;
            waiting.batch.stop = Some(stopped);
        }
        drop(waiting);
        self.filled.notify_one();
        stopping
    }

    /// Returns whether the log is ending, so that failed writes are no longer retried forever.
    pub(super) fn is_over(&self) -> bool {
        self.waiting.lock().is_over
    }

    /// Waits for lines, at most for `patience` if it is given, and then a moment for more of them.
    pub(super) fn take(&self, patience: Option<Duration>) -> Batch {
        let mut waiting = self.waiting.lock();
        if waiting.batch.lines.is_empty() && !waiting.is_over {
            waiting.sleeps = true;
            match patience {
                Some(patience) => drop(self.filled.wait_for(&mut waiting, patience)),
                None => self.filled.wait(&mut waiting),
            }
            waiting.sleeps = false;
        }
        let has_time =
            !waiting.batch.lines.is_empty() && !waiting.is_over && self.bytes.load(Relaxed) < GATHERED;
        if has_time && !self.gather.is_zero() {
            self.filled.wait_for(&mut waiting, self.gather);
        }
        std::mem::take(&mut waiting.batch)
    }

    /// Releases lines, of a length together, that were written or lost.
    pub(super) fn release(&self, length: usize, lines: usize) {
        let size = length + lines * OVERHEAD;
        let before = self.bytes.fetch_sub(size, Relaxed);
        if before >= MOST && before - size < MOST {
            self.room.notify_waiters();
        }
    }

    /// Records whether the last write failed.
    pub(super) fn set_failing(&self, failing: bool) {
        if self.failing.swap(failing, Relaxed) && !failing {
            self.room.notify_waiters();
        }
    }

    /// Returns whether the last write failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Relaxed)
    }

    /// Returns whether everything is written or lost.
    #[cfg(test)]
    pub(super) fn is_written(&self) -> bool {
        self.bytes.load(Relaxed) == 0
    }

    /// Returns whether calls are admitted.
    pub(super) fn has_room(&self) -> bool {
        !self.is_failing() && self.bytes.load(Relaxed) < MOST
    }

    /// Admits a call. With `block`, waits until there is room.
    ///
    /// # Errors
    /// With `deny`, if there is none.
    pub(super) async fn admit(&self) -> Result<(), ()> {
        match self.on_failure {
            OnFailure::Drop => Ok(()),
            _ if self.has_room() => Ok(()),
            OnFailure::Deny => Err(()),
            OnFailure::Block => {
                loop {
                    let mut freed = std::pin::pin!(self.room.notified());
                    // Registered before the check, so that no notice is missed.
                    freed.as_mut().enable();
                    if self.has_room() {
                        return Ok(());
                    }
                    freed.await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Poll;

    fn filled(on_failure: OnFailure) -> Queue {
        let queue = Queue::new(on_failure, Duration::ZERO);
        queue.put("x".repeat(MOST - OVERHEAD), Cause::Call);
        queue
    }

    fn polled<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }

    #[test]
    fn a_full_queue_blocks_denies_or_drops() {
        let queue = filled(OnFailure::Block);
        {
            let mut admitted = std::pin::pin!(queue.admit());
            assert!(polled(admitted.as_mut()).is_pending());
            queue.release(MOST - OVERHEAD, 1);
            assert_eq!(polled(admitted.as_mut()), Poll::Ready(Ok(())));
        }
        let queue = filled(OnFailure::Deny);
        assert_eq!(polled(std::pin::pin!(queue.admit())), Poll::Ready(Err(())));
        queue.put("y".to_owned(), Cause::Call);
        assert_eq!((queue.take(None).lines.len(), queue.take_lost()), (2, 0), "a call was admitted before");
        let queue = filled(OnFailure::Drop);
        assert_eq!(polled(std::pin::pin!(queue.admit())), Poll::Ready(Ok(())));
        queue.put("y".to_owned(), Cause::Call);
        assert_eq!((queue.take(None).lines.len(), queue.take_lost()), (1, 1));
    }

    #[test]
    fn a_failed_write_closes_the_queue_until_a_write_succeeds() {
        let queue = Queue::new(OnFailure::Block, Duration::ZERO);
        let mut admitted = std::pin::pin!(queue.admit());
        queue.set_failing(true);
        assert!(polled(admitted.as_mut()).is_pending());
        queue.set_failing(false);
        assert_eq!(polled(admitted.as_mut()), Poll::Ready(Ok(())));
    }

    #[test]
    fn events_beyond_their_bound_are_counted() {
        let queue = Queue::new(OnFailure::Deny, Duration::ZERO);
        let line = "x".repeat(MOST - OVERHEAD);
        (0..3).for_each(|_| queue.put(line.clone(), Cause::Event));
        assert_eq!((queue.take(None).lines.len(), queue.take_lost(), queue.take_lost()), (2, 1, 0));
    }

    #[test]
    fn nothing_is_taken_after_the_end() {
        let queue = Queue::new(OnFailure::Deny, Duration::ZERO);
        queue.put("a".to_owned(), Cause::Event);
        let stopping = queue.stop();
        queue.put("b".to_owned(), Cause::Event);
        let batch = queue.take(None);
        assert_eq!((batch.lines.len(), batch.stop.is_some(), queue.take_lost()), (1, true, 1));
        drop(batch);
        assert!(stopping.recv().is_err());
    }

    #[test]
    fn lines_are_gathered_until_there_are_many_or_the_log_ends() {
        let forever = Duration::from_secs(3_600);
        for is_ended in [false, true] {
            let queue = Queue::new(OnFailure::Deny, forever);
            std::thread::scope(|scope| {
                let taken = scope.spawn(|| queue.take(None).lines);
                queue.put("a".to_owned(), Cause::Event);
                queue.put("b".to_owned(), Cause::Event);
                if is_ended {
                    drop(queue.stop());
                } else {
                    queue.put("x".repeat(GATHERED), Cause::Event);
                }
                assert_eq!(taken.join().expect("no panic").len(), 3 - usize::from(is_ended));
            });
        }
    }
}
