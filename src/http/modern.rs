//! The modern front (2026-07-28): the request ladder of streamable-http §Sending Messages, in its order, with its codes
//! and statuses. Stateless: nothing of sessions is minted or echoed, and a client that disconnects has cancelled.

use super::guard::Form;
use super::live::{Live, LiveStream};
use super::reject::{self, Rejection};
use super::response::{self, Body};
use super::{Server, call, guard, legacy};
use crate::era::MODERN_VERSION;
use crate::era::envelope::Envelope;
use crate::era::headers::{decode, named_by};
use crate::exchange::Failure;
use crate::jsonrpc::{Kind, Spliced, codes, rewrite, text};
use crate::session::Principal;
use crate::telemetry::metrics::labels::MODERN;
use crate::telemetry::{Operation, Verdict, counters};
use crate::upstream::{self, Caller, Happening, Incoming, Refusal, Reply};
use hyper::header::{HeaderMap, HeaderName};
use hyper::{Response, StatusCode};
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// What the names of headers begin with that repeat a tool's parameters.
const PARAM: &str = "mcp-param-";
const NAME: HeaderName = HeaderName::from_static("mcp-name");

const EVENTS: &str = "text/event-stream";

/// A quiet child delays the response head no longer: until then, its first word decides the status.
const COMMIT_AFTER: Duration = Duration::from_secs(5);

/// Methods of legacy clients that the modern revision removed: a legacy child would answer them.
const REMOVED: [&str; 5] =
    ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"];

/// Whether a message is a modern client's: its envelope says so, or without one its header does.
pub fn is_modern(headers: &HeaderMap, incoming: &Incoming) -> bool {
    has_envelope(incoming) || speaks_modern(headers)
}

fn has_envelope(incoming: &Incoming) -> bool {
    let meta = incoming.message.params.as_ref().and_then(|params| params.meta.as_ref());
    meta.is_some_and(|meta| meta.era_version.is_some())
}

/// Whether the request's header names a modern revision.
pub fn speaks_modern(headers: &HeaderMap) -> bool {
    let version = headers.get(PROTOCOL_VERSION).and_then(|version| version.to_str().ok());
    let version = version.and_then(|version| version.split(',').next()).map(str::trim);
    version.is_some_and(|version| is_date(version) && version >= MODERN_VERSION)
}

/// Returns whether a text has the form of a revision. `undefined` does not, though it sorts after all of them.
fn is_date(text: &str) -> bool {
    let digits = |at: &[usize]| at.iter().all(|&at| text.as_bytes()[at].is_ascii_digit());
    let bytes = text.as_bytes();
    bytes.len() == 10 && bytes[4] == b'-' && bytes[7] == b'-' && digits(&[0, 1, 2, 3, 5, 6, 8, 9])
}

/// Serves one message.
///
/// # Errors
/// What the ladder refuses.
pub async fn respond(
    server: &Arc<Server>,
    headers: &HeaderMap,
    principal: Principal,
    peer: IpAddr,
    incoming: Incoming,
) -> Result<Response<Body>, Rejection> {
    match incoming.message.kind {
        Kind::Response => {
            return Err(Rejection::invalid("this revision knows no answers of clients; send a new request"));
        }
        // The core defines no notification of clients; a cancellation could only be another client's.
        Kind::Notification => {
            incoming.operation.end(&Verdict::Success);
            return Ok(response::empty(StatusCode::ACCEPTED));
        }
        Kind::Request => {}
    }
    let form = legacy::form(headers).map_err(|rejection| rejection.of(incoming.id()))?;
    let envelope = climb(headers, &incoming).map_err(|rejection| rejection.of(incoming.id()))?;
    let caller = Caller {
        principal,
        address: Some(peer),
        capabilities: envelope.capabilities(),
        log_level: envelope.log_level,
        params: repeated_params(headers),
    };
    let id = incoming.id().to_vec();
    let method = incoming.method();
    // A request with the name of a notification is none of either.
    incoming.operation.set_revision(MODERN, MODERN_VERSION);
    if REMOVED.contains(&&*method) || method.starts_with("notifications/") {
        return Err(Rejection::new(
            StatusCode::NOT_FOUND,
            codes::METHOD_NOT_FOUND,
            format!("{method} is not part of {MODERN_VERSION}"),
        )
        .of(&id));
    }
    if server.shutdown.is_refusing() && !upstream::is_retry(&incoming) {
        return Err(Rejection::shutting_down().of(&id));
    }
    match form {
        Form::Either => answer(server, caller, incoming, id).await,
        Form::Json if method == "subscriptions/listen" => Err(guard::not_acceptable(EVENTS).of(&id)),
        Form::Json => answer_in_json(server, caller, incoming, id).await,
    }
}

