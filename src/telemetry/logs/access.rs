//! The access log (`--access-log`): a line for each message of a client, once it is over. What is said is no part of it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

static KEPT: AtomicBool = AtomicBool::new(false);

/// From now on there is one.
pub fn keep() {
    KEPT.store(true, Relaxed);
}

/// Whether there is one.
#[inline]
pub fn is_kept() -> bool {
    KEPT.load(Relaxed)
}

/// What is said of one message.
#[derive(Debug)]
pub(in crate::telemetry) struct Line<'a> {
    pub method: &'a str,
    pub target: Option<&'a str>,
    pub peer: Option<SocketAddr>,
    pub error: Option<Cow<'static, str>>,
    pub took: Duration,
    pub waited: Duration,
    pub child: Duration,
}

/// Longest method and target that are shown, in bytes: they are the client's own words.
const SHOWN: usize = 128;

/// To the microsecond.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

pub(in crate::telemetry) fn log(line: &Line<'_>) {
    let shown = |text| crate::telemetry::otlp::cut(text, SHOWN);
    tracing::info!(
        method = shown(line.method),
        target = line.target.map(shown),
        peer = line.peer.map(tracing::field::display),
        error = line.error.as_deref(),
        duration_ms = millis(line.took),
        queued_ms = millis(line.waited),
        child_ms = millis(line.child),
        "access"
    );
}

/// A line for an HTTP request that brought no message: a stream that was opened, a session that was ended, or what was
/// refused before it was read.
pub fn log_request(method: &str, path: &str, status: u16, peer: SocketAddr, took: Duration) {
    if is_kept() {
        let path = crate::telemetry::otlp::cut(path, SHOWN);
        let duration_ms = millis(took);
        tracing::info!(http_method = method, path, status, %peer, duration_ms, "access");
    }
}
