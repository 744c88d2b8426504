//! Errors that are answered with an HTTP status. A JSON-RPC error in the body explains the cause and the remedy.

use super::response::{self, Body};
use crate::jsonrpc::{Fault, Spliced, codes, rewrite};
use crate::limits::Refused;
use crate::shutdown::DRAINING;
use crate::telemetry::{Verdict, counters};
use hyper::header::{ALLOW, CONNECTION, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use std::borrow::Cow;

/// The refusal of a request.
#[derive(Debug)]
pub struct Rejection {
    status: StatusCode,
    code: i64,
    message: Cow<'static, str>,
    /// Boxed, since few rejections have it.
    data: Option<Box<Value>>,
    id: Option<Vec<u8>>,
    /// Whether the rest of the request was not read, so the connection cannot be reused.
    closes: bool,
    /// Boxed, since few refusals have any, and all are passed through many functions.
    extra: Option<Box<Extra>>,
}

/// What few refusals have.
#[derive(Debug, Default)]
struct Extra {
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The reason for the audit log, which clients do not learn.
    reason: Option<&'static str>,
    /// Whether it is the failure of a server behind a gateway, which has counters of its own.
    is_of_server: bool,
}

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The message of refusals during shutdown.
pub const SHUTTING_DOWN: &str = "proxyrunner is shutting down; try again elsewhere";

impl Rejection {
    /// Returns a rejection of a request whose id is unknown.
    pub fn new(status: StatusCode, code: i64, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        Rejection { status, code, message, data: None, id: None, closes: false, extra: None }
    }

    /// Returns a 400 with -32600.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, codes::INVALID_REQUEST, message)
    }

    /// Returns a 403: a check against cross-site requests failed.
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, codes::INVALID_REQUEST, message)
    }

    /// Returns a 404: the session is unknown, has ended, or belongs to another principal.
    pub fn unknown_session() -> Self {
        let message =
            "this session is unknown or has ended; send initialize without Mcp-Session-Id to open a new one";
        Self::new(StatusCode::NOT_FOUND, codes::SESSION_NOT_FOUND, message)
    }

    /// Returns a 413: the body is longer than `--max-body`.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("the body is longer than {limit} bytes (--max-body)");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, codes::INVALID_REQUEST, message).closing()
    }

    /// Returns a 503: a limit is reached or proxyrunner is shutting down; the same request may succeed a moment
    /// later.
    pub fn busy(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, codes::INTERNAL_ERROR, message)
    }

    /// Returns a 429: a rate limit is exceeded.
    pub fn limited(refused: &Refused) -> Self {
        let seconds = refused.retry_after;
        let text = |text: String| HeaderValue::try_from(text).expect("visible ASCII");
        Self::new(StatusCode::TOO_MANY_REQUESTS, codes::RATE_LIMITED, "Rate limit exceeded")
            .with(json!({"retryAfterSeconds": seconds}))
            .header(RETRY_AFTER, seconds.into())
            .header(RATE_LIMIT, text(refused.header()))
            .header(RATE_LIMIT_POLICY, text(refused.policy_header()))
    }

    /// Returns a 503: proxyrunner is shutting down.
    pub fn shutting_down() -> Self {
        Self::busy(SHUTTING_DOWN)
    }

    /// Returns a 400: the body is not a valid message.
    pub fn fault(fault: Fault, body: &[u8]) -> Self {
        let id = fault.id.clone().and_then(|id| body.get(id)).map(<[u8]>::to_vec);
        Rejection { id, ..Self::new(StatusCode::BAD_REQUEST, fault.code, fault.to_string()) }
    }

    /// Adds machine-readable `data`.
    pub fn with(self, data: Value) -> Self {
        Rejection { data: Some(Box::new(data)), ..self }
    }

    /// Adds the id of the request.
    pub fn of(self, id: &[u8]) -> Self {
        Rejection { id: (!id.is_empty()).then(|| id.to_vec()), ..self }
    }

    /// Closes the connection after the response.
    pub fn closing(self) -> Self {
        Rejection { closes: true, ..self }
    }

    /// Adds a header to the response.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.extra.get_or_insert_default().headers.push((name, value));
        self
    }

    /// Sets the reason for the audit log, unless one is set.
    pub fn because(mut self, reason: &'static str) -> Self {
        self.extra.get_or_insert_default().reason.get_or_insert(reason);
        self
    }

    /// Leaves the counters of refusals out, since a server behind a gateway has failed.
    #[cfg(feature = "gateway")]
    pub fn of_server(mut self) -> Self {
        self.extra.get_or_insert_default().is_of_server = true;
        self
    }

    /// Returns the reason for the audit log.
    pub fn reason(&self) -> Option<&'static str> {
        self.extra.as_ref()?.reason
    }

    /// Returns the HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the verdict on the rejected message.
    pub fn verdict(&self) -> Verdict {
        let (status, message) = (self.status.as_u16(), self.message.clone());
        Verdict::Refused { status, code: self.code, message }
    }

    /// Returns the JSON-RPC error alone, for a stream or a batch, and counts it.
    pub fn message(&self) -> Spliced {
        if !self.extra.as_ref().is_some_and(|extra| extra.is_of_server) {
            self.counter().increment();
        }
        Spliced::from(rewrite::error(
            self.id.as_deref(),
            self.code,
            &self.message,
            self.data.as_deref().cloned(),
        ))
    }

    fn counter(&self) -> &'static counters::Counter {
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => &counters::SHED_REQUESTS,
            _ => &counters::REJECTED_REQUESTS,
        }
    }

    /// Returns the response.
    pub fn response(self) -> Response<Body> {
        let is_draining = self.message == SHUTTING_DOWN;
        let mut response = response::json(self.status, self.message());
        let headers = response.headers_mut();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if is_draining {
            headers.insert(DRAINING, HeaderValue::from_static("1"));
        }
        if self.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        headers.extend(self.extra.map(|extra| extra.headers).unwrap_or_default());
        response
    }
}

/// Returns a 405 that names the allowed methods.
pub fn method_not_allowed(allowed: &'static str) -> Response<Body> {
    let message = format!("this path takes {allowed}");
    let rejection = Rejection::new(StatusCode::METHOD_NOT_ALLOWED, codes::INVALID_REQUEST, message);
    let mut response = rejection.response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}
