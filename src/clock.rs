//! The clock of the request path.

use std::time::Instant;

/// Returns the time of the runtime's timers. If a test moves that clock, deadlines move, too.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
