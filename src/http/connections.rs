//! Which peers take what is written to them, and which have something to ask. Those that take nothing for
//! `--write-timeout` are cut; when `--max-buffered` is used up, the one that lags behind farthest; when there are
//! `--max-connections`, the one that has been idle longest makes room for the next.

use super::lag::Lag;
use super::socket::Line;
use super::visit::Visit;
use crate::sync::AtomicWaker;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// All connections that are open.
#[derive(Debug)]
pub struct Connections {
    since: Instant,
    numbered: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Pulse>>>,
}

/// What is known of one connection.
#[derive(Debug, Default)]
struct Pulse {
    /// Milliseconds after [`Connections::since`], plus one, at which a write began to wait; 0 while none does.
    stalled: AtomicU64,
    /// Requests that are being read, answered or streamed.
    busy: AtomicUsize,
    /// Milliseconds after [`Connections::since`], plus one, of the first byte of an incomplete request head; 0 for none.
    head: AtomicU64,
    /// Milliseconds after [`Connections::since`], plus one, of the last byte either way.
    active: AtomicU64,
    /// Bytes that the system took to be sent; only the connection itself adds to it.
    written: AtomicU64,
    lag: Mutex<Lag>,
    line: Option<Line>,
    cut: AtomicBool,
    task: AtomicWaker,
}

impl Default for Connections {
    fn default() -> Self {
        Connections { since: Instant::now(), numbered: AtomicU64::new(0), open: Mutex::default() }
    }
}

impl Connections {
    /// Watches a connection for as long as it lives. The line tells what its peer takes; without one, what the stream
    /// takes is taken.
    pub fn watch<S>(self: &Arc<Self>, stream: S, line: Option<Line>) -> Watched<S> {
        let number = self.numbered.fetch_add(1, Ordering::Relaxed);
        let pulse = Arc::new(Pulse { line, ..Pulse::default() });
        pulse.active.store(self.now(), Ordering::Relaxed);
        self.open().insert(number, Arc::clone(&pulse));
        Watched { stream, number, pulse, connections: Arc::clone(self) }
    }

    /// Cuts those whose peer has taken nothing for `patience`; says how many.
    pub fn cut_stalled(&self, patience: Duration) -> usize {
        let latest = self.before(patience);
        let open = self.open();
        let stalled =
            open.values().filter(|pulse| (1..=latest).contains(&pulse.stalled.load(Ordering::Relaxed)));
        stalled.map(|pulse| pulse.cut()).count()
    }

    /// Cuts connections whose request head is still incomplete after `patience`; returns how many.
    pub fn cut_late_heads(&self, patience: Duration) -> usize {
        let latest = self.before(patience);
        let open = self.open();
        let late = open.values().filter(|pulse| {
            let began = pulse.head.load(Ordering::Relaxed);
            (1..=latest).contains(&began) && pulse.busy.load(Ordering::Relaxed) == 0 && !pulse.is_cut()
        });
        late.map(|pulse| pulse.cut()).count()
    }

    /// Looks how far each peer lags behind. Who looks every now and then knows of each what it took in between.
    pub fn look(&self) {
        let now = self.now();
        self.open().values().for_each(|pulse| {
            pulse.behind(now);
        });
    }

    /// Cuts the one that lags behind farthest, of those with a write that waits; false when none lags behind for
    /// `patience`.
    pub fn cut_slowest(&self, patience: Duration) -> bool {
        let now = self.now();
        let open = self.open();
        let stalled =
            open.values().filter(|pulse| pulse.stalled.load(Ordering::Relaxed) > 0 && !pulse.is_cut());
        let slowest = stalled.map(|pulse| (pulse.behind(now), pulse)).max_by_key(|(behind, _)| *behind);
        slowest.filter(|(behind, _)| *behind >= patience).map(|(_, pulse)| pulse.cut()).is_some()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.open().len()
    }

    /// Cuts the one that has been without a request for longest; false when all have one, or had one within `grace`.
    pub fn cut_idlest(&self, grace: Duration) -> bool {
        let latest = self.before(grace);
        let open = self.open();
        let idle = open.values().filter(|pulse| {
            let quiet = pulse.active.load(Ordering::Relaxed) <= latest;
            quiet && pulse.busy.load(Ordering::Relaxed) == 0 && !pulse.is_cut()
        });
        let idlest = idle.min_by_key(|pulse| pulse.active.load(Ordering::Relaxed));
        idlest.map(|pulse| pulse.cut()).is_some()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn before(&self, ago: Duration) -> u64 {
        self.now().saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX))
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Pulse>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.task.wake();
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }
}

/// A connection that can be cut.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    number: u64,
    pulse: Arc<Pulse>,
    connections: Arc<Connections>,
}

