//! The gateway's registration: sidecars announce, renew and withdraw themselves (`docs/gateway.md#registration`).

use super::registry::{json, refused};
use super::response::{self, Body};
use super::source::Source;
use super::{Server, body};
use crate::gateway::{Claim, Gateway, LEASE, Refused, decoded};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::time::Instant;

/// The path, to which the name is appended.
const PATH: &str = "/registrations";
/// Maximum length of a card.
const LONGEST_CARD: u64 = 16 * 1024;

/// Returns whether a path belongs to registration.
pub fn is_at(path: &str) -> bool {
    path.strip_prefix(PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Answers a request of an identified caller.
pub async fn serve(
    server: &Server,
    gateway: &Gateway,
    source: &Source,
    head: &Parts,
    body: Incoming,
) -> Response<Body> {
    let mut response = match head.method {
        Method::PUT | Method::DELETE => answer(server, gateway, source, head, body).await,
        _ => {
            const WHY: &str = "this path takes PUT and DELETE";
            let mut response = refused(body, StatusCode::METHOD_NOT_ALLOWED, WHY);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("PUT, DELETE, OPTIONS"));
            response
        }
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn answer(
    server: &Server,
    gateway: &Gateway,
    source: &Source,
    head: &Parts,
    body: Incoming,
) -> Response<Body> {
    let Some(registrations) = gateway.registrations() else {
        return refused(body, StatusCode::SERVICE_UNAVAILABLE, "the gateway is still starting");
    };
    let malformed = StatusCode::BAD_REQUEST;
    let name = head.uri.path().strip_prefix(PATH).unwrap_or_default().trim_matches('/');
    let parameters = parameters(head.uri.query().unwrap_or_default());
    let (Some(name), Some((url, sequence))) = (decoded(name), parameters) else {
        return refused(body, malformed, "the parameters are url and sequence, a number, percent-encoded");
    };
    if head.method == Method::DELETE {
        let claim = Claim { name: &name, url: &url, sequence, description: None };
        return match registrations.withdraw(&source.identity, &claim, Instant::now()) {
            Ok(()) => response::empty(StatusCode::NO_CONTENT),
            Err(why) => refusal(body, &why),
        };
    }
    if !body::is_at_most(&body, LONGEST_CARD) {
        let why = "the card is longer than 16 KiB, or of unknown length";
        return refused(body, StatusCode::PAYLOAD_TOO_LARGE, why);
    }
    let account = source.account_of_caller();
    let card = match body::read(server, body, &account, &source.persistence).await {
        Ok(whole) => whole,
        Err(rejection) => return rejection.response(),
    };
    let card: Value = match card.bytes() {
        [] => Value::Null,
        bytes => match serde_json::from_slice(bytes) {
            Ok(card @ Value::Object(_)) => card,
            _ => return error(malformed, "the body is not a card: it is no JSON object"),
        },
    };
    if card["name"].as_str().is_some_and(|own| own != name) {
        return error(malformed, "the card has another name than the path");
    }
    let claim = Claim { name: &name, url: &url, sequence, description: card["description"].as_str() };
    match registrations.register(&source.identity, &claim, Instant::now()) {
        Ok(segment) => {
            let path = format!("/servers/{segment}/mcp");
            json(StatusCode::OK, &json!({"name": name, "path": path, "lease": LEASE.as_secs()}))
        }
        Err(why) => {
            let (status, why) = told(&why);
            error(status, &why)
        }
    }
}

/// Returns the URL and the number in a query.
fn parameters(query: &str) -> Option<(String, Option<u64>)> {
    let (mut url, mut sequence) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        match name {
            "url" if url.is_none() => url = Some(decoded(value)?),
            "sequence" if sequence.is_none() => sequence = Some(value.parse().ok()?),
            _ => return None,
        }
    }
    Some((url?, sequence))
}

fn told(why: &Refused) -> (StatusCode, String) {
    let (status, text) = match why {
        Refused::Malformed(why) => (StatusCode::BAD_REQUEST, *why),
        Refused::Forbidden(why) => (StatusCode::FORBIDDEN, why.as_str()),
        Refused::Conflict(why) => (StatusCode::CONFLICT, why.as_str()),
        Refused::Unknown(why) => (StatusCode::NOT_FOUND, why.as_str()),
        Refused::TooMany(why) => (StatusCode::TOO_MANY_REQUESTS, why.as_str()),
        Refused::Full(why) => (StatusCode::SERVICE_UNAVAILABLE, *why),
    };
    (status, text.to_owned())
}

fn refusal(body: Incoming, why: &Refused) -> Response<Body> {
    let (status, why) = told(why);
    refused(body, status, &why)
}

fn error(status: StatusCode, why: &str) -> Response<Body> {
    let mut response = json(status, &json!({"error": why}));
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("30"));
    }
    response
}
