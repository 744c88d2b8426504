//! One pass over a message that validates it as JSON and JSON-RPC, and finds the parts that matter.
//!
//! Keys are compared by value, not by spelling: `"\u0069d"` is `id`. A duplicate of a relevant key makes the message
//! invalid, since two parsers could take different ones.

use std::borrow::Cow;
use std::collections::HashSet;

use super::lexer::{Broken, Lexer};
use super::lookalike::{self, lookalike};
use super::message::{Fault, Kind, LONGEST_NAME, LONGEST_URI, Message, Meta, Params, Span};
use super::text::unescaped;

/// Maximum number of members that JSON-RPC does not define. Each costs memory in the search for duplicates, and real
/// messages have only a few.
const MOST_UNKNOWN_MEMBERS: usize = 256;

/// Finds the parts of the one JSON-RPC message in `bytes`, and validates all of it as JSON.
///
/// Time is linear in the length, and independent of the depth.
///
/// # Errors
///
/// [`PARSE_ERROR`](super::codes::PARSE_ERROR) if the text is not JSON in UTF-8.
/// [`INVALID_REQUEST`](super::codes::INVALID_REQUEST) if it is not a JSON-RPC 2.0 message as MCP restricts them:
/// `params` is an object, and an id is a string or an integer.
pub fn scan(bytes: &[u8]) -> Result<Message, Fault> {
    let mut lexer = Lexer::new(bytes);
    let mut envelope = Envelope::default();
    let fault = match envelope.read(&mut lexer) {
        Err(broken) => Fault::not_json(broken.reason(), lexer.at()),
        Ok(()) => match envelope.kind(bytes) {
            Err(fault) => fault,
            Ok(kind) => return Ok(envelope.into_message(kind)),
        },
    };
    Err(Fault { id: envelope.id.valid(), ..fault })
}

/// Returns whether the text is a batch: its first token opens an array.
pub fn is_batch(bytes: &[u8]) -> bool {
    bytes.iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) == Some(&b'[')
}

/// Returns the elements of a batch, which are not scanned yet. The whole text is validated as JSON.
///
/// # Errors
///
/// As for [`scan`]; also if the value is not an array, is empty, or has more than `most` elements.
pub fn elements(bytes: &[u8], most: usize) -> Result<Vec<Span>, Fault> {
    let mut lexer = Lexer::new(bytes);
    let mut spans = Vec::new();
    let mut fault = None;
    let mut read = || -> Result<(), Broken> {
        lexer.space();
        if !lexer.take(b'[') {
            fault = Some(Fault::invalid("a batch is an array", lexer.at()));
            lexer.value()?;
            return lexer.end();
        }
        lexer.space();
        if !lexer.take(b']') {
            loop {
                let span = lexer.value()?;
                if spans.len() < most {
                    spans.push(span);
                } else {
                    fault.get_or_insert(Fault::invalid("the batch has too many messages", span.start));
                }
                if !lexer.more(b']')? {
                    break;
                }
            }
        }
        lexer.end()
    };
    if let Err(broken) = read() {
        return Err(Fault::not_json(broken.reason(), lexer.at()));
    }
    match fault {
        Some(fault) => Err(fault),
        None if spans.is_empty() => Err(Fault::invalid("the batch is empty", 0)),
        None => Ok(spans),
    }
}

/// The parts of a message that have been read so far.
#[derive(Default)]
struct Envelope {
    object: Span,
    multiline: bool,
    jsonrpc: Option<Span>,
    id: Id,
    method: Option<Span>,
    params: Option<Box<Params>>,
    null_params: Option<Span>,
    result: Option<Span>,
    is_error: bool,
    error: Option<Span>,
    lookalike: Option<&'static str>,
    /// The first fault of the message. The rest is still read to find its id.
    fault: Option<Fault>,
}

#[derive(Default, Clone)]
enum Id {
    #[default]
    Absent,
    Null,
    Valid(Span),
    TooLong,
    Invalid,
}

impl Id {
    fn new(raw: &[u8], span: Span) -> Self {
        match raw {
            b"null" => Self::Null,
            _ if raw.len() > LONGEST_NAME => Self::TooLong,
            [b'"', ..] => Self::Valid(span),
            [b'-', digits @ ..] | digits if digits.iter().all(u8::is_ascii_digit) => Self::Valid(span),
            _ => Self::Invalid,
        }
    }

    fn valid(&self) -> Option<Span> {
        if let Self::Valid(span) = self { Some(span.clone()) } else { None }
    }
}

impl Envelope {
    fn read(&mut self, lexer: &mut Lexer<'_>) -> Result<(), Broken> {
        lexer.space();
        if lexer.peek() == Some(b'{') {
            // Line breaks around the object are not part of the message.
            lexer.line_break = false;
            let mut unknown = HashSet::new();
            self.object = lexer.object(|lexer, key| self.read_member(lexer, key, &mut unknown))?;
            self.multiline = lexer.line_break;
        } else {
            self.blame("a message is an object", lexer.at());
            lexer.value()?;
        }
        lexer.end()
    }

