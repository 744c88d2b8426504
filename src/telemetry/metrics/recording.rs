//! Records durations of operations, sessions and queueing.

use super::histogram::{FINE, Histogram};
use super::labels::{Labels, Method, Revision, Side};
use super::operations::Operations;
use crate::telemetry::clock;
use crate::trace_context::Context;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

pub(super) static OPERATIONS: LazyLock<Operations> = LazyLock::new(Operations::default);
pub(super) static SESSIONS: LazyLock<Operations> = LazyLock::new(Operations::default);
pub(super) static QUEUED: LazyLock<Histogram> = LazyLock::new(|| Histogram::new(&FINE));
pub(super) static ROUTED: LazyLock<Histogram> = LazyLock::new(|| Histogram::new(&FINE));
pub(super) static REDIS: LazyLock<Histogram> = LazyLock::new(|| Histogram::new(&FINE));
static ENABLED: AtomicBool = AtomicBool::new(false);
static EXEMPLARS: AtomicBool = AtomicBool::new(false);
static STARTED: OnceLock<u64> = OnceLock::new();

/// Enables metrics, with exemplars if wanted.
pub fn enable(exemplars: bool) {
    started();
    EXEMPLARS.store(exemplars, Ordering::Relaxed);
    ENABLED.store(true, Ordering::Relaxed);
}

/// Returns whether metrics are enabled.
#[inline]
pub fn is_enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
}

/// Returns the start of counting in nanoseconds since the Unix epoch.
pub fn started() -> u64 {
    *STARTED.get_or_init(clock::unix_nanos)
}

/// Records an operation that took this many nanoseconds, and its span, if recorded, as an exemplar.
#[inline(always)]
pub fn operation(labels: Labels, took: u64, span: Option<&Context>) {
    OPERATIONS.record(labels, took, exemplar(span));
}

/// Records the time a request was queued, and the time spent in proxyrunner itself, in nanoseconds.
#[inline]
pub fn request(waited: u64, routed: u64, span: Option<&Context>) {
    if waited > 0 {
        QUEUED.record(waited, exemplar(span));
    }
    ROUTED.record(routed, exemplar(span));
}

/// Records the time of a command to Redis.
#[cfg(feature = "gateway")]
pub fn redis(took: Duration) {
    REDIS.record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), None);
}

fn exemplar(span: Option<&Context>) -> Option<&Context> {
    span.filter(|_| EXEMPLARS.load(Ordering::Relaxed))
}

/// Records the duration of a client's session or of a child's.
pub fn session(side: Side, revision: Revision, took: Duration) {
    if !is_enabled() {
        return;
    }
    let labels =
        Labels { side, method: Method::default(), target: Default::default(), error: None, revision };
    SESSIONS.record(labels, clock::nanos(took), None);
}
