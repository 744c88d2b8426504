//! Errors that are answered with an HTTP status. A JSON-RPC error in the body explains the cause and the remedy.

use super::response::{self, Body};
use crate::jsonrpc::{Fault, Spliced, codes, rewrite};
use crate::telemetry::{Verdict, counters};
use hyper::header::{ALLOW, CONNECTION, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::Value;
use std::borrow::Cow;

/// A header's name and value.
type Header = (&'static str, &'static str);

/// The refusal of a request.
#[derive(Debug)]
pub struct Rejection {
    status: StatusCode,
    code: i64,
    message: Cow<'static, str>,
    data: Option<Value>,
    id: Option<Vec<u8>>,
    /// Whether the rest of the request was not read, so the connection cannot be reused.
    closes: bool,
    header: Option<&'static Header>,
}

/// The message of refusals during shutdown.
pub const SHUTTING_DOWN: &str = "proxyrunner is shutting down; try again elsewhere";

impl Rejection {
    /// Returns a rejection of a request whose id is unknown.
    pub fn new(status: StatusCode, code: i64, message: impl Into<Cow<'static, str>>) -> Self {
        Rejection { status, code, message: message.into(), data: None, id: None, closes: false, header: None }
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
        Rejection { data: Some(data), ..self }
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
    pub fn header(self, header: &'static Header) -> Self {
        Rejection { header: Some(header), ..self }
    }

    /// Returns the HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the verdict on the rejected message.
    pub fn verdict(&self) -> Verdict {
        Verdict::Error { code: self.code, message: self.message.clone() }
    }

    /// Returns the JSON-RPC error alone, for a stream or a batch, and counts it.
    pub fn message(&self) -> Spliced {
        let counter = if self.status == StatusCode::SERVICE_UNAVAILABLE {
            &counters::SHED_REQUESTS
        } else {
            &counters::REJECTED_REQUESTS
        };
        counter.increment();
        Spliced::from(rewrite::error(self.id.as_deref(), self.code, &self.message, self.data.clone()))
    }

    /// Returns the response.
    pub fn response(self) -> Response<Body> {
        let mut response = response::json(self.status, self.message());
        let headers = response.headers_mut();
        if let Some((name, value)) = self.header {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
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
