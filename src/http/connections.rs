//! The open connections: which peers read what is written to them, which requests are in progress, and how many
//! bytes of unfinished heads are buffered. [`places`](super::places) decides which connection gives way at
//! `--max-connections`.

use super::lag::Lag;
use super::marks::Marker;
use super::places::{Seats, Share};
use super::socket::{Line, Socket};
use crate::sync::AtomicWaker;
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// Bytes that one read takes at most, which bounds what is buffered behind a request in progress.
const READ: usize = 16 * 1024;
/// Bytes of unfinished heads that all connections may buffer together.
const HEADS: usize = 4 * 1024 * 1024;
/// Bytes of one unfinished head that are not counted: a page of the buffer that each connection has anyway.
const FREE_HEAD: usize = 2 * 1024;
/// What is counted besides for a longer one: what reading it takes, as measured.
const READING: usize = 12 * 1024;

/// All connections that are open.
#[derive(Debug)]
pub struct Connections {
    since: Instant,
    numbered: AtomicU64,
    table: Mutex<Table>,
    /// Bytes of unfinished heads.
    heads: AtomicUsize,
    /// Notified when a connection closes or finishes a request.
    pub(super) freed: Notify,
}

/// The open connections and their seats.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) open: HashMap<u64, Arc<Pulse>>,
    pub(super) seats: Seats,
}

/// The state of one connection.
#[derive(Debug, Default)]
pub struct Pulse {
    pub(super) number: u64,
    /// Milliseconds after [`Connections::since`], plus one, at which a write began to wait; 0 while none does.
    stalled: AtomicU64,
    /// Requests that are being read, answered or streamed.
    pub(super) busy: AtomicUsize,
    /// Milliseconds after [`Connections::since`], plus one, when it was accepted or a whole request last began or
    /// ended. Single bytes are no activity: a peer could send one every now and then forever.
    pub(super) active: AtomicU64,
    /// Whether its buffers may be dropped while it is idle, and whether they are to be.
    may_rest: AtomicBool,
    rests: AtomicBool,
    /// Whether a whole request ever began.
    pub(super) has_asked: AtomicBool,
    /// Whether the request in progress has a body, whose bytes are counted elsewhere.
    pub(super) has_body: AtomicBool,
    /// Whether the rest of a refused body is still being read; then no other request follows.
    pub(super) leaves_body: AtomicBool,
    /// Whether the request in progress is a GET, whose stream its client can resume.
    pub(super) is_get: AtomicBool,
    /// Counted bytes of an unfinished head.
    head: AtomicUsize,
    /// Bytes read since the last request began.
    unasked: AtomicUsize,
    /// Milliseconds after [`Connections::since`], plus one, when the first of them came, or the request before was over.
    pub(super) unasked_since: AtomicU64,
    /// Bytes that the system took to be sent; only the connection itself adds to it.
    written: AtomicU64,
    lag: Mutex<Lag>,
    line: Option<Line>,
    cut: AtomicBool,
    task: AtomicWaker,
    /// The client's share, and whether it has a regular place; both change under the table's lock.
    pub(super) share: Arc<Share>,
    pub(super) is_spare: AtomicBool,
    /// Whether it has a spare place and waits for a regular one.
    pub(super) waits: AtomicBool,
}

impl Default for Connections {
    fn default() -> Self {
        Connections {
            since: Instant::now(),
            numbered: AtomicU64::new(0),
            table: Mutex::default(),
            heads: AtomicUsize::new(0),
            freed: Notify::new(),
        }
    }
}

impl Connections {
    /// Adds a connection of this client; `seat` gives it its place. The line tells what its peer has read; without one,
    /// written bytes count as read.
    pub(super) fn enter(
        &self,
        client: std::net::IpAddr,
        line: Option<Line>,
        seat: impl FnOnce(&mut Table, &Pulse),
    ) -> Arc<Pulse> {
        let number = self.numbered.fetch_add(1, Ordering::Relaxed);
        let mut table = self.table();
        let share = table.seats.share(client);
        let pulse = Arc::new(Pulse { number, line, share, ..Pulse::default() });
        pulse.active.store(self.now(), Ordering::Relaxed);
        seat(&mut table, &pulse);
        table.open.insert(number, Arc::clone(&pulse));
        pulse
    }

