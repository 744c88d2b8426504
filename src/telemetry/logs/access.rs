//! The access log (`--access-log`): one line per client message, written when the message is complete. It contains no
//! message contents.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

static ENABLED: AtomicBool = AtomicBool::new(false);

/// Enables the access log.
pub fn enable() {
    ENABLED.store(true, Relaxed);
}

/// Returns whether the access log is enabled.
#[inline]
pub fn is_enabled() -> bool {
    ENABLED.load(Relaxed)
}

/// The fields of one access log line.
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

/// Maximum length in bytes of a logged method, target or path: clients choose them.
const SHOWN: usize = 128;

/// Returns milliseconds with microsecond precision.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

pub(in crate::telemetry) fn log(line: &Line<'_>) {
    let shown = |text| crate::telemetry::text::cut(text, SHOWN);
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

/// Logs an HTTP request without a message: an opened stream, an ended session, or a request rejected before it was
/// read.
pub fn log_request(method: &str, path: &str, status: u16, peer: SocketAddr, took: Duration) {
    if is_enabled() {
        let path = crate::telemetry::text::cut(path, SHOWN);
        let duration_ms = millis(took);
        tracing::info!(http_method = method, path, status, %peer, duration_ms, "access");
    }
}
