//! A request to one server in the modern era, in the name of a caller, and its answer: JSON or an event stream.

use super::super::directory::Server;
use super::super::forward::{Aim, Failure, Outgoing};
use super::super::headers::PROTOCOL_VERSION;
use super::super::lines::Received;
use super::super::passed::PASSED;
use super::super::pool::Place;
use super::super::replica::InFlight;
use super::events::Events;
use super::request::{Caller, Refused};
use crate::budget::{Charge, Charged};
use crate::era::MODERN_VERSION;
use crate::era::headers::encode;
use crate::jsonrpc::{self, Kind, Message, Span, break_no_lines, codes, member};
use crate::telemetry::metrics::gateway::Ending;
use http_body_util::BodyExt;
use hyper::header::{
    ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE,
};
use hyper::http::response::Parts;
use hyper::{Method, StatusCode};
use memchr::memchr2;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Time that requests wait for a server that is starting, and the interval between attempts.
const STARTING: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);
/// Maximum length of an error that is quoted.
const QUOTED: usize = 300;

/// A request to one server.
pub(super) struct Ask<'a> {
    /// In whose name.
    pub caller: &'a Caller,
    /// The server.
    pub server: &'a Arc<Server>,
    /// The method, which the message contains, too.
    pub method: &'a str,
    /// The name, the URI or the task that it concerns.
    pub named: Option<&'a str>,
    /// The parameters that it repeats.
    pub params: Vec<(String, String)>,
    /// The message.
    pub body: Charged,
    /// Chooses the replica of calls in which the client may be asked something.
    pub key: Option<Aim>,
    /// Maximum length of a message of the answer.
    pub longest: usize,
    /// The headers and the replica of a request of the legacy era.
    pub legacy: Option<&'a (HeaderMap, Aim)>,
}

/// Why a server has not answered.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// In words, with the name of the server.
    pub text: String,
    /// Whether it is not the server's, but this gateway has too much to do.
    pub is_own: bool,
    /// Whether the server has answered, but does not do what it was asked to.
    pub is_refusal: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Refused::failed(fault.text)
    }
}

/// A message of an answer.
#[derive(Debug)]
pub(super) enum Said {
    /// A notification before the answer.
    Before(Charged, Message),
    /// The answer. Nothing follows.
    Answer(Charged, Message),
}

/// An answer that is being received. Dropping it ends the request at the server.
pub(super) struct Reply {
    server: Arc<Server>,
    status: StatusCode,
    body: Received,
    events: Option<Events>,
    id: Vec<u8>,
    longest: usize,
    charge: Charge,
    ending: Option<Ending>,
    _in_flight: InFlight,
    _place: Place,
}

