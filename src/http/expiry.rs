//! The end of the streams that callers open to listen. Their credentials are checked once, so such a stream ends when they
//! do: its client then opens another one with new credentials.

use crate::clock;
use crate::identity::Identity;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::time::{Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;

/// The end of a caller's credentials, to be waited for.
pub struct Expiry {
    ends: Option<Pin<Box<Sleep>>>,
    revoked: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// How credentials end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// At their time.
    Expired,
    /// Before it.
    Revoked,
}

impl fmt::Debug for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Expiry")
    }
}

impl Expiry {
    /// Returns the end of a caller's credentials; `None` if they have none.
    pub fn of(identity: &Identity) -> Option<Self> {
        Self::delayed(identity, Duration::ZERO)
    }

    /// Returns a time after their regular end; `None` if they have none.
    pub fn delayed(identity: &Identity, delay: Duration) -> Option<Self> {
        let ends = ends(identity).and_then(|ends| ends.checked_add(delay));
        let revoked = identity.revoked.as_ref().map(|revoked| Box::pin(revoked.comes()));
        let expiry = Expiry { ends: ends.map(|ends| Box::pin(sleep_until(ends.into()))), revoked };
        (expiry.ends.is_some() || expiry.revoked.is_some()).then_some(expiry)
    }

    /// Polls for the end.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if self.revoked.as_mut().is_some_and(|revoked| revoked.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Ended::Revoked);
        }
        match self.ends.as_mut().map(|ends| ends.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Ended::Expired),
            Some(Poll::Pending) | None => Poll::Pending,
        }
    }

    /// Waits for a later regular end.
    pub fn prolong(&mut self, until: Instant) {
        if let Some(ends) = &mut self.ends {
            ends.as_mut().reset(until.into());
        }
    }
}

/// Returns the time at which a caller's credentials end; `None` if they do not.
pub fn ends(identity: &Identity) -> Option<Instant> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let rest = Duration::from_secs(identity.ends()?).saturating_sub(now);
    clock::now().checked_add(rest)
}

/// Waits for the end of a stream; without one, for ever.
pub async fn passed(expiry: &mut Option<Expiry>) {
    match expiry {
        Some(expiry) => drop(poll_fn(|cx| expiry.poll(cx)).await),
        None => std::future::pending().await,
    }
}
