//! Answers to probes and scrapers.

use super::Server;
use super::paths::Probe;
use super::response::{self, Body};
use crate::budget::Charged;
use crate::jsonrpc::Spliced;
use crate::phase::Phase;
use crate::shutdown::DRAINING;
use crate::telemetry::metrics::{self, Format, Levels};
use hyper::header::{ACCEPT, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use std::time::Instant;

/// Answers a probe. Neither Host nor Origin is checked: a kubelet sends the pod's address, and the answer is not
/// secret.
pub fn serve(server: &Server, probe: Probe) -> Response<Body> {
    let phase = || server.phase.borrow().clone();
    let is_gateway = is_gateway(server);
    let (healthy, why) = match probe {
        Probe::Live if server.pulse.is_stuck(Instant::now()) => {
            (false, "proxyrunner's event loop is stuck".to_owned())
        }
        Probe::Live => (true, "proxyrunner serves".to_owned()),
        Probe::Ready if server.shutdown.has_begun() => (false, "proxyrunner is shutting down".to_owned()),
        // Servers that are not ready are no reason to take the gateway away from the others.
        Probe::Ready | Probe::Startup if is_gateway => (true, "the gateway serves".to_owned()),
        Probe::Ready => (phase() == Phase::Ready, phase().to_string()),
        // A restart does not count as startup: a kubelet kills a container whose startup probe fails for too long.
        Probe::Startup => (matches!(phase(), Phase::Ready | Phase::Restarting(_)), phase().to_string()),
    };
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = if healthy { "ok" } else { "unavailable" };
    let text = serde_json::json!({"status": word, "reason": why}).to_string();
    let mut response = response::json(status, Spliced::from(Charged::own(text)));
    if server.shutdown.has_begun() {
        response.headers_mut().insert(DRAINING, HeaderValue::from_static("1"));
    }
    response
}

/// Answers `/metrics` in the format that the client accepts.
pub fn metrics(server: &Server, headers: &HeaderMap) -> Response<Body> {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accept);
    let write = || metrics::write(&metrics::gather(levels(server)), format).into();
    let text = server.scrapes.text(format, Instant::now(), write);
    let body = Body::whole(Spliced::from(text));
    response::typed(StatusCode::OK, format.content_type(), body)
}

/// Returns the current values of all gauges.
pub fn levels(server: &Server) -> Levels {
    let upstream = &server.upstream;
    Levels {
        connections: server.connections.count(),
        sessions: server.directory.count(),
        children: upstream.children(),
        in_flight: upstream.in_flight() + forwarded(server),
        queued: upstream.queued(),
        parked: upstream.parked(),
        buffered: server.budget.used(),
        most_children: upstream.settings().max_children,
        most_in_flight: upstream.settings().max_in_flight,
        most_buffered: server.budget.limit(),
        unbudgeted: crate::budget::outside(),
        rate_limit_buckets: server.limits.as_ref().map_or(0, |limits| limits.buckets()),
        audit_seq: crate::audit::level::seq(),
        ready: (*server.phase.borrow() == Phase::Ready || is_gateway(server)) && !server.shutdown.has_begun(),
    }
}

#[cfg(feature = "gateway")]
fn is_gateway(server: &Server) -> bool {
    server.gateway.is_some()
}

#[cfg(not(feature = "gateway"))]
fn is_gateway(_: &Server) -> bool {
    false
}

#[cfg(feature = "gateway")]
fn forwarded(server: &Server) -> usize {
    let siblings = server.siblings.as_ref().map_or(0, |siblings| siblings.in_flight());
    server.gateway.as_ref().map_or(siblings, |gateway| gateway.in_flight())
}

#[cfg(not(feature = "gateway"))]
fn forwarded(_: &Server) -> usize {
    0
}
