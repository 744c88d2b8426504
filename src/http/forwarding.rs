//! Requests of other replicas' sessions (`--forward-sessions`), which this replica passes on to the owner.
//!
//! The replica that receives a request checks and identifies its caller. All else is the owner's: policies, limits per
//! caller, the audit log, metrics of the message. What cannot be passed on is recorded here.

use super::expiry::Expiry;
use super::reject::Rejection;
use super::relay::{Counted, Passage, Relay};
use super::response::Body;
use super::source::Source;
use super::{Server, guard, modern};
use crate::budget::Charged;
use crate::client::Client;
use crate::era::input::ASKING;
use crate::gateway::{CONNECTION, PROOF, SESSION_ID, SiblingRequest, Siblings, Told, Waiting, of_request};
use crate::jsonrpc::{Kind, Message, codes, text};
use crate::shutdown::DRAINING;
use crate::telemetry::metrics::gateway::Ending;
use crate::telemetry::{Operation, Verdict};
use crate::trace_context::Trace;
use crate::upstream::Purpose;
use hyper::header::{
    CONNECTION as HOP, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time that a request waits for room.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// Returns the sibling that owns the session of a request; `None` if none does, or the request was passed on already.
pub fn owner(server: &Server, source: &Source, headers: &HeaderMap) -> Option<SocketAddr> {
    let siblings = server.siblings.as_ref().filter(|_| source.ticket.is_none())?;
    let id = guard::agreed(headers, &SESSION_ID).ok()??;
    siblings.owner(id, &source.identity.principal)
}

/// Returns the sibling that owns the session of a GET or DELETE, unless it is a session of this replica.
pub fn owner_of_stream(server: &Server, source: &Source, head: &Parts) -> Option<SocketAddr> {
    server.siblings.as_ref()?;
    let is_legacy =
        matches!(head.method, Method::GET | Method::DELETE) && !modern::has_modern_version(&head.headers);
    let id = guard::agreed(&head.headers, &SESSION_ID).ok()?.filter(|_| is_legacy)?;
    if server.directory.find(id, &source.identity.principal).is_some() {
        return None;
    }
    owner(server, source, &head.headers)
}

/// Returns whether a message may be a sibling's: one of its sessions, one that it has passed on, or a retry.
pub fn is_concerned(server: &Server, source: &Source, owner: Option<SocketAddr>, message: &Message) -> bool {
    let is_retry = || message.params.as_ref().is_some_and(|params| params.request_state.is_some());
    owner.is_some() || source.ticket.is_some() || (server.siblings.is_some() && is_retry())
}

/// Returns the sibling that a message belongs to: that of its session, else that in which the call waits that it goes on
/// with; and whether it is the latter.
pub fn owner_of_message(
    server: &Server,
    source: &Source,
    session: Option<SocketAddr>,
    headers: &HeaderMap,
    frame: &Charged,
    message: &Message,
) -> Option<(SocketAddr, bool)> {
    let siblings = server.siblings.as_ref().filter(|_| source.ticket.is_none())?;
    let method = message.method.as_ref().map(|method| text(frame, method)).unwrap_or_default();
    let params = message.params.as_ref();
    let is_modern =
        params.and_then(|params| params.meta.as_ref()).is_some_and(|meta| meta.era_version.is_some());
    if !is_modern && !modern::has_modern_version(headers) {
        // A client with a stale id opens another session, and does so here.
        return Some((session.filter(|_| method != "initialize")?, false));
    }
    let state = params?.request_state.as_ref().filter(|_| ASKING.contains(&&*method))?;
    let purpose = Purpose::of(&source.identity.principal, frame, message);
    Some((siblings.owner_of_state(&text(frame, state), &purpose)?, true))
}

/// A request that is passed on.
pub struct Forwarding<'a> {
    /// This replica.
    pub server: &'a Arc<Server>,
    /// Where the request came from.
    pub source: &'a Source,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// The sibling.
    pub owner: SocketAddr,
    /// Whether it goes on with a modern call, and has no session.
    pub is_retry: bool,
}

/// What is passed on.
struct Parcel {
    method: Method,
    body: Charged,
    trace: Trace,
    is_modern: bool,
    /// Whether it opens a stream to listen.
    listens: bool,
    waiting: Option<Waiting>,
}