    fn read_member<'a>(
        &mut self,
        lexer: &mut Lexer<'a>,
        key: Span,
        unknown: &mut HashSet<Cow<'a, [u8]>>,
    ) -> Result<(), Broken> {
        let at = key.start;
        let name = lexer.name(&key);
        if name.len() > LONGEST_NAME {
            self.blame("a member's name is longer than 1 KiB", at);
            return lexer.value().map(|_| ());
        }
        let slot = match &*name {
            b"jsonrpc" => &mut self.jsonrpc,
            b"method" => &mut self.method,
            b"error" => &mut self.error,
            b"result" => return self.read_result(lexer, at),
            b"params" => return self.read_params(lexer, at),
            b"id" => {
                let span = lexer.value()?;
                if !matches!(self.id, Id::Absent) {
                    self.id = Id::Invalid;
                    self.blame("a member is duplicated", at);
                } else {
                    self.id = Id::new(&lexer.bytes()[span.clone()], span);
                }
                return Ok(());
            }
            _ => {
                self.lookalike = self.lookalike.or_else(|| lookalike(&name, lookalike::ENVELOPE));
                if unknown.len() == MOST_UNKNOWN_MEMBERS {
                    self.blame("the message has too many members", at);
                } else if !unknown.insert(name) {
                    self.blame("a member is duplicated", at);
                }
                return lexer.value().map(|_| ());
            }
        };
        if slot.replace(lexer.value()?).is_some() {
            self.blame("a member is duplicated", at);
        }
        Ok(())
    }

    fn read_params(&mut self, lexer: &mut Lexer<'_>, at: usize) -> Result<(), Broken> {
        if self.params.is_some() || self.null_params.is_some() {
            self.blame("a member is duplicated", at);
        }
        if lexer.peek() == Some(b'n') {
            self.null_params = Some(lexer.value()?);
            return Ok(());
        }
        let mut params = Box::<Params>::default();
        if lexer.peek() == Some(b'{') {
            params.span = lexer.object(|lexer, key| {
                let at = key.start;
                if let Err(reason) = read_param(&mut params, &mut self.lookalike, lexer, key)? {
                    self.blame(reason, at);
                }
                Ok(())
            })?;
        } else {
            self.blame("params is not an object", lexer.at());
            lexer.value()?;
        }
        self.params = Some(params);
        Ok(())
    }

    fn read_result(&mut self, lexer: &mut Lexer<'_>, at: usize) -> Result<(), Broken> {
        let result = if lexer.peek() == Some(b'{') {
            lexer.object(|lexer, key| {
                let is_error = *lexer.name(&key) == *b"isError";
                let value = lexer.value()?;
                if is_error {
                    self.is_error = &lexer.bytes()[value] == b"true";
                }
                Ok(())
            })?
        } else {
            lexer.value()?
        };
        if self.result.replace(result).is_some() {
            self.blame("a member is duplicated", at);
        }
        Ok(())
    }

    fn blame(&mut self, reason: &'static str, at: usize) {
        self.fault.get_or_insert(Fault::invalid(reason, at));
    }

    /// Returns the kind of the message.
    fn kind(&self, bytes: &[u8]) -> Result<Kind, Fault> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let invalid = |reason| Err(Fault::invalid(reason, self.object.start));
        let is_version = |span: &Span| &bytes[span.clone()] == b"\"2.0\"" || is_string(bytes, span, b"2.0");
        if !self.jsonrpc.as_ref().is_some_and(is_version) {
            return invalid("jsonrpc is not \"2.0\"");
        }
        if self.method.as_ref().is_some_and(|span| bytes[span.start] != b'"') {
            return invalid("method is not a string");
        }
        if self.method.as_ref().is_some_and(|span| span.len() > LONGEST_NAME) {
            return invalid("method is longer than 1 KiB");
        }
        let (method, result, error) = (self.method.is_some(), self.result.is_some(), self.error.is_some());
        match (&self.id, method, result, error) {
            (Id::TooLong, ..) => invalid("id is longer than 1 KiB"),
            (Id::Invalid, ..) => invalid("id is neither a string nor an integer"),
            (Id::Valid(_), true, false, false) => Ok(Kind::Request),
            (Id::Absent, true, false, false) => Ok(Kind::Notification),
            (Id::Valid(_), false, true, false) | (_, false, false, true) => Ok(Kind::Response),
            (Id::Null, ..) => invalid("id is null"),
            (_, false, true, false) => invalid("a result has no id"),
            (_, false, false, false) => invalid("there is no method, result or error"),
            (_, true, ..) => invalid("there is a method beside a result or an error"),
            (_, _, true, true) => invalid("there is a result beside an error"),
        }
    }

    fn into_message(self, kind: Kind) -> Message {
        Message {
            kind,
            object: self.object,
            id: self.id.valid(),
            method: self.method,
            params: self.params,
            null_params: self.null_params,
            result: self.result,
            is_error: self.is_error,
            error: self.error,
            multiline: self.multiline,
            lookalike: self.lookalike,
        }
    }
}

