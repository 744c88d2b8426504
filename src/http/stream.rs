//! The body of every event stream: events as their source yields them, and comments while it is silent.

use super::Server;
use super::expiry::Expiry;
use super::live::{Live, LiveEvents, Next};
use super::replayed::Replayed;
use super::sse::KEEP_ALIVE;
use crate::budget::Charged;
use crate::session::Reader;
use crate::trace_context::Context as TraceContext;
use crate::upstream::Happening;
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::{Sleep, sleep};

/// The body of an event stream.
#[derive(Debug)]
pub struct EventStream {
    source: Source,
    /// Encoded events that are not written yet.
    encoded: VecDeque<Charged>,
    keep_alive: Duration,
    silence: Pin<Box<Sleep>>,
    /// Whether the last bytes were a keep-alive. The next poll then shows that the client read it.
    sent_keep_alive: bool,
}

/// The source of a stream's events.
#[derive(Debug)]
enum Source {
    /// A session's stream.
    Replayed(Replayed),
    /// A modern request.
    Live(LiveEvents),
}

impl EventStream {
    /// Returns a stream of a session that its client can resume, and has to after it `ends`.
    pub fn resumable(server: &Server, reader: Reader, ends: Option<Expiry>) -> Self {
        let mut encoded = VecDeque::new();
        let events = Replayed::resumable(server, reader, ends, &mut encoded);
        Self::new(server, Source::Replayed(events), encoded)
    }

    /// Returns the stream of a slow handshake.
    pub fn handshake(server: &Server, reader: Reader) -> Self {
        Self::new(server, Source::Replayed(Replayed::handshake(reader)), VecDeque::new())
    }

    /// Returns the stream that is an HTTP+SSE session, whose caller's credentials end then.
    pub fn session(server: &Server, reader: Reader, post_to: &str, ends: Option<Expiry>) -> Self {
        let mut encoded = VecDeque::new();
        let events = Replayed::session(server, reader, post_to, ends, &mut encoded);
        Self::new(server, Source::Replayed(events), encoded)
    }

    /// Returns the stream of a modern request that has yielded its first event.
    pub fn begun(
        server: &Server,
        context: Option<TraceContext>,
        live: Option<Live>,
        first: Happening,
    ) -> Self {
        let mut encoded = VecDeque::new();
        let events = LiveEvents::begun(&server.shutdown, context, live, first, &mut encoded);
        Self::new(server, Source::Live(events), encoded)
    }

    /// Returns the stream of a modern request that has yielded nothing yet, or has not begun.
    pub fn quiet(server: &Server, context: Option<TraceContext>, next: Next) -> Self {
        let events = LiveEvents::quiet(&server.shutdown, context, next);
        Self::new(server, Source::Live(events), VecDeque::new())
    }

    fn new(server: &Server, source: Source, encoded: VecDeque<Charged>) -> Self {
        let keep_alive = server.settings.keep_alive;
        let silence = Box::pin(sleep(keep_alive));
        EventStream { source, encoded, keep_alive, silence, sent_keep_alive: false }
    }

    /// Polls for the next bytes of the body.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Charged>> {
        if std::mem::take(&mut self.sent_keep_alive) {
            self.source.note_read();
        }
        loop {
            if let Some(bytes) = self.encoded.pop_front() {
                return Poll::Ready(Some(bytes));
            }
            match self.source.poll_next(cx, &mut self.encoded) {
                Poll::Ready(true) => self.end_silence(),
                Poll::Ready(false) => return Poll::Ready(None),
                Poll::Pending => {
                    ready!(self.silence.as_mut().poll(cx));
                    self.end_silence();
                    self.sent_keep_alive = true;
                    return Poll::Ready(Some(KEEP_ALIVE));
                }
            }
        }
    }

    fn end_silence(&mut self) {
        self.silence.as_mut().reset((Instant::now() + self.keep_alive).into());
    }
}

impl Source {
    fn note_read(&self) {
        match self {
            Source::Replayed(events) => events.note_read(),
            // No event is kept for a modern client that disconnects.
            Source::Live(_) => {}
        }
    }

    /// Encodes the next event; returns false when the stream is complete.
    fn poll_next(&mut self, cx: &mut Context<'_>, out: &mut VecDeque<Charged>) -> Poll<bool> {
        match self {
            Source::Replayed(events) => events.poll_next(cx, out),
            Source::Live(events) => events.poll_next(cx, out),
        }
    }
}