/// Answers as JSON if the child's first word is the answer, else as a stream. A child that is slow to start or to read
/// leaves nobody waiting without a sign.
async fn answer(
    server: &Arc<Server>,
    caller: Caller,
    incoming: Incoming,
    id: Vec<u8>,
) -> Result<Response<Body>, Rejection> {
    let operation = Arc::clone(&incoming.operation);
    let patience = server.settings.sse_commit_after.unwrap_or(COMMIT_AFTER);
    let mut opening = Box::pin(open(Arc::clone(server), caller, incoming));
    let Some(opened) = call::within(&operation, patience, &mut opening).await else {
        let context = operation.context();
        let next = async move {
            let opened = opening.await;
            opened.unwrap_or_else(|refused| (None, Happening::Answered(told(refused, &id, &operation))))
        };
        return Ok(response::live(LiveStream::quiet(server, context, Box::pin(next))));
    };
    Ok(match opened {
        Ok((_, Happening::Answered(reply))) => whole(reply),
        Ok((Some(Live::Call(call)), Happening::Asks)) => whole(call.park()),
        Ok((live, first)) => response::live(LiveStream::begun(server, operation.context(), live, first)),
        Err(Refusal::Busy(why)) => return Err(Rejection::busy(why).of(&id)),
        Err(refused) => whole(told(refused, &id, &operation)),
    })
}

/// Answers as JSON, however long that takes, since the client accepts nothing else.
async fn answer_in_json(
    server: &Arc<Server>,
    caller: Caller,
    incoming: Incoming,
    id: Vec<u8>,
) -> Result<Response<Body>, Rejection> {
    let operation = Arc::clone(&incoming.operation);
    let (mut live, mut happening) = match open(Arc::clone(server), caller, incoming).await {
        Ok(opened) => opened,
        Err(Refusal::Busy(why)) => return Err(Rejection::busy(why).of(&id)),
        Err(refused) => return Ok(whole(told(refused, &id, &operation))),
    };
    loop {
        match (happening, &mut live) {
            (Happening::Answered(reply), _) => return Ok(whole(reply)),
            (Happening::Said(_), Some(live)) => {
                counters::DROPPED_EVENTS.increment();
                happening = live.next(&server.shutdown).await;
            }
            (Happening::Asks, Some(_)) => break,
            // Nothing else says or asks anything.
            (_, None) => return Err(Rejection::busy("the request has no answer").of(&id)),
        }
    }
    match live {
        Some(Live::Call(call)) => Ok(whole(call.park())),
        _ => Err(Rejection::busy("the request has no answer").of(&id)),
    }
}

fn whole(reply: Reply) -> Response<Body> {
    response::json(StatusCode::from_u16(reply.status).unwrap_or(StatusCode::OK), reply.message)
}

/// Begins a request, up to the first thing that happens; at the latest when the drain is over.
async fn open(
    server: Arc<Server>,
    caller: Caller,
    incoming: Incoming,
) -> Result<(Option<Live>, Happening), Refusal> {
    tokio::select! {
        biased;
        opened = begin(&server, caller, incoming) => opened,
        () = server.shutdown.over() => Err(Refusal::Failed(Failure::ShuttingDown)),
    }
}

async fn begin(
    server: &Server,
    caller: Caller,
    incoming: Incoming,
) -> Result<(Option<Live>, Happening), Refusal> {
    let upstream = &server.upstream;
    let mut live = match &*incoming.method() {
        "server/discover" => match upstream.discover(&incoming.operation).await? {
            Some(result) => {
                incoming.operation.end(&Verdict::Success);
                let message = Spliced::from(rewrite::result(incoming.id(), &result));
                return Ok((None, Happening::Answered(Reply { message, status: 200 })));
            }
            None => Live::Call(upstream.begin_modern(caller, incoming).await?),
        },
        "subscriptions/listen" => {
            let operation = Arc::clone(&incoming.operation);
            let listening = upstream.listen(&caller, incoming).await?;
            // It is open for hours: what is seen of it is that it was opened.
            operation.end(&Verdict::Success);
            Live::Listening(listening)
        }
        _ => Live::Call(upstream.begin_modern(caller, incoming).await?),
    };
    let first = live.next(&server.shutdown).await;
    Ok((Some(live), first))
}

