//! The state of the log for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(super) static SEQ: AtomicU64 = AtomicU64::new(0);

/// Returns the number of the last line that was written; 0 if there is none.
pub fn seq() -> u64 {
    SEQ.load(Relaxed)
}
