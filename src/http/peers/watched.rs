//! The stream of a connection, which records the bytes read and written, and fails once the connection is cut.

use super::connection::Connection;
use super::connections::Connections;
use super::mark::Marker;
use super::socket::Socket;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Maximum number of bytes that one read returns, which bounds the buffer behind a request in progress.
const READ: usize = 16 * 1024;

/// A connection that can be cut.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    pub(super) connection: Arc<Connection>,
    connections: Arc<Connections>,
}

impl<S> Watched<S> {
    /// Watches a connection as long as it lives.
    pub fn new(stream: S, connection: Arc<Connection>, connections: &Arc<Connections>) -> Self {
        Watched { stream, connection, connections: Arc::clone(connections) }
    }
}

impl Watched<Socket> {
    /// Resolves when there may be something to read.
    pub async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    /// Copies the bytes that are read next, and returns their number; at the end, an error.
    pub async fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.stream.peek(bytes).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => Ok(length),
        }
    }

    /// Forgets bytes that were read before the first request.
    pub fn forget_head(&self) {
        self.connections.forget_head(&self.connection);
    }
}

impl<S> Watched<S> {
    /// Records whether a write waits, and fails it once the connection is cut.
    fn wrote(&self, cx: &Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(done) = &written {
            let bytes = done.as_ref().map_or(0, |&bytes| bytes as u64);
            let before = self.connection.written.load(Ordering::Relaxed);
            self.connection.written.store(before + bytes, Ordering::Relaxed);
            if self.connection.stalled.load(Ordering::Relaxed) != 0 {
                self.connection.stalled.store(0, Ordering::Relaxed);
            }
            return written;
        }
        if self.is_cut(cx) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer reads nothing")));
        }
        if self.connection.stalled.load(Ordering::Relaxed) == 0 {
            self.connection.stalled.store(self.connections.now(), Ordering::Relaxed);
        }
        Poll::Pending
    }

    /// Returns whether the connection is cut. Checked only when the stream itself would wait.
    fn is_cut(&self, cx: &Context<'_>) -> bool {
        // Registered before the check, so that a cut in between is not missed.
        self.connection.task.register(cx.waker());
        self.connection.is_cut()
    }

    /// Returns a function that cuts the connection, and whether it was open.
    pub fn cutter(&self) -> impl Fn() -> bool + Send + Sync + use<S> {
        let (connection, connections) = (Arc::downgrade(&self.connection), Arc::downgrade(&self.connections));
        move || {
            let (Some(connection), Some(connections)) = (connection.upgrade(), connections.upgrade()) else {
                return false;
            };
            let is_open = !connection.is_cut();
            if is_open {
                connections.table().cut(&connection);
            }
            is_open
        }
    }

    /// Returns the marker for requests on this connection.
    pub fn marker(&self) -> Marker {
        Marker::new(Arc::clone(&self.connection), Arc::clone(&self.connections))
    }
}

impl<S> Drop for Watched<S> {
    fn drop(&mut self) {
        self.connections.forget_head(&self.connection);
        let mut table = self.connections.table();
        table.cut(&self.connection);
        table.open.remove(&self.connection.number);
        drop(table);
        self.connections.freed.notify_waiters();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut part = buffer.take(READ);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut part);
        let bytes = part.filled().len();
        // SAFETY: `part` is the beginning of the unfilled part of `buffer`, and these bytes of it are filled.
        unsafe { buffer.assume_init(bytes) };
        buffer.advance(bytes);
        if bytes > 0 && !self.connection.has_body.load(Ordering::Relaxed) {
            self.connections.count_head(&self.connection, bytes);
        }
        if read.is_pending() && self.is_cut(cx) {
            let why = "another connection needs its place";
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
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn only_a_connection_with_an_unfinished_head_is_cut() {
        let connections = Arc::new(Connections::default());
        let (mut begun, slow) = tokio::io::duplex(64);
        let (_silent, idle) = tokio::io::duplex(64);
        let watch = |stream| {
            let entered = connections.enter("127.0.0.1".parse().unwrap(), None, |_, _| {});
            Watched::new(stream, entered, &connections)
        };
        let (mut slow, idle) = (watch(slow), watch(idle));
        assert_eq!(connections.cut_slow_heads(Duration::ZERO), 0, "no connection has sent anything");
        begun.write_all(b"POST").await.unwrap();
        let mut read = [0; 4];
        tokio::io::AsyncReadExt::read_exact(&mut slow, &mut read).await.unwrap();
        assert_eq!(connections.cut_slow_heads(Duration::from_secs(60)), 0, "it has only begun");
        assert_eq!(connections.cut_slow_heads(Duration::ZERO), 1);
        assert!(slow.connection.is_cut() && !idle.connection.is_cut());
        assert_eq!(connections.cut_slow_heads(Duration::ZERO), 0, "it was already cut");
    }

    #[tokio::test]
    async fn an_idle_connection_is_cut_unless_its_request_has_begun() {
        let connections = Arc::new(Connections::default());
        let (mut begun, slow) = tokio::io::duplex(64);
        let (_silent, idle) = tokio::io::duplex(64);
        let watch = |stream| {
            let entered = connections.enter("127.0.0.1".parse().unwrap(), None, |_, _| {});
            Watched::new(stream, entered, &connections)
        };
        let (mut slow, idle) = (watch(slow), watch(idle));
        begun.write_all(b"POST").await.unwrap();
        tokio::io::AsyncReadExt::read_exact(&mut slow, &mut [0; 4]).await.unwrap();
        connections.cut_idle(Duration::from_secs(60));
        assert!(!idle.connection.is_cut(), "it was opened just now");
        connections.cut_idle(Duration::ZERO);
        assert!(idle.connection.is_cut() && !slow.connection.is_cut());
    }

    #[tokio::test]
    async fn only_the_peer_that_reads_nothing_is_cut() {
        let connections = Arc::new(Connections::default());
        let (_deaf, stalled) = tokio::io::duplex(4);
        let (mut lively, fine) = tokio::io::duplex(4);
        let watch = |stream| {
            let entered = connections.enter("127.0.0.1".parse().unwrap(), None, |_, _| {});
            Watched::new(stream, entered, &connections)
        };
        let (mut stalled, mut fine) = (watch(stalled), watch(fine));
        assert!(!connections.cut_slowest(Duration::ZERO), "nothing was written");
        let writing = tokio::spawn(async move { stalled.write_all(b"more than four").await });
        while connections
            .table()
            .open
            .values()
            .all(|connection| connection.stalled.load(Ordering::Relaxed) == 0)
        {
            tokio::task::yield_now().await;
        }
        assert!(!connections.cut_slowest(Duration::from_secs(600)), "it has only begun to wait");
        assert!(connections.cut_slowest(Duration::ZERO));
        assert_eq!(writing.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        fine.write_all(b"four").await.unwrap();
        let mut taken = [0; 4];
        tokio::io::AsyncReadExt::read_exact(&mut lively, &mut taken).await.unwrap();
        fine.write_all(b"more").await.unwrap();
        assert_eq!(connections.count(), 1, "a closed connection no longer counts");
    }
}
