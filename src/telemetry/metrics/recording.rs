//! Durations of operations, sessions and waits, as they are recorded.

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
static KEPT: AtomicBool = AtomicBool::new(false);
static EXEMPLARS: AtomicBool = AtomicBool::new(false);
static STARTED: OnceLock<u64> = OnceLock::new();

/// From now on operations are counted, with the traces of some as exemplars if those are wanted.
pub fn keep(exemplars: bool) {
    started();
    EXEMPLARS.store(exemplars, Ordering::Relaxed);
    KEPT.store(true, Ordering::Relaxed);
}

/// Whether operations are counted.
#[inline]
pub fn are_kept() -> bool {
    KEPT.load(Ordering::Relaxed)
}

/// Since when counters have grown, in nanoseconds since 1970.
pub fn started() -> u64 {
    *STARTED.get_or_init(clock::unix_nanos)
}

/// An operation is over that took so many nanoseconds; `span` is where, if that is recorded.
#[inline(always)]
pub fn operation(labels: Labels, took: u64, span: Option<&Context>) {
    OPERATIONS.record(labels, took, exemplar(span));
}

/// A request is over, of which so many nanoseconds were a wait and so many neither that nor the child's.
#[inline]
pub fn request(waited: u64, routed: u64, span: Option<&Context>) {
    if waited > 0 {
        QUEUED.record(waited, exemplar(span));
    }
    ROUTED.record(routed, exemplar(span));
}

fn exemplar(span: Option<&Context>) -> Option<&Context> {
    span.filter(|_| EXEMPLARS.load(Ordering::Relaxed))
}

/// A session is over: a client's, or that with a child.
pub fn session(side: Side, revision: Revision, took: Duration) {
    if !are_kept() {
        return;
    }
    let labels =
        Labels { side, method: Method::default(), target: Default::default(), error: None, revision };
    SESSIONS.record(labels, clock::nanos(took), None);
}
