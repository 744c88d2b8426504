//! The stream of a connection: in clear text, or by TLS.

use super::socket::Socket;
use super::watched::Watched;
use crate::tls;
use bytes::Bytes;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Bytes that are read to find out that an idle connection is in use again.
const FIRST: usize = 64;

/// The stream of a connection.
#[derive(Debug)]
pub enum Wire {
    /// In clear text.
    Clear(Watched<Socket>),
    /// By TLS. What is watched is the encrypted stream. Boxed, since it is much larger.
    Tls(Box<tls::Stream<Watched<Socket>>>),
}

impl Wire {
    /// Returns the watched stream.
    pub fn watched(&self) -> &Watched<Socket> {
        match self {
            Wire::Clear(stream) => stream,
            Wire::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Resolves when there may be something to read, with the bytes that had to be read to know.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn readable(&mut self) -> io::Result<Bytes> {
        match self {
            Wire::Clear(stream) => stream.readable().await.map(|()| Bytes::new()),
            Wire::Tls(stream) => {
                let mut first = [0; FIRST];
                match stream.read(&mut first).await? {
                    0 => Err(io::ErrorKind::UnexpectedEof.into()),
                    length => Ok(Bytes::copy_from_slice(&first[..length])),
                }
            }
        }
    }
}

impl AsyncRead for Wire {
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Wire::Clear(stream) => Pin::new(stream).poll_read(cx, buffer),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Wire::Clear(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Wire::Clear(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Wire::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        match self {
            Wire::Clear(stream) => stream.is_write_vectored(),
            Wire::Tls(stream) => stream.is_write_vectored(),
        }
    }

    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Wire::Clear(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Wire::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
