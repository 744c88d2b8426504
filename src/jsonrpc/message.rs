//! The result of a scan: the spans of a message's parts, or the fault of bytes that are not a message.

use std::fmt;
use std::ops::Range;

use super::codes::{INVALID_REQUEST, PARSE_ERROR};

/// The position of a value in its message, in bytes. Strings include their quotes.
pub type Span = Range<usize>;

/// Maximum length of an id, token, method or name, in bytes of raw JSON. They are kept longer than their message.
pub const LONGEST_NAME: usize = 1024;
/// Maximum length of a URI, in bytes of raw JSON.
pub const LONGEST_URI: usize = 16 * 1024;

/// The three kinds of JSON-RPC messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Has `method` and `id`: exactly one response answers it.
    Request,
    /// Has `method` and no `id`: it gets no response.
    Notification,
    /// Has `result` or `error`.
    Response,
}

/// A valid JSON-RPC message, as spans of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its kind.
    pub kind: Kind,
    /// The whole object, without surrounding whitespace.
    pub object: Span,
    /// A string or an integer of any size. Requests always have one. An `error` response may lack it, or have null,
    /// which counts as absent.
    pub id: Option<Span>,
    /// The method, a string; `None` in a response.
    pub method: Option<Span>,
    /// The parameters, always an object. Boxed, since a message is moved often.
    pub params: Option<Box<Params>>,
    /// A `null` instead of the parameters, which counts as absent. It is sent on as an empty object.
    pub null_params: Option<Span>,
    /// A response's result, any value.
    pub result: Option<Span>,
    /// Whether the result has `isError: true` (server/tools §Error Handling).
    pub is_error: bool,
    /// A response's error, any value.
    pub error: Option<Span>,
    /// Whether there are raw line breaks between tokens, so that the message cannot be used as a frame unchanged.
    pub multiline: bool,
    /// A name that some server takes for one of the other members, or of `params` or `_meta`, although it is spelled
    /// differently.
    pub lookalike: Option<&'static str>,
}

/// The members of `params` that proxyrunner reads. Their types are not checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the member of that name, in camel case")]
pub struct Params {
    /// The whole object.
    pub span: Span,
    pub name: Option<Span>,
    pub uri: Option<Span>,
    pub request_id: Option<Span>,
    pub progress_token: Option<Span>,
    pub protocol_version: Option<Span>,
    pub capabilities: Option<Span>,
    pub client_info: Option<Span>,
    pub level: Option<Span>,
    pub task: Option<Span>,
    pub task_id: Option<Span>,
    pub request_state: Option<Span>,
    pub input_responses: Option<Span>,
    /// The value of `_meta`, of any type.
    pub meta_value: Option<Span>,
    /// The members of `_meta`, if it is an object.
    pub meta: Option<Meta>,
}

/// The members of `params._meta` that proxyrunner reads. Their types are not checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// The whole object.
    pub span: Span,
    /// `progressToken`.
    pub progress_token: Option<Span>,
    /// `traceparent`, the last one.
    pub traceparent: Option<Span>,
    /// `tracestate`, the last one.
    pub tracestate: Option<Span>,
    /// `baggage`, the last one.
    pub baggage: Option<Span>,
    /// Whether one of the three trace keys is duplicated. Parsers differ in which one they take.
    pub trace_repeated: bool,
    /// `io.modelcontextprotocol/protocolVersion`: its presence makes a request a modern one.
    pub era_version: Option<Span>,
    /// `io.modelcontextprotocol/clientCapabilities`.
    pub client_capabilities: Option<Span>,
    /// `io.modelcontextprotocol/clientInfo`.
    pub client_info: Option<Span>,
    /// `io.modelcontextprotocol/logLevel`.
    pub log_level: Option<Span>,
    /// `io.modelcontextprotocol/subscriptionId`.
    pub subscription_id: Option<Span>,
    /// `io.modelcontextprotocol/related-task`.
    pub related_task: Option<Span>,
}

/// The reason why some bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// [`PARSE_ERROR`] or [`INVALID_REQUEST`].
    pub code: i64,
    /// A description of the fault, for the error's `message`.
    pub reason: &'static str,
    /// The position of the fault, in bytes from the start.
    pub at: usize,
    /// The message's id, if one valid id could be read, so that an answer can name it.
    pub id: Option<Span>,
}

impl Fault {
    pub(super) fn not_json(reason: &'static str, at: usize) -> Self {
        Self { code: PARSE_ERROR, reason, at, id: None }
    }

    pub(super) fn invalid(reason: &'static str, at: usize) -> Self {
        Self { code: INVALID_REQUEST, reason, at, id: None }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (at byte {})", self.reason, self.at)
    }
}

impl std::error::Error for Fault {}
