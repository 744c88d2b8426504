//! Responses: their bodies (empty, one message, or a stream of events), and the time at which their heads are sent:
//! with the status of an answer that arrives soon, else as the head of an event stream (docs/architecture.md#commit).

use super::Settings;
use super::cut::Cut;
use super::stream::EventStream;
use crate::budget::Charged;
use crate::jsonrpc::Spliced;
use crate::session::Session;
use crate::telemetry::Operation;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;

/// Maximum delay of a response's head while the child is silent.
const COMMIT_AFTER: Duration = Duration::from_secs(5);
/// The same delay for 2025-11-25, whose clients cannot resume a stream that is cut before its priming event.
const COMMIT_PRIMED_AFTER: Duration = Duration::from_millis(250);

/// A response body.
#[derive(Debug)]
pub enum Body {
    /// An empty body.
    Empty,
    /// One message in one segment.
    One(Charged),
    /// One message in several segments, which are written one after another and never copied together.
    Whole(Whole),
    /// A stream of events.
    Events(Box<EventStream>),
    /// The answer of a gateway's server.
    #[cfg(feature = "gateway")]
    Relayed(Box<super::relay::Relay>),
    /// A stream of a gateway's server, of which the caller may see a part.
    #[cfg(feature = "gateway")]
    Filtered(Box<super::filtered::Filtered>),
}

/// A message that is partly written.
#[derive(Debug)]
pub struct Whole {
    segments: std::vec::IntoIter<Charged>,
    remaining: usize,
}

impl Body {
    /// Returns the body that is one message.
    pub fn whole(message: Spliced) -> Self {
        match message.into_one() {
            Ok(only) if only.is_empty() => Body::Empty,
            Ok(only) => Body::One(only),
            Err(several) => Body::Whole(Whole { remaining: several.len(), segments: several.into_iter() }),
        }
    }
}

impl HttpBody for Body {
    type Data = Charged;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Charged>, Cut>>> {
        match &mut *self {
            Body::Empty => Poll::Ready(None),
            Body::One(only) => {
                let only = std::mem::take(only);
                *self = Body::Empty;
                Poll::Ready(Some(Ok(Frame::data(only))))
            }
            Body::Whole(whole) => Poll::Ready(whole.segments.next().map(|segment| {
                whole.remaining -= segment.len();
                Ok(Frame::data(segment))
            })),
            Body::Events(events) => {
                events.poll_next(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            #[cfg(feature = "gateway")]
            Body::Relayed(relay) => relay.poll_next(cx).map(|part| part.map(|part| part.map(Frame::data))),
            #[cfg(feature = "gateway")]
            Body::Filtered(stream) => stream.poll_next(cx).map(|part| part.map(|part| part.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::One(_) => false,
            Body::Whole(whole) => whole.remaining == 0,
            Body::Events(_) => false,
            #[cfg(feature = "gateway")]
            Body::Relayed(relay) => relay.is_end(),
            #[cfg(feature = "gateway")]
            Body::Filtered(stream) => stream.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Empty => SizeHint::with_exact(0),
            Body::One(only) => SizeHint::with_exact(only.len() as u64),
            Body::Whole(whole) => SizeHint::with_exact(whole.remaining as u64),
            Body::Events(_) => SizeHint::default(),
            #[cfg(feature = "gateway")]
            Body::Relayed(relay) => relay.size_hint(),
            #[cfg(feature = "gateway")]
            Body::Filtered(_) => SizeHint::default(),
        }
    }
}

/// Returns a response without a body.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    response
}

/// Returns a response that is one JSON-RPC message.
pub fn json(status: StatusCode, message: Spliced) -> Response<Body> {
    typed(status, "application/json", Body::whole(message))
}

/// Returns an event stream.
pub fn events(events: EventStream) -> Response<Body> {
    let body = Body::Events(Box::new(events));
    let mut response = typed(StatusCode::OK, "text/event-stream", body);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    // Proxies that buffer responses would hold events back.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// Returns a response of any content type.
pub fn typed(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Returns the time that a response's head waits for the first message of the child (`--sse-commit-after`).
pub fn delay(settings: &Settings) -> Duration {
    settings.sse_commit_after.unwrap_or(COMMIT_AFTER)
}

/// Returns the same time for a request of this session.
pub fn delay_in(settings: &Settings, session: &Session) -> Duration {
    let default = if session.version().has_priming_events() { COMMIT_PRIMED_AFTER } else { COMMIT_AFTER };
    settings.sse_commit_after.unwrap_or(default)
}

/// Returns the output of `work`, or `None` once `delay` has passed. Time in which the message waits for its turn does
/// not count: it may still be refused then, and a refusal needs a status.
pub async fn within<F: Future + Unpin>(
    operation: &Operation,
    delay: Duration,
    work: &mut F,
) -> Option<F::Output> {
    loop {
        if let Ok(output) = timeout(delay, &mut *work).await {
            return Some(output);
        }
        if !operation.is_waiting() {
            return None;
        }
        tokio::select! {
            biased;
            output = &mut *work => return Some(output),
            () = operation.wait_for_turn() => {}
        }
    }
}
