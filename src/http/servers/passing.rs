//! Passes a request of an identified caller to the server that its path names.

use super::super::expiry::Expiry;
use super::super::filtered::{self, Filtered, Unfiltered};
use super::super::permit::permit_at;
use super::super::reject::Rejection;
use super::super::relay::{Counted, Passage, Relay};
use super::super::response::Body;
use super::super::source::Source;
use super::super::{Server, body, clearance, guard, modern, oneway};
use super::answer::{self, Answers};
use crate::budget::{Account, Charged};
use crate::client::Client;
use crate::era::capabilities::Capabilities;
use crate::gateway::{self, Aim, Answer, CONNECTION, Gateway, Outgoing, SESSION_ID, Waiting};
use crate::identity::Principal;
use crate::jsonrpc::{self, Kind};
use crate::policy::{Policies, View};
use crate::telemetry::Operation;
use crate::telemetry::metrics::gateway::Ending;
use crate::telemetry::scope::scoped;
use crate::trace_context::Trace;
use crate::upstream::{Incoming as Message, Purpose, is_retry};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode};
use memchr::memmem;
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

/// A request on its way to a server.
pub(super) struct Passing<'a> {
    pub server: &'a Arc<Server>,
    pub gateway: &'a Gateway,
    pub target: &'a Arc<gateway::Server>,
    pub source: &'a Source,
    pub headers: &'a HeaderMap,
    pub principal: &'a Principal,
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
    /// How the caller sees the answer, unless it passes as it is.
    view: Option<Box<View>>,
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

    /// Passes a message.
    ///
    /// # Errors
    /// Every error that is answered with an HTTP status.
    pub async fn message(&self, body: Incoming) -> Result<Response<Body>, Rejection> {
        let owner = self.owner();
        if let Err(rejection) = self.admit(owner.as_ref(), &body) {
            return Err(body::refuse(body, rejection));
        }
        let account = self.source.account_of_caller();
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
            _ if is_modern => by_key(&incoming, self.principal).unwrap_or(Aim::Any),
            // Answers and notifications still pass: calls in flight may wait for them.
            Some(Ok(owner)) if is_request && self.gateway.is_leaving(&owner, self.target).await => {
                match (&*incoming.method(), owner) {
                    ("initialize", _) => Aim::Any,
                    (_, Aim::Owner(owner)) if owner.resumes => Aim::Heir(owner),
                    _ => return Err(refused(Rejection::unknown_session())),
                }
            }
            Some(Ok(owner)) => owner,
            Some(Err(_)) if is_request && incoming.method() == "initialize" => Aim::Any,
            Some(Err(unknown)) => return Err(refused(unknown)),
            None => Aim::Any,
        };
        let view = match &self.server.policies {
            Some(policies) if incoming.message.kind != Kind::Response => {
                Box::pin(self.permit(policies, &incoming, &aim, is_modern)).await?
            }
            _ => None,
        };
        let operation = Arc::clone(&incoming.operation);
        let trace = operation.traced(&incoming.trace).into_owned();
        let waits = is_request && incoming.method() != "subscriptions/listen";
        let waiting = waits.then(|| self.gateway.wait());
        let known = Known { operation, id: id.clone(), is_modern, waiting, view };
        let outgoing = self.outgoing(Method::POST, incoming.frame.clone(), &trace);
        drop(incoming);
        self.send(aim, outgoing, account, known).await.map_err(refused)
    }

    /// Passes a GET, which opens a stream, or a DELETE, which ends a session.
    ///
    /// # Errors
    /// Every error that is answered with an HTTP status.
    pub async fn without_message(&self, method: &Method) -> Result<Response<Body>, Rejection> {
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
        let account = self.source.account_of_caller();
        // Answers to any request of the session may come on its stream.
        let policies = self.server.policies.as_ref().filter(|_| *method == Method::GET);
        let any = |policies| {
            View::of_any(policies, &self.source.identity).at(&Arc::from(&*self.target.about.segment))
        };
        let view = policies.map(|policies| Box::new(any(policies)));
        let (operation, id) = Default::default();
        let known = Known { operation, id, is_modern: false, waiting: None, view };
        self.send(aim, outgoing, account, known).await
    }

    /// Decides on a message. Returns how its caller sees the answer, unless it passes as it is.
    async fn permit(
        &self,
        policies: &Arc<Policies>,
        incoming: &Message,
        aim: &Aim,
        is_modern: bool,
    ) -> Result<Option<Box<View>>, Rejection> {
        let (frame, message) = (&incoming.frame, &incoming.message);
        let has_names = ["mcp-method", "mcp-name"].iter().any(|name| self.headers.contains_key(*name));
        if (is_modern || has_names) && message.kind == Kind::Request {
            // Some servers believe these headers instead of the message.
            modern::check_names(self.headers, incoming).map_err(|rejection| rejection.of(incoming.id()))?;
        }
        let legacy = (!is_modern).then(|| aim.clone());
        let (gateway, identity) = (self.gateway, &self.source.identity);
        let budget = &self.server.budget;
        let one = gateway.one(identity, self.target, (frame, message), (self.headers, legacy), budget);
        let view = permit_at(policies, identity, &one, incoming).await?.view;
        // The results of calls that cannot become tasks, and those that have no `cacheScope`, pass as they arrive.
        Ok(view.filter(|_| match &*incoming.method() {
            "tools/call" => memmem::find(frame, b"task").is_some(),
            "resources/read" => is_modern,
            _ => true,
        }))
    }

    /// Returns the response to a request whose caller sees a part of the answer only.
    async fn filtered(
        &self,
        relay: Relay,
        view: View,
        (status, account, is_stream): (StatusCode, &Account, bool),
    ) -> Result<Body, Rejection> {
        if is_stream {
            return Ok(Body::Filtered(Box::new(Filtered::new(relay, view, account))));
        }
        let is_failure = status.is_client_error() || status.is_server_error();
        let whole = Box::pin(filtered::whole(relay, &view, account, is_failure)).await;
        whole.map(Body::whole).map_err(|why| match why {
            Unfiltered::Broken => self.answers().bad("broke off in the middle of its answer"),
            Unfiltered::TooLong => {
                self.answers().bad("answered with a message that is too long to be filtered by the policies")
            }
            Unfiltered::NoRoom => Rejection::busy("--max-buffered is used up by messages in transit"),
            Unfiltered::NoMessage => {
                self.answers().bad("answered something that cannot be filtered by the policies")
            }
        })
    }

    fn answers(&self) -> Answers<'_> {
        Answers { gateway: self.gateway, target: self.target, principal: self.principal }
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
        let answer = match Box::pin(self.gateway.forward(self.target, &aim, outgoing)).await {
            Ok(answer) => answer,
            Err(failure) => {
                known.operation.add_child_time(sent.elapsed().as_nanos() as u64);
                counted.end(failure.ending());
                return Err(self.answers().refusal(&failure));
            }
        };
        let Answer { response, in_flight, place } = answer;
        let (head, body) = response.into_parts();
        let headers = match self.answers().headers(&head, in_flight.replica()) {
            Ok(headers) => headers,
            Err(rejection) => {
                counted.end(Ending::ServerError);
                return Err(rejection);
            }
        };
        let is_stream = head.headers.get(CONTENT_TYPE).is_some_and(|kind| {
            kind.as_bytes().get(..17).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"))
        });
        let Known { operation, id, is_modern, waiting, view } = known;
        let is_listening = waiting.is_none();
        let expiry = is_listening.then(|| Expiry::delayed(&self.source.identity, SERVER_FIRST)).flatten();
        let filter = view.map(|view| (view, account.clone()));
        let passage = Passage {
            counted,
            in_flight: Some(in_flight),
            _waiting: waiting,
            _place: place,
            _charge: charge,
            account,
            operation,
            ends: answer::outcome_of(head.status),
            cannot_resume: is_modern && !id.is_empty(),
            expiry,
            patience: self.gateway.patience(),
            sent,
        };
        let relay = Relay::new(body, passage, is_stream, &self.server.shutdown);
        let body = match filter {
            Some((view, account)) => self.filtered(relay, *view, (head.status, &account, is_stream)).await?,
            None => Body::Relayed(Box::new(relay)),
        };
        let mut response = Response::new(body);
        (*response.status_mut(), *response.headers_mut()) = (head.status, headers);
        Ok(response)
    }
}

/// Returns the key of a modern call in which the server may ask the client something. The retry with the answers has
/// the same key, and must reach the replica where the call waits.
fn by_key(incoming: &Message, principal: &Principal) -> Option<Aim> {
    let meta = incoming.message.params.as_ref()?.meta.as_ref();
    let declared = meta.and_then(|meta| meta.client_capabilities.as_ref());
    let asks = declared.is_some_and(|span| Capabilities::read(&incoming.frame, span).asks());
    let is_asking = asks && ASKING.contains(&&*incoming.method());
    let key = || Purpose::of(principal, &incoming.frame, &incoming.message).digest();
    match is_retry(incoming) {
        true => Some(Aim::Retry(key())),
        false => is_asking.then(|| Aim::Key(key())),
    }
}
