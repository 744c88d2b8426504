//! The gateway's paths: `/servers/NAME/mcp` is the endpoint of one server, whose replicas get the requests. `/mcp`, of all
//! servers, is an endpoint like a sidecar's ([`endpoint`]), whose child is the gateway itself.
//!
//! A message is read whole before it passes, because limits and the audit log depend on it, and so that it can be tried
//! at another replica. Its answer passes as it arrives ([`relay`]).

use super::expiry::Expiry;
use super::guard;
use super::modern;
use super::reject::{Rejection, method_not_allowed};
use super::relay::{Counted, Passage, Relay};
use super::response::Body;
use super::source::Source;
use super::{Server, body, cards, clearance, endpoint, health, oneway, paths, registrations, registry, site};
use crate::budget::{Account, Charged};
use crate::client::Client;
use crate::era::capabilities::Capabilities;
use crate::gateway::{self, Aim, Answer, CONNECTION, Failure, Gateway, Outgoing, SESSION_ID, Waiting};
use crate::identity::Principal;
use crate::jsonrpc::{self, Kind, codes};
use crate::telemetry::metrics::gateway::Ending;
use crate::telemetry::scope::scoped;
use crate::telemetry::{Operation, Seldom, Verdict};
use crate::trace_context::Trace;
use crate::upstream::{Incoming as Message, Purpose, is_retry};
use hyper::body::Incoming;
use hyper::header::{
    CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bodies up to this length are read even if their session is unknown, since they may be an `initialize`.
const LONGEST_HANDSHAKE: u64 = 64 * 1024;
/// Time that a request waits for room.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);
/// Methods during which a modern client can be asked something.
const ASKING: [&str; 3] = ["tools/call", "prompts/get", "resources/read"];

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// Answers a request that needs no caller, after the checks of Host and Origin. Returns the body of any other one.
pub fn enter(
    server: &Server,
    head: &Parts,
    body: Incoming,
) -> Result<Result<Response<Body>, Rejection>, Incoming> {
    let path = head.uri.path();
    let is_endpoint = paths::server_of(path).is_some() || paths::is_combined(path);
    let gateway = server.gateway.as_ref().filter(|_| is_endpoint && head.method != Method::OPTIONS);
    if gateway.is_some_and(|gateway| gateway.is_loop(&head.headers)) {
        let message = "the request has come here before, or has passed too many gateways; see that no gateway is one of its own servers";
        let rejection = Rejection::new(StatusCode::LOOP_DETECTED, codes::INVALID_REQUEST, message);
        return Ok(Err(body::refuse(body, rejection)));
    }
    Ok(match paths::server_of(path) {
        None if registry::is_at(path) && head.method != Method::OPTIONS => return Err(body),
        None if registry::is_at(path) => Ok(site::preflight(&head.headers)),
        None if is_known(path) && head.method != Method::OPTIONS => return Err(body),
        None if is_known(path) => Ok(site::preflight(&head.headers)),
        Some(_) if head.method == Method::OPTIONS => Ok(site::preflight(&head.headers)),
        Some(_) => return Err(body),
        None if paths::is_combined(path) && head.method == Method::OPTIONS => {
            Ok(site::preflight(&head.headers))
        }
        None if paths::is_combined(path) => {
            if let Some(gateway) = &server.gateway {
                gateway.note_use();
            }
            return Err(body);
        }
        None if paths::plain(path) == paths::METRICS && !server.authenticates() => Ok(match head.method {
            Method::GET | Method::HEAD => health::metrics(server, &head.headers),
            _ => method_not_allowed("GET, HEAD"),
        }),
        None => {
            let document = server.gateway.as_ref().and_then(|gateway| registry::public(gateway, head));
            document.ok_or_else(|| body::refuse(body, not_found(path)))
        }
    })
}

/// Notes the gateways that a request has passed, which the gateway's own server needs to know.
pub fn note_gateways(server: &Server, source: &mut Source, head: &Parts) {
    let passed = server.gateway.as_ref().and_then(|_| gateway::Passed::of(&head.headers));
    source.gateways = passed.unwrap_or_default().as_str().into();
}

/// Returns whether a path is that of a document about servers, or of registration.
fn is_known(path: &str) -> bool {
    path == paths::AI_CATALOG || paths::card_of(path).is_some() || registrations::is_at(path)
}

fn not_found(path: &str) -> Rejection {
    let path = if path.is_empty() { "an empty path" } else { path };
    let message = format!(
        "nothing is served at {path}; the endpoint of all servers is /mcp, that of one is /servers/NAME/mcp"
    );
    Rejection::new(StatusCode::NOT_FOUND, codes::INVALID_REQUEST, message)
}

/// Passes one request of an identified caller to its server.
///
/// # Errors
/// Every error that is answered with an HTTP status.
pub async fn serve(
    server: &Arc<Server>,
    source: &Source,
    head: &Parts,
    body: Incoming,
) -> Result<Response<Body>, Rejection> {
    let path = head.uri.path();
    if let Some(gateway) = server.gateway.as_ref().filter(|_| registry::is_at(path)) {
        return Ok(registry::serve(server, gateway, head, body));
    }
    if let Some(gateway) = server.gateway.as_ref().filter(|_| registrations::is_at(path)) {
        return Ok(Box::pin(registrations::serve(server, gateway, source, head, body)).await);
    }
    if let Some(response) = cards::serve(server, head) {
        return Ok(response);
    }
    let found = server.gateway.as_ref().zip(paths::server_of(path).or_else(|| paths::card_of(path)));
    let Some((gateway, name)) = found else { return Err(body::refuse(body, not_found(path))) };
    let Some(target) = gateway.directory.find(name) else {
        if gateway.registrations().is_some_and(|registrations| registrations.is_incomplete()) {
            let message = "the gateway has just started, and may not know the server yet; try again";
            return Err(body::refuse(body, Rejection::busy(message)));
        }
        let message = format!("this gateway has no server {name:?}; GET /registry/v0.1/servers lists all");
        let rejection = Rejection::new(StatusCode::NOT_FOUND, codes::INVALID_REQUEST, message);
        return Err(body::refuse(body, rejection));
    };
    let principal = &source.identity.principal;
    let passing = Passing { server, gateway, target: &target, source, headers: &head.headers, principal };
    match head.method {
        Method::POST => passing.message(body).await,
        Method::GET | Method::DELETE => passing.without_message(&head.method).await,
        _ => Ok(method_not_allowed("GET, POST, DELETE, OPTIONS")),
    }
}

/// A request on its way to a server.
struct Passing<'a> {
    server: &'a Arc<Server>,
    gateway: &'a Gateway,
    target: &'a Arc<gateway::Server>,
    source: &'a Source,
    headers: &'a HeaderMap,
    principal: &'a Principal,
}

