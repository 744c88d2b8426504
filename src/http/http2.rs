//! Serves one connection by HTTP/2. Each of its streams is a request like one on a connection by HTTP/1.1: it holds a
//! [place](super::peers), and a stream that its client resets is a client that has disconnected.

use super::cut::Cut;
use super::ending::Ending;
use super::marked::Marked;
use super::peers::{Frames, Mark, Marker, Persistence, Persistent, Rewound, StreamPlace, Wire};
use super::response::Body;
use super::routes::{self, Full};
use super::service::{STREAM_WINDOW, Service};
use super::{flow, paths, resets};
use crate::aside::Aside;
use crate::budget::Charged;
use flow::{Flow, Streams};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HOST, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use resets::{Resets, Stay};
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio_util::sync::CancellationToken;

/// Maximum bytes of all bodies of a connection that their client may send before they are read (RFC 9113 §6.9.1).
const WIDEST: u32 = i32::MAX as u32;
/// Maximum size of a request's headers, as for HTTP/1.1.
const HEADERS: u32 = 64 * 1024;
/// Bytes of one response that may wait to be sent, besides those that the body itself holds.
const UNSENT: usize = 64 * 1024;
/// Maximum length of one part of a message. The rest of the message stays in the body until its client accepts more.
const PART: usize = 16 * 1024;
/// Streams that were reset before they were accepted; more close the connection.
const PENDING_RESETS: usize = 20;
/// Streams that were reset for errors of their client; more close the connection.
const ERRORS: usize = 256;

impl Service {
    /// Serves the connection to its end.
    pub(super) async fn serve_http2(self: Arc<Self>, stream: Rewound<Wire>, ending: Ending) {
        let connection = Arc::clone(&self.connection);
        connection.multiplex();
        let watched = stream.stream.watched();
        watched.forget_head();
        let (marker, resets) = (watched.marker(), Resets::new(watched.cutter(), self.peer.socket.ip()));
        let client = self.peer.socket.ip();
        let flooded = move || resets::tell(client, "its client sent too many frames without progress");
        let frames = Frames::new(stream, connection, Arc::clone(self.places.connections()), flooded);
        let (streams, last) = (Streams::new(self.server.settings.write_timeout), CancellationToken::new());
        let most = u32::try_from(self.server.settings.max_streams).unwrap_or(u32::MAX);
        let requests =
            Requests { service: self, marker, resets, streams: streams.clone(), last: last.clone() };
        let mut http = http2::Builder::new(streams);
        http.timer(TokioTimer::new())
            .max_concurrent_streams(most)
            .initial_stream_window_size(STREAM_WINDOW)
            // Bodies that wait for memory keep none from others. Each request is charged for its own window.
            .initial_connection_window_size(most.saturating_mul(STREAM_WINDOW).min(WIDEST))
            .max_header_list_size(HEADERS)
            .max_send_buf_size(UNSENT)
            .max_pending_accept_reset_streams(PENDING_RESETS)
            .max_local_error_reset_streams(ERRORS);
        let service = service_fn(move |request| requests.begin(request));
        let mut http = pin!(http.serve_connection(TokioIo::new(frames), service));
        let mut ends = pin!(async {
            tokio::select! {
                () = ending.comes() => {}
                () = last.cancelled() => {}
            }
        });
        let mut ends = Aside::new(|cx| ends.as_mut().poll(cx));
        let mut is_ending = false;
        let ended = std::future::poll_fn(|cx| {
            if !is_ending && ends.poll(cx).is_ready() {
                is_ending = true;
                http.as_mut().graceful_shutdown();
            }
            http.as_mut().poll(cx)
        });
        if let Err(error) = ended.await {
            tracing::debug!(%error, "connection ended");
        }
    }
}

/// The requests of one connection.
struct Requests {
    service: Arc<Service>,
    marker: Marker,
    resets: Arc<Resets>,
    streams: Streams,
    /// Cancelled when the connection must end after its current streams.
    last: CancellationToken,
}

