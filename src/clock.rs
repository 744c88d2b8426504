//! The clock of the request path.

use std::time::Instant;

/// Returns the time as the runtime's timers see it: where a test moves that, deadlines move too.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
