//! The state of one connection: the bytes that its peer has sent and read, and the request in progress.

use super::lag::Lag;
use super::share::Share;
use super::socket::Line;
use crate::sync::AtomicWaker;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

/// The state of one connection.
#[derive(Debug, Default)]
pub struct Connection {
    pub(super) number: u64,
    /// Milliseconds after [`Connections::since`], plus one, at which a write began to wait; 0 while none does.
    pub(super) stalled: AtomicU64,
    /// Requests that are being read, answered or streamed.
    pub(super) busy: AtomicUsize,
    /// Milliseconds after [`Connections::since`], plus one, at which the connection was accepted or a whole request
    /// last began or ended. Single bytes do not count as activity: a peer could send one now and then forever.
    pub(super) active: AtomicU64,
    /// Whether its buffers may be dropped while it is idle, and whether they should be.
    pub(super) may_rest: AtomicBool,
    pub(super) rests: AtomicBool,
    /// Whether a whole request ever began.
    pub(super) has_asked: AtomicBool,
    /// Whether the request in progress has a body, whose bytes are counted elsewhere.
    pub(super) has_body: AtomicBool,
    /// Whether the rest of a refused body is still being read; then no other request follows.
    pub(super) leaves_body: AtomicBool,
    /// Whether many requests can be in progress, by HTTP/2. Then its [frames](super::frames) tell the bytes of heads.
    pub(super) is_multiplexed: AtomicBool,
    /// Places that its streams hold besides the place of the connection; changes under the table's lock.
    pub(super) streams: AtomicUsize,
    /// Whether the request in progress is a GET, whose stream its client can resume.
    pub(super) is_get: AtomicBool,
    /// Counted bytes of an unfinished head.
    pub(super) head: AtomicUsize,
    /// Bytes read since the last request began.
    pub(super) unasked: AtomicUsize,
    /// Milliseconds after [`Connections::since`], plus one, at which the first of these bytes arrived, or the request
    /// before ended.
    pub(super) unasked_since: AtomicU64,
    /// Bytes passed to the system; only the connection itself adds to them.
    pub(super) written: AtomicU64,
    lag: Mutex<Lag>,
    pub(super) line: Option<Line>,
    pub(super) cut: AtomicBool,
    /// Wakes the task that reads and writes.
    pub(super) task: AtomicWaker,
    /// Wakes what waits for [`closes`](Self::closes).
    pub(super) closing: AtomicWaker,
    /// The client's share, and whether it has a regular place; both change under the table's lock.
    pub(super) share: Arc<Share>,
    pub(super) is_spare: AtomicBool,
    /// Whether it has a spare place and waits for a regular one.
    pub(super) waits: AtomicBool,
}

impl Connection {
    pub(super) fn new(number: u64, line: Option<Line>, share: Arc<Share>) -> Self {
        Connection { number, line, share, ..Connection::default() }
    }

    /// Returns how far the peer lags behind now.
    pub(super) fn behind(&self, now: u64) -> Duration {
        let waits_since = Some(self.stalled.load(Ordering::Relaxed)).filter(|&since| since > 0);
        // Read first: bytes that are written in between count as read for a moment, which is harmless.
        let untaken = self.line.as_ref().map_or(0, Line::untaken);
        let taken = self.written.load(Ordering::Relaxed).saturating_sub(untaken);
        self.lag.lock().update(now, waits_since, taken)
    }

    /// Returns whether a whole request ever began.
    pub fn has_asked(&self) -> bool {
        self.has_asked.load(Ordering::Relaxed)
    }

    /// Sets whether the rest of a refused body is still being read.
    pub fn set_leaves_body(&self, leaves: bool) {
        self.leaves_body.store(leaves, Ordering::Relaxed);
    }

    /// Prepares for many requests at a time.
    pub fn multiplex(&self) {
        self.is_multiplexed.store(true, Ordering::Relaxed);
        // No byte is counted twice.
        self.has_body.store(true, Ordering::Relaxed);
        self.leaves_body.store(true, Ordering::Relaxed);
    }

    /// Resolves when the connection must close.
    pub async fn closes(&self) {
        std::future::poll_fn(|cx| {
            self.closing.register(cx.waker());
            if self.is_cut() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Sets whether the last request was read to its end, so that the buffers may be dropped.
    pub fn set_may_rest(&self, may: bool) {
        self.may_rest.store(may, Ordering::Relaxed);
    }

    /// Takes the request to drop the buffers; returns false when there is none or the connection is in use.
    pub fn take_rest(&self) -> bool {
        let rests = self.rests.load(Ordering::Acquire) && self.rests.swap(false, Ordering::AcqRel);
        rests && self.has_nothing_in_progress() && self.may_rest.swap(false, Ordering::Relaxed)
    }

    pub(super) fn has_nothing_in_progress(&self) -> bool {
        let is_read = self.unasked.load(Ordering::Relaxed) == 0;
        is_read && !self.is_busy() && self.stalled.load(Ordering::Relaxed) == 0
    }

    /// Returns whether unread bytes have arrived.
    pub(super) fn has_unread(&self) -> bool {
        self.line.as_ref().is_some_and(Line::has_unread)
    }

    /// Returns whether a request is in progress.
    pub fn is_in_use(&self) -> bool {
        self.is_busy()
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// Returns whether the connection has a spare place, which is for one answer only.
    pub fn is_spare(&self) -> bool {
        self.is_spare.load(Ordering::Relaxed)
    }

    /// Returns whether no request is in progress, and none was since `latest`.
    pub(super) fn is_idle(&self, latest: u64) -> bool {
        !self.is_busy() && self.active.load(Ordering::Relaxed) <= latest
    }
}
