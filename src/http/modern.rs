//! The front for 2026-07-28: the checks of streamable-http §Sending Messages in their order, with their codes and
//! statuses. It is stateless: it creates no sessions, and a client that disconnects has cancelled its request.

use super::expiry::Expiry;
use super::guard::Form;
use super::live::Live;
use super::outlook::Outlook;
use super::permit::permit;
use super::reject::Rejection;
use super::response::{self, Body};
use super::sessions::Found;
use super::source::Source;
use super::stream::EventStream;
use super::{Server, cursors, guard, oneway, outcome};
use crate::era::MODERN_VERSION;
use crate::era::envelope::Envelope;
use crate::era::headers::{decode, named_by};
use crate::exchange::Failure;
use crate::jsonrpc::{Kind, Spliced, codes, rewrite, text};
use crate::telemetry::metrics::labels::MODERN;
use crate::telemetry::{Operation, Verdict, counters};
use crate::upstream::{self, Caller, Happening, Incoming, Refusal, Reply};
use hyper::header::{HeaderMap, HeaderName};
use hyper::{Response, StatusCode};
use serde_json::json;
use std::sync::Arc;

const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// Prefix of the headers that repeat tool parameters.
const PARAM: &str = "mcp-param-";
pub(super) const NAME: HeaderName = HeaderName::from_static("mcp-name");

const EVENTS: &str = "text/event-stream";

/// Methods that this revision removed. They are refused here, since a legacy child would answer them.
const REMOVED: [&str; 5] =
    ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"];

/// Returns whether a message belongs to the modern era, by its envelope or else by the request's header. The header of
/// a request that names a session of the legacy era was checked with it.
pub fn is_modern(headers: &HeaderMap, found: Option<&Found>, incoming: &Incoming) -> bool {
    has_envelope(incoming) || (!matches!(found, Some(Ok(_))) && has_modern_version(headers))
}

/// Returns whether a message carries the envelope of the modern era.
pub fn has_envelope(incoming: &Incoming) -> bool {
    let meta = incoming.message.params.as_ref().and_then(|params| params.meta.as_ref());
    meta.is_some_and(|meta| meta.era_version.is_some())
}

/// Returns whether `MCP-Protocol-Version` names a modern revision.
pub fn has_modern_version(headers: &HeaderMap) -> bool {
    let version = headers.get(PROTOCOL_VERSION).and_then(|version| version.to_str().ok());
    let version = version.and_then(|version| version.split(',').next()).map(str::trim);
    version.is_some_and(|version| is_date(version) && version >= MODERN_VERSION)
}

/// Returns whether a text has the form of a revision. Some clients send `undefined`, which sorts after all revisions.
fn is_date(text: &str) -> bool {
    let digits = |at: &[usize]| at.iter().all(|&at| text.as_bytes()[at].is_ascii_digit());
    let bytes = text.as_bytes();
    bytes.len() == 10 && bytes[4] == b'-' && bytes[7] == b'-' && digits(&[0, 1, 2, 3, 5, 6, 8, 9])
}

/// Serves one message.
///
/// # Errors
/// Every error that is answered with an HTTP status.
pub async fn respond(
    server: &Arc<Server>,
    headers: &HeaderMap,
    source: &Source,
    incoming: Incoming,
) -> Result<Response<Body>, Rejection> {
    match incoming.message.kind {
        Kind::Response => {
            return Err(Rejection::invalid("clients send no responses in this revision; send a new request"));
        }
        // This revision defines no notification from clients. A cancellation could only name another client's
        // request.
        Kind::Notification => {
            oneway::check_id(&incoming)?;
            incoming.operation.end(&Verdict::Success);
            return Ok(response::empty(StatusCode::ACCEPTED));
        }
        Kind::Request => source.persistence.end_with_connection(),
    }
    let form = guard::response_form(headers).map_err(|rejection| rejection.of(incoming.id()))?;
    let envelope = check(headers, &incoming).map_err(|rejection| rejection.of(incoming.id()))?;
    let caller = Caller {
        principal: source.identity.principal.clone(),
        address: Some(source.peer.socket.ip()),
        capabilities: envelope.capabilities(),
        log_level: envelope.log_level,
        params: repeated_params(headers),
    };
    let id = incoming.id().to_vec();
    let method = incoming.method();
    // A notification's method in a request is refused as unknown.
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
    if form == Form::Json && method == "subscriptions/listen" {
        return Err(guard::not_acceptable(EVENTS).of(&id));
    }
    let permit = permit(server, &source.identity, None, caller.client(), &incoming).await?;
    let operation = Arc::clone(&incoming.operation);
    let (incoming, outlook) = match cursors::open(server, permit, incoming) {
        Ok(opened) => opened,
        Err(refused) => {
            let message = outcome::refuse(&operation, &id, refused)?;
            return Ok(whole(Reply { message, status: 200 }));
        }
    };
    match form {
        Form::Either => answer(server, outlook, caller, incoming, id).await,
        // Boxed, since few clients accept JSON only.
        Form::Json => Box::pin(answer_in_json(server, outlook, caller, incoming, id)).await,
    }
}

