//! Checks on a request's head: framing, Content-Type, Content-Encoding and Accept.

use super::deviation::Deviation;
use super::reject::Rejection;
use crate::jsonrpc::codes;
use crate::trace_context::Trace;
use hyper::StatusCode;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    TRANSFER_ENCODING,
};

/// Refuses any Transfer-Encoding other than a single `chunked`. Proxies disagree about where such a body ends, and
/// bytes that one of them counts as body are the next request to another (request smuggling).
///
/// # Errors
/// 501 for an unknown coding, 400 for a repeated `chunked`. The connection is closed.
pub fn check_framing(headers: &HeaderMap) -> Result<(), Rejection> {
    if !headers.contains_key(TRANSFER_ENCODING) {
        return Ok(());
    }
    let mut given = headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
    match (given.next(), given.next()) {
        (Some(only), None) if is_chunked(only.as_bytes()) => return Ok(()),
        _ => {}
    }
    let values = headers.get_all(TRANSFER_ENCODING).iter();
    let known = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).all(is_chunked);
    let status = if known { StatusCode::BAD_REQUEST } else { StatusCode::NOT_IMPLEMENTED };
    let message = "Transfer-Encoding must be a single chunked";
    Err(Rejection::new(status, codes::INVALID_REQUEST, message).closing())
}

/// Checks that every Content-Type declares JSON.
///
/// # Errors
/// 415 otherwise.
pub fn sends_json(headers: &HeaderMap) -> Result<(), Rejection> {
    let is_json = |value: &HeaderValue| {
        if value == "application/json" {
            return true;
        }
        let media_type = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
        media_type.trim().eq_ignore_ascii_case("application/json")
    };
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    if values.next().is_some_and(is_json) && values.all(is_json) {
        return Ok(());
    }
    let message = "the body must be declared as Content-Type: application/json";
    Err(Rejection::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, codes::INVALID_REQUEST, message))
}

/// Checks that the body is not compressed.
///
/// # Errors
/// 415 otherwise, naming the encoding.
pub fn sends_plain(headers: &HeaderMap) -> Result<(), Rejection> {
    if !headers.contains_key(CONTENT_ENCODING) {
        return Ok(());
    }
    let values = headers.get_all(CONTENT_ENCODING).iter().map(|value| value.to_str().unwrap_or("?"));
    let mut encodings = values.flat_map(|list| list.split(',')).map(str::trim);
    let foreign = encodings.find(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"));
    let Some(foreign) = foreign else { return Ok(()) };
    let message = format!("Content-Encoding {foreign:?} is not supported; send the body uncompressed");
    let rejection = Rejection::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, codes::INVALID_REQUEST, message);
    // RFC 9110 §12.5.3: this tells a wrong encoding from a wrong media type.
    Err(rejection.header(ACCEPT_ENCODING, HeaderValue::from_static("identity")))
}

/// The content types that a client accepts for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// JSON or an event stream.
    Either,
    /// JSON only: messages before the answer cannot be delivered with it.
    Json,
}

/// Returns the content types that a client accepts for the answer to a request, and logs a client that lists JSON
/// only.
///
/// # Errors
/// 406 when the client does not accept JSON.
pub fn response_form(headers: &HeaderMap) -> Result<Form, Rejection> {
    let form = answers_in(headers)?;
    if form == Form::Json {
        Deviation::Accept.tolerate(headers);
    }
    Ok(form)
}

/// Returns the content types that a client accepts for the answer to a request. Clients must list both JSON and event
/// streams, but are refused only if they cannot be answered at all. Without an Accept header the answer is JSON,
/// which every client can read.
fn answers_in(headers: &HeaderMap) -> Result<Form, Rejection> {
    let mut values = headers.get_all(ACCEPT).iter();
    match (values.next(), values.next()) {
        (None, _) => return Ok(Form::Json),
        // As the official SDKs write it.
        (Some(only), None) if only == "application/json, text/event-stream" => return Ok(Form::Either),
        _ => {}
    }
    match (takes(headers, "application/json"), takes(headers, EVENTS)) {
        (true, true) => Ok(Form::Either),
        (true, false) => Ok(Form::Json),
        (false, _) => Err(not_acceptable("application/json, text/event-stream")),
    }
}

/// Checks that the client accepts event streams.
///
/// # Errors
/// 406 otherwise.
pub fn takes_events(headers: &HeaderMap) -> Result<(), Rejection> {
    if takes(headers, EVENTS) { Ok(()) } else { Err(not_acceptable(EVENTS)) }
}

const EVENTS: &str = "text/event-stream";
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// Returns a 406 that names the content types the client must accept.
pub fn not_acceptable(types: &str) -> Rejection {
    let message = format!("the client must accept the response: Accept: {types}");
    Rejection::new(StatusCode::NOT_ACCEPTABLE, codes::INVALID_REQUEST, message)
}

/// Returns whether a client accepts a media type. The most specific range decides (RFC 9110 §12.5.1).
fn takes(headers: &HeaderMap, wanted: &str) -> bool {
    let kind = wanted.split('/').next().unwrap_or_default();
    let ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let judged = ranges.flat_map(|list| list.split(',')).filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let specific = match name {
            "*/*" | "*" => 0,
            _ if name.strip_suffix("/*").is_some_and(|name| name.eq_ignore_ascii_case(kind)) => 1,
            _ if name.eq_ignore_ascii_case(wanted) => 2,
            _ => return None,
        };
        Some((specific, !parts.any(is_zero_weight)))
    });
    judged.max_by_key(|(specific, _)| *specific).is_some_and(|(_, taken)| taken)
}

