//! HTTP+SSE of 2024-11-05 (`--sse`): a GET stream is a session, and its client posts messages to another path.

#[cfg(feature = "gateway")]
use super::called::called;
use super::expiry::Expiry;
use super::paths::SSE_POST;
use super::reject::{Rejection, method_not_allowed};
use super::response::{self, Body};
use super::source::Source;
use super::stream::EventStream;
use super::{Server, Settings, body, clearance, expiry, guard, legacy, oneway, outcome, sessions};
use crate::jsonrpc::{Kind, Spliced};
use crate::session::{Owed, Presence, Session, StreamId};
use crate::tasks;
use crate::telemetry::scope::scoped;
use crate::upstream::Incoming;
use hyper::header::{ACCEPT, HeaderMap};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use std::sync::Arc;

/// Opens a session, which ends with its stream.
///
/// # Errors
/// 406 when the client does not accept event streams, and as [`sessions::open`].
pub fn stream(server: &Arc<Server>, source: &Source, head: &Parts) -> Result<Response<Body>, Rejection> {
    if head.method != Method::GET {
        return Ok(method_not_allowed("GET"));
    }
    // This revision does not require the header.
    if head.headers.contains_key(ACCEPT) {
        guard::takes_events(&head.headers)?;
    }
    let session = sessions::open(server, source, &[])?;
    session.become_old_sse(expiry::ends(&source.identity));
    let reader = session.open_standalone();
    server.directory.list(&session);
    let post_to = post_to(&server.settings, head.uri.path());
    let post_to = format!("{post_to}?sessionId={}", session.id().secret());
    Ok(response::events(EventStream::session(server, reader, &post_to, Expiry::of(&source.identity))))
}

/// Returns the reference for the endpoint event. It is relative to the stream's URL, since an ingress may have
/// stripped an unknown prefix; with `--public-url` the prefix is known, and the reference is an absolute path.
fn post_to(settings: &Settings, stream: &str) -> String {
    if let Some(public) = &settings.public_url {
        return public.prefix(&settings.path).to_owned() + SSE_POST;
    }
    let up = if stream.ends_with('/') { "../" } else { "" };
    up.to_owned() + SSE_POST.trim_start_matches('/')
}

/// Accepts a message, which is answered on the stream.
///
/// # Errors
/// 400 without a session, 404 for an unknown session, 400 for an invalid message.
pub async fn post(
    server: &Arc<Server>,
    source: &Source,
    head: &Parts,
    body: hyper::body::Incoming,
) -> Result<Response<Body>, Rejection> {
    if head.method != Method::POST {
        return Ok(method_not_allowed("POST"));
    }
    if let Err(rejection) = admit(&head.headers) {
        return Err(body::refuse(body, rejection));
    }
    let query = head.uri.query().unwrap_or_default();
    let id = query.split('&').find_map(|pair| pair.strip_prefix("sessionId="));
    let id =
        id.ok_or_else(|| Rejection::invalid("?sessionId= is missing; use the path from the endpoint event"))?;
    let session =
        server.directory.find(id, &source.identity.principal).filter(|session| session.is_old_sse());
    let Some(session) = session else { return Err(body::refuse(body, Rejection::unknown_session())) };
    let body = body::read(server, body, session.account(), &source.persistence).await?;
    let present = sessions::receive(server, &session)?;
    session.prolong(expiry::ends(&source.identity));
    let (frame, message) = body.into_message(&head.headers)?;
    #[cfg(feature = "gateway")]
    let (frame, message) = called(&server.settings, &frame, &message)?.unwrap_or((frame, message));
    let incoming = source.incoming(&server.settings, frame, message)?;
    let operation = Arc::clone(&incoming.operation);
    sessions::describe(&session, &operation);
    if clearance::is_needed(server) {
        Box::pin(clearance::pass(server, source, &incoming)).await?;
    }
    if incoming.message.kind != Kind::Request {
        scoped(operation.context(), oneway::accept(server, source, &session, incoming)).await?;
    } else if server.shutdown.is_refusing() {
        outcome::refuse(&operation, incoming.id(), Rejection::shutting_down().into())?;
    } else if let Some(stream) = session.newest_standalone() {
        let owed = session.owe();
        let (server, source) = (Arc::clone(server), source.clone());
        let answering = answer(server, source, session, incoming, stream, (owed, present));
        tasks::spawn(scoped(operation.context(), answering));
    }
    Ok(response::empty(StatusCode::ACCEPTED))
}

fn admit(headers: &HeaderMap) -> Result<(), Rejection> {
    guard::sends_json(headers)?;
    guard::sends_plain(headers)
}

/// Runs one request, whose messages and answer go to the stream.
async fn answer(
    server: Arc<Server>,
    source: Source,
    session: Arc<Session>,
    incoming: Incoming,
    stream: StreamId,
    (owed, _present): (Owed, Presence),
) {
    let last = if incoming.method() == "initialize" {
        initialize(&server, &session, incoming).await
    } else {
        match legacy::start(&server, &source, &session, incoming).await {
            Ok(legacy::Started::Running(call)) => {
                call.run(|interim| session.push(stream, interim.frame, interim.class)).await
            }
            Ok(legacy::Started::Answered(message)) => message,
            Err(rejection) => rejection.message(),
        }
    };
    session.push_answer(stream, last);
    drop(owed);
}

async fn initialize(server: &Server, session: &Arc<Session>, incoming: Incoming) -> Spliced {
    let welcomed = if session.seat().is_some() {
        let rejection = Rejection::invalid("the session is already initialized");
        outcome::refuse(&incoming.operation, incoming.id(), rejection.into())
    } else {
        sessions::welcome(server, session, incoming).await
    };
    welcomed.unwrap_or_else(|rejection| rejection.message())
}
