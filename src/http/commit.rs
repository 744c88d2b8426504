//! When a response's head is sent: with the status of an answer that comes soon, else as the head of an event stream
//! (docs/architecture.md#commit).

use super::Settings;
use crate::session::Session;
use crate::telemetry::Operation;
use std::time::Duration;
use tokio::time::timeout;

/// The longest time that a quiet child delays a response's head.
const COMMIT_AFTER: Duration = Duration::from_secs(5);
/// The same for 2025-11-25, whose clients cannot resume a stream that is cut before its priming event.
const COMMIT_PRIMED_AFTER: Duration = Duration::from_millis(250);

/// Returns how long a response's head waits for the first message of the child (`--sse-commit-after`).
pub fn delay(settings: &Settings) -> Duration {
    settings.sse_commit_after.unwrap_or(COMMIT_AFTER)
}

/// The same for a request of this session.
pub fn delay_in(settings: &Settings, session: &Session) -> Duration {
    let default = if session.version().has_priming_events() { COMMIT_PRIMED_AFTER } else { COMMIT_AFTER };
    settings.sse_commit_after.unwrap_or(default)
}

/// Returns the output of `work`, or `None` once `delay` has passed. Time in which the message waits for its turn does not
/// count: it may still be refused then, and a refusal needs a status.
pub async fn within<F: Future + Unpin>(
    operation: &Operation,
    delay: Duration,
    work: &mut F,
) -> Option<F::Output> {
    loop {
        if let Ok(output) = timeout(delay, &mut *work).await {
            return Some(output);
        }
        if !operation.is_waiting() {
            return None;
        }
        tokio::select! {
            biased;
            output = &mut *work => return Some(output),
            () = operation.wait_for_turn() => {}
        }
    }
}
