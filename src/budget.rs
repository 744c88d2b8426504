//! The bytes that messages in transit may take together (`--max-buffered`): bodies being read, answers not yet
//! delivered, events kept for replay.
//!
//! Counts alone are no bound when a message may be tens of MiB. Bodies wait for room ([`Budget::admit`]); what a
//! child sends can't wait, so it is charged at once ([`Budget::hold`]), and whoever watches
//! [`Budget::overdrawn`] makes room again.

use bytes::Bytes;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Smaller messages are not charged: the bounds on their number bound their bytes too.
const CHARGED_FROM: usize = 4 * 1024;

/// Clones share the same bytes.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    used: AtomicUsize,
    released: Notify,
    overdrawn: Notify,
}

/// Bytes in use; dropping it gives them back.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    bytes: usize,
}

/// Bytes that know what they are charged to: the charge lasts as long as the last slice of them, wherever it is.
struct Charged {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Budget(Arc::new(Shared {
            limit,
            used: AtomicUsize::new(0),
            released: Notify::new(),
            overdrawn: Notify::new(),
        }))
    }

    /// Bytes charged now; above the limit while overdrawn.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// By how many bytes the limit is exceeded now.
    pub fn excess(&self) -> usize {
        self.used().saturating_sub(self.0.limit)
    }

    /// Charges a message that has already arrived, for as long as any slice of it lives.
    pub fn hold(&self, bytes: Bytes) -> Bytes {
        if bytes.len() < CHARGED_FROM {
            return bytes;
        }
        let before = self.0.used.fetch_add(bytes.len(), Ordering::Relaxed);
        if before + bytes.len() > self.0.limit {
            self.0.overdrawn.notify_one();
        }
        Charge { budget: self.clone(), bytes: bytes.len() }.hold(bytes)
    }

    /// An empty charge, to be grown as a body arrives.
    pub fn open(&self) -> Charge {
        Charge { budget: self.clone(), bytes: 0 }
    }

    /// Resolves when a charge has exceeded the limit.
    pub async fn overdrawn(&self) {
        self.0.overdrawn.notified().await;
    }

    fn try_take(&self, bytes: usize) -> bool {
        self.0
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|&sum| sum <= self.0.limit)
            })
            .is_ok()
    }
}

impl Charge {
    /// Waits until it can cover `bytes` together. The caller bounds the wait.
    pub async fn cover(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.bytes);
        if bytes < CHARGED_FROM || more == 0 {
            return;
        }
        loop {
            let mut released = pin!(self.budget.0.released.notified());
            // Registered before the look, so that a release between the look and the wait is not missed.
            released.as_mut().enable();
            if self.budget.try_take(more) {
                self.bytes += more;
                return;
            }
            released.await;
        }
    }

    /// Keeps the charge for as long as any slice of `bytes` lives.
    pub fn hold(self, bytes: Bytes) -> Bytes {
        if self.bytes == 0 {
            return bytes;
        }
        Bytes::from_owner(Charged { bytes, _charge: self })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
            self.budget.0.released.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};

    fn message(length: usize) -> Bytes {
        Bytes::from(vec![b'x'; length])
    }

    #[test]
    fn a_body_waits_until_another_is_released() {
        let budget = Budget::new(10_000);
        let first = budget.hold(message(8_000));
        let slice = first.slice(10..20);
        let mut second = budget.open();
        {
            let mut cover = pin!(second.cover(5_000));
            let mut cx = Context::from_waker(Waker::noop());
            assert_eq!(cover.as_mut().poll(&mut cx), Poll::Pending);
            drop(first);
            assert_eq!(cover.as_mut().poll(&mut cx), Poll::Pending, "a slice of it is still alive");
            drop(slice);
            assert_eq!(cover.as_mut().poll(&mut cx), Poll::Ready(()));
        }
        assert_eq!(budget.used(), 5_000);
        let body = second.hold(message(5_000));
        assert_eq!(budget.used(), 5_000);
        drop(body);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn an_answer_is_charged_even_above_the_limit_and_says_so() {
        let budget = Budget::new(10_000);
        let _both = (budget.hold(message(8_000)), budget.hold(message(8_000)));
        assert_eq!(budget.excess(), 6_000);
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(pin!(budget.overdrawn()).poll(&mut cx), Poll::Ready(()));
    }

    #[test]
    fn small_messages_are_free() {
        let budget = Budget::new(1);
        let small = budget.hold(message(CHARGED_FROM - 1));
        assert_eq!((small.len(), budget.used()), (CHARGED_FROM - 1, 0));
    }
}
