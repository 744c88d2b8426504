//! Counts the bytes of unfinished heads on a connection by HTTP/2. Its bytes belong to many streams, so only its frames
//! tell which of them are a head. Ends a connection whose frames bring nothing forward ([`Allowance`]).

use super::allowance::Allowance;
use super::connection::Connection;
use super::connections::Connections;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Length of the preface, which comes before all frames.
const PREFACE: usize = 24;
/// Length of a frame's head.
const HEAD: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const GOAWAY: u8 = 7;
/// The reason of a GOAWAY: the peer sends more than is reasonable (RFC 9113 §7).
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// A stream by HTTP/2 whose frames are counted.
pub struct Frames<S> {
    stream: S,
    received: Parser,
    sent: Parser,
    allowance: Allowance,
    is_flooded: bool,
    /// Called when the connection is ended for its frames.
    flooded: Option<Box<dyn FnOnce() + Send>>,
    connection: Arc<Connection>,
    connections: Arc<Connections>,
}

/// Follows the frames. It allocates nothing and keeps nothing of their payloads.
#[derive(Debug)]
struct Parser {
    /// Bytes until the next frame's head.
    left: usize,
    /// The part of a frame's head that has arrived.
    head: [u8; HEAD],
    length: usize,
    /// The current frame's type and flags.
    kind: u8,
    flags: u8,
    /// The latest stream with a head.
    stream: u32,
    /// Bytes of the head that has not ended, as long as there is one.
    unfinished: usize,
}

impl Parser {
    fn new(preface: usize) -> Self {
        Parser { left: preface, head: [0; HEAD], length: 0, kind: 0, flags: 0, stream: 0, unfinished: 0 }
    }

    /// Returns whether the next byte begins a frame.
    fn is_between(&self) -> bool {
        self.left == 0 && self.length == 0
    }

    fn is_of_head(&self) -> bool {
        matches!(self.kind, HEADERS | CONTINUATION)
    }

    /// Follows the bytes, and passes on the type, flags and length of each frame that begins. Afterwards, `unfinished` has
    /// the bytes of a head that has begun and not ended.
    fn follow(&mut self, mut bytes: &[u8], mut begins: impl FnMut(u8, u8, usize)) {
        loop {
            let taken = self.left.min(bytes.len());
            self.left -= taken;
            bytes = &bytes[taken..];
            if self.is_of_head() {
                self.unfinished += taken;
                if self.left == 0 && self.length == 0 && self.flags & END_HEADERS != 0 {
                    self.unfinished = 0;
                }
            }
            if bytes.is_empty() {
                return;
            }
            let taken = (HEAD - self.length).min(bytes.len());
            self.head[self.length..self.length + taken].copy_from_slice(&bytes[..taken]);
            self.length += taken;
            bytes = &bytes[taken..];
            if self.length < HEAD {
                return;
            }
            let [a, b, c, kind, flags, stream @ ..] = self.head;
            self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            (self.kind, self.flags, self.length) = (kind, flags, 0);
            if self.is_of_head() {
                self.unfinished += HEAD;
                self.stream = self.stream.max(u32::from_be_bytes(stream) & (u32::MAX >> 1));
            }
            begins(kind, flags, self.left);
        }
    }
}

impl<S> Frames<S> {
    /// Counts the frames of a stream; `flooded` is called when it is ended for them.
    pub fn new(
        stream: S,
        connection: Arc<Connection>,
        connections: Arc<Connections>,
        flooded: impl FnOnce() + Send + 'static,
    ) -> Self {
        Frames {
            stream,
            received: Parser::new(PREFACE),
            sent: Parser::new(0),
            allowance: Allowance::new(Instant::now()),
            is_flooded: false,
            flooded: Some(Box::new(flooded)),
            connection,
            connections,
        }
    }

