//! Which path leads where.

use super::origin::Origin;
use super::reject::{Rejection, method_not_allowed};
use super::response::Body;
use super::{Server, Settings, body, guard, health, legacy, old_sse, site};
use crate::jsonrpc::codes;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, StatusCode};
use std::sync::Arc;

/// Where the counters are.
const METRICS: &str = "/metrics";

/// Answers one HTTP request of a peer.
pub async fn serve(server: Arc<Server>, origin: &Origin, request: Request<Incoming>) -> Response<Body> {
    if let Err(rejection) = guard::check_framing(request.headers()) {
        return rejection.response();
    }
    if let Some(response) = health::serve(&server, request.uri().path()) {
        let asks = matches!(*request.method(), Method::GET | Method::HEAD);
        return if asks { response } else { method_not_allowed("GET, HEAD") };
    }
    let site = match admit(&server.settings, &request) {
        Ok(site) => site,
        Err(rejection) => return body::refuse(request.into_body(), rejection).response(),
    };
    let mut response = match route(&server, origin, request).await {
        Ok(response) => response,
        Err(rejection) => rejection.response(),
    };
    if let Some(site) = site {
        site::allow_reading(&mut response, site);
    }
    response
}

/// Checks where a request comes from. `/metrics` is served for any Host, since scrapers may use any name.
fn admit(settings: &Settings, request: &Request<Incoming>) -> Result<Option<HeaderValue>, Rejection> {
    if plain(request.uri().path()) != METRICS {
        site::check_host(settings, request)?;
        site::check_fetch_site(request.headers())?;
    }
    site::check_origin(settings, request.headers())
}

/// Strips trailing slashes and repeated leading ones, which clients and ingresses add.
pub fn plain(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    let slashes = path.len() - path.trim_start_matches('/').len();
    &path[slashes.saturating_sub(1)..]
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
    plain(path) == METRICS || health::is_served(path)
}

/// Why a request is not even begun.
#[derive(Clone, Copy, Debug)]
pub enum Full {
    /// There is no connection left on which it could be served.
    Connections,
    /// There is no memory for it.
    Memory,
}

/// Refuses a request before it is begun, and closes its connection.
pub fn refuse(request: Request<Incoming>, full: Full) -> Response<Body> {
    let rejection = Rejection::busy(match full {
        Full::Connections => "all --max-connections connections are busy",
        Full::Memory => "messages in transit take all of --max-buffered",
    });
    body::refuse(request.into_body(), rejection.closing()).response()
}

/// The path that is served where `path` leads; `None` if nothing is.
pub fn route_of<'a>(settings: &'a Settings, path: &str) -> Option<&'a str> {
    let old = [old_sse::STREAM_PATH, old_sse::POST_PATH];
    let old = old.into_iter().filter(|_| settings.old_sse);
    [&*settings.path, METRICS].into_iter().chain(old).find(|served| plain(served) == plain(path))
}

async fn route(
    server: &Arc<Server>,
    origin: &Origin,
    request: Request<Incoming>,
) -> Result<Response<Body>, Rejection> {
    let settings = &server.settings;
    let path = request.uri().path();
    let Some(served) = route_of(settings, path) else {
        let message = format!("nothing is served at {path}; the MCP endpoint is {}", settings.path);
        let rejection = Rejection::new(StatusCode::NOT_FOUND, codes::INVALID_REQUEST, message);
        return Err(body::refuse(request.into_body(), rejection));
    };
    if request.method() == Method::OPTIONS {
        return Ok(site::preflight(request.headers()));
    }
    if served == settings.path {
        return legacy::serve(server, origin, request).await;
    }
    match served {
        old_sse::STREAM_PATH => old_sse::stream(server, origin, &request),
        old_sse::POST_PATH => old_sse::post(server, origin, request).await,
        _ if matches!(*request.method(), Method::GET | Method::HEAD) => {
            Ok(health::metrics(server, request.headers()))
        }
        _ => Ok(method_not_allowed("GET, HEAD")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_same_with_more_slashes_around_it() {
        for (path, same) in [
            ("/mcp", "/mcp"),
            ("/mcp/", "/mcp"),
            ("//mcp//", "/mcp"),
            ("/a/mcp/", "/a/mcp"),
            ("/", ""),
            ("//", ""),
            ("", ""),
            ("*", "*"),
        ] {
            assert_eq!(plain(path), same, "{path:?}");
        }
    }
}