fn is_zero_weight(parameter: &str) -> bool {
    let weight = parameter.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    weight.is_some_and(|(_, value)| value.trim().parse() == Ok(0.0_f32))
}

/// Returns the only value of a header.
///
/// # Errors
/// 400 when the header occurs more than once or is not readable: a proxy that reads the other value would see another
/// request.
pub fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Rejection> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Rejection::invalid(format!("the header {name} occurs more than once")));
    }
    match value.to_str() {
        Ok(value) => Ok(Some(value.trim())),
        Err(_) => Err(Rejection::invalid(format!("the header {name} is not readable"))),
    }
}

/// Returns the value of a header that proxies may have repeated or joined with itself. Empty parts of such a list
/// mean nothing (RFC 9110 §5.6.1).
///
/// # Errors
/// 400 when the values differ or are unreadable.
pub fn agreed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Rejection> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    // A fold without a branch: it looks at many bytes at once.
    let is_word = first
        .as_bytes()
        .iter()
        .fold(true, |is_word, byte| is_word & byte.is_ascii_graphic() & (*byte != b','));
    if let (true, None, Ok(only)) = (is_word, values.next(), std::str::from_utf8(first.as_bytes())) {
        return Ok(Some(only));
    }
    let mut agreed = None;
    for value in headers.get_all(name) {
        let value = value.to_str();
        let list = value.map_err(|_| Rejection::invalid(format!("the header {name} is not readable")))?;
        for value in list.split(',').map(str::trim) {
            match agreed {
                Some(before) if before == value || value.is_empty() => {}
                None | Some("") => agreed = Some(value),
                Some(_) => return Err(Rejection::invalid(format!("the header {name} has different values"))),
            }
        }
    }
    Ok(agreed)
}

/// Returns the trace context of an HTTP request; without `propagates`, only its baggage. Malformed values are
/// ignored.
pub fn trace(headers: &HeaderMap, propagates: bool) -> Trace {
    // Most requests carry no trace context. Their few names are compared faster than others are hashed.
    if !headers.keys().any(|name| name == TRACEPARENT || name == BAGGAGE) {
        return Trace::default();
    }
    let joined = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let first = values.next()?.to_owned();
        Some(values.fold(first, |list, value| list + "," + value))
    };
    let parent = joined(&TRACEPARENT).filter(|_| propagates);
    let baggage = joined(&BAGGAGE);
    Trace::from_headers(parent.as_deref(), joined(&TRACESTATE).as_deref(), baggage.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn accept_knows_wildcards_and_refusals() {
        let form = |value: &'static str| answers_in(&with(ACCEPT, &[value])).ok();
        for both in [
            "application/json, text/event-stream",
            "text/event-stream;q=0.5, Application/JSON; charset=utf-8",
            "*/*",
            "*",
            "application/*, text/*",
            "text/html, image/gif, *; q=.2, */*; q=.2",
        ] {
            assert_eq!(form(both), Some(Form::Either), "{both}");
        }
        for json in ["application/json", "application/json, text/event-stream;q=0", "*/*, text/*; Q = 0.000"]
        {
            assert_eq!(form(json), Some(Form::Json), "{json}");
        }
        for none in [
            "text/event-stream",
            "text/event-stream, application/json;q=0",
            "application/jsonl, text/event-stream",
            "*/*, application/json;q=0",
            "",
        ] {
            assert_eq!(form(none), None, "{none}");
        }
        assert_eq!(answers_in(&HeaderMap::new()).ok(), Some(Form::Json));
        assert!(takes_events(&HeaderMap::new()).is_err());
    }

    #[test]
    fn a_body_is_framed_by_chunked_alone_or_by_its_length() {
        let status = |values: &[&'static str]| {
            check_framing(&with(TRANSFER_ENCODING, values)).err().map(|rejection| rejection.status().as_u16())
        };
        for good in [&[][..], &["chunked"], &["Chunked"], &[" chunked "]] {
            assert_eq!(status(good), None, "{good:?}");
        }
        for bad in [&["chunked, chunked"][..], &["chunked", "chunked"]] {
            assert_eq!(status(bad), Some(400), "{bad:?}");
        }
        for unknown in [&["gzip, chunked"][..], &["identity"], &["chunked;x=1"], &["gzip", "chunked"], &[""]]
        {
            assert_eq!(status(unknown), Some(501), "{unknown:?}");
        }
    }

    #[test]
    fn equal_values_count_as_one() {
        const NAME: HeaderName = HeaderName::from_static("x");
        let one =
            |values: &[&'static str]| agreed(&with(NAME, values), &NAME).map(|v| v.map(str::to_owned)).ok();
        assert_eq!(one(&[]), Some(None));
        assert_eq!(one(&[", "]), Some(Some(String::new())));
        for same in [&["a"][..], &["a", "a"], &["a, a"], &["a,a", " a "], &["a,"], &[", a", ""]] {
            assert_eq!(one(same), Some(Some("a".into())), "{same:?}");
        }
        for different in [&["a", "b"][..], &["a, b"], &["a,,b"], &["a", "A"]] {
            assert_eq!(one(different), None, "{different:?}");
        }
    }
}