    /// Watches a connection for as long as it lives.
    pub fn watch<S>(self: &Arc<Self>, stream: S, pulse: Arc<Pulse>) -> Watched<S> {
        Watched { stream, pulse, connections: Arc::clone(self) }
    }

    /// Closes connections whose peer has read nothing for `patience`; returns how many.
    pub fn cut_stalled(&self, patience: Duration) -> usize {
        let latest = self.before(patience);
        let mut table = self.table();
        let is_stalled = |pulse: &Pulse| (1..=latest).contains(&pulse.stalled.load(Ordering::Relaxed));
        let stalled: Vec<_> = table.open.values().filter(|pulse| is_stalled(pulse)).cloned().collect();
        stalled.iter().for_each(|pulse| table.cut(pulse));
        stalled.len()
    }

    /// Closes connections whose request head began and did not end within `patience`; returns how many.
    pub fn cut_slow_heads(&self, patience: Duration) -> usize {
        let latest = self.before(patience);
        let mut table = self.table();
        let is_slow = |pulse: &Pulse| {
            let began = pulse.unasked.load(Ordering::Relaxed) > 0 && !pulse.is_busy() && !pulse.is_cut();
            began && pulse.unasked_since.load(Ordering::Relaxed) <= latest
        };
        let slow: Vec<_> = table.open.values().filter(|pulse| is_slow(pulse)).cloned().collect();
        slow.iter().for_each(|pulse| table.cut(pulse));
        slow.len()
    }

    /// Has connections that were idle for `patience` give their buffers back.
    pub fn shrink_idle(&self, patience: Duration) {
        let latest = self.before(patience);
        for pulse in self.table().open.values() {
            if pulse.may_rest.load(Ordering::Relaxed)
                && pulse.active.load(Ordering::Relaxed) <= latest
                && pulse.has_nothing_in_progress()
            {
                pulse.rests.store(true, Ordering::Release);
                pulse.task.wake();
            }
        }
    }

    /// Measures how far each peer lags behind. Regular measurements tell what each read in between.
    pub fn look(&self) {
        let now = self.now();
        self.table().open.values().for_each(|pulse| {
            pulse.behind(now);
        });
    }

    /// Closes the connection that lags behind farthest, of those with a write that waits; false when none lags behind
    /// for `patience`.
    pub fn cut_slowest(&self, patience: Duration) -> bool {
        let now = self.now();
        let mut table = self.table();
        let stalled =
            table.open.values().filter(|pulse| pulse.stalled.load(Ordering::Relaxed) > 0 && !pulse.is_cut());
        let slowest = stalled.map(|pulse| (pulse.behind(now), pulse)).max_by_key(|(behind, _)| *behind);
        let slowest = slowest.filter(|(behind, _)| *behind >= patience).map(|(_, pulse)| Arc::clone(pulse));
        slowest.inspect(|pulse| table.cut(pulse)).is_some()
    }

    /// The number of open connections.
    pub fn count(&self) -> usize {
        self.table().open.len()
    }

    /// Counts bytes of an unfinished head; closes connections when all heads together exceed their bound.
    fn count_head(&self, pulse: &Pulse, bytes: usize) {
        let before = pulse.unasked.fetch_add(bytes, Ordering::Relaxed);
        if before == 0 {
            pulse.unasked_since.store(self.now(), Ordering::Relaxed);
        }
        let unasked = before + bytes;
        let mut counted = unasked.saturating_sub(FREE_HEAD).min(bytes);
        if counted == 0 {
            return;
        }
        if before <= FREE_HEAD {
            counted += READING;
        }
        pulse.head.fetch_add(counted, Ordering::Relaxed);
        if self.heads.fetch_add(counted, Ordering::Relaxed) + counted > HEADS {
            self.cut_heads();
        }
    }