impl<S> Watched<S> {
    /// Notes whether a write waits, and fails it once the connection is cut.
    fn wrote(&self, cx: &Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(done) = &written {
            let bytes = done.as_ref().map_or(0, |&bytes| bytes as u64);
            let before = self.pulse.written.load(Ordering::Relaxed);
            self.pulse.written.store(before + bytes, Ordering::Relaxed);
            self.pulse.active.store(self.connections.now(), Ordering::Relaxed);
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
        let pulse = Arc::downgrade(&self.pulse);
        move || {
            let pulse = pulse.upgrade().filter(|pulse| !pulse.is_cut());
            pulse.inspect(|pulse| pulse.cut()).is_some()
        }
    }

    /// Marks requests on this connection.
    pub fn busy(&self) -> Marker {
        Marker(Arc::clone(&self.pulse))
    }
}

/// Marks a connection as busy.
#[derive(Clone, Debug)]
pub struct Marker(Arc<Pulse>);

impl Marker {
    /// Busy until the mark is dropped.
    pub fn mark(&self) -> Mark {
        self.0.busy.fetch_add(1, Ordering::Relaxed);
        self.0.head.store(0, Ordering::Relaxed);
        Mark(Arc::clone(&self.0))
    }
}

/// One request on a connection.
#[derive(Debug)]
pub struct Mark(Arc<Pulse>);

impl Drop for Mark {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A response body that keeps its connection busy for as long as it lasts.
#[derive(Debug)]
pub struct Marked<B> {
    body: B,
    _mark: Mark,
    _visit: Option<Visit>,
}

impl<B> Marked<B> {
    /// The body, with the mark of its request, and how that is seen.
    pub fn new(body: B, mark: Mark, visit: Option<Visit>) -> Self {
        Marked { body, _mark: mark, _visit: visit }
    }
}

impl<B: HttpBody + Unpin> HttpBody for Marked<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<S> Drop for Watched<S> {
    fn drop(&mut self) {
        self.connections.open().remove(&self.number);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            let (now, pulse) = (self.connections.now(), &self.pulse);
            pulse.active.store(now, Ordering::Relaxed);
            // Bytes between two requests are the beginning of a head.
            if pulse.busy.load(Ordering::Relaxed) == 0 && pulse.head.load(Ordering::Relaxed) == 0 {
                pulse.head.store(now, Ordering::Relaxed);
            }
        } else if self.is_cut(cx) {
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
    async fn the_peer_that_takes_nothing_is_cut_and_no_other() {
        let connections = Arc::new(Connections::default());
        let (_deaf, stalled) = tokio::io::duplex(4);
        let (mut lively, fine) = tokio::io::duplex(4);
        let (mut stalled, mut fine) = (connections.watch(stalled, None), connections.watch(fine, None));
        assert!(!connections.cut_slowest(Duration::ZERO), "nobody has written anything");
        let writing = tokio::spawn(async move { stalled.write_all(b"more than four").await });
        while connections.open().values().all(|pulse| pulse.stalled.load(Ordering::Relaxed) == 0) {
            tokio::task::yield_now().await;
        }
        assert!(!connections.cut_slowest(Duration::from_secs(600)), "it has only begun to wait");
        assert!(connections.cut_slowest(Duration::ZERO));
        assert_eq!(writing.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        fine.write_all(b"four").await.unwrap();
        let mut taken = [0; 4];
        tokio::io::AsyncReadExt::read_exact(&mut lively, &mut taken).await.unwrap();
        fine.write_all(b"more").await.unwrap();
        assert_eq!(connections.open().len(), 1, "a connection that is gone is forgotten");
    }

    #[tokio::test]
    async fn a_head_that_does_not_end_is_cut_and_an_idle_connection_is_not() {
        let connections = Arc::new(Connections::default());
        let (mut slow_peer, slow) = tokio::io::duplex(4);
        let (mut served_peer, served) = tokio::io::duplex(4);
        let (_idle_peer, idle) = tokio::io::duplex(4);
        let (mut slow, mut served) = (connections.watch(slow, None), connections.watch(served, None));
        let _idle = connections.watch(idle, None);
        let mut bytes = [0; 2];
        for (peer, watched) in [(&mut slow_peer, &mut slow), (&mut served_peer, &mut served)] {
            peer.write_all(b"PO").await.unwrap();
            tokio::io::AsyncReadExt::read_exact(watched, &mut bytes).await.unwrap();
        }
        drop(served.busy().mark());
        assert_eq!(connections.cut_late_heads(Duration::from_secs(600)), 0, "it has only begun");
        assert_eq!(connections.cut_late_heads(Duration::ZERO), 1, "one is served, and one has sent nothing");
        assert_eq!(
            tokio::io::AsyncReadExt::read(&mut slow, &mut bytes).await.unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
    }

    #[tokio::test]
    async fn the_idlest_makes_room_and_a_busy_one_never() {
        let connections = Arc::new(Connections::default());
        let (_busy_peer, busy) = tokio::io::duplex(4);
        let (_idle_peer, idle) = tokio::io::duplex(4);
        let (mut busy, mut idle) = (connections.watch(busy, None), connections.watch(idle, None));
        let mark = busy.busy().mark();
        assert!(connections.cut_idlest(Duration::ZERO));
        assert!(!connections.cut_idlest(Duration::ZERO), "the other is busy");
        let mut byte = [0];
        assert_eq!(
            tokio::io::AsyncReadExt::read(&mut idle, &mut byte).await.unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
        drop(mark);
        assert!(connections.cut_idlest(Duration::ZERO));
        assert!(tokio::io::AsyncReadExt::read(&mut busy, &mut byte).await.is_err());
    }
}
