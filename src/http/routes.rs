//! Routes a request by its path, after the checks that hold for every path: framing, Host, Origin.

use super::paths::{self, METRICS, Probe};
use super::reject::{Rejection, method_not_allowed};
use super::response::Body;
use super::source::Source;
use super::service::Service;
use super::{Server, Settings, body, endpoint, guard, health, old_sse, site};
use crate::jsonrpc::codes;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use std::sync::{Arc, OnceLock};

/// Answers one HTTP request to `--listen`.
pub async fn serve(service: &Service, source: &Source, head: &Parts, body: Incoming) -> Response<Body> {
    let server = &service.server;
    if let Err(rejection) = guard::check_framing(&head.headers) {
        return rejection.response();
    }
    let path = head.uri.path();
    if let Some(probe) = Probe::at(path).filter(|_| path != server.settings.path) {
        return if reads(&head.method) {
            health::serve(server, probe)
        } else {
            method_not_allowed("GET, HEAD")
        };
    }
    let site = match admit(&server.settings, &service.usual_host, head) {
        Ok(site) => site,
        Err(rejection) => return body::refuse(body, rejection).response(),
    };
    let mut response = match route(server, source, head, body).await {
        Ok(response) => response,
        Err(rejection) => rejection.response(),
    };
    if let Some(site) = site {
        site::allow_reading(&mut response, site);
    }
    response
}

/// Checks a request's Host and Origin, and returns the origin to allow by CORS. `/metrics` is served for any Host,
/// since scrapers may use any name.
fn admit(
    settings: &Settings,
    usual_host: &OnceLock<HeaderValue>,
    head: &Parts,
) -> Result<Option<HeaderValue>, Rejection> {
    if paths::plain(head.uri.path()) != METRICS {
        site::check_host(settings, usual_host, head)?;
        site::check_fetch_site(&head.headers)?;
    }
    site::check_origin(settings, &head.headers)
}

/// Answers a request to `--admin-listen`: probes and metrics, for any Host.
pub fn serve_admin(server: &Server, head: &Parts) -> Response<Body> {
    let path = head.uri.path();
    if !paths::is_monitoring(&server.settings, path) {
        let message = format!("nothing is served at {path}; --admin-listen serves probes and {METRICS}");
        return Rejection::new(StatusCode::NOT_FOUND, codes::INVALID_REQUEST, message).closing().response();
    }
    if !reads(&head.method) {
        return method_not_allowed("GET, HEAD");
    }
    match Probe::at(path) {
        Some(probe) => health::serve(server, probe),
        None => health::metrics(server, &head.headers),
    }
}

/// The limit that a request exceeds before it begins.
#[derive(Clone, Copy, Debug)]
pub enum Full {
    /// No regular connection place becomes free.
    Connections,
    /// No memory becomes free.
    Memory,
}

/// Refuses a request before it begins, and closes its connection.
pub fn refuse(body: Incoming, full: Full) -> Response<Body> {
    let rejection = Rejection::busy(match full {
        Full::Connections => "all --max-connections connections are busy",
        Full::Memory => "--max-buffered is used up by messages in transit",
    });
    body::refuse(body, rejection.closing()).response()
}

async fn route(
    server: &Arc<Server>,
    source: &Source,
    head: &Parts,
    body: Incoming,
) -> Result<Response<Body>, Rejection> {
    let settings = &server.settings;
    let path = head.uri.path();
    let Some(served) = paths::route_of(settings, path) else {
        let message = format!("nothing is served at {path}; the MCP endpoint is {}", settings.path);
        let rejection = Rejection::new(StatusCode::NOT_FOUND, codes::INVALID_REQUEST, message);
        return Err(body::refuse(body, rejection));
    };
    if head.method == Method::OPTIONS {
        return Ok(site::preflight(&head.headers));
    }
    if served == settings.path {
        return endpoint::serve(server, source, head, body).await;
    }
    match served {
        paths::SSE_STREAM => old_sse::stream(server, source, head),
        paths::SSE_POST => old_sse::post(server, source, head, body).await,
        _ if reads(&head.method) => Ok(health::metrics(server, &head.headers)),
        _ => Ok(method_not_allowed("GET, HEAD")),
    }
}

fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}
