//! Streamable HTTP for 2025-03-26, 2025-06-18 and 2025-11-25: POST, GET and DELETE on one path.

use super::deviation::Deviation;
use super::guard::Form;
use super::origin::Origin;
use super::reject::{self, Rejection, method_not_allowed};
use super::response::{self, Body};
use super::sse::EventStream;
use super::{Server, batch, body, call, guard, modern, oneway};
use crate::exchange::Failure;
use crate::jsonrpc::{self, Kind, Spliced};
use crate::session::{LEGACY_VERSIONS, Presence, Principal, Session};
use crate::telemetry::scope::scoped_to_the_end;
use crate::telemetry::{Operation, Verdict, names};
use crate::upstream::{Incoming, Refusal};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::sync::Arc;
use std::time::Instant;

/// Names the session, in both directions.
const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// Bodies up to this length are read even if their session is unknown, since they may be an initialize.
const LONGEST_HANDSHAKE: u64 = 64 * 1024;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Serves one request to the endpoint.
///
/// # Errors
/// Whatever is told by HTTP status.
pub async fn serve(
    server: &Arc<Server>,
    origin: &Origin,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, Rejection> {
    match *request.method() {
        Method::POST => post(server, origin, request).await,
        // The modern revision knows neither.
        Method::GET | Method::DELETE if modern::speaks_modern(request.headers()) => {
            Ok(method_not_allowed("POST"))
        }
        Method::GET => get(server, request.headers()),
        Method::DELETE => delete(server, request.headers()),
        _ => Ok(method_not_allowed("GET, POST, DELETE, OPTIONS")),
    }
}

async fn post(
    server: &Arc<Server>,
    origin: &Origin,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, Rejection> {
    let (head, body) = request.into_parts();
    let headers = &head.headers;
    let principal = match admit(server, headers, &body) {
        Ok(principal) => principal,
        Err(rejection) => return Err(body::refuse(body, rejection)),
    };
    let mut account = match principal.client_or(|| origin.account.client()) {
        client if client == origin.account.client() => origin.account.clone(),
        client => origin.account.sibling(client),
    };
    if headers.contains_key(SESSION_ID)
        && let Ok(session) = session(server, headers, &principal)
    {
        account = session.account().clone();
    }
    let body = body::read(server, body, &account).await?;
    if jsonrpc::is_batch(body.bytes()) {
        let session = session(server, headers, &principal)?;
        return Box::pin(batch::respond(server, &session, body.into_frame(), origin, headers)).await;
    }
    let (frame, message) = body.into_message(headers)?;
    let incoming = origin.incoming(&server.settings, frame, message);
    let operation = Arc::clone(&incoming.operation);
    let responding = take(server, headers, principal, origin, incoming);
    let responded = scoped_to_the_end(operation.context(), responding).await;
    if let Err(rejection) = &responded {
        operation.end(&rejection.verdict());
    }
    responded
}

/// Checks a request's head and returns its principal. Short bodies are read before their session is checked, so that the
/// error can echo the request id.
fn admit(server: &Server, headers: &HeaderMap, body: &hyper::body::Incoming) -> Result<Principal, Rejection> {
    guard::sends_json(headers)?;
    guard::sends_plain(headers)?;
    let principal = guard::principal(&server.settings, headers)?;
    if !body::is_small(body) {
        expected(server, headers, &principal, body)?;
    }
    Ok(principal)
}

/// Returns the content types that the client accepts for an answer.
///
/// # Errors
/// 406 when the client does not accept JSON.
pub fn form(headers: &HeaderMap) -> Result<Form, Rejection> {
    let form = guard::answers_in(headers)?;
    if form == Form::Json {
        Deviation::Accept.tolerate(headers);
    }
    Ok(form)
}

/// Serves one message.
async fn take(
    server: &Arc<Server>,
    headers: &HeaderMap,
    principal: Principal,
    origin: &Origin,
    incoming: Incoming,
) -> Result<Response<Body>, Rejection> {
    // A session means nothing to it (2026-07-28, streamable-http §Earlier Streamable HTTP Revisions).
    if modern::is_modern(headers, &incoming) {
        return Box::pin(modern::respond(server, headers, principal, origin.peer.socket.ip(), incoming))
            .await;
    }
    if is_initialize(&incoming) {
        return Box::pin(initialize(server, headers, principal, origin, incoming)).await;
    }
    let session = session(server, headers, &principal).map_err(|rejection| rejection.of(incoming.id()))?;
    let _present = receive(server, &session).map_err(|rejection| rejection.of(incoming.id()))?;
    see(&session, &incoming.operation);
    if incoming.message.kind == Kind::Request {
        let form = form(headers).map_err(|rejection| rejection.of(incoming.id()))?;
        return call::respond(server, &session, incoming, form).await;
    }
    Box::pin(oneway::accept(server, &session, incoming)).await?;
    Ok(response::empty(StatusCode::ACCEPTED))
}

/// Says of a message whose it is.
pub fn see(session: &Session, operation: &Operation) {
    let version = session.version();
    operation.speaks(version.revision(), version.as_str());
    operation.describe(|attributes| attributes.text(names::SESSION, &session.id().to_string()));
}

/// What the headers alone say about a request of a legacy client: whether it can come to anything.
///
/// # Errors
/// As [`session`], and 503 for what would be a handshake, when no session is opened any more.
fn expected(
    server: &Server,
    headers: &HeaderMap,
    principal: &Principal,
    body: &hyper::body::Incoming,
) -> Result<(), Rejection> {
    if modern::speaks_modern(headers) {
        return Ok(());
    }
    if headers.contains_key(SESSION_ID) {
        // The body may be an initialize, which opens a new session.
        return match session(server, headers, principal) {
            Err(_) if body::is_at_most(body, LONGEST_HANDSHAKE) && !server.shutdown.is_refusing() => Ok(()),
            found => found.map(drop),
        };
    }
    if server.shutdown.is_refusing() { Err(Rejection::shutting_down()) } else { Ok(()) }
}

fn is_initialize(incoming: &Incoming) -> bool {
    incoming.message.kind == Kind::Request && incoming.method() == "initialize"
}

// ---- sessions

/// Checks the head of an `initialize` and returns the content types for its answer. An unknown session id is ignored:
/// clients that kept a stale one would never recover from a refusal.
fn opening(server: &Server, headers: &HeaderMap, principal: &Principal) -> Result<Form, Rejection> {
    match guard::agreed(headers, &SESSION_ID) {
        Ok(None) => {}
        Ok(Some(id)) if server.directory.find(id, principal).is_some() => {
            return Err(Rejection::invalid(
                "this session is initialized already; send initialize without Mcp-Session-Id to open another",
            ));
        }
        _ => Deviation::StaleSession.tolerate(headers),
    }
    form(headers)
}

async fn initialize(
    server: &Arc<Server>,
    headers: &HeaderMap,
    principal: Principal,
    origin: &Origin,
    incoming: Incoming,
) -> Result<Response<Body>, Rejection> {
    let form = opening(server, headers, &principal).map_err(|rejection| rejection.of(incoming.id()))?;
    let session = open(server, principal, origin, incoming.id())?;
    let id = HeaderValue::from_str(session.id().secret());
    let operation = Arc::clone(&incoming.operation);
    let work = handshake(Arc::clone(server), Arc::clone(&session), incoming);
    let mut response = call::respond_slowly(server, &session, &operation, form, work).await;
    // Headers go out before a slow server's answer is known; a session that fails then is not found later.
    if response.status() == StatusCode::OK
        && let Ok(id) = id
        && !session.is_ended()
    {
        response.headers_mut().insert(SESSION_ID, id);
    }
    Ok(response)
}

/// A new session that nobody can find yet.
///
/// # Errors
/// 503 when there are too many, or proxyrunner is ending.
pub fn open(
    server: &Server,
    principal: Principal,
    origin: &Origin,
    request_id: &[u8],
) -> Result<Arc<Session>, Rejection> {
    if server.shutdown.is_refusing() {
        return Err(Rejection::shutting_down().of(request_id));
    }
    let address = Some(origin.peer.socket.ip());
    let account = origin.account.sibling(principal.client_or(|| origin.account.client()));
    let opened = server.directory.open(principal, address, account, Instant::now());
    opened.map_err(|_| Rejection::busy("there are --max-sessions sessions already").of(request_id))
}

/// The answer to `initialize`; from then on the session can be found.
async fn handshake(
    server: Arc<Server>,
    session: Arc<Session>,
    incoming: Incoming,
) -> Result<Spliced, Rejection> {
    let _present = session.receive(Instant::now());
    let answered = welcome(&server, &session, incoming).await;
    if session.seat().is_some() {
        server.directory.list(&session);
        tracing::debug!(session = %session.id(), version = session.version().as_str(), "session opened");
    } else {
        session.end(&Failure::SessionEnded);
    }
    answered
}

/// What a client's `initialize` is answered. A session that waits for its child is not known to the drain, so the
/// end of the drain is told to it here. Where its stream is gone, nobody waits for that child any more.
///
/// # Errors
/// When there is no room, or proxyrunner has ended meanwhile.
pub async fn welcome(
    server: &Server,
    session: &Arc<Session>,
    incoming: Incoming,
) -> Result<Spliced, Rejection> {
    let id = incoming.id().to_vec();
    let operation = Arc::clone(&incoming.operation);
    let welcomed = tokio::select! {
        biased;
        answered = server.upstream.initialize(session, incoming) => answered,
        () = server.shutdown.over() => Err(Refusal::Busy(reject::SHUTTING_DOWN)),
        () = session.ended() => Err(Refusal::Failed(session.why_ended())),
    };
    match welcomed {
        Ok(message) => {
            see(session, &operation);
            operation.end(&Verdict::Success);
            Ok(message)
        }
        Err(refused) => reject::refusal(refused, &id, &operation),
    }
}

/// Takes a message for a session, which is not idle until the presence is dropped.
///
/// # Errors
/// 404 when the session has ended meanwhile.
pub fn receive(server: &Server, session: &Arc<Session>) -> Result<Presence, Rejection> {
    session.receive(Instant::now()).ok_or_else(|| unknown(server))
}

fn unknown(server: &Server) -> Rejection {
    // At the end of a drain none is left.
    if server.shutdown.is_over() { Rejection::shutting_down() } else { Rejection::unknown_session() }
}

/// The session that a request names.
///
/// # Errors
/// 400 without one, 404 when it is unknown, ended or another principal's, 400 when the protocol version is
/// not supported.
fn session(server: &Server, headers: &HeaderMap, principal: &Principal) -> Result<Arc<Session>, Rejection> {
    let Some(id) = guard::agreed(headers, &SESSION_ID)? else {
        return Err(Rejection::invalid(
            "Mcp-Session-Id is missing; send initialize first, then the id that its response names",
        ));
    };
    let session = server.directory.find(id, principal).ok_or_else(|| unknown(server))?;
    if session.is_old_sse() {
        return Err(Rejection::unknown_session());
    }
    match guard::agreed(headers, &PROTOCOL_VERSION)? {
        Some(version) if version != session.version().as_str() => {
            // Some clients send the version they requested or the newest they know. The negotiated one applies.
            if !LEGACY_VERSIONS.contains(&version) {
                return Err(Rejection::invalid(format!(
                    "MCP-Protocol-Version {version:?} is not supported; this session speaks {}",
                    session.version().as_str()
                )));
            }
            Deviation::OtherVersion.tolerate(headers);
            Ok(session)
        }
        _ => Ok(session),
    }
}

fn get(server: &Arc<Server>, headers: &HeaderMap) -> Result<Response<Body>, Rejection> {
    guard::takes_events(headers)?;
    let principal = guard::principal(&server.settings, headers)?;
    let session = session(server, headers, &principal)?;
    // Reading is no message: else reconnecting would put off an eviction for ever.
    session.note_alive(Instant::now());
    // Some event sources send an empty value before the first event.
    if let Some(last) = guard::single(headers, &LAST_EVENT_ID)?.filter(|last| !last.is_empty()) {
        let reader = session.resume(last).map_err(|_| {
            Rejection::invalid("Last-Event-ID names no event of this session that is still kept")
        })?;
        // Some clients come back for ever to a stream that ends without a result; 204 tells them that it is over.
        return Ok(if reader.is_over() {
            response::empty(StatusCode::NO_CONTENT)
        } else {
            response::events(EventStream::resumable(server, reader))
        });
    }
    if server.shutdown.is_refusing() {
        return Err(Rejection::shutting_down());
    }
    Ok(response::events(EventStream::resumable(server, session.open_standalone())))
}

fn delete(server: &Server, headers: &HeaderMap) -> Result<Response<Body>, Rejection> {
    let principal = guard::principal(&server.settings, headers)?;
    let session = session(server, headers, &principal)?;
    server.directory.end(&session, &Failure::SessionEnded);
    Ok(response::empty(StatusCode::NO_CONTENT))
}
