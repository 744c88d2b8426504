//! The body of an answer that a gateway, or a sibling of a session's owner, passes on: as it arrives, in parts of a bounded size. The connection to the
//! replica reads no further than the client does.

use super::cut::Cut;
use super::expiry::Expiry;
use crate::budget::{Account, Charge, Charged};
use crate::gateway::{InFlight, Outcome, Place, Received, Server, Waiting};
use crate::jsonrpc::codes;
use crate::shutdown::Shutdown;
use crate::telemetry::counters::{FORWARDED_REQUESTS, Forwarded};
use crate::telemetry::metrics::gateway::Ending;
use crate::telemetry::{Operation, Verdict};
use hyper::body::{Body as _, SizeHint};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::task::yield_now;
use tokio::time::{Sleep, sleep};

/// Counts a request at its end. Dropped before, it counts as left by its client.
#[derive(Debug)]
pub struct Counted {
    /// The server of a gateway; `None`: a sibling.
    server: Option<Arc<Server>>,
    is_counted: bool,
}

impl Counted {
    /// Begins a request to a server.
    pub fn new(server: &Arc<Server>) -> Self {
        Counted { server: Some(Arc::clone(server)), is_counted: false }
    }

    /// Begins a request to a sibling.
    pub fn at_sibling() -> Self {
        Counted { server: None, is_counted: false }
    }

    /// Counts the request, once.
    pub fn end(&mut self, ending: Ending) {
        if std::mem::replace(&mut self.is_counted, true) {
            return;
        }
        match &self.server {
            Some(server) => server.count(ending),
            None => FORWARDED_REQUESTS.increment(Forwarded::from(ending) as usize),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.end(Ending::Cancelled);
    }
}

/// What an answer belongs to.
#[derive(Debug)]
pub struct Passage {
    /// Counts the request.
    pub counted: Counted,
    /// The request at a gateway's replica.
    pub in_flight: Option<InFlight>,
    /// The client's wait, unless it has opened a stream.
    pub _waiting: Option<Waiting>,
    /// The place of the connection.
    pub _place: Place,
    /// The bytes of the connection.
    pub _charge: Charge,
    /// The account that parts are charged to.
    pub account: Account,
    /// The operation, which ends with the body.
    pub operation: Arc<Operation>,
    /// How both end if the body is complete.
    pub ends: (Ending, Verdict),
    /// Whether the client cannot resume the stream.
    pub cannot_resume: bool,
    /// The end of a stream that the caller has opened to listen.
    pub expiry: Option<Expiry>,
    /// Maximum time between two parts of an answer that is no event stream.
    pub patience: Duration,
    /// When the request was sent to the replica.
    pub sent: Instant,
}

impl Passage {
    /// Counts the time that the server has taken.
    fn note_server(&self) {
        self.operation.add_child_time(self.sent.elapsed().as_nanos() as u64);
    }
}

/// The body of an answer.
pub struct Relay {
    body: Received,
    /// Taken at the end.
    passage: Option<Passage>,
    is_stream: bool,
    /// Whether the last bytes have ended an event, or nothing was passed on yet.
    is_between_events: bool,
    passed: u64,
    late: Option<Pin<Box<Sleep>>>,
    /// Comes soon after the connection to the replica broke.
    broken: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    shutdown: Shutdown,
    /// The end of the gateway; `None` while nothing had to be waited for.
    over: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("passage", &self.passage).finish_non_exhaustive()
    }
}

impl Relay {
    /// Begins to pass on a body.
    pub fn new(body: Received, passage: Passage, is_stream: bool, shutdown: &Shutdown) -> Self {
        Relay {
            body,
            passage: Some(passage),
            is_stream,
            is_between_events: true,
            passed: 0,
            late: None,
            broken: None,
            shutdown: shutdown.clone(),
            over: None,
        }
    }

