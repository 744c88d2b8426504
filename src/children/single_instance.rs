//! Detects servers that run only once: they hold a lock, a browser profile or a port, and exit when a second process
//! starts. Their clients share the first process.

use crate::clock::now;
use crate::exchange::Failure;
use crate::ingress::Refusal;
use parking_lot::Mutex;
use std::sync::Once;
use std::time::{Duration, Instant};

/// Time until a second process is tried again, since the last exit may have had another reason.
const RETRY_AFTER: Duration = Duration::from_secs(600);

/// Time a process has to exit after it has refused its handshake.
pub(super) const EXITS_WITHIN: Duration = Duration::from_secs(1);

/// The time at which a second process of the server was last seen to exit.
#[derive(Debug, Default)]
pub(super) struct SingleInstance(Mutex<Option<Instant>>);

impl SingleInstance {
    /// Returns whether the server is known to run only once.
    pub fn is_known(&self) -> bool {
        let since = *self.0.lock();
        since.is_some_and(|since| now() - since < RETRY_AFTER)
    }

    /// Records that the server runs only once, if a second process failed in its handshake while a shared one serves.
    /// Returns whether it did.
    pub fn note<T>(&self, started: &Result<T, Refusal>) -> bool {
        static WARNED: Once = Once::new();
        let Err(Refusal::Failed(failure @ (Failure::Ended(_) | Failure::NotStarted(_)))) = started else {
            return false;
        };
        *self.0.lock() = Some(now());
        WARNED.call_once(|| {
            tracing::warn!(
                "a second process of the server did not complete its handshake ({}): clients share the running one, \
                 without sampling and elicitation; set --max-children 1 if the server runs only once",
                failure.for_log()
            );
        });
        true
    }
}