impl Ask<'_> {
    /// Sends the request. Dropping the future ends it.
    ///
    /// # Errors
    /// When no answer begins that can be one.
    pub async fn send(&self) -> Result<Reply, Fault> {
        let Ask { caller, server, .. } = self;
        let outgoing = || Outgoing {
            client: caller.client(),
            method: Method::POST,
            headers: self.headers(),
            body: self.body.clone(),
            authorization: caller.state.core.authorize(&caller.identity, server),
        };
        let aim = match self.legacy {
            Some((_, aim)) => aim.clone(),
            None => self.key.clone().unwrap_or(Aim::Any),
        };
        let begun = Instant::now();
        let answer = loop {
            let failure = match caller.state.core.forward(server, &aim, outgoing()).await {
                Ok(answer) => break answer,
                Err(failure) => failure,
            };
            let is_starting = server.replicas().is_empty() && server.is_new();
            if !is_starting || begun.elapsed() > STARTING {
                server.count(failure.ending());
                return Err(self.failed(&failure));
            }
            sleep(LOOK).await;
        };
        let (head, body) = answer.response.into_parts();
        let is_stream = self.check(&head).inspect_err(|_| server.count(Ending::ServerError))?;
        let ending = match head.status {
            status if status.is_server_error() => Ending::ServerError,
            status if status.is_client_error() => Ending::ClientError,
            _ => Ending::Ok,
        };
        let id = jsonrpc::scan(&self.body).ok().and_then(|message| message.id);
        Ok(Reply {
            server: Arc::clone(server),
            status: head.status,
            body,
            events: is_stream.then(Events::default),
            id: id.map_or(Vec::new(), |id| self.body[id].to_vec()),
            longest: self.longest,
            charge: caller.account.charge(),
            ending: Some(ending),
            _in_flight: answer.in_flight,
            _place: answer.place,
        })
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(ACCEPT, BOTH);
        headers.insert(PASSED, self.caller.passed.and(&self.caller.state.core.name));
        if let Some((own, _)) = self.legacy {
            headers.extend(own.clone());
            return headers;
        }
        headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(MODERN_VERSION));
        let mut insert = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(&encode(value)) {
                headers.insert(name, value);
            }
        };
        insert(METHOD, self.method);
        if let Some(named) = self.named {
            insert(NAME, named);
        }
        for (name, value) in &self.params {
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                insert(name, value);
            }
        }
        headers
    }

    /// Checks the head of an answer. Returns whether it is an event stream.
    fn check(&self, head: &Parts) -> Result<bool, Fault> {
        let status = head.status;
        let bad = |what: &str| Err(fault(self.server, what));
        let is_challenge = status == StatusCode::FORBIDDEN && head.headers.contains_key(WWW_AUTHENTICATE);
        if status == StatusCode::UNAUTHORIZED || is_challenge {
            return bad(&format!("refuses the credentials of the gateway ({status})"));
        }
        if status.is_redirection() {
            return bad(&format!("answered {status}; redirects are not followed"));
        }
        let encoding = head.headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
        if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
            return bad("answered in an encoding that was not asked for");
        }
        let kind = head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        match kind {
            _ if kind.eq_ignore_ascii_case(b"application/json") => Ok(false),
            _ if kind.eq_ignore_ascii_case(b"text/event-stream") => Ok(true),
            _ => bad(&format!("answered {status} without a message")),
        }
    }

    fn failed(&self, failure: &Failure) -> Fault {
        let name = &self.server.about.segment;
        let text = match failure {
            Failure::Full => "the gateway has --max-in-flight requests in flight; try again".to_owned(),
            Failure::NoReplica => format!("no replica serves the server {name}; try again"),
            Failure::Unreachable | Failure::OwnerGone => {
                format!("no replica can be reached of the server {name}; try again")
            }
            Failure::Broken => format!(
                "the server {name} broke the connection before it answered; the request may have been carried out"
            ),
            Failure::Late(limit) => {
                format!("the server {name} has not answered within {} s (--request-timeout)", limit.as_secs())
            }
        };
        Fault { text, is_own: matches!(failure, Failure::Full), is_refusal: false }
    }
}

/// Returns a server's fault.
pub(super) fn fault(server: &Server, what: &str) -> Fault {
    let text = format!("the server {} {what}", server.about.segment);
    Fault { text, is_own: false, is_refusal: false }
}

impl Reply {
    /// Returns the next message. Cancel-safe.
    ///
    /// # Errors
    /// When the server breaks off, or what it says is no answer.
    pub async fn next(&mut self) -> Result<Said, Fault> {
        let said = self.receive().await;
        match &said {
            Ok(Said::Before(..)) => {}
            Ok(Said::Answer(..)) => self.count(None),
            Err(_) => self.count(Some(Ending::Broken)),
        }
        said
    }

