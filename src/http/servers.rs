//! The gateway's paths: `/servers/NAME/mcp` is the endpoint of one server, whose replicas get the requests. `/mcp`, of all
//! servers, is an endpoint like a sidecar's ([`endpoint`](super::endpoint)), whose child is the gateway itself.
//!
//! A message is read whole before it passes, because limits and the audit log depend on it, and so that it can be tried
//! at another replica. Its answer passes as it arrives ([`relay`](super::relay)).

mod answer;
mod passing;

use super::reject::{Rejection, method_not_allowed};
use super::response::Body;
use super::source::Source;
use super::{Server, body, cards, health, paths, registrations, registry, site};
use crate::gateway;
use crate::jsonrpc::codes;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use passing::Passing;
use std::sync::Arc;

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