/// Returns whether the value at `span` is the string `value`.
fn is_string(bytes: &[u8], span: &Span, value: &[u8]) -> bool {
    bytes[span.start] == b'"' && *unescaped(&bytes[span.clone()]) == *value
}

/// The fault of a member, if any.
type Judged = Result<(), &'static str>;

const PARAM_REPEATED: &str = "a member of params is duplicated";

/// Reads one member of `params`.
fn read_param(
    params: &mut Params,
    found: &mut Option<&'static str>,
    lexer: &mut Lexer<'_>,
    key: Span,
) -> Result<Judged, Broken> {
    let (slot, longest, too_long) = match &*lexer.name(&key) {
        b"name" => (&mut params.name, LONGEST_NAME, "params.name is longer than 1 KiB"),
        b"uri" => (&mut params.uri, LONGEST_URI, "params.uri is longer than 16 KiB"),
        b"requestId" => (&mut params.request_id, LONGEST_NAME, "params.requestId is longer than 1 KiB"),
        b"progressToken" => {
            (&mut params.progress_token, LONGEST_NAME, "params.progressToken is longer than 1 KiB")
        }
        b"protocolVersion" => {
            (&mut params.protocol_version, LONGEST_NAME, "params.protocolVersion is longer than 1 KiB")
        }
        b"level" => (&mut params.level, LONGEST_NAME, "params.level is longer than 1 KiB"),
        b"taskId" => (&mut params.task_id, LONGEST_NAME, "params.taskId is longer than 1 KiB"),
        b"capabilities" => (&mut params.capabilities, usize::MAX, ""),
        b"clientInfo" => (&mut params.client_info, usize::MAX, ""),
        b"task" => (&mut params.task, usize::MAX, ""),
        b"requestState" => (&mut params.request_state, usize::MAX, ""),
        b"inputResponses" => (&mut params.input_responses, usize::MAX, ""),
        b"_meta" => return read_meta(params, found, lexer),
        name => {
            *found = found.or_else(|| lookalike(name, lookalike::PARAMS));
            return lexer.value().map(|_| Ok(()));
        }
    };
    let value = lexer.value()?;
    let judged = if value.len() > longest { Err(too_long) } else { Ok(()) };
    let repeated = slot.replace(value).is_some();
    Ok(if repeated { Err(PARAM_REPEATED) } else { judged })
}

/// Reads `params._meta`.
fn read_meta(
    params: &mut Params,
    found: &mut Option<&'static str>,
    lexer: &mut Lexer<'_>,
) -> Result<Judged, Broken> {
    let mut judged = if params.meta_value.is_none() { Ok(()) } else { Err(PARAM_REPEATED) };
    if lexer.peek() == Some(b'{') {
        let mut meta = Meta::default();
        meta.span = lexer.object(|lexer, key| {
            let member = read_meta_member(&mut meta, found, lexer, key)?;
            judged = judged.and(member);
            Ok(())
        })?;
        params.meta_value = Some(meta.span.clone());
        params.meta = Some(meta);
    } else {
        params.meta_value = Some(lexer.value()?);
    }
    Ok(judged)
}

fn read_meta_member(
    meta: &mut Meta,
    found: &mut Option<&'static str>,
    lexer: &mut Lexer<'_>,
    key: Span,
) -> Result<Judged, Broken> {
    let mut trace = true;
    let mut longest = usize::MAX;
    let slot = match &*lexer.name(&key) {
        b"traceparent" => &mut meta.traceparent,
        b"tracestate" => &mut meta.tracestate,
        b"baggage" => &mut meta.baggage,
        name => {
            trace = false;
            match name {
                b"io.modelcontextprotocol/clientCapabilities" => &mut meta.client_capabilities,
                b"io.modelcontextprotocol/clientInfo" => &mut meta.client_info,
                b"io.modelcontextprotocol/related-task" => &mut meta.related_task,
                name => {
                    longest = LONGEST_NAME;
                    match name {
                        b"progressToken" => &mut meta.progress_token,
                        b"io.modelcontextprotocol/protocolVersion" => &mut meta.era_version,
                        b"io.modelcontextprotocol/logLevel" => &mut meta.log_level,
                        b"io.modelcontextprotocol/subscriptionId" => &mut meta.subscription_id,
                        _ => {
                            *found = found.or_else(|| lookalike(name, lookalike::META));
                            return lexer.value().map(|_| Ok(()));
                        }
                    }
                }
            }
        }
    };
    let value = lexer.value()?;
    let too_long = value.len() > longest;
    let repeated = slot.replace(value).is_some();
    meta.trace_repeated |= trace && repeated;
    Ok(match (trace, repeated, too_long) {
        (false, true, _) => Err(PARAM_REPEATED),
        (_, _, true) => Err("a token, a version or a level in params._meta is longer than 1 KiB"),
        _ => Ok(()),
    })
}
