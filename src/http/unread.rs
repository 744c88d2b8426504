//! Bodies for hyper's own refusals. Hyper refuses a request whose head it cannot parse with a bare status; here the
//! refusal gets a JSON-RPC error, like all others.

use crate::jsonrpc::{codes, rewrite};
use crate::telemetry::counters;
use hyper::StatusCode;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The first bytes of each refusal of hyper, its status, and the explanation.
const REFUSALS: [(&[u8], StatusCode, &str); 3] = [
    (
        b"HTTP/1.1 431 ",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "the request's line and headers are too long or too many; send fewer headers, or drop large cookies",
    ),
    (b"HTTP/1.1 414 ", StatusCode::URI_TOO_LONG, "the request's target is too long"),
    (b"HTTP/1.1 400 ", StatusCode::BAD_REQUEST, "the request is not valid HTTP/1.1"),
];
const EMPTY: &[u8] = b"content-length: 0\r\n";

/// A stream that adds bodies to bare refusals.
#[derive(Debug)]
pub struct Explained<S> {
    stream: S,
    /// The refusal with its body, and the number of bytes written of it.
    instead: Option<(Vec<u8>, usize)>,
}

impl<S> Explained<S> {
    /// Wraps a stream.
    pub fn new(stream: S) -> Self {
        Explained { stream, instead: None }
    }

    /// Returns the wrapped stream.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

/// Returns the refusal with a body if these bytes are a bare refusal of hyper.
fn explained(bytes: &[u8]) -> Option<Vec<u8>> {
    let (_, status, reason) = REFUSALS.iter().find(|(head, ..)| bytes.starts_with(head))?;
    let head = bytes.strip_suffix(b"\r\n")?;
    let at = head.windows(EMPTY.len()).position(|window| window == EMPTY)?;
    let body = rewrite::error(None, codes::INVALID_REQUEST, reason, None);
    counters::REJECTED_REQUESTS.increment();
    let fields = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    tracing::debug!(%status, "refused a request whose head cannot be parsed");
    Some([&head[..at], fields.as_bytes(), &head[at + EMPTY.len()..], b"\r\n", &body].concat())
}

impl<S: AsyncRead + Unpin> AsyncRead for Explained<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Explained<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Explained { stream, instead } = &mut *self;
        if instead.is_none() {
            *instead = explained(bytes).map(|text| (text, 0));
        }
        let Some((text, written)) = instead else { return Pin::new(stream).poll_write(cx, bytes) };
        while *written < text.len() {
            match ready!(Pin::new(&mut *stream).poll_write(cx, &text[*written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => *written += taken,
            }
        }
        *instead = None;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A refusal consists of a head only, and so of one slice.
        let mut filled = slices.iter().filter(|slice| !slice.is_empty());
        match (filled.next(), filled.next()) {
            (Some(only), None) => self.poll_write(cx, only),
            _ => Pin::new(&mut self.stream).poll_write_vectored(cx, slices),
        }
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
