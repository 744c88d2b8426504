//! Which peers take what is written to them, and which don't: those that take nothing for `--write-timeout` are cut,
//! and when `--max-buffered` is used up, the one that has taken nothing for longest.

use crate::sync::AtomicWaker;
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    cut: AtomicBool,
    writer: AtomicWaker,
}

impl Default for Connections {
    fn default() -> Self {
        Connections { since: Instant::now(), numbered: AtomicU64::new(0), open: Mutex::default() }
    }
}

impl Connections {
    /// Watches a connection for as long as it lives.
    pub fn watch<S>(self: &Arc<Self>, stream: S) -> Watched<S> {
        let number = self.numbered.fetch_add(1, Ordering::Relaxed);
        let pulse = Arc::new(Pulse::default());
        self.open().insert(number, Arc::clone(&pulse));
        Watched { stream, number, pulse, connections: Arc::clone(self) }
    }

    /// Cuts those whose peer has taken nothing for `patience`; says how many.
    pub fn cut_stalled(&self, patience: Duration) -> usize {
        let latest = self.now().saturating_sub(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX));
        let open = self.open();
        let stalled =
            open.values().filter(|pulse| (1..=latest).contains(&pulse.stalled.load(Ordering::Relaxed)));
        stalled.map(|pulse| pulse.cut()).count()
    }

    /// Cuts the one whose peer has taken nothing for longest; false when all take what they get.
    pub fn cut_slowest(&self) -> bool {
        let open = self.open();
        let stalled =
            open.values().filter(|pulse| pulse.stalled.load(Ordering::Relaxed) > 0 && !pulse.is_cut());
        let slowest = stalled.min_by_key(|pulse| pulse.stalled.load(Ordering::Relaxed));
        slowest.map(|pulse| pulse.cut()).is_some()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Pulse>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pulse {
    fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.writer.wake();
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
        if written.is_ready() {
            if self.pulse.stalled.load(Ordering::Relaxed) != 0 {
                self.pulse.stalled.store(0, Ordering::Relaxed);
            }
            return written;
        }
        // Registered before the look, so that a cut in between is not missed.
        self.pulse.writer.register(cx.waker());
        if self.pulse.is_cut() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")));
        }
        if self.pulse.stalled.load(Ordering::Relaxed) == 0 {
            self.pulse.stalled.store(self.connections.now(), Ordering::Relaxed);
        }
        Poll::Pending
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
        Pin::new(&mut self.stream).poll_read(cx, buffer)
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
        let (mut stalled, mut fine) = (connections.watch(stalled), connections.watch(fine));
        assert!(!connections.cut_slowest(), "nobody has written anything");
        let writing = tokio::spawn(async move { stalled.write_all(b"more than four").await });
        while connections.open().values().all(|pulse| pulse.stalled.load(Ordering::Relaxed) == 0) {
            tokio::task::yield_now().await;
        }
        assert!(connections.cut_slowest());
        assert_eq!(writing.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        fine.write_all(b"four").await.unwrap();
        let mut taken = [0; 4];
        tokio::io::AsyncReadExt::read_exact(&mut lively, &mut taken).await.unwrap();
        fine.write_all(b"more").await.unwrap();
        assert_eq!(connections.open().len(), 1, "a connection that is gone is forgotten");
    }
}
