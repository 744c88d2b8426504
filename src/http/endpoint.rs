//! Which path leads where.

use super::origin::Origin;
use super::reject::{Rejection, method_not_allowed};
use super::response::Body;
use super::{Server, Settings, body, guard, health, legacy, old_sse};
use crate::jsonrpc::codes;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use std::sync::Arc;

/// Where the counters are.
const METRICS: &str = "/metrics";

/// Answers one HTTP request of a peer.
pub async fn serve(server: Arc<Server>, origin: &Origin, request: Request<Incoming>) -> Response<Body> {
    if let Some(response) = health::serve(&server, request.uri().path()) {
        let asks = matches!(*request.method(), Method::GET | Method::HEAD);
        return if asks { response } else { method_not_allowed("GET, HEAD") };
    }
    let site = match guard::same_site(&server.settings, request.uri(), request.headers()) {
        Ok(site) => site,
        Err(rejection) => return rejection.response(),
    };
    let mut response = match route(&server, origin, request).await {
        Ok(response) => response,
        Err(rejection) => rejection.response(),
    };
    if let Some(site) = site {
        guard::allow_reading(&mut response, site);
    }
    response
}

/// Answers a request to `--admin-listen`: probes and metrics, for any Host.
pub fn serve_admin(server: &Server, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    if !is_probe(path) {
        let message = format!("nothing is served at {path}; --admin-listen serves probes and {METRICS}");
        return Rejection::new(StatusCode::NOT_FOUND, codes::INVALID_REQUEST, message).closing().response();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return method_not_allowed("GET, HEAD");
    }
    health::serve(server, path).unwrap_or_else(|| health::metrics(server, request.headers()))
}

/// Whether a path is one that whoever watches proxyrunner asks, and that takes nothing to answer.
pub fn is_probe(path: &str) -> bool {
    path == METRICS || health::is_served(path)
}

/// Refuses a request since there is no connection left on which it could be served.
pub fn refuse_connection(request: Request<Incoming>) -> Response<Body> {
    let rejection = Rejection::busy("all --max-connections connections are busy").closing();
    body::refuse(request.into_body(), rejection).response()
}

/// The path that is served where `path` leads; `None` if nothing is.
pub fn route_of<'a>(settings: &'a Settings, path: &str) -> Option<&'a str> {
    let old = [old_sse::STREAM_PATH, old_sse::POST_PATH];
    let old = old.into_iter().filter(|_| settings.old_sse);
    [&*settings.path, METRICS].into_iter().chain(old).find(|served| *served == path)
}

async fn route(
    server: &Arc<Server>,
    origin: &Origin,
    request: Request<Incoming>,
) -> Result<Response<Body>, Rejection> {
    let settings = &server.settings;
    let path = request.uri().path();
    if route_of(settings, path).is_none() {
        let message = format!("nothing is served at {path}; the MCP endpoint is {}", settings.path);
        return Err(Rejection::new(StatusCode::NOT_FOUND, codes::INVALID_REQUEST, message));
    }
    if request.method() == Method::OPTIONS {
        return Ok(guard::preflight());
    }
    if path == settings.path {
        return legacy::serve(server, origin, request).await;
    }
    match path {
        old_sse::STREAM_PATH => old_sse::stream(server, &request),
        old_sse::POST_PATH => old_sse::post(server, origin, request).await,
        _ if matches!(*request.method(), Method::GET | Method::HEAD) => {
            Ok(health::metrics(server, request.headers()))
        }
        _ => Ok(method_not_allowed("GET, HEAD")),
    }
}
