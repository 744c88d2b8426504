//! Server-sent events: a session's stream as a response body, with comments while it is silent.

use super::Server;
use crate::budget::Charged;
use crate::exchange::Failure;
use crate::jsonrpc::{FLAT, Spliced};
use crate::session::{Directory, Item, Reader, Session};
use crate::shutdown::Shutdown;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::{Sleep, sleep};

/// How soon a client may come back after its stream was closed for age.
const RETRY: Duration = Duration::from_millis(500);

/// How long a client is expected that was told so, before a drain goes on without it.
const RETURN: Duration = Duration::from_secs(5);

/// What is sent while a stream is silent.
pub const KEEP_ALIVE: Charged = Charged::fixed(b": keep-alive\n\n");

/// The body of a stream.
#[derive(Debug)]
pub struct EventStream {
    reader: Reader,
    waiting: VecDeque<Charged>,
    keep_alive: Duration,
    silence: Pin<Box<Sleep>>,
    closes: Option<Pin<Box<Sleep>>>,
    /// Where its client may come back: how far the end of proxyrunner has come.
    shutdown: Option<Shutdown>,
    /// A keep-alive was handed over; being asked for more means that it was taken.
    comment_out: bool,
    names_events: bool,
    over: bool,
    _session_goes: Option<SessionGoes>,
    _unseated: Option<Unseated>,
}

impl EventStream {
    /// A stream that its client can resume. Those of 2025-11-25 begin with a priming event and are closed after
    /// `--sse-max-age`, since their clients come back (transports §Sending Messages 6).
    pub fn resumable(server: &Server, reader: Reader) -> Self {
        let primes = reader.session().version().has_priming_events();
        let mut waiting = VecDeque::new();
        if primes {
            let id = reader.stream().event_id(reader.began_after());
            waiting.push_back(Charged::own(format!("id: {id}\ndata: \n\n")));
        }
        let closes = primes.then(|| Box::pin(sleep(server.settings.sse_max_age)));
        let shutdown = Some(server.shutdown.clone());
        EventStream { closes, shutdown, ..Self::new(server, reader, waiting) }
    }

    /// The stream of a slow handshake. Before that is complete nobody can come back to its session, so it is neither
    /// primed nor closed for age; and when it is gone, the session is.
    pub fn handshake(server: &Server, reader: Reader) -> Self {
        let unseated = Unseated(Arc::clone(reader.session()));
        EventStream { _unseated: Some(unseated), ..Self::new(server, reader, VecDeque::new()) }
    }

    /// The stream that is a whole session of HTTP+SSE (2024-11-05): its first event says where to post, and the
    /// session goes with it.
    pub fn session(server: &Server, reader: Reader, post_to: &str) -> Self {
        let first = Charged::own(format!("event: endpoint\ndata: {post_to}\n\n"));
        let goes = SessionGoes(Arc::clone(&server.directory), Arc::clone(reader.session()));
        EventStream {
            names_events: false,
            _session_goes: Some(goes),
            ..Self::new(server, reader, VecDeque::from([first]))
        }
    }

    fn new(server: &Server, reader: Reader, waiting: VecDeque<Charged>) -> Self {
        let keep_alive = server.settings.keep_alive;
        EventStream {
            reader,
            waiting,
            keep_alive,
            silence: Box::pin(sleep(keep_alive)),
            closes: None,
            shutdown: None,
            comment_out: false,
            names_events: true,
            over: false,
            _session_goes: None,
            _unseated: None,
        }
    }

    /// The next bytes of the body.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Charged>> {
        if std::mem::take(&mut self.comment_out) {
            self.reader.session().note_alive(Instant::now());
        }
        if let Some(bytes) = self.waiting.pop_front() {
            return Poll::Ready(Some(bytes));
        }
        if self.over {
            return Poll::Ready(None);
        }
        match self.reader.poll_next(cx) {
            Poll::Ready(Some(item)) => {
                self.silence.as_mut().reset((Instant::now() + self.keep_alive).into());
                self.put(item);
                return Poll::Ready(self.waiting.pop_front());
            }
            Poll::Ready(None) => {
                self.over = true;
                // At the end its session is ended a moment before that is over.
                let elsewhere = self.shutdown.as_ref().is_some_and(Shutdown::is_refusing);
                return Poll::Ready(elsewhere.then(retry));
            }
            Poll::Pending => {}
        }
        if let Some(closes) = &mut self.closes
            && closes.as_mut().poll(cx).is_ready()
        {
            self.over = true;
            self.reader.session().expect_back(Instant::now() + RETURN);
            return Poll::Ready(Some(retry()));
        }
        ready!(self.silence.as_mut().poll(cx));
        self.silence.as_mut().reset((Instant::now() + self.keep_alive).into());
        self.comment_out = true;
        Poll::Ready(Some(KEEP_ALIVE))
    }

    fn put(&mut self, item: Item) {
        let Item { seq, frame } = item;
        let id = self.names_events.then(|| self.reader.stream().event_id(seq));
        encode(id.as_deref(), &frame, &mut self.waiting);
    }
}

/// Tells a client when to come back, here or, when proxyrunner ends, to whoever takes its place.
fn retry() -> Charged {
    Charged::own(format!("retry: {}\n\n", RETRY.as_millis()))
}

/// Ends a session when its only stream is gone.
#[derive(Debug)]
struct SessionGoes(Arc<Directory>, Arc<Session>);

impl Drop for SessionGoes {
    fn drop(&mut self) {
        self.0.end(&self.1, &Failure::SessionEnded);
    }
}

/// Ends a session whose handshake is not complete when its stream is gone.
#[derive(Debug)]
struct Unseated(Arc<Session>);

impl Drop for Unseated {
    fn drop(&mut self) {
        // Should it be seated at this very moment, it gives that up again.
        if self.0.seat().is_none() {
            self.0.end(&Failure::SessionEnded);
        }
    }
}

/// One event. A message stands on one line, so that it is one `data` field; the event's name is spelled out, since
/// clients exist that wait for it.
pub fn encode(id: Option<&str>, message: &Spliced, out: &mut VecDeque<Charged>) {
    let short = message.len() <= FLAT;
    let mut event = Vec::with_capacity(64 + if short { message.len() } else { 0 });
    event.extend_from_slice(b"event: message\n");
    if let Some(id) = id {
        event.extend_from_slice(b"id: ");
        event.extend_from_slice(id.as_bytes());
        event.extend_from_slice(b"\n");
    }
    event.extend_from_slice(b"data: ");
    if short {
        message.segments().iter().for_each(|segment| event.extend_from_slice(segment));
        event.extend_from_slice(b"\n\n");
        let first = message.segments().first().cloned().unwrap_or_default();
        out.push_back(first.derive(event));
    } else {
        out.push_back(Charged::own(event));
        out.extend(message.segments().iter().cloned());
        out.push_back(Charged::fixed(b"\n\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_short_messages_are_framed_alike() {
        for length in [10, FLAT, FLAT + 1] {
            let message = Spliced::from(Charged::own(vec![b'x'; length]));
            let mut out = VecDeque::new();
            encode(Some("3-1"), &message, &mut out);
            let whole: Vec<u8> = out.iter().flat_map(|part| part.to_vec()).collect();
            let expected = format!("event: message\nid: 3-1\ndata: {}\n\n", "x".repeat(length));
            assert_eq!(whole, expected.as_bytes());
        }
    }
}