    async fn receive(&mut self) -> Result<Said, Fault> {
        let mut whole = Vec::new();
        loop {
            while let Some(event) = self.events.as_mut().and_then(Events::next) {
                if let Some(said) = self.read(event)? {
                    return Ok(said);
                }
            }
            let Some(frame) = self.body.frame().await else {
                if self.events.is_some() {
                    return Err(self.fault("ended its answer before it was complete"));
                }
                let said = self.read(whole)?;
                return said.ok_or_else(|| self.fault("answered something else than an answer"));
            };
            let frame = frame.map_err(|_| self.fault("broke off in the middle of its answer"))?;
            let Ok(bytes) = frame.into_data() else { continue };
            let held = bytes.len() + self.events.as_ref().map_or(whole.len(), Events::held);
            if held > self.longest {
                return Err(self.fault("answered with a message that is too long"));
            }
            if !self.charge.try_cover(held) {
                let text = "--max-buffered is used up by messages in transit; try again".to_owned();
                return Err(Fault { text, is_own: true, is_refusal: false });
            }
            match &mut self.events {
                Some(events) => events.push(&bytes),
                None => whole.extend_from_slice(&bytes),
            }
        }
    }

    /// Reads a message; `None` if it is one that a modern server does not send.
    fn read(&self, mut bytes: Vec<u8>) -> Result<Option<Said>, Fault> {
        if memchr2(b'\n', b'\r', &bytes).is_some() {
            break_no_lines(&mut bytes);
        }
        let message = jsonrpc::scan(&bytes).map_err(|fault| {
            let status =
                if self.status.is_success() { String::new() } else { format!("{} and ", self.status) };
            self.fault(&format!("answered {status}something else than JSON-RPC: {}", fault.reason))
        })?;
        if message.error.as_ref().is_some_and(|error| !is_error(&bytes, error)) {
            return Err(self.fault("answered with an error that lacks a code or a message"));
        }
        let frame = self.charge.account().hold(bytes);
        match message.kind {
            Kind::Notification => Ok(Some(Said::Before(frame, message))),
            Kind::Request => Ok(None),
            Kind::Response => {
                let id = message.id.clone().map(|id| &frame[id]);
                match (id, &message.error) {
                    (Some(id), _) if *id == *self.id => Ok(Some(Said::Answer(frame, message))),
                    // The request was refused before its id was read.
                    (None, Some(error)) => self.identified(&frame[error.clone()]).map(Some),
                    _ => Err(self.fault("answered another request")),
                }
            }
        }
    }

    /// Gives an error the id of the request.
    fn identified(&self, error: &[u8]) -> Result<Said, Fault> {
        let whole = [b"{\"jsonrpc\":\"2.0\",\"id\":", &self.id[..], b",\"error\":", error, b"}"].concat();
        let message = jsonrpc::scan(&whole).map_err(|fault| self.fault(fault.reason))?;
        Ok(Said::Answer(self.charge.account().hold(whole), message))
    }

    /// Waits for the answer, and ignores what comes before it.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn answer(&mut self) -> Result<(Charged, Message), Fault> {
        loop {
            if let Said::Answer(frame, message) = self.next().await? {
                return Ok((frame, message));
            }
        }
    }

    fn fault(&self, what: &str) -> Fault {
        fault(&self.server, what)
    }

    fn count(&mut self, ending: Option<Ending>) {
        if let Some(own) = self.ending.take() {
            self.server.count(ending.unwrap_or(own));
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.count(Some(Ending::Cancelled));
    }
}

/// Returns whether a value is an error that clients can read.
fn is_error(frame: &[u8], error: &Span) -> bool {
    let code =
        member(frame, error, "code").and_then(|code| std::str::from_utf8(&frame[code]).ok()?.parse().ok());
    let text = member(frame, error, "message").filter(|text| frame[text.start] == b'"');
    code.is_some_and(|_: i64| text.is_some())
}

/// Returns the code and the message of an error.
pub(super) fn error_of(frame: &[u8], message: &Message) -> Option<(i64, String)> {
    let error = message.error.clone()?;
    let code =
        member(frame, &error, "code").and_then(|code| std::str::from_utf8(&frame[code]).ok()?.parse().ok());
    let mut text = jsonrpc::string_member(frame, &error, "message").unwrap_or_default().into_owned();
    text.truncate(text.floor_char_boundary(QUOTED));
    Some((code.unwrap_or(codes::INTERNAL_ERROR), text))
}
