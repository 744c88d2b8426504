//! The MCP endpoint (`--path`), the entry of both fronts: reads a request's body, determines the era of its message,
//! and passes it to [`legacy`] or [`modern`].

use super::body;
#[cfg(feature = "gateway")]
use super::called::{called, renamed};
#[cfg(feature = "gateway")]
use super::forwarding::{self, Forwarding};
#[cfg(feature = "gateway")]
use super::recorded;
use super::reject::{Rejection, method_not_allowed};
use super::response::Body;
use super::sessions::{self, Found};
#[cfg(feature = "gateway")]
use super::siblings;
use super::source::Source;
#[cfg(feature = "gateway")]
use super::takeover::{self, Carried};
use super::{Server, batch, clearance, guard, legacy, modern};
use crate::budget::Account;
#[cfg(feature = "gateway")]
use crate::budget::Charged;
use crate::jsonrpc;
#[cfg(feature = "gateway")]
use crate::jsonrpc::{Kind, Message};
use crate::telemetry::scope::scoped_to_the_end;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use hyper::{Method, Response};
#[cfg(feature = "gateway")]
#[cfg(feature = "gateway")]
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

/// Bodies up to this length are read even if their session is unknown, since they may be an `initialize`.
const LONGEST_HANDSHAKE: u64 = 64 * 1024;

/// Serves a request to the endpoint that carries no message.
///
/// # Errors
/// Every error that is answered with an HTTP status.
pub fn serve(server: &Arc<Server>, source: &Source, head: &Parts) -> Result<Response<Body>, Rejection> {
    match head.method {
        // 2026-07-28 defines neither method.
        Method::GET | Method::DELETE if modern::has_modern_version(&head.headers) => {
            Ok(method_not_allowed("POST"))
        }
        Method::GET => sessions::stream(server, source, &head.headers),
        Method::DELETE => sessions::delete(server, &source.identity.principal, &head.headers),
        _ => Ok(method_not_allowed("GET, POST, DELETE, OPTIONS")),
    }
}

/// Serves one message, or a batch of messages.
///
/// # Errors
/// Every error that is answered with an HTTP status.
pub async fn post(
    server: &Arc<Server>,
    source: &Source,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Response<Body>, Rejection> {
    let principal = &source.identity.principal;
    if let Err(rejection) = admit(server, source, headers, &body) {
        return Err(body::refuse(body, rejection));
    }
    #[cfg_attr(not(feature = "gateway"), allow(unused_mut, reason = "no session is taken over"))]
    let mut found = sessions::find_named(server, headers, principal);
    let account = account(source, found.as_ref());
    // Boxed, since a body is soon read, and the call takes its time.
    let body = Box::pin(body::read(server, body, &account, &source.persistence)).await?;
    #[cfg(feature = "gateway")]
    siblings::check_body(source, body.bytes())?;
    #[cfg(feature = "gateway")]
    let may_change = takeover::concerns(server, found.as_ref());
    #[cfg(feature = "gateway")]
    let owner = match &found {
        Some(Err(_)) if !may_change => forwarding::owner(server, source, headers),
        _ => None,
    };
    if jsonrpc::is_batch(body.bytes()) {
        #[cfg(feature = "gateway")]
        if may_change {
            let frame = body.into_frame();
            return Box::pin(batch_anywhere(server, source, headers, found, frame)).await;
        }
        #[cfg(feature = "gateway")]
        if let Some(owner) = owner {
            let forwarding = Forwarding { server, source, headers, owner, is_retry: false };
            return Box::pin(forwarding.batch(body.into_frame())).await;
        }
        #[cfg(feature = "gateway")]
        siblings::check_leaving(server, source, true)?;
        let session = found.unwrap_or_else(|| sessions::find(server, headers, principal))?;
        return Box::pin(batch::respond(server, &session, body.into_frame(), source, headers)).await;
    }
    #[cfg_attr(
        not(feature = "gateway"),
        expect(unused_mut, reason = "a gateway's calls may stand for others")
    )]
    let (mut frame, mut message) = body.into_message(headers)?;
    #[cfg(feature = "gateway")]
    if let Some(found) = found.as_mut().filter(|_| may_change)
        && takeover::is_of_session(headers, &frame, &message)
    {
        let carried = Carried { server, source, headers, method: Method::POST, frame: &frame };
        if let Some(answered) = Box::pin(carried.settle(found, Some(&message))).await {
            return answered;
        }
    }
    #[cfg(feature = "gateway")]
    if forwarding::is_concerned(server, source, owner, &message) {
        let passed_on = Box::pin(pass_on(server, source, headers, owner, (&frame, &message)));
        if let Some(passed_on) = passed_on.await {
            return passed_on;
        }
    }
    #[cfg(feature = "gateway")]
    let mut by_name = None;
    #[cfg(feature = "gateway")]
    if let Some(call) = called(&server.settings, &frame, &message)? {
        by_name = renamed(headers, &call);
        (frame, message) = call;
    }
    #[cfg(feature = "gateway")]
    let headers = by_name.as_deref().unwrap_or(headers);
    let incoming = source.incoming(&server.settings, frame, message)?;
    if clearance::is_needed(server) {
        Box::pin(clearance::pass(server, source, &incoming)).await?;
    }
    let operation = Arc::clone(&incoming.operation);
    // An era is determined per message: clients of 2026-07-28 may still send a stale session id (streamable-http
    // §Earlier Streamable HTTP Revisions).
    let responding: Pin<Box<dyn Future<Output = _> + Send>> =
        match modern::is_modern(headers, found.as_ref(), &incoming) {
            true => Box::pin(modern::respond(server, headers, source, incoming)),
            false => Box::pin(legacy::respond(server, headers, found, source, incoming)),
        };
    let responded = scoped_to_the_end(operation.context(), responding).await;
    if let Err(rejection) = &responded {
        operation.end(&rejection.verdict());
    }
    responded
}

