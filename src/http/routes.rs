//! Routes a request by its path, after the checks that hold for every path: framing, Host, Origin.

use super::paths::{self, METRICS, Probe};
use super::reject::{Rejection, method_not_allowed};
use super::response::Body;
use super::source::Source;
use super::{Server, Settings, body, endpoint, guard, health, old_sse, site};
use crate::jsonrpc::codes;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use std::sync::{Arc, OnceLock};

/// How a request to `--listen` is served.
pub enum Route {
    /// It is answered already. Boxed, since a message to the endpoint would need as much memory while it is in progress.
    Answered(Box<Response<Body>>),
    /// A message to the endpoint.
    Endpoint(Incoming, Allowed),
    /// A message to the path of HTTP+SSE.
    OldSse(Incoming, Allowed),
}

/// The page that may read the answer, if a page sent the request.
pub struct Allowed(Option<HeaderValue>);

impl Allowed {
    /// Completes the answer to a message.
    pub fn complete(self, answered: Result<Response<Body>, Rejection>) -> Response<Body> {
        let mut response = answered.unwrap_or_else(|rejection| rejection.response());
        if let Some(site) = self.0 {
            site::allow_reading(&mut response, site);
        }
        response
    }
}

/// Routes one HTTP request to `--listen`, and answers it unless it carries a message. `usual_host` is that of its
/// connection; see [`site::check_host`].
pub fn route(
    server: &Arc<Server>,
    usual_host: &OnceLock<Box<[u8]>>,
    source: &Source,
    head: &Parts,
    body: Incoming,
) -> Route {
    if let Err(rejection) = guard::check_framing(&head.headers) {
        return Route::Answered(Box::new(rejection.response()));
    }
    let path = head.uri.path();
    if let Some(probe) = Probe::at(path).filter(|_| path != server.settings.path) {
        return Route::Answered(Box::new(if reads(&head.method) {
            health::serve(server, probe)
        } else {
            method_not_allowed("GET, HEAD")
        }));
    }
    match admit(&server.settings, usual_host, head) {
        Ok(site) => route_admitted(server, source, head, body, Allowed(site)),
        Err(rejection) => Route::Answered(Box::new(body::refuse(body, rejection).response())),
    }
}

/// Checks a request's Host and Origin, and returns the origin to allow by CORS. `/metrics` is served for any Host,
/// since scrapers may use any name.
fn admit(
    settings: &Settings,
    usual_host: &OnceLock<Box<[u8]>>,
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

fn route_admitted(
    server: &Arc<Server>,
    source: &Source,
    head: &Parts,
    body: Incoming,
    allowed: Allowed,
) -> Route {
    let settings = &server.settings;
    let path = head.uri.path();
    let answered = match paths::route_of(settings, path) {
        None => {
            let message = format!("nothing is served at {path}; the MCP endpoint is {}", settings.path);
            let rejection = Rejection::new(StatusCode::NOT_FOUND, codes::INVALID_REQUEST, message);
            Err(body::refuse(body, rejection))
        }
        Some(_) if head.method == Method::OPTIONS => Ok(site::preflight(&head.headers)),
        Some(served) if served == settings.path => {
            if head.method == Method::POST {
                return Route::Endpoint(body, allowed);
            }
            endpoint::serve(server, head)
        }
        Some(paths::SSE_STREAM) => old_sse::stream(server, source, head),
        Some(paths::SSE_POST) => return Route::OldSse(body, allowed),
        Some(_) if reads(&head.method) => Ok(health::metrics(server, &head.headers)),
        Some(_) => Ok(method_not_allowed("GET, HEAD")),
    };
    Route::Answered(Box::new(allowed.complete(answered)))
}

fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}