    /// Returns the next part.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Charged, Cut>>> {
        if self.passage.is_none() {
            return Poll::Ready(None);
        }
        if self.shutdown.is_over() {
            return Poll::Ready(self.stop_at_end());
        }
        let expiry = self.passage.as_mut().and_then(|passage| passage.expiry.as_mut());
        if expiry.is_some_and(|expiry| expiry.poll(cx).is_ready()) {
            return Poll::Ready(self.stop("the credentials have expired", Ending::Ok));
        }
        if let Some(broken) = &mut self.broken {
            ready!(broken.as_mut().poll(cx));
            let why = "the connection to the server broke before it answered; the request may have been carried out";
            return Poll::Ready(self.stop(why, Ending::Broken));
        }
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    if !bytes.is_empty() {
                        return Poll::Ready(self.pass(bytes.into()).map(Ok));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "the answer of a replica broke off");
                    if let Some(in_flight) =
                        self.passage.as_mut().and_then(|passage| passage.in_flight.as_mut())
                    {
                        in_flight.note(Outcome::Failed, Instant::now());
                    }
                    // What was passed before is written first, by other tasks if need be: an error would discard it.
                    self.broken = Some(Box::pin(yield_now()));
                    return self.poll_next(cx);
                }
                Poll::Ready(None) => {
                    self.complete();
                    return Poll::Ready(None);
                }
                Poll::Pending => return self.poll_waiting(cx),
            }
        }
    }

    fn pass(&mut self, bytes: Vec<u8>) -> Option<Charged> {
        self.late = None;
        self.passed += bytes.len() as u64;
        self.is_between_events = bytes.ends_with(b"\n\n") || bytes.ends_with(b"\r\n\r\n");
        Some(self.passage.as_ref()?.account.hold(bytes))
    }

    /// Waits for the end of the gateway. An answer that is no stream may not pause for too long either: its server hangs.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Charged, Cut>>> {
        let shutdown = &self.shutdown;
        let over = self.over.get_or_insert_with(|| {
            let shutdown = shutdown.clone();
            Box::pin(async move { shutdown.over().await })
        });
        if over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(self.stop_at_end());
        }
        let Some(passage) = self.passage.as_ref().filter(|_| !self.is_stream) else { return Poll::Pending };
        let patience = passage.patience;
        let late = self.late.get_or_insert_with(|| Box::pin(sleep(patience)));
        if late.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(self.stop("the server stopped in the middle of its answer", Ending::Timeout))
    }

    fn stop_at_end(&mut self) -> Option<Result<Charged, Cut>> {
        self.stop("the gateway is shutting down", Ending::Cancelled)
    }

    /// Ends an answer that is not complete, so that it does not look complete. A stream that the gateway itself ends, and
    /// that its client can resume, ends as its server would end it.
    fn stop(&mut self, why: &'static str, ending: Ending) -> Option<Result<Charged, Cut>> {
        let mut passage = self.passage.take()?;
        passage.note_server();
        passage.counted.end(ending);
        passage.operation.end(&Verdict::Error { code: codes::INTERNAL_ERROR, message: why.into() });
        let is_own = matches!(ending, Ending::Cancelled | Ending::Ok);
        let is_clean = self.is_stream && self.is_between_events && is_own && !passage.cannot_resume;
        if is_clean { None } else { Some(Err(Cut)) }
    }

    fn complete(&mut self) {
        let Some(mut passage) = self.passage.take() else { return };
        passage.note_server();
        let (ending, verdict) = &passage.ends;
        passage.counted.end(*ending);
        let passed = self.passed;
        passage.operation.note(|details| details.response_size = Some(passed));
        passage.operation.end(verdict);
    }

    /// Returns whether the body is complete.
    pub fn is_end(&self) -> bool {
        self.passage.is_none() || self.body.is_end_stream()
    }

    /// Returns the length that is left.
    pub fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Hyper does not ask for the end of a body whose length it knows.
impl Drop for Relay {
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            self.complete();
        } else if let Some(passage) = &self.passage {
            passage.note_server();
        }
    }
}