    /// Closes the connections with the longest unfinished heads of the clients with the most connections, until a
    /// quarter of the bound is free.
    fn cut_heads(&self) {
        let mut table = self.table();
        let mut heads: Vec<_> = (table.open.values())
            .filter(|pulse| pulse.head.load(Ordering::Relaxed) > 0 && !pulse.is_cut())
            .map(|pulse| ((pulse.share.all(), pulse.head.load(Ordering::Relaxed)), Arc::clone(pulse)))
            .collect();
        heads.sort_unstable_by_key(|(rank, _)| std::cmp::Reverse(*rank));
        let mut cut = 0;
        for (_, pulse) in heads {
            if self.heads.load(Ordering::Relaxed) <= HEADS / 4 * 3 {
                break;
            }
            self.forget_head(&pulse);
            table.cut(&pulse);
            cut += 1;
        }
        if cut > 0 {
            tracing::warn!(
                connections = cut,
                "closed connections: unfinished request heads exceed {HEADS} bytes"
            );
        }
    }

    pub(super) fn forget_head(&self, pulse: &Pulse) {
        pulse.unasked.store(0, Ordering::Relaxed);
        self.heads.fetch_sub(pulse.head.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    pub(super) fn before(&self, ago: Duration) -> u64 {
        self.now().saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Closes a connection, and frees its place at once.
    pub(super) fn cut(&mut self, pulse: &Pulse) {
        if !pulse.cut.swap(true, Ordering::AcqRel) {
            self.seats.leave(pulse);
        }
        pulse.task.wake();
    }
}

impl Pulse {
    /// How far the peer lags behind now.
    fn behind(&self, now: u64) -> Duration {
        let waits_since = Some(self.stalled.load(Ordering::Relaxed)).filter(|&since| since > 0);
        // Asked first: what is written before the next line then counts as taken for a moment, which harms nobody.
        let untaken = self.line.as_ref().map_or(0, Line::untaken);
        let taken = self.written.load(Ordering::Relaxed).saturating_sub(untaken);
        self.lag.lock().unwrap_or_else(PoisonError::into_inner).look(now, waits_since, taken)
    }

    /// Resolves when the connection is to be closed.
    pub async fn closes(&self) {
        std::future::poll_fn(|cx| {
            // The same task reads and writes, so one waker is enough.
            self.task.register(cx.waker());
            if self.is_cut() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Notes whether the last request was read to its end, so that the connection may rest.
    pub fn may_rest(&self, may: bool) {
        self.may_rest.store(may, Ordering::Relaxed);
    }

    /// Whether the connection is to give its buffers back now; true once each time.
    pub fn gives_buffers_back(&self) -> bool {
        let rests = self.rests.load(Ordering::Acquire) && self.rests.swap(false, Ordering::AcqRel);
        rests && self.has_nothing_in_progress() && self.may_rest.swap(false, Ordering::Relaxed)
    }

    fn has_nothing_in_progress(&self) -> bool {
        let is_read = self.unasked.load(Ordering::Relaxed) == 0;
        is_read && !self.is_busy() && self.stalled.load(Ordering::Relaxed) == 0
    }

    /// Whether unread bytes have arrived.
    pub(super) fn has_unread(&self) -> bool {
        self.line.as_ref().is_some_and(Line::has_unread)
    }

    /// Whether a request is in progress.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }
}

/// A connection that can be cut.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    pulse: Arc<Pulse>,
    connections: Arc<Connections>,
}

impl Watched<Socket> {
    /// Resolves when there may be something to read.
    pub async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }
}

impl<S> Watched<S> {
    /// Notes whether a write waits, and fails it once the connection is cut.
    fn wrote(&self, cx: &Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(done) = &written {
            let bytes = done.as_ref().map_or(0, |&bytes| bytes as u64);
            let before = self.pulse.written.load(Ordering::Relaxed);
            self.pulse.written.store(before + bytes, Ordering::Relaxed);
            if self.pulse.stalled.load(Ordering::Relaxed) != 0 {
                self.pulse.stalled.store(0, Ordering::Relaxed);
            }
            return written;
        }
        if self.is_cut(cx) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")));
        }
        if self.pulse.stalled.load(Ordering::Relaxed) == 0 {
            self.pulse.stalled.store(self.connections.now(), Ordering::Relaxed);
        }
        Poll::Pending
    }

    /// Looked at only where the stream itself would wait.
    fn is_cut(&self, cx: &Context<'_>) -> bool {
        // Registered before the look, so that a cut in between is not missed.
        self.pulse.task.register(cx.waker());
        self.pulse.is_cut()
    }

    /// Cuts the connection when it is called, if it was not cut before.
    pub fn cutter(&self) -> impl Fn() -> bool + Send + Sync + use<S> {
        let (pulse, connections) = (Arc::downgrade(&self.pulse), Arc::downgrade(&self.connections));
        move || {
            let (Some(pulse), Some(connections)) = (pulse.upgrade(), connections.upgrade()) else {
                return false;
            };
            let is_open = !pulse.is_cut();
            if is_open {
                connections.table().cut(&pulse);
            }
            is_open
        }
    }

    /// Marks requests on this connection.
    pub fn busy(&self) -> Marker {
        Marker::new(Arc::clone(&self.pulse), Arc::clone(&self.connections))
    }
}

impl<S> Drop for Watched<S> {
    fn drop(&mut self) {
        self.connections.forget_head(&self.pulse);
        let mut table = self.connections.table();
        table.cut(&self.pulse);
        table.open.remove(&self.pulse.number);
        drop(table);
        self.connections.freed.notify_waiters();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut part = buffer.take(READ);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut part);
        let bytes = part.filled().len();
        // SAFETY: `part` is the beginning of what is unfilled of `buffer`, and these bytes of it are filled.
        unsafe { buffer.assume_init(bytes) };
        buffer.advance(bytes);
        if bytes > 0 && !self.pulse.has_body.load(Ordering::Relaxed) {
            self.connections.count_head(&self.pulse, bytes);
        }
        if read.is_pending() && self.is_cut(cx) {
            let why = "the connection makes room for another";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn a_head_that_does_not_end_is_cut_and_no_idle_connection() {
        let connections = Arc::new(Connections::default());
        let (mut begun, slow) = tokio::io::duplex(64);
        let (_silent, idle) = tokio::io::duplex(64);
        let enter = || connections.enter("127.0.0.1".parse().unwrap(), None, |_, _| {});
        let (mut slow, idle) = (connections.watch(slow, enter()), connections.watch(idle, enter()));
        assert_eq!(connections.cut_slow_heads(Duration::ZERO), 0, "nobody has sent anything");
        begun.write_all(b"POST").await.unwrap();
        let mut read = [0; 4];
        tokio::io::AsyncReadExt::read_exact(&mut slow, &mut read).await.unwrap();
        assert_eq!(connections.cut_slow_heads(Duration::from_secs(60)), 0, "it has only begun");
        assert_eq!(connections.cut_slow_heads(Duration::ZERO), 1);
        assert!(slow.pulse.is_cut() && !idle.pulse.is_cut());
        assert_eq!(connections.cut_slow_heads(Duration::ZERO), 0, "once is enough");
    }

    #[tokio::test]
    async fn the_peer_that_takes_nothing_is_cut_and_no_other() {
        let connections = Arc::new(Connections::default());
        let (_deaf, stalled) = tokio::io::duplex(4);
        let (mut lively, fine) = tokio::io::duplex(4);
        let enter = || connections.enter("127.0.0.1".parse().unwrap(), None, |_, _| {});
        let (mut stalled, mut fine) = (connections.watch(stalled, enter()), connections.watch(fine, enter()));
        assert!(!connections.cut_slowest(Duration::ZERO), "nobody has written anything");
        let writing = tokio::spawn(async move { stalled.write_all(b"more than four").await });
        while connections.table().open.values().all(|pulse| pulse.stalled.load(Ordering::Relaxed) == 0) {
            tokio::task::yield_now().await;
        }
        assert!(!connections.cut_slowest(Duration::from_secs(600)), "it has only begun to wait");
        assert!(connections.cut_slowest(Duration::ZERO));
        assert_eq!(writing.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        fine.write_all(b"four").await.unwrap();
        let mut taken = [0; 4];
        tokio::io::AsyncReadExt::read_exact(&mut lively, &mut taken).await.unwrap();
        fine.write_all(b"more").await.unwrap();
        assert_eq!(connections.count(), 1, "a connection that is gone is forgotten");
    }
}