impl Requests {
    /// Begins a request. Hyper passes what this returns to [`Streams`] next.
    fn begin(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Flowing>, Infallible>> + Send + use<> {
        let request = with_host(request);
        let (service, flow, last) = (Arc::clone(&self.service), self.streams.begin(), self.last.clone());
        let stay = self.resets.begin();
        let is_further = self.service.connection.is_in_use();
        let mark = self.marker.mark(request.method() == Method::GET, true);
        let persistence = Persistence::of(request.method());
        let handling = Arc::clone(&service).answer_stream(request, mark, persistence.clone(), is_further);
        let handling = Persistent::new(persistence, handling);
        async move {
            let (mut response, place) = handling.await;
            // It would have closed a connection by HTTP/1.1 whose next request could not be found.
            response.headers_mut().remove(CONNECTION);
            if service.connection.is_spare() {
                last.cancel();
            }
            Ok(response.map(|body| Flowing::new(body, flow, stay, place)))
        }
    }
}

/// Gives a request the header that HTTP/1.1 has instead of `:authority`.
fn with_host(mut request: Request<Incoming>) -> Request<Incoming> {
    if !request.headers().contains_key(HOST)
        && let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(HOST, host);
    }
    request
}

type Streamed = (Response<Marked<Body>>, Option<StreamPlace>);

impl Service {
    /// Answers the request of a stream; a further one only if there is a place for it.
    async fn answer_stream(
        self: Arc<Self>,
        request: Request<Incoming>,
        mark: Mark,
        persistence: Persistence,
        is_further: bool,
    ) -> Streamed {
        let (head, body) = request.into_parts();
        let is_monitoring = paths::is_monitoring(&self.server.settings, head.uri.path());
        let place = match is_further && !is_monitoring {
            false => None,
            true => match self.places.take_stream(&self.connection) {
                Some(place) => Some(place),
                None => {
                    let response = routes::refuse(body, Full::Connections);
                    return (response.map(|body| Marked::new(body, mark, None, None)), None);
                }
            },
        };
        let Ok(response) = self.answer(head, body, mark, persistence).await;
        (response, place)
    }
}

/// The body of a response, in parts that its client accepts one after another.
struct Flowing {
    body: Marked<Body>,
    /// The rest of the last frame.
    rest: Charged,
    has_ended: bool,
    flow: Arc<Flow>,
    stay: Stay,
    _place: Option<StreamPlace>,
}

impl Flowing {
    fn new(body: Marked<Body>, flow: Arc<Flow>, stay: Stay, place: Option<StreamPlace>) -> Self {
        let has_ended = body.is_end_stream();
        let mut body = Flowing { body, rest: Charged::default(), has_ended, flow, stay, _place: place };
        body.note_end();
        body
    }

    fn take_part(&mut self) -> Charged {
        let length = self.rest.len().min(PART);
        let part = self.rest.slice(0..length);
        self.rest = self.rest.slice(length..self.rest.len());
        part
    }

    fn note_end(&mut self) {
        self.has_ended |= self.rest.is_empty() && self.body.is_end_stream();
        if self.has_ended {
            self.stay.complete();
        }
    }
}

impl HttpBody for Flowing {
    type Data = Charged;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Charged>, Cut>>> {
        // Hyper asks only once the client has accepted the last part.
        self.flow.set_free();
        if self.rest.is_empty() {
            let next = match self.has_ended {
                true => None,
                false => ready!(Pin::new(&mut self.body).poll_frame(cx)),
            };
            let Some(frame) = next else {
                self.has_ended = true;
                self.stay.complete();
                return Poll::Ready(None);
            };
            let frame = frame.inspect_err(|_| self.has_ended = true)?;
            self.rest = frame.into_data().unwrap_or_default();
        }
        let part = self.take_part();
        self.note_end();
        self.flow.set_blocked();
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}
