//! The sessions of legacy clients: opened by `initialize`, named by `Mcp-Session-Id`, streamed by GET, ended by
//! DELETE.

use super::Server;
use super::deviation::Deviation;
use super::expiry::Expiry;
use super::guard::{self, Form};
use super::outcome;
use super::reject::{self, Rejection};
use super::response::{self, Body};
use super::source::Source;
use super::stream::EventStream;
#[cfg(feature = "gateway")]
use super::{recorded, siblings};
use crate::exchange::Failure;
use crate::identity::Principal;
use crate::jsonrpc::Spliced;
use crate::session::{LEGACY_VERSIONS, Presence, Session};
use crate::tasks;
use crate::telemetry::scope::scoped;
use crate::telemetry::{Operation, names};
use crate::upstream::{Incoming, Refusal};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use std::sync::Arc;
use std::time::Instant;

/// The header that names the session, in both directions.
pub const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The session that a request names, or the reason why it gets none; see [`find`].
pub type Found = Result<Arc<Session>, Rejection>;

/// Returns the session that a request names.
///
/// # Errors
/// 400 when the request names no session; 404 when the session is unknown, has ended or belongs to another principal;
/// 400 when the protocol version is not supported.
pub fn find(server: &Server, headers: &HeaderMap, principal: &Principal) -> Found {
    find_named(server, headers, principal).unwrap_or_else(|| {
        Err(Rejection::invalid(
            "Mcp-Session-Id is missing; send initialize first, then repeat the id from its response",
        ))
    })
}

/// Returns the session that a request names, or `None` if it names none.
pub fn find_named(server: &Server, headers: &HeaderMap, principal: &Principal) -> Option<Found> {
    let id = guard::agreed(headers, &SESSION_ID).transpose()?;
    Some(id.and_then(|id| find_by_id(server, headers, principal, id)))
}

fn find_by_id(server: &Server, headers: &HeaderMap, principal: &Principal, id: &str) -> Found {
    let session = server.directory.find(id, principal).ok_or_else(|| unknown(server))?;
    if session.is_old_sse() {
        return Err(Rejection::unknown_session());
    }
    match guard::agreed(headers, &PROTOCOL_VERSION)? {
        Some(version) if version != session.version().as_str() => {
            // Some clients send the version that they requested or the newest that they know. The negotiated one
            // applies.
            if !LEGACY_VERSIONS.contains(&version) {
                return Err(Rejection::invalid(format!(
                    "MCP-Protocol-Version {version:?} is not supported; this session uses {}",
                    session.version().as_str()
                )));
            }
            Deviation::OtherVersion.tolerate(headers);
            Ok(session)
        }
        _ => Ok(session),
    }
}

/// Marks a session as active until the presence is dropped.
///
/// # Errors
/// 404 when the session has ended meanwhile.
pub fn receive(server: &Server, session: &Arc<Session>) -> Result<Presence, Rejection> {
    session.receive(Instant::now()).ok_or_else(|| unknown(server))
}

fn unknown(server: &Server) -> Rejection {
    // The end of a drain ends all sessions.
    if server.shutdown.is_over() { Rejection::shutting_down() } else { Rejection::unknown_session() }
}

/// Records a message's session and protocol revision.
pub fn describe(session: &Session, operation: &Operation) {
    let version = session.version();
    operation.set_revision(version.revision(), version.as_str());
    operation.describe(|attributes| attributes.text(names::SESSION, &session.id().to_string()));
    operation.note(|details| {
        details.session = Some(session.id().to_string().into());
        details.client = session.client_info();
    });
}

/// Answers a GET: opens the session's standalone stream, or resumes a stream after `Last-Event-ID`. Either ends with
/// the caller's credentials.
///
/// # Errors
/// As [`find`]; 400 when the event is no longer kept, 406 when the client does not accept event streams.
pub fn stream(server: &Server, source: &Source, headers: &HeaderMap) -> Result<Response<Body>, Rejection> {
    guard::takes_events(headers)?;
    let session = find(server, headers, &source.identity.principal)?;
    let identity = &source.identity;
    let ends = Expiry::of(identity);
    // A GET does not count as a message, else a client could postpone eviction forever by reconnecting.
    session.note_alive(Instant::now());
    // Some event sources send an empty value before the first event.
    if let Some(last) = guard::single(headers, &LAST_EVENT_ID)?.filter(|last| !last.is_empty()) {
        let reader = match session.resume(last) {
            // The former owner's streams are gone with it.
            #[cfg(feature = "gateway")]
            Err(_) if session.is_taken_over() => session.open_standalone(),
            resumed => resumed.map_err(|_| {
                Rejection::invalid("Last-Event-ID is not an event of this session that is still kept")
            })?,
        };
        // Some clients keep reconnecting to a stream that ends without a result. 204 tells them that it is complete.
        return Ok(if reader.is_over() {
            response::empty(StatusCode::NO_CONTENT)
        } else {
            response::events(EventStream::resumable(server, reader, ends))
        });
    }
    if server.shutdown.is_refusing() {
        return Err(Rejection::shutting_down());
    }
    #[cfg(feature = "gateway")]
    siblings::check_leaving(server, source, true)?;
    Ok(response::events(EventStream::resumable(server, session.open_standalone(), ends)))
}

