//! A peer's socket, and a [`Line`] that observes it without reading or writing: whether the peer hung up, even behind
//! unread bytes, and how many written bytes it has read.

use socket2::SockRef;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The socket of a peer.
#[derive(Debug)]
pub struct Socket {
    /// The reading half. It reads like the whole stream, and skips reads that are known to find nothing.
    read: OwnedReadHalf,
    line: Line,
}

/// A handle that observes a socket. Clones observe the same socket.
#[derive(Clone, Debug)]
pub struct Line(Arc<OwnedWriteHalf>);

impl Socket {
    /// Wraps a stream.
    pub fn new(stream: TcpStream) -> Self {
        let (read, write) = stream.into_split();
        Socket { read, line: Line(Arc::new(write)) }
    }

    /// Resolves when there may be something to read.
    pub async fn readable(&self) -> io::Result<()> {
        self.peek(&mut [0]).await.map(drop)
    }

    /// Copies the bytes that are read next, at least one, and returns their number; 0 at the end.
    pub async fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let stream = self.line.stream();
        loop {
            self.read.readable().await?;
            // Readiness may be spurious; only an attempt to read shows and clears it.
            let peek = || {
                // SAFETY: the system only writes initialized bytes.
                let room = unsafe { &mut *(&raw mut *bytes as *mut [std::mem::MaybeUninit<u8>]) };
                SockRef::from(stream).peek(room)
            };
            match stream.try_io(tokio::io::Interest::READABLE, peek) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                peeked => return peeked,
            }
        }
    }

    /// Returns a line to the socket.
    pub fn line(&self) -> Line {
        self.line.clone()
    }
}

impl Line {
    /// Resolves when the peer will send no more bytes: it closed the connection, reset it, or closed its sending
    /// half. Each counts as hanging up, as it does when HTTP reads the end itself.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub async fn hung_up(&self) {
        // This is the only interest that the end satisfies and unread bytes do not. Urgent bytes are not registered
        // for, so they do not satisfy it either.
        let _ = self.0.ready(tokio::io::Interest::PRIORITY).await;
    }

    /// Never resolves: on this system only reading shows the end, after all bytes before it.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub async fn hung_up(&self) {
        std::future::pending().await
    }

    /// Returns the number of written bytes that the peer has not acknowledged.
    #[cfg(target_os = "linux")]
    pub fn untaken(&self) -> u64 {
        use std::os::fd::AsRawFd;
        let mut bytes = 0;
        // SAFETY: the descriptor is open as long as this half lives, and the kernel writes one int.
        let asked = unsafe { outstanding(self.stream().as_raw_fd(), &raw mut bytes) };
        asked.ok().and_then(|_| u64::try_from(bytes).ok()).unwrap_or(0)
    }

    /// Returns 0: on this system written bytes count as read.
    #[cfg(not(target_os = "linux"))]
    pub fn untaken(&self) -> u64 {
        0
    }

    /// Returns whether unread bytes have arrived.
    #[cfg(target_os = "linux")]
    pub fn has_unread(&self) -> bool {
        use std::os::fd::AsRawFd;
        let mut bytes = 0;
        // SAFETY: the descriptor is open as long as this half lives, and the kernel writes one int.
        let asked = unsafe { arrived(self.stream().as_raw_fd(), &raw mut bytes) };
        asked.is_ok() && bytes > 0
    }

    /// Returns false: on this system arrived bytes count as read.
    #[cfg(not(target_os = "linux"))]
    pub fn has_unread(&self) -> bool {
        false
    }

    fn stream(&self) -> &TcpStream {
        (*self.0).as_ref()
    }
}

#[cfg(target_os = "linux")]
nix::ioctl_read_bad!(
    /// Bytes in the send queue that the peer has not acknowledged (`SIOCOUTQ`).
    outstanding,
    nix::libc::TIOCOUTQ,
    nix::libc::c_int
);

#[cfg(target_os = "linux")]
nix::ioctl_read_bad!(
    /// Unread bytes in the receive queue (`SIOCINQ`).
    arrived,
    nix::libc::FIONREAD,
    nix::libc::c_int
);

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let stream = self.line.stream();
        poll_until_written(stream, cx, || stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = self.line.stream();
        poll_until_written(stream, cx, || stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(self.line.stream()).shutdown(Shutdown::Write))
    }
}

/// Writes as soon as the socket accepts bytes.
fn poll_until_written(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    mut write: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        match write() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            written => return Poll::Ready(written),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::Waker;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, Socket) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (peer, Socket::new(listener.accept().await.unwrap().0))
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn the_end_is_detected_behind_unread_bytes() {
        let (mut peer, mut socket) = pair().await;
        let line = socket.line();
        let mut hung_up = pin!(line.hung_up());
        peer.write_all(b"ab").await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), b'a');
        let mut cx = Context::from_waker(Waker::noop());
        assert!(hung_up.as_mut().poll(&mut cx).is_pending());
        drop(peer);
        hung_up.await;
        assert_eq!(socket.read_u8().await.unwrap(), b'b', "bytes sent before are still there");
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn the_peers_progress_is_known_without_a_write() {
        let (mut peer, mut socket) = pair().await;
        let line = socket.line();
        let mut written = 0;
        let chunk = vec![b'x'; 64 * 1024];
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Ok(more)) = Pin::new(&mut socket).poll_write(&mut cx, &chunk) {
            written += more as u64;
        }
        let before = line.untaken();
        assert!(before > 0 && before < written, "{before} of {written}");
        let mut taken = vec![0; usize::try_from(written).unwrap()];
        peer.read_exact(&mut taken).await.unwrap();
        while line.untaken() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