/// Answers with JSON if the child's first message is the answer, else with a stream. A stream also begins when the
/// child is slow to start or to read.
async fn answer(
    server: &Arc<Server>,
    outlook: Option<Box<Outlook>>,
    caller: Caller,
    incoming: Incoming,
    id: Vec<u8>,
) -> Result<Response<Body>, Rejection> {
    let operation = Arc::clone(&incoming.operation);
    let mut opening = Box::pin(open(Arc::clone(server), outlook, caller, incoming));
    let Some(opened) = response::within(&operation, response::delay(&server.settings), &mut opening).await
    else {
        let context = operation.context();
        let next = async move {
            let opened = opening.await;
            opened.unwrap_or_else(|refused| (None, Happening::Answered(refusal(refused, &id, &operation))))
        };
        return Ok(response::events(EventStream::quiet(server, context, Box::pin(next))));
    };
    Ok(match opened {
        Ok((_, Happening::Answered(reply))) => whole(reply),
        Ok((Some(Live::Call(call, _)), Happening::Asks)) => whole(call.park()),
        Ok((live, first)) => response::events(EventStream::begun(server, operation.context(), live, first)),
        Err(Refusal::Busy(why)) => return Err(Rejection::busy(why).of(&id)),
        Err(refused) => whole(refusal(refused, &id, &operation)),
    })
}

/// Answers with JSON after any delay, since the client accepts nothing else.
async fn answer_in_json(
    server: &Arc<Server>,
    outlook: Option<Box<Outlook>>,
    caller: Caller,
    incoming: Incoming,
    id: Vec<u8>,
) -> Result<Response<Body>, Rejection> {
    let operation = Arc::clone(&incoming.operation);
    let (mut live, mut happening) = match open(Arc::clone(server), outlook, caller, incoming).await {
        Ok(opened) => opened,
        Err(Refusal::Busy(why)) => return Err(Rejection::busy(why).of(&id)),
        Err(refused) => return Ok(whole(refusal(refused, &id, &operation))),
    };
    loop {
        match (happening, &mut live) {
            (Happening::Answered(reply), _) => return Ok(whole(reply)),
            (Happening::Said(_), Some(live)) => {
                counters::DROPPED_EVENTS.increment();
                happening = live.next(&server.shutdown).await;
            }
            (Happening::Asks, Some(_)) => break,
            // Without a live request the event is always the answer.
            (_, None) => return Err(Rejection::busy("the request has no answer").of(&id)),
        }
    }
    match live {
        Some(Live::Call(call, _)) => Ok(whole(call.park())),
        _ => Err(Rejection::busy("the request has no answer").of(&id)),
    }
}

fn whole(reply: Reply) -> Response<Body> {
    response::json(StatusCode::from_u16(reply.status).unwrap_or(StatusCode::OK), reply.message)
}

/// Begins a request and returns its first event; fails at the end of the drain.
async fn open(
    server: Arc<Server>,
    outlook: Option<Box<Outlook>>,
    caller: Caller,
    incoming: Incoming,
) -> Result<(Option<Live>, Happening), Refusal> {
    tokio::select! {
        biased;
        opened = begin(&server, outlook, caller, incoming) => opened,
        () = server.shutdown.over() => Err(Refusal::Failed(Failure::ShuttingDown)),
    }
}