    /// Follows bytes of the client.
    fn receive(&mut self, bytes: &[u8]) {
        let (before, allowance, is_flooded) =
            (self.received.unfinished, &mut self.allowance, &mut self.is_flooded);
        self.received.follow(bytes, |kind, flags, length| {
            *is_flooded |= !allowance.receive(kind, flags, length, Instant::now);
        });
        let after = self.received.unfinished;
        if after > before {
            self.connections.count_head(&self.connection, after - before);
        } else if after < before {
            self.connections.forget_head(&self.connection);
            if after > 0 {
                self.connections.count_head(&self.connection, after);
            }
        }
    }

    /// Follows bytes that are sent to the client.
    fn send(&mut self, bytes: &[u8]) {
        let allowance = &mut self.allowance;
        self.sent.follow(bytes, |kind, _, length| allowance.send(kind, length));
    }
}

impl<S: AsyncWrite + Unpin> Frames<S> {
    /// Tells the client why its connection ends, if no frame is half sent and nothing waits to be sent.
    #[cold]
    fn end(&mut self, cx: &mut Context<'_>) -> io::Error {
        let Some(flooded) = self.flooded.take() else { return io::ErrorKind::BrokenPipe.into() };
        flooded();
        if self.sent.is_between() {
            let [a, b, c, d] = self.received.stream.to_be_bytes();
            let [e, f, g, h] = ENHANCE_YOUR_CALM.to_be_bytes();
            let goaway = [0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, a, b, c, d, e, f, g, h];
            let _ = Pin::new(&mut self.stream).poll_write(cx, &goaway);
            let _ = Pin::new(&mut self.stream).poll_flush(cx);
        }
        io::Error::other("the client sent too many frames without progress")
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Frames<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.receive(&buffer.filled()[before..]);
        if self.is_flooded {
            buffer.set_filled(before);
            return Poll::Ready(Err(self.end(cx)));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(length)) = &written {
            self.send(&bytes[..*length]);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        let mut left = match &written {
            Poll::Ready(Ok(length)) => *length,
            _ => 0,
        };
        for slice in slices {
            let length = left.min(slice.len());
            self.send(&slice[..length]);
            left -= length;
        }
        written
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

    const DATA: u8 = 0;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [.., a, b, c] = length.to_be_bytes();
        [&[a, b, c, kind, flags, 0, 0, 0, 1][..], &vec![b'x'; length]].concat()
    }

    #[test]
    fn only_a_head_that_has_not_ended_counts() {
        let frames = [
            vec![b'p'; PREFACE],
            frame(4, 0, 6),
            frame(HEADERS, END_HEADERS, 100),
            frame(DATA, 0, 1000),
            frame(HEADERS, 0, 100),
            frame(CONTINUATION, 0, 50),
            frame(CONTINUATION, END_HEADERS, 0),
            frame(DATA, 1, 0),
        ];
        let after = [0, 0, 0, 0, HEAD + 100, 2 * HEAD + 150, 0, 0];
        for step in [1, 2, 7, 64, 10_000] {
            let mut parser = Parser::new(PREFACE);
            for (frame, after) in frames.iter().zip(after) {
                frame.chunks(step).for_each(|part| parser.follow(part, |_, _, _| {}));
                assert_eq!(parser.unfinished, after, "in steps of {step}");
            }
        }
    }

    #[test]
    fn a_frame_of_a_head_counts_as_it_arrives() {
        let mut parser = Parser::new(PREFACE);
        parser.follow(&[b'p'; PREFACE], |_, _, _| {});
        let head = frame(HEADERS, END_HEADERS, 100);
        parser.follow(&head[..HEAD + 60], |_, _, _| {});
        assert_eq!(parser.unfinished, HEAD + 60);
        parser.follow(&head[HEAD + 60..], |_, _, _| {});
        assert_eq!(parser.unfinished, 0);
    }

    #[test]
    fn frames_in_one_read_are_told_apart() {
        let mut parser = Parser::new(PREFACE);
        let all = [vec![b'p'; PREFACE], frame(HEADERS, END_HEADERS, 10), frame(HEADERS, 0, 20)].concat();
        parser.follow(&all, |_, _, _| {});
        assert_eq!(parser.unfinished, HEAD + 20);
    }
}
