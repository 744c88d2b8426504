//! What probes and scrapers ask: alive, ready, started, and the metrics.

use super::Server;
use super::endpoint::plain;
use super::response::{self, Body};
use crate::budget::Charged;
use crate::jsonrpc::Spliced;
use crate::phase::Phase;
use crate::telemetry::metrics::{self, Format, Levels};
use hyper::header::{ACCEPT, HeaderMap};
use hyper::{Response, StatusCode};
use std::time::Instant;

/// Whether a path is a health path.
pub fn is_served(path: &str) -> bool {
    matches!(
        plain(path),
        "/health" | "/livez" | "/health/ready" | "/readyz" | "/health/startup" | "/startupz"
    )
}

/// Answers a health path; `None` for any other. Neither Host nor Origin is checked: a kubelet sends the pod's
/// address, and there is nothing here to protect.
pub fn serve(server: &Server, path: &str) -> Option<Response<Body>> {
    let phase = || server.phase.borrow().clone();
    let (healthy, why) = match plain(path) {
        "/health" | "/livez" if server.pulse.is_stuck(Instant::now()) => {
            (false, "proxyrunner's event loop is stuck".to_owned())
        }
        "/health" | "/livez" => (true, "proxyrunner serves".to_owned()),
        "/health/ready" | "/readyz" if server.shutdown.has_begun() => {
            (false, "proxyrunner is shutting down".to_owned())
        }
        "/health/ready" | "/readyz" => (phase() == Phase::Ready, phase().to_string()),
        // A restart is no start: whoever asks until it has started would kill it for that.
        "/health/startup" | "/startupz" => {
            (matches!(phase(), Phase::Ready | Phase::Restarting(_)), phase().to_string())
        }
        _ => return None,
    };
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = if healthy { "ok" } else { "unavailable" };
    let text = serde_json::json!({"status": word, "reason": why}).to_string();
    Some(response::json(status, Spliced::from(Charged::own(text))))
}

/// The metrics, in the format that is asked for.
pub fn metrics(server: &Server, headers: &HeaderMap) -> Response<Body> {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accept);
    let write = || metrics::write(&metrics::gather(levels(server)), format).into();
    let text = server.scrapes.text(format, Instant::now(), write);
    let body = Body::whole(Spliced::from(text));
    response::typed(StatusCode::OK, format.content_type(), body)
}

/// How many there are of everything now.
pub fn levels(server: &Server) -> Levels {
    let upstream = &server.upstream;
    Levels {
        connections: server.connections.count(),
        sessions: server.directory.count(),
        children: upstream.children(),
        in_flight: upstream.in_flight(),
        queued: upstream.queued(),
        parked: upstream.parked(),
        buffered: server.budget.used(),
        most_children: upstream.settings().max_children,
        most_in_flight: upstream.settings().max_in_flight,
        most_buffered: server.budget.limit(),
        unbudgeted: crate::budget::outside(),
        ready: *server.phase.borrow() == Phase::Ready && !server.shutdown.has_begun(),
    }
}
