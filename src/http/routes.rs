//! Routes a request by its path, after the checks that hold for every path: framing, Host, Origin.

use super::paths::{self, METRICS, Probe};
use super::reject::{Rejection, method_not_allowed};
use super::response::Body;
use super::source::Source;
use super::{Server, Settings, body, endpoint, guard, health, old_sse, site};
use crate::jsonrpc::codes;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, StatusCode};
use std::sync::Arc;

/// Answers one HTTP request to `--listen`.
pub async fn serve(server: &Arc<Server>, source: &Source, request: Request<Incoming>) -> Response<Body> {
    if let Err(rejection) = guard::check_framing(request.headers()) {
        return rejection.response();
    }
    let path = request.uri().path();
    if let Some(probe) = Probe::at(path).filter(|_| path != server.settings.path) {
        return if reads(request.method()) {
            health::serve(server, probe)
        } else {
            method_not_allowed("GET, HEAD")
        };
    }
    let site = match admit(&server.settings, &request) {
        Ok(site) => site,
        Err(rejection) => return body::refuse(request.into_body(), rejection).response(),
    };
    let mut response = match route(server, source, request).await {
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
fn admit(settings: &Settings, request: &Request<Incoming>) -> Result<Option<HeaderValue>, Rejection> {
    if paths::plain(request.uri().path()) != METRICS {
        site::check_host(settings, request)?;
        site::check_fetch_site(request.headers())?;
    }
    site::check_origin(settings, request.headers())
}

/// Answers a request to `--admin-listen`: probes and metrics, for any Host.
pub fn serve_admin(server: &Server, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    if !paths::is_monitoring(&server.settings, path) {
        let message = format!("nothing is served at {path}; --admin-listen serves probes and {METRICS}");
        return Rejection::new(StatusCode::NOT_FOUND, codes::INVALID_REQUEST, message).closing().response();
    }
    if !reads(request.method()) {
        return method_not_allowed("GET, HEAD");
    }
    match Probe::at(path) {
        Some(probe) => health::serve(server, probe),
        None => health::metrics(server, request.headers()),
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
pub fn refuse(request: Request<Incoming>, full: Full) -> Response<Body> {
    let rejection = Rejection::busy(match full {
        Full::Connections => "all --max-connections connections are busy",
        Full::Memory => "--max-buffered is used up by messages in transit",
    });
    body::refuse(request.into_body(), rejection.closing()).response()
}

async fn route(
    server: &Arc<Server>,
    source: &Source,
    request: Request<Incoming>,
) -> Result<Response<Body>, Rejection> {
    let settings = &server.settings;
    let path = request.uri().path();
    let Some(served) = paths::route_of(settings, path) else {
        let message = format!("nothing is served at {path}; the MCP endpoint is {}", settings.path);
        let rejection = Rejection::new(StatusCode::NOT_FOUND, codes::INVALID_REQUEST, message);
        return Err(body::refuse(request.into_body(), rejection));
    };
    if request.method() == Method::OPTIONS {
        return Ok(site::preflight(request.headers()));
    }
    if served == settings.path {
        return endpoint::serve(server, source, request).await;
    }
    match served {
        paths::SSE_STREAM => old_sse::stream(server, source, &request),
        paths::SSE_POST => old_sse::post(server, source, request).await,
        _ if reads(request.method()) => Ok(health::metrics(server, request.headers())),
        _ => Ok(method_not_allowed("GET, HEAD")),
    }
}

fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}
