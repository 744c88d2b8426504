//! What probes and scrapers ask: alive, ready, started, and the counters.

use super::Server;
use super::response::{self, Body};
use crate::jsonrpc::Spliced;
use crate::phase::Phase;
use crate::telemetry::counters;
use bytes::Bytes;
use hyper::{Response, StatusCode};
use std::fmt::Write;
use std::time::Instant;

/// Whether a path is a health path.
pub fn is_served(path: &str) -> bool {
    matches!(path, "/health" | "/livez" | "/health/ready" | "/readyz" | "/health/startup" | "/startupz")
}

/// Answers a health path; `None` for any other. Neither Host nor Origin is checked: a kubelet sends the pod's
/// address, and there is nothing here to protect.
pub fn serve(server: &Server, path: &str) -> Option<Response<Body>> {
    let phase = || server.phase.borrow().clone();
    let (healthy, why) = match path {
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
    Some(response::json(status, Spliced::from(Bytes::from(text))))
}

/// The counters and a few gauges in Prometheus' text format.
pub fn metrics(server: &Server) -> Response<Body> {
    let mut text = counters::exposition();
    let gauges = [
        ("proxyrunner_connections", "Connections open now.", server.connections.count()),
        ("proxyrunner_sessions", "Sessions open now.", server.directory.count()),
        ("proxyrunner_children", "Children that run, start or end now.", server.upstream.children()),
        (
            "proxyrunner_in_flight",
            "Requests at a child now, cancelled ones included.",
            server.upstream.in_flight(),
        ),
        ("proxyrunner_queued", "Requests that wait for a place now.", server.upstream.queued()),
        (
            "proxyrunner_buffered_bytes",
            "Bytes of messages in transit, among --max-buffered.",
            server.budget.used(),
        ),
    ];
    for (name, help, value) in gauges {
        // Writing to a String can't fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
    }
    let body = Body::whole(Spliced::from(Bytes::from(text)));
    response::typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
}
