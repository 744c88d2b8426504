//! Routes a request by its path, after the checks that hold for every path: framing, Host, Origin.

use super::paths::{self, METRICS, Probe};
use super::reject::{Rejection, method_not_allowed};
use super::response::Body;
use super::source::Source;
use super::{Server, Settings, auth, body, cards, endpoint, guard, health, old_sse, site};
#[cfg(feature = "gateway")]
use super::{forwarding, modern, servers, takeover};
use crate::jsonrpc::codes;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
#[cfg(feature = "gateway")]
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

/// Prefix of the paths where clients look for metadata (RFC 8615).
const WELL_KNOWN: &str = "/.well-known/";

/// A request to `--listen` after the checks that need no caller.
pub enum Entry {
    /// It is answered already, or refused.
    Answered(Box<Response<Body>>),
    /// Its caller must be identified.
    Open(Incoming, Allowed),
}

/// How a request of an identified caller is served.
pub enum Route {
    /// It is answered already. Boxed, since a message to the endpoint would need as much memory while it is in progress.
    Answered(Box<Response<Body>>),
    /// A message to the endpoint.
    Endpoint(Incoming, Allowed),
    /// A message to the path of HTTP+SSE.
    OldSse(Incoming, Allowed),
    /// A request without a message, of a session at this sibling.
    #[cfg(feature = "gateway")]
    Sibling(SocketAddr, Allowed),
    /// A request without a message, of a session that may be at this replica or another one.
    #[cfg(feature = "gateway")]
    Session(Allowed),
    /// A request to a server of the gateway.
    #[cfg(feature = "gateway")]
    Server(Incoming, Allowed),
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

/// Checks one HTTP request to `--listen`, and answers it if no caller has to be identified for that. `usual_host` is
/// that of its connection; see [`site::check_host`].
pub fn enter(server: &Server, usual_host: &OnceLock<Box<[u8]>>, head: &Parts, body: Incoming) -> Entry {
    let answered = |response| Entry::Answered(Box::new(response));
    if let Err(rejection) = guard::check_framing(&head.headers) {
        return answered(rejection.response());
    }
    let path = head.uri.path();
    if path != server.settings.path
        && let Some(probe) = Probe::at(path)
    {
        return answered(if reads(&head.method) {
            health::serve(server, probe)
        } else {
            method_not_allowed("GET, HEAD")
        });
    }
    if path.starts_with(WELL_KNOWN)
        && let Some(response) = auth::metadata(server, &head.method, path, &head.headers)
    {
        return answered(response);
    }
    if let Some(response) = cards::public(server, head) {
        return answered(response);
    }
    let allowed = match admit(&server.settings, usual_host, head) {
        Ok(site) => Allowed(site),
        Err(rejection) => return answered(body::refuse(body, rejection).response()),
    };
    #[cfg(feature = "gateway")]
    if server.gateway.is_some() {
        return match servers::enter(server, head, body) {
            Ok(done) => answered(allowed.complete(done)),
            Err(body) => Entry::Open(body, allowed),
        };
    }
    if path == server.settings.path && head.method != Method::OPTIONS {
        return Entry::Open(body, allowed);
    }
    if head.method == Method::OPTIONS && paths::is_own_card(&server.settings, path) {
        return answered(allowed.complete(Ok(site::preflight(&head.headers))));
    }
    match paths::route_of(&server.settings, path) {
        // A page asks without credentials.
        Some(_) if head.method == Method::OPTIONS => {
            answered(allowed.complete(Ok(site::preflight(&head.headers))))
        }
        // Who calls which tools is nobody's business but the operator's.
        Some(METRICS) if server.authenticates() => {
            let message = "metrics are served at --admin-listen only, since callers are authenticated";
            let rejection = Rejection::new(StatusCode::NOT_FOUND, codes::INVALID_REQUEST, message);
            answered(body::refuse(body, rejection).response())
        }
        Some(METRICS) => answered(allowed.complete(Ok(if reads(&head.method) {
            health::metrics(server, &head.headers)
        } else {
            method_not_allowed("GET, HEAD")
        }))),
        // Clients look for metadata without credentials, also below the endpoint's path, and some give up at any status
        // but 404.
        None if path.contains(WELL_KNOWN) => {
            answered(allowed.complete(Err(body::refuse(body, not_found(&server.settings, path)))))
        }
        _ => Entry::Open(body, allowed),
    }
}

/// Checks a request's Host and Origin, and returns the origin to allow by CORS. `/metrics` is served for any Host,
/// since scrapers may use any name.
fn admit(
    settings: &Settings,
    usual_host: &OnceLock<Box<[u8]>>,
    head: &Parts,
) -> Result<Option<HeaderValue>, Rejection> {
    // Most requests are to the endpoint, whose path needs no comparison with others.
    let path = head.uri.path();
    if path == settings.path || paths::plain(path) != METRICS {
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

fn not_found(settings: &Settings, path: &str) -> Rejection {
    // The target of a CONNECT request is a host.
    let path = if path.is_empty() { "an empty path" } else { path };
    let message = format!("nothing is served at {path}; the MCP endpoint is {}", settings.path);
    Rejection::new(StatusCode::NOT_FOUND, codes::INVALID_REQUEST, message)
}

/// Routes one HTTP request of an identified caller, and answers it unless it carries a message.
pub fn route(server: &Arc<Server>, source: &Source, head: &Parts, body: Incoming, allowed: Allowed) -> Route {
    #[cfg(feature = "gateway")]
    if server.gateway.is_some() {
        if !paths::is_combined(head.uri.path()) {
            return Route::Server(body, allowed);
        }
        if head.method == Method::POST {
            return Route::Endpoint(body, allowed);
        }
        return Route::Answered(Box::new(allowed.complete(endpoint::serve(server, source, head))));
    }
    let settings = &server.settings;
    let path = head.uri.path();
    let answered = match paths::route_of(settings, path) {
        None => match cards::serve(server, head) {
            Some(card) => Ok(card),
            None => Err(body::refuse(body, not_found(settings, path))),
        },
        Some(served) if served == settings.path => {
            if head.method == Method::POST {
                return Route::Endpoint(body, allowed);
            }
            #[cfg(feature = "gateway")]
            if matches!(head.method, Method::GET | Method::DELETE)
                && takeover::may_exist(server, source, &head.headers)
                && !modern::has_modern_version(&head.headers)
            {
                return Route::Session(allowed);
            }
            #[cfg(feature = "gateway")]
            if let Some(owner) = forwarding::owner_of_stream(server, source, head) {
                return Route::Sibling(owner, allowed);
            }
            endpoint::serve(server, source, head)
        }
        Some(paths::SSE_STREAM) => old_sse::stream(server, source, head),
        // Only the path of HTTP+SSE's messages is left: others were answered on entry.
        Some(_) => return Route::OldSse(body, allowed),
    };
    Route::Answered(Box::new(allowed.complete(answered)))
}

fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}
