//! The events of a session's stream. They are kept for replay, so that a client may disconnect and resume.

use super::Server;
use super::expiry::{Ended, Expiry};
use super::sse;
use crate::budget::Charged;
use crate::clock;
use crate::exchange::Failure;
use crate::session::{Directory, Reader, Session};
use crate::shutdown::Shutdown;
use std::collections::VecDeque;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::{Sleep, sleep};

/// Time that a drain waits for a client that was told to reconnect.
const RETURN: Duration = Duration::from_secs(5);

/// The events of one stream of a session.
#[derive(Debug)]
pub struct Replayed {
    reader: Reader,
    /// The time at which the stream is closed for its age.
    closes: Option<Pin<Box<Sleep>>>,
    /// The time at which its caller's credentials end.
    ends: Option<Expiry>,
    /// Set if the client can reconnect, which it is told when proxyrunner shuts down.
    shutdown: Option<Shutdown>,
    has_ids: bool,
    is_complete: bool,
    end_session: Option<EndSession>,
    _end_unseated: Option<EndUnseated>,
}

impl Replayed {
    /// Returns the events of a stream that its client can resume, and has to after it `ends`. Streams of 2025-11-25
    /// begin with a priming event and are closed after `--sse-max-age`, since their clients reconnect (transports
    /// §Sending Messages).
    pub fn resumable(
        server: &Server,
        reader: Reader,
        ends: Option<Expiry>,
        out: &mut VecDeque<Charged>,
    ) -> Self {
        let primes = reader.session().version().has_priming_events();
        if primes {
            out.push_back(sse::prime(&reader.stream().event_id(reader.began_after())));
        }
        let closes = primes.then(|| Box::pin(sleep(server.settings.sse_max_age)));
        let shutdown = Some(server.shutdown.clone());
        Replayed { closes, ends, shutdown, ..Self::new(reader) }
    }

    /// Returns the events of a slow handshake. No client can resume a session that is not initialized, so the stream
    /// is neither primed nor closed for age, and the session ends with it.
    pub fn handshake(reader: Reader) -> Self {
        let end = EndUnseated(Arc::clone(reader.session()));
        Replayed { _end_unseated: Some(end), ..Self::new(reader) }
    }

    /// Returns the events of an HTTP+SSE session (2024-11-05), which ends with its stream.
    pub fn session(
        server: &Server,
        reader: Reader,
        post_to: &str,
        ends: Option<Expiry>,
        out: &mut VecDeque<Charged>,
    ) -> Self {
        out.push_back(sse::endpoint(post_to));
        let end = EndSession(Arc::clone(&server.directory), Arc::clone(reader.session()));
        Replayed { has_ids: false, ends, end_session: Some(end), ..Self::new(reader) }
    }

    fn new(reader: Reader) -> Self {
        Replayed {
            reader,
            closes: None,
            ends: None,
            shutdown: None,
            has_ids: true,
            is_complete: false,
            end_session: None,
            _end_unseated: None,
        }
    }

    /// Records that the client has read all bytes that were sent.
    pub fn note_read(&self) {
        self.reader.session().note_alive(Instant::now());
    }

    /// Encodes the next event; returns false when the stream is complete.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, out: &mut VecDeque<Charged>) -> Poll<bool> {
        if self.is_complete {
            return Poll::Ready(false);
        }
        // First, since there may always be another event.
        if self.has_ended(cx) {
            return self.close(out);
        }
        match self.reader.poll_next(cx) {
            Poll::Ready(Some(item)) => {
                let id = self.has_ids.then(|| self.reader.stream().event_id(item.seq));
                sse::encode(id.as_deref(), &item.frame, out);
                return Poll::Ready(true);
            }
            Poll::Ready(None) => {
                self.is_complete = true;
                // A drain ends the sessions shortly before it is over.
                let reconnects = self.shutdown.as_ref().is_some_and(Shutdown::is_refusing);
                if reconnects {
                    out.push_back(sse::retry());
                }
                return Poll::Ready(reconnects);
            }
            Poll::Pending => {}
        }
        let Some(closes) = &mut self.closes else { return Poll::Pending };
        ready!(closes.as_mut().poll(cx));
        self.close(out)
    }

    /// Returns whether the caller's credentials have ended. A session of HTTP+SSE then ends, and so does its stream once
    /// all events are read: its client cannot resume it.
    fn has_ended(&mut self, cx: &mut Context<'_>) -> bool {
        while let Some(ends) = &mut self.ends
            && let Poll::Ready(ended) = ends.poll(cx)
        {
            let Some(end_session) = &self.end_session else { return true };
            let session = self.reader.session();
            let later = (ended == Ended::Expired).then(|| session.stays_until(clock::now())).flatten();
            match later {
                Some(later) => ends.prolong(later),
                None => {
                    end_session.end();
                    self.ends = None;
                }
            }
        }
        false
    }

    /// Completes the stream, and tells its client to resume it.
    fn close(&mut self, out: &mut VecDeque<Charged>) -> Poll<bool> {
        self.is_complete = true;
        self.reader.session().expect_back(Instant::now() + RETURN);
        out.push_back(sse::retry());
        Poll::Ready(true)
    }
}

/// Ends a session when its only stream is dropped.
#[derive(Debug)]
struct EndSession(Arc<Directory>, Arc<Session>);

impl EndSession {
    fn end(&self) {
        self.0.end(&self.1, &Failure::SessionEnded);
    }
}

impl Drop for EndSession {
    fn drop(&mut self) {
        self.end();
    }
}

/// Ends a session whose handshake is incomplete when its stream is dropped.
#[derive(Debug)]
struct EndUnseated(Arc<Session>);

impl Drop for EndUnseated {
    fn drop(&mut self) {
        // A session that is being seated at this moment gives up its seat again.
        if self.0.seat().is_none() {
            self.0.end(&Failure::SessionEnded);
        }
    }
}