/// What is known of a message besides its bytes.
struct Known {
    operation: Arc<Operation>,
    /// The id; empty without one.
    id: Vec<u8>,
    /// Whether its client cannot resume a stream that breaks.
    is_modern: bool,
    /// The client's wait, unless it opens a stream to listen.
    waiting: Option<Waiting>,
}

/// Time for the server itself to end a stream whose caller's credentials have expired, which it knows by its token.
const SERVER_FIRST: Duration = Duration::from_secs(5);

impl Passing<'_> {
    /// Returns the owner of the session that the request names, or `None` if it names none.
    fn owner(&self) -> Option<Result<Aim, Rejection>> {
        let id = guard::agreed(self.headers, &SESSION_ID).transpose()?;
        Some(id.and_then(|id| {
            self.gateway.owner(id, self.target, self.principal).ok_or_else(Rejection::unknown_session)
        }))
    }

    async fn message(&self, body: Incoming) -> Result<Response<Body>, Rejection> {
        let owner = self.owner();
        if let Err(rejection) = self.admit(owner.as_ref(), &body) {
            return Err(body::refuse(body, rejection));
        }
        let account = endpoint::account(self.source, self.principal, None);
        let body = Box::pin(body::read(self.server, body, &account, &self.source.persistence)).await?;
        if jsonrpc::is_batch(body.bytes()) {
            return Err(Rejection::invalid("a gateway takes no batches; send one message in each request"));
        }
        let (frame, message) = body.into_message(self.headers)?;
        let incoming = self.source.unidentified(&self.server.settings, frame, message);
        let operation = Arc::clone(&incoming.operation);
        operation.note(|details| details.server = Some(self.target.about.segment.clone()));
        let passed = scoped(operation.context(), self.pass(incoming, owner, account)).await;
        if let Err(rejection) = &passed {
            operation.end(&rejection.verdict());
        }
        passed
    }

    /// Checks a request's head. The session of a short body is checked after the body is read, because it may be an
    /// `initialize`, and so that the error can repeat its id.
    fn admit(&self, owner: Option<&Result<Aim, Rejection>>, body: &Incoming) -> Result<(), Rejection> {
        guard::sends_json(self.headers)?;
        guard::sends_plain(self.headers)?;
        let is_unknown = matches!(owner, Some(Err(_))) && !modern::has_modern_version(self.headers);
        if is_unknown && !body::is_at_most(body, LONGEST_HANDSHAKE) {
            return Err(Rejection::unknown_session());
        }
        Ok(())
    }

    async fn pass(
        &self,
        incoming: Message,
        owner: Option<Result<Aim, Rejection>>,
        account: Account,
    ) -> Result<Response<Body>, Rejection> {
        let is_request = incoming.message.kind == Kind::Request;
        let id = incoming.id().to_vec();
        let refused = |rejection: Rejection| rejection.of(&id);
        if is_request {
            // A client that leaves has cancelled its request, or its session's owner goes on without it.
            self.source.persistence.end_with_connection();
            if self.server.shutdown.is_refusing() {
                return Err(refused(Rejection::shutting_down()));
            }
        } else if incoming.message.kind == Kind::Notification {
            oneway::check_id(&incoming)?;
        }
        if clearance::is_needed(self.server) {
            Box::pin(clearance::pass(self.server, self.source, &incoming)).await?;
        }
        let is_modern = modern::has_envelope(&incoming)
            || (!matches!(owner, Some(Ok(_))) && modern::has_modern_version(self.headers));
        let aim = match owner {
            // Sessions are not part of the modern era, but some clients still name an old one.
            _ if is_modern => by_key(&incoming, self.principal).map_or(Aim::Any, Aim::Key),
            // Answers and notifications still pass: calls in flight may wait for them.
            Some(Ok(owner)) if is_request && self.gateway.is_leaving(&owner, self.target).await => {
                match &*incoming.method() {
                    "initialize" => Aim::Any,
                    _ => return Err(refused(Rejection::unknown_session())),
                }
            }
            Some(Ok(owner)) => owner,
            Some(Err(_)) if is_request && incoming.method() == "initialize" => Aim::Any,
            Some(Err(unknown)) => return Err(refused(unknown)),
            None => Aim::Any,
        };
        let operation = Arc::clone(&incoming.operation);
        let trace = operation.traced(&incoming.trace).into_owned();
        let waits = is_request && incoming.method() != "subscriptions/listen";
        let waiting = waits.then(|| self.gateway.wait());
        let known = Known { operation, id: id.clone(), is_modern, waiting };
        let outgoing = self.outgoing(Method::POST, incoming.frame.clone(), &trace);
        drop(incoming);
        self.send(aim, outgoing, account, known).await.map_err(refused)
    }

    /// Passes a GET, which opens a stream, or a DELETE, which ends a session.
    async fn without_message(&self, method: &Method) -> Result<Response<Body>, Rejection> {
        let aim = match self.owner() {
            _ if modern::has_modern_version(self.headers) => Aim::Any,
            Some(owner) => owner?,
            None => Aim::Any,
        };
        if *method == Method::GET && self.server.shutdown.is_refusing() {
            return Err(Rejection::shutting_down());
        }
        let trace = match self.source.span {
            Some(span) => self.source.trace.at(span, self.source.trace.tracestate()),
            None => self.source.trace.clone(),
        };
        let outgoing = self.outgoing(method.clone(), Charged::default(), &trace);
        let account = endpoint::account(self.source, self.principal, None);
        let known = Known { operation: Arc::default(), id: Vec::new(), is_modern: false, waiting: None };
        self.send(aim, outgoing, account, known).await
    }

    fn outgoing(&self, method: Method, body: Charged, trace: &Trace) -> Outgoing {
        let mut headers = gateway::of_request(self.headers);
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
        self.gateway.add_itself(&mut headers, self.headers);
        let authorization = self.gateway.authorize(&self.source.identity, self.target);
        let client = self.principal.client_or(|| Client::at(Some(self.source.peer.socket.ip())));
        Outgoing { client, method, headers, body, authorization }
    }

    async fn send(
        &self,
        aim: Aim,
        outgoing: Outgoing,
        account: Account,
        known: Known,
    ) -> Result<Response<Body>, Rejection> {
        let charging = account.charge_soon(CONNECTION, ROOM_PATIENCE);
        let charge = Box::pin(self.source.persistence.while_connected(charging)).await;
        let full = "--max-buffered is used up by messages in transit";
        let charge = charge.ok_or_else(|| Rejection::busy(full))?;
        let mut counted = Counted::new(self.target);
        let sent = Instant::now();
        let answer = match Box::pin(self.gateway.forward(self.target, &aim, &outgoing)).await {
            Ok(answer) => answer,
            Err(failure) => {
                known.operation.add_child_time(sent.elapsed().as_nanos() as u64);
                counted.end(failure.ending());
                return Err(self.refusal(&failure));
            }
        };
        let Answer { response, in_flight, place } = answer;
        let (head, body) = response.into_parts();
        let headers = match self.headers_back(&head, in_flight.replica()) {
            Ok(headers) => headers,
            Err(rejection) => {
                counted.end(Ending::ServerError);
                return Err(rejection);
            }
        };
        let is_stream = head.headers.get(CONTENT_TYPE).is_some_and(|kind| {
            kind.as_bytes().get(..17).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"))
        });
        let Known { operation, id, is_modern, waiting } = known;
        let is_listening = waiting.is_none();
        let expiry = is_listening.then(|| Expiry::delayed(&self.source.identity, SERVER_FIRST)).flatten();
        let passage = Passage {
            counted,
            in_flight,
            _waiting: waiting,
            _place: place,
            _charge: charge,
            account,
            operation,
            ends: outcome_of(head.status),
            cannot_resume: is_modern && !id.is_empty(),
            expiry,
            patience: self.gateway.patience(),
            sent,
        };
        let relay = Relay::new(body, passage, is_stream, &self.server.shutdown);
        let mut response = Response::new(Body::Relayed(Box::new(relay)));
        (*response.status_mut(), *response.headers_mut()) = (head.status, headers);
        Ok(response)
    }

    /// Returns the headers of an answer for the client.
    ///
    /// # Errors
    /// 502 when the answer is not one for the client.
    fn headers_back(
        &self,
        head: &hyper::http::response::Parts,
        replica: &gateway::Replica,
    ) -> Result<HeaderMap, Rejection> {
        self.check(head)?;
        let mut headers = gateway::of_response(&head.headers);
        // A page of a server would have the gateway's origin, and with it all of its servers.
        let has_data = headers.get(CONTENT_TYPE).is_none_or(|kind| {
            let kind = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            [&b"application/json"[..], b"text/event-stream"]
                .iter()
                .any(|data| kind.eq_ignore_ascii_case(data))
        });
        if !has_data {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(inner) = head.headers.get(&SESSION_ID) {
            let id = self.gateway.session_id(replica, inner, self.target, self.principal);
            let id = id.ok_or_else(|| self.bad("gave its session an id that cannot be passed on"))?;
            headers.insert(SESSION_ID, id);
        }
        Ok(headers)
    }

    /// Checks that an answer is one for the client.
    fn check(&self, head: &hyper::http::response::Parts) -> Result<(), Rejection> {
        static REFUSALS: Seldom = Seldom::new();
        let status = head.status;
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            return Err(self.bad(&format!("answered {status}; redirects are not followed")));
        }
        if status.is_informational() || status == StatusCode::NOT_MODIFIED || status.as_u16() >= 600 {
            return Err(self.bad(&format!("answered {status}, which answers no message")));
        }
        let encoding = head.headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
        if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
            return Err(self.bad("answered in an encoding that was not asked for"));
        }
        // A server that denies a call to its caller sends no challenge: that answer is the client's.
        let is_challenge = status == StatusCode::FORBIDDEN && head.headers.contains_key(WWW_AUTHENTICATE);
        if status == StatusCode::UNAUTHORIZED || is_challenge {
            if REFUSALS.is_due() {
                let server = &self.target.about.name;
                tracing::warn!(server, %status, "the server refuses the credentials of the gateway; check its --auth-issuer and --auth-audience, or the headers in --servers");
            }
            return Err(self.bad(&format!("refuses the credentials of the gateway ({status})")));
        }
        Ok(())
    }

    fn bad(&self, what: &str) -> Rejection {
        let message = format!("the server {} {what}", self.target.about.segment);
        Rejection::new(StatusCode::BAD_GATEWAY, codes::INTERNAL_ERROR, message).of_server()
    }

    fn refusal(&self, failure: &Failure) -> Rejection {
        let name = &self.target.about.segment;
        let busy = |why: &str| Rejection::busy(format!("{why} {name}; try again")).of_server();
        match failure {
            Failure::Full => Rejection::busy("the gateway has --max-in-flight requests in flight; try again"),
            Failure::NoReplica => busy("no replica serves the server"),
            Failure::Unreachable => busy("no replica can be reached of the server"),
            Failure::OwnerGone => Rejection::unknown_session(),
            Failure::Broken => {
                self.bad("broke the connection before it answered; the request may have been carried out")
            }
            Failure::Late(limit) => {
                let seconds = limit.as_secs();
                let message =
                    format!("the server {name} has not answered within {seconds} s (--request-timeout)");
                Rejection::new(StatusCode::GATEWAY_TIMEOUT, codes::INTERNAL_ERROR, message).of_server()
            }
        }
    }
}

/// Returns how a request ends that is answered with this status.
fn outcome_of(status: StatusCode) -> (Ending, Verdict) {
    let refused = || Verdict::Refused {
        status: status.as_u16(),
        code: codes::INTERNAL_ERROR,
        message: "refused by the server".into(),
    };
    match status {
        status if status.is_server_error() => (Ending::ServerError, refused()),
        status if status.is_client_error() => (Ending::ClientError, refused()),
        _ => (Ending::Ok, Verdict::Success),
    }
}

/// Returns the key of a modern call in which the server may ask the client something. The retry with the answers has
/// the same key, and must reach the replica where the call waits.
fn by_key(incoming: &Message, principal: &Principal) -> Option<[u8; 32]> {
    let meta = incoming.message.params.as_ref()?.meta.as_ref();
    let declared = meta.and_then(|meta| meta.client_capabilities.as_ref());
    let asks = declared.is_some_and(|span| Capabilities::read(&incoming.frame, span).asks());
    let is_asking = asks && ASKING.contains(&&*incoming.method());
    (is_asking || is_retry(incoming))
        .then(|| Purpose::of(principal, &incoming.frame, &incoming.message).digest())
}