impl Forwarding<'_> {
    /// Passes a message on. `None`: the owner of a modern call is gone.
    ///
    /// # Errors
    /// Every error that is answered with an HTTP status.
    pub async fn message(
        &self,
        frame: &Charged,
        message: &Message,
    ) -> Option<Result<Response<Body>, Rejection>> {
        let siblings = self.server.siblings.as_ref()?;
        let is_request = message.kind == Kind::Request;
        if is_request {
            // A client that leaves a session's request finds it at the owner again.
            self.source.persistence.end_with_connection();
        }
        let is_modern = self.is_retry;
        let parcel = Parcel {
            method: Method::POST,
            body: frame.clone(),
            trace: self.trace(),
            is_modern,
            listens: false,
            waiting: is_request.then(|| siblings.wait()),
        };
        match self.send(siblings, parcel).await {
            Ok(response) => Some(Ok(response)),
            Err(Ending::OwnerGone) if is_modern => None,
            Err(ending) => Some(Err(self.refused(ending, frame, Some(message)))),
        }
    }

    /// Passes a batch on.
    ///
    /// # Errors
    /// As [`Forwarding::message`].
    pub async fn batch(&self, frame: Charged) -> Result<Response<Body>, Rejection> {
        self.without_message(Method::POST, frame).await
    }

    /// Passes a GET, which opens a stream, or a DELETE, which ends the session, on.
    ///
    /// # Errors
    /// As [`Forwarding::message`].
    pub async fn stream(&self, method: Method) -> Result<Response<Body>, Rejection> {
        self.without_message(method, Charged::default()).await
    }

    /// Passes a request of a session on. `waits`: its client waits for the answer.
    ///
    /// # Errors
    /// How the request has ended without an answer.
    pub async fn attempt(
        &self,
        method: Method,
        body: Charged,
        waits: bool,
    ) -> Result<Response<Body>, Ending> {
        let siblings = self.server.siblings.as_ref().ok_or(Ending::OwnerGone)?;
        if waits {
            self.source.persistence.end_with_connection();
        }
        let listens = method == Method::GET;
        let waiting = waits.then(|| siblings.wait());
        let parcel = Parcel { method, body, trace: self.trace(), is_modern: false, listens, waiting };
        self.send(siblings, parcel).await
    }

    /// Returns and records the refusal of a request that could not be passed on.
    pub fn refused(&self, ending: Ending, frame: &Charged, message: Option<&Message>) -> Rejection {
        let refused = refusal(ending);
        let Some(message) = message else { return refused };
        let id = message.id.clone().filter(|_| message.kind == Kind::Request);
        let refused = refused.of(id.map_or(&[], |id| &frame[id]));
        // The owner records what it has got.
        let begun = self.source.incoming(&self.server.settings, frame.clone(), message.clone());
        if let Ok(incoming) = begun {
            incoming.operation.end(&refused.verdict());
        }
        refused
    }

    async fn without_message(&self, method: Method, body: Charged) -> Result<Response<Body>, Rejection> {
        let siblings = self.server.siblings.as_ref().ok_or_else(Rejection::unknown_session)?;
        let listens = method == Method::GET;
        let waiting = (!listens).then(|| siblings.wait());
        let parcel = Parcel { method, body, trace: self.trace(), is_modern: false, listens, waiting };
        self.send(siblings, parcel).await.map_err(refusal)
    }

    /// Returns the trace context for the owner, whose request is a part of this one.
    fn trace(&self) -> Trace {
        let trace = &self.source.trace;
        self.source.span.map_or_else(|| trace.clone(), |span| trace.at(span, trace.tracestate()))
    }

    async fn send(&self, siblings: &Siblings, parcel: Parcel) -> Result<Response<Body>, Ending> {
        let Parcel { method, body, trace, is_modern, listens, waiting } = parcel;
        let (source, principal) = (self.source, &self.source.identity.principal);
        let mut counted = Counted::at_sibling();
        let account = source.account_of_caller();
        let charging = account.charge_soon(CONNECTION, ROOM_PATIENCE);
        let Some(charge) = Box::pin(source.persistence.while_connected(charging)).await else {
            counted.end(Ending::Full);
            return Err(Ending::Full);
        };
        let session = match is_modern {
            true => None,
            false => guard::agreed(self.headers, &SESSION_ID).ok().flatten(),
        };
        let address = source.peer.socket.ip();
        let outgoing = SiblingRequest {
            client: principal.client_or(|| Client::at(Some(address))),
            method,
            headers: self.headers_on(&trace),
            session,
            body,
            told: Told { identity: Arc::clone(&source.identity), address },
        };
        let sent = Instant::now();
        let answer = Box::pin(siblings.forward(self.owner, outgoing)).await;
        let answer = answer.inspect_err(|ending| counted.end(*ending))?;
        source.leave_record();
        let (head, body) = answer.response.into_parts();
        let is_stream = head
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let passage = Passage {
            counted,
            in_flight: None,
            _waiting: waiting,
            _place: answer.place,
            _charge: charge,
            account,
            operation: Arc::<Operation>::default(),
            ends: (ending_of(head.status), Verdict::Success),
            cannot_resume: is_modern,
            expiry: listens.then(|| Expiry::of(&source.identity)).flatten(),
            patience: siblings.patience(),
            sent,
        };
        let relay = Relay::new(body, passage, is_stream, &self.server.shutdown);
        let mut response = Response::new(Body::Relayed(Box::new(relay)));
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        // That the sibling ends does not say that this replica does.
        for name in [HOP, TRANSFER_ENCODING, DATE, PROOF, HeaderName::from_static(DRAINING)] {
            response.headers_mut().remove(name);
        }
        Ok(response)
    }

    fn headers_on(&self, trace: &Trace) -> HeaderMap {
        let mut headers = of_request(self.headers);
        let parts = [
            (TRACEPARENT, trace.traceparent().map(ToString::to_string)),
            (TRACESTATE, trace.tracestate().map(str::to_owned)),
            (BAGGAGE, trace.baggage().map(str::to_owned)),
        ];
        for (name, value) in parts {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                headers.insert(name, value);
            }
        }
        headers
    }
}

fn ending_of(status: StatusCode) -> Ending {
    match status {
        status if status.is_server_error() => Ending::ServerError,
        status if status.is_client_error() => Ending::ClientError,
        _ => Ending::Ok,
    }
}

fn refusal(ending: Ending) -> Rejection {
    let failed =
        |status, message: &'static str| Rejection::new(status, codes::INTERNAL_ERROR, message).of_server();
    match ending {
        Ending::OwnerGone => Rejection::unknown_session(),
        Ending::Full => {
            Rejection::busy("--max-in-flight or --max-buffered is used up by requests in transit; try again")
        }
        Ending::Timeout => failed(
            StatusCode::GATEWAY_TIMEOUT,
            "the replica that owns the session has not answered within --request-timeout",
        ),
        Ending::Broken => failed(
            StatusCode::BAD_GATEWAY,
            "the replica that owns the session broke the connection before it answered; the request may have been carried out",
        ),
        _ => failed(
            StatusCode::BAD_GATEWAY,
            "the caller's claims are too long to be passed on to the session's replica",
        ),
    }
}
