//! Requests whose head cannot be read are refused by hyper itself, with a status and nothing else. Here they get the body
//! that all other refusals have: what was wrong, and what to do.

use crate::jsonrpc::{codes, rewrite};
use crate::telemetry::counters;
use hyper::StatusCode;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The statuses with which hyper refuses a head.
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

/// A stream whose bare refusals are explained.
#[derive(Debug)]
pub struct Explained<S> {
    stream: S,
    /// What is written instead of a refusal, and how much of it was.
    instead: Option<(Vec<u8>, usize)>,
}

impl<S> Explained<S> {
    /// The same stream.
    pub fn new(stream: S) -> Self {
        Explained { stream, instead: None }
    }

    /// The stream itself.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

/// A refusal of hyper's with a body, if these bytes are one without.
fn explained(bytes: &[u8]) -> Option<Vec<u8>> {
    let (_, status, reason) = REFUSALS.iter().find(|(head, ..)| bytes.starts_with(head))?;
    let head = bytes.strip_suffix(b"\r\n")?;
    let at = head.windows(EMPTY.len()).position(|window| window == EMPTY)?;
    let body = rewrite::error(None, codes::INVALID_REQUEST, reason, None);
    counters::REJECTED_REQUESTS.increment();
    let fields = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    tracing::debug!(%status, "a request's head could not be read");
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
        // A refusal is a head alone, and so one slice.
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