async fn begin(
    server: &Server,
    outlook: Option<Box<Outlook>>,
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
            None => Live::Call(upstream.begin_modern(caller, incoming).await?, None),
        },
        "subscriptions/listen" => {
            let operation = Arc::clone(&incoming.operation);
            let ends = Expiry::of(&incoming.identity);
            let listening = upstream.listen(&caller, incoming).await?;
            // A subscription stays open for hours, so its operation covers only the opening.
            operation.end(&Verdict::Success);
            Live::Listening(listening, ends)
        }
        _ => Live::Call(upstream.begin_modern(caller, incoming).await?, outlook),
    };
    let first = live.next(&server.shutdown).await;
    Ok((Some(live), first))
}

/// Returns the reply to a request that is refused.
fn refusal(refused: Refusal, id: &[u8], operation: &Operation) -> Reply {
    let status = match &refused {
        Refusal::Withheld(codes::METHOD_NOT_FOUND, _) => 404,
        _ => 200,
    };
    outcome::refuse(operation, id, refused.into()).map_or_else(
        |rejection| Reply { status: rejection.status().as_u16(), message: rejection.message() },
        |message| Reply { message, status },
    )
}

/// Checks the parts that need only the request: the envelope, its version, and the headers that repeat values of the
/// body.
fn check(headers: &HeaderMap, incoming: &Incoming) -> Result<Envelope, Rejection> {
    let envelope = Envelope::read(&incoming.frame, &incoming.message).map_err(|malformed| {
        let (code, message) = if incoming.method() == "initialize" && !has_envelope(incoming) {
            // The body is a legacy request, so the header is wrong.
            let message = format!("{PROTOCOL_VERSION} names a revision that has no initialize");
            (codes::HEADER_MISMATCH, message)
        } else {
            (malformed.code(), malformed.to_string())
        };
        Rejection::new(StatusCode::BAD_REQUEST, code, message)
    })?;
    check_repeats(headers, &PROTOCOL_VERSION, &envelope.version)?;
    if envelope.version != MODERN_VERSION {
        let message = format!("{} is not served here", envelope.version);
        let data = json!({"supported": [MODERN_VERSION], "requested": envelope.version});
        return Err(Rejection::new(StatusCode::BAD_REQUEST, codes::UNSUPPORTED_VERSION, message).with(data));
    }
    check_names(headers, incoming)?;
    Ok(envelope)
}

/// Checks the headers that repeat what a message asks for.
///
/// # Errors
/// 400 when they say something else than the message, or are missing.
pub fn check_names(headers: &HeaderMap, incoming: &Incoming) -> Result<(), Rejection> {
    let method = incoming.method();
    check_repeats(headers, &METHOD, &method)?;
    let params = incoming.message.params.as_ref();
    let Some(member) = named_by(&method) else { return Ok(()) };
    let named = params.and_then(|params| match member {
        "name" => params.name.as_ref(),
        "uri" => params.uri.as_ref(),
        _ => params.task_id.as_ref(),
    });
    match named {
        Some(span) if incoming.frame[span.start] == b'"' => {
            check_repeats(headers, &NAME, &text(&incoming.frame, span))?;
        }
        // Without the header, the child reports the error.
        None if !headers.contains_key(NAME) => {}
        // A child might read it as a different name than that of the header.
        _ => return Err(mismatch(format!("{NAME} must repeat params.{member}, which is no string"))),
    }
    Ok(())
}

/// Returns the headers that repeat tool parameters. The tool's schema decides later which are required.
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

/// Checks that a required header repeats a value of the body, since routers depend on it.
fn check_repeats(headers: &HeaderMap, name: &HeaderName, value: &str) -> Result<(), Rejection> {
    // Only a version never contains a comma, so only its header can be split after a proxy joined values.
    let single = if *name == PROTOCOL_VERSION { guard::agreed } else { guard::single };
    let given = single(headers, name).map_err(|_| mismatch(format!("{name} is not one readable value")))?;
    let given =
        given.ok_or_else(|| mismatch(format!("{name} is missing; it must be {value:?} as in the body")))?;
    let decoded = decode(given.as_bytes()).map_err(|_| mismatch(format!("{name} cannot be decoded")))?;
    if decoded == value {
        return Ok(());
    }
    Err(mismatch(format!("{name} is {given:?}, but the body says {value:?}")))
}
