//! The gateway's documents: the key set and metadata by which servers verify its tokens, and the reads of the registry's
//! API, which the [catalogue](crate::gateway) answers.

use super::reject::{Rejection, method_not_allowed};
use super::response::{self, Body};
use super::{Server, auth, body};
use crate::budget::Charged;
use crate::gateway::{Asked, Gateway, Refusal};
use crate::jsonrpc::{Spliced, codes};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, HeaderValue, VARY};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::time::SystemTime;

/// The prefix of the registry's API.
const REGISTRY: &str = "/registry/v0.1";
const KEY_SET: &str = "/.well-known/jwks.json";
/// Not also that of RFC 8414, where MCP clients look for an authorization server: the gateway issues them no tokens.
const METADATA: &str = "/.well-known/openid-configuration";

/// Answers a request for a document that anybody may read; `None` if there is none at this path.
pub fn public(gateway: &Gateway, head: &Parts) -> Option<Response<Body>> {
    let text = match head.uri.path() {
        KEY_SET => gateway.key_set(),
        METADATA => gateway.metadata(),
        _ => return None,
    };
    if !reads(&head.method) {
        return Some(method_not_allowed("GET, HEAD"));
    }
    let mut response = response::json(StatusCode::OK, Spliced::from(Charged::own(text)));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    Some(response)
}

/// Returns whether a path belongs to the registry's API.
pub fn is_at(path: &str) -> bool {
    path.strip_prefix(REGISTRY).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Answers a request of an identified caller to the registry's API.
pub fn serve(server: &Server, gateway: &Gateway, head: &Parts, body: Incoming) -> Response<Body> {
    let path = head.uri.path().strip_prefix(REGISTRY).unwrap_or_default();
    let mut response = if reads(&head.method) {
        let base = auth::base(server, &head.headers).unwrap_or_default();
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let query = head.uri.query().unwrap_or_default();
        match gateway.catalog(Asked { path, query, base: &base, now }) {
            Ok(answer) => json(StatusCode::OK, &answer),
            Err(Refusal::NotFound(why)) => refused(body, StatusCode::NOT_FOUND, &why),
            Err(Refusal::Invalid(why)) => refused(body, StatusCode::BAD_REQUEST, why),
        }
    } else if [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(&head.method) {
        const WHY: &str = "this registry is read-only; sidecars register at /registrations/NAMESPACE/NAME";
        refused(body, StatusCode::NOT_IMPLEMENTED, WHY)
    } else {
        let mut response = refused(body, StatusCode::METHOD_NOT_ALLOWED, "this path takes GET and HEAD");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
        response
    };
    // What a caller sees depends on who calls, and on the health of servers.
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.append(VARY, HeaderValue::from_static("authorization"));
    response
}

pub(super) fn json(status: StatusCode, value: &Value) -> Response<Body> {
    response::json(status, Spliced::from(Charged::own(value.to_string())))
}

/// Refuses a request in the form of the registry's API. The body is not read.
pub(super) fn refused(body: Incoming, status: StatusCode, why: &str) -> Response<Body> {
    let rejection = Rejection::new(status, codes::INVALID_REQUEST, why.to_owned());
    let plain = body::refuse(body, rejection).response();
    let mut response = json(status, &json!({"error": why}));
    if let Some(closing) = plain.headers().get(CONNECTION) {
        response.headers_mut().insert(CONNECTION, closing.clone());
    }
    response
}

fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}