/// Serves a request without a message of a session that may belong to another replica.
///
/// # Errors
/// Every error that is answered with an HTTP status.
#[cfg(feature = "gateway")]
pub async fn serve_anywhere(
    server: &Arc<Server>,
    source: &Source,
    head: &Parts,
) -> Result<Response<Body>, Rejection> {
    let (headers, method) = (&head.headers, head.method.clone());
    let mut found = sessions::find(server, headers, &source.identity.principal);
    let frame = Charged::default();
    let carried = Carried { server, source, headers, method, frame: &frame };
    if let Some(answered) = carried.settle(&mut found, None).await {
        return answered;
    }
    let session = found?;
    let answered = serve(server, source, head);
    if session.is_ended()
        && let Some(shelf) = recorded::shelf(server)
        && let Some(kept) = shelf.find(session.id().secret())
    {
        // If Redis does not answer, it is told later.
        shelf.end(&kept).await;
    }
    answered
}

/// Serves a batch of a session that may belong to another replica.
#[cfg(feature = "gateway")]
async fn batch_anywhere(
    server: &Arc<Server>,
    source: &Source,
    headers: &HeaderMap,
    found: Option<Found>,
    frame: Charged,
) -> Result<Response<Body>, Rejection> {
    let principal = &source.identity.principal;
    let mut found = found.unwrap_or_else(|| sessions::find(server, headers, principal));
    let carried = Carried { server, source, headers, method: Method::POST, frame: &frame };
    if let Some(answered) = carried.settle(&mut found, None).await {
        return answered;
    }
    siblings::check_leaving(server, source, true)?;
    batch::respond(server, &found?, frame, source, headers).await
}

/// Passes a message on to the sibling that it belongs to; `None` if it is this replica's.
#[cfg(feature = "gateway")]
async fn pass_on(
    server: &Arc<Server>,
    source: &Source,
    headers: &HeaderMap,
    owner: Option<SocketAddr>,
    (frame, message): (&Charged, &Message),
) -> Option<Result<Response<Body>, Rejection>> {
    let is_request = message.kind == Kind::Request;
    if let Err(leaving) = siblings::check_leaving(server, source, is_request) {
        let id = message.id.clone().map_or(&[][..], |id| &frame[id]);
        return Some(Err(leaving.of(id)));
    }
    let (owner, is_retry) = forwarding::owner_of_message(server, source, owner, headers, frame, message)?;
    if is_request && server.shutdown.is_refusing() {
        return Some(Err(Rejection::shutting_down()));
    }
    Forwarding { server, source, headers, owner, is_retry }.message(frame, message).await
}

/// Checks a request's head. The session of a short body is checked after the body is read,
/// so that the error can echo the request id.
fn admit(server: &Server, source: &Source, headers: &HeaderMap, body: &Incoming) -> Result<(), Rejection> {
    guard::sends_json(headers)?;
    guard::sends_plain(headers)?;
    if !body::is_small(body) && !modern::has_modern_version(headers) {
        check_session(server, headers, source, body)?;
    }
    Ok(())
}

/// Checks the session of a legacy request before its body is read.
///
/// # Errors
/// As [`sessions::find`]; 503 for a request without a session while no session can be opened any more.
fn check_session(
    server: &Server,
    headers: &HeaderMap,
    source: &Source,
    body: &Incoming,
) -> Result<(), Rejection> {
    if headers.contains_key(sessions::SESSION_ID) {
        // The body may be an initialize, which opens a new session.
        return match sessions::find(server, headers, &source.identity.principal) {
            #[cfg(feature = "gateway")]
            Err(_)
                if forwarding::owner(server, source, headers).is_some()
                    || takeover::may_exist(server, source, headers) =>
            {
                Ok(())
            }
            Err(_) if body::is_at_most(body, LONGEST_HANDSHAKE) && !server.shutdown.is_refusing() => Ok(()),
            found => found.map(drop),
        };
    }
    if server.shutdown.is_refusing() { Err(Rejection::shutting_down()) } else { Ok(()) }
}

/// Returns the account that a body is charged to: the session's, else the principal's, else that of the client's
/// address.
fn account(source: &Source, found: Option<&Found>) -> Account {
    match found {
        Some(Ok(session)) => session.account().clone(),
        _ => source.account_of_caller(),
    }
}