/// What a client is told of a request that no child took.
fn told(refused: Refusal, id: &[u8], operation: &Operation) -> Reply {
    let status = match &refused {
        Refusal::Withheld(codes::METHOD_NOT_FOUND, _) => 404,
        _ => 200,
    };
    reject::refusal(refused, id, operation).map_or_else(
        |rejection| Reply { status: rejection.status().as_u16(), message: rejection.message() },
        |message| Reply { message, status },
    )
}

/// The steps that need nothing but the request: envelope, version, and what the headers repeat.
fn climb(headers: &HeaderMap, incoming: &Incoming) -> Result<Envelope, Rejection> {
    let envelope = Envelope::read(&incoming.frame, &incoming.message).map_err(|malformed| {
        let (code, message) = if incoming.method() == "initialize" && !has_envelope(incoming) {
            // A whole legacy request: it is the header that is wrong.
            let message = format!("{PROTOCOL_VERSION} names a revision that has no initialize");
            (codes::HEADER_MISMATCH, message)
        } else {
            (malformed.code(), malformed.to_string())
        };
        Rejection::new(StatusCode::BAD_REQUEST, code, message)
    })?;
    repeats(headers, &PROTOCOL_VERSION, &envelope.version)?;
    if envelope.version != MODERN_VERSION {
        let message = format!("{} is not served here", envelope.version);
        let data = json!({"supported": [MODERN_VERSION], "requested": envelope.version});
        return Err(Rejection::new(StatusCode::BAD_REQUEST, codes::UNSUPPORTED_VERSION, message).with(data));
    }
    let method = incoming.method();
    repeats(headers, &METHOD, &method)?;
    let params = incoming.message.params.as_ref();
    let Some(member) = named_by(&method) else { return Ok(envelope) };
    let named = params.and_then(|params| match member {
        "name" => params.name.as_ref(),
        "uri" => params.uri.as_ref(),
        _ => params.task_id.as_ref(),
    });
    match named {
        Some(span) if incoming.frame[span.start] == b'"' => {
            repeats(headers, &NAME, &text(&incoming.frame, span))?;
        }
        // Without the header, the child says what is wrong.
        None if !headers.contains_key(NAME) => {}
        // A child may read it as another name than the header's.
        _ => return Err(mismatch(format!("{NAME} must repeat params.{member}, which is no string"))),
    }
    Ok(envelope)
}

/// The headers that repeat a tool's parameters; the child's own description says later which must be there.
fn repeated_params(headers: &HeaderMap) -> Vec<(String, Option<Vec<u8>>)> {
    let repeated = headers.keys().filter(|name| name.as_str().starts_with(PARAM));
    let value = |name: &HeaderName| match &headers.get_all(name).iter().collect::<Vec<_>>()[..] {
        [value] => Some(value.as_bytes().to_vec()),
        _ => None,
    };
    repeated.map(|name| (name.as_str().to_owned(), value(name))).collect()
}

fn mismatch(message: String) -> Rejection {
    Rejection::new(StatusCode::BAD_REQUEST, codes::HEADER_MISMATCH, message)
}

/// A header that repeats a value of the body, and must: routers decide by it.
fn repeats(headers: &HeaderMap, name: &HeaderName, value: &str) -> Result<(), Rejection> {
    // Only the version is known to contain no comma, so only its header can be split where a proxy joined it.
    let single = if *name == PROTOCOL_VERSION { guard::agreed } else { guard::single };
    let given = single(headers, name).map_err(|_| mismatch(format!("{name} is not one readable value")))?;
    let given =
        given.ok_or_else(|| mismatch(format!("{name} is missing; it must be {value:?} as in the body")))?;
    let decoded = decode(given.as_bytes()).map_err(|_| mismatch(format!("{name} can't be decoded")))?;
    if decoded == value {
        return Ok(());
    }
    Err(mismatch(format!("{name} is {given:?}, but the body says {value:?}")))
}