/// Answers a DELETE: ends the session.
///
/// # Errors
/// As [`find`].
pub fn delete(
    server: &Server,
    principal: &Principal,
    headers: &HeaderMap,
) -> Result<Response<Body>, Rejection> {
    let session = find(server, headers, principal)?;
    server.directory.end(&session, &Failure::SessionEnded);
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// Answers an `initialize`, which opens a session.
///
/// # Errors
/// 400 when the request names a session that is initialized already, 406 when the client does not accept JSON, and as
/// [`open`].
pub async fn initialize(
    server: &Arc<Server>,
    headers: &HeaderMap,
    source: &Source,
    incoming: Incoming,
) -> Result<Response<Body>, Rejection> {
    let form = check_initialize(server, headers, &source.identity.principal)
        .map_err(|rejection| rejection.of(incoming.id()))?;
    let session = open(server, source, incoming.id())?;
    let id = HeaderValue::from_str(session.id().secret());
    let operation = Arc::clone(&incoming.operation);
    let work = handshake(Arc::clone(server), Arc::clone(&session), incoming);
    let mut response = respond_slowly(server, &session, &operation, form, work).await;
    // The head of a stream is sent before the handshake succeeds. The id of a session that fails then is not found
    // later.
    if response.status() == StatusCode::OK
        && let Ok(id) = id
        && !session.is_ended()
    {
        response.headers_mut().insert(SESSION_ID, id);
        #[cfg(feature = "gateway")]
        if recorded::shelf(server).is_some_and(|shelf| shelf.find(session.id().secret()).is_some()) {
            response.headers_mut().insert(recorded::RESUMES, HeaderValue::from_static("1"));
        }
    }
    Ok(response)
}

/// Checks the head of an `initialize` and returns the content types for its answer. An unknown session id is ignored:
/// a client with a stale id would never recover from a refusal.
fn check_initialize(server: &Server, headers: &HeaderMap, principal: &Principal) -> Result<Form, Rejection> {
    match guard::agreed(headers, &SESSION_ID) {
        Ok(None) => {}
        Ok(Some(id)) if server.directory.find(id, principal).is_some() => {
            return Err(Rejection::invalid(
                "the session is already initialized; send initialize without Mcp-Session-Id to open another",
            ));
        }
        _ => Deviation::StaleSession.tolerate(headers),
    }
    guard::response_form(headers)
}

/// Opens a session that is not listed in the directory yet.
///
/// # Errors
/// 503 when there are `--max-sessions` sessions, or proxyrunner is shutting down.
pub fn open(server: &Server, source: &Source, request_id: &[u8]) -> Result<Arc<Session>, Rejection> {
    if server.shutdown.is_refusing() {
        return Err(Rejection::shutting_down().of(request_id));
    }
    let address = Some(source.peer.socket.ip());
    let principal = source.identity.principal.clone();
    let account = source.account.sibling(principal.client_or(|| source.account.client()));
    let full = || Rejection::busy("--max-sessions sessions are open").of(request_id);
    #[cfg(feature = "gateway")]
    if let Some(siblings) = &server.siblings {
        let id = siblings.mint(&principal).ok_or_else(full)?;
        return server.directory.open_as(id, principal, address, account, Instant::now()).map_err(|_| full());
    }
    server.directory.open(principal, address, account, Instant::now()).map_err(|_| full())
}

/// Returns the answer to `initialize`, and lists the session in the directory if the handshake succeeded.
async fn handshake(
    server: Arc<Server>,
    session: Arc<Session>,
    incoming: Incoming,
) -> Result<Spliced, Rejection> {
    let _present = session.receive(Instant::now());
    #[cfg(feature = "gateway")]
    let frame = incoming.frame.clone();
    let answered = welcome(&server, &session, incoming).await;
    if session.seat().is_some() {
        #[cfg(feature = "gateway")]
        if let Ok(answer) = &answered {
            Box::pin(recorded::opened(&server, &session, frame, answer)).await;
        }
        server.directory.list(&session);
        tracing::debug!(session = %session.id(), version = session.version().as_str(), "session opened");
    } else {
        session.end(&Failure::SessionEnded);
    }
    answered
}

/// Returns the answer to `initialize`. The drain does not know a session that waits for its child, so this wait ends
/// with the drain; and with the session, if its client disconnects.
///
/// # Errors
/// 503 when a limit is reached, or proxyrunner is shutting down.
pub async fn welcome(
    server: &Server,
    session: &Arc<Session>,
    incoming: Incoming,
) -> Result<Spliced, Rejection> {
    let id = incoming.id().to_vec();
    let operation = Arc::clone(&incoming.operation);
    operation.note(|details| {
        if let Some(info) = &details.client {
            session.set_client_info(Arc::clone(info));
        }
    });
    let welcomed = tokio::select! {
        biased;
        answered = server.upstream.initialize(session, incoming) => answered,
        () = server.shutdown.over() => Err(Refusal::Busy(reject::SHUTTING_DOWN)),
        () = session.ended() => Err(Refusal::Failed(session.why_ended())),
    };
    if welcomed.is_ok() {
        describe(session, &operation);
    }
    outcome::settle(&operation, &id, welcomed.map_err(Into::into))
}

/// Answers with the message that `work` returns: as JSON if it returns soon, else on a stream.
async fn respond_slowly<F>(
    server: &Server,
    session: &Arc<Session>,
    operation: &Operation,
    form: Form,
    work: F,
) -> Response<Body>
where
    F: Future<Output = Result<Spliced, Rejection>> + Send + 'static,
{
    let mut work = Box::pin(work);
    let delay = response::delay(&server.settings);
    let done = match form {
        Form::Json => Some(work.as_mut().await),
        Form::Either => response::within(operation, delay, &mut work).await,
    };
    match done {
        Some(Ok(message)) => response::json(StatusCode::OK, message),
        Some(Err(rejection)) => rejection.response(),
        None => {
            let reader = session.open_stream();
            let (session, stream) = (Arc::clone(session), reader.stream());
            tasks::spawn(scoped(operation.context(), async move {
                let message = work.await.unwrap_or_else(|rejection| rejection.message());
                session.finish(stream, Some(message));
            }));
            response::events(EventStream::handshake(server, reader))
        }
    }
}
