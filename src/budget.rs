//! The bytes that messages in transit may take together (`--max-buffered`): bodies being read, answers not yet
//! delivered, events kept for replay.
//!
//! Counts alone are no bound when a message may be tens of MiB. Bodies wait for room ([`Budget::admit`]); what a
//! child sends can't wait, so it is charged at once ([`Budget::charge`]), and whoever watches
//! [`Budget::overdrawn`] makes room again.

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

    /// Charges a message that has already arrived from a child. `None` for small ones, which are free.
    pub fn charge(&self, bytes: usize) -> Option<Charge> {
        if bytes < CHARGED_FROM {
            return None;
        }
        let before = self.0.used.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.0.limit {
            self.0.overdrawn.notify_one();
        }
        Some(Charge { budget: self.clone(), bytes })
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
    /// Waits until `bytes` more fit. The caller bounds the wait.
    pub async fn grow(&mut self, bytes: usize) {
        loop {
            // Registered before the look, so that a release between the look and the wait is not missed.
            let released = self.budget.0.released.notified();
            if self.budget.try_take(bytes) {
                self.bytes += bytes;
                return;
            }
            released.await;
        }
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
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn a_body_waits_until_another_is_released() {
        let budget = Budget::new(10_000);
        let first = budget.charge(8_000);
        let mut second = budget.open();
        {
            let mut grow = pin!(second.grow(5_000));
            let mut cx = Context::from_waker(Waker::noop());
            assert_eq!(grow.as_mut().poll(&mut cx), Poll::Pending);
            drop(first);
            assert_eq!(grow.as_mut().poll(&mut cx), Poll::Ready(()));
        }
        assert_eq!(budget.used(), 5_000);
        drop(second);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn an_answer_is_charged_even_above_the_limit_and_says_so() {
        let budget = Budget::new(10_000);
        let _first = budget.charge(8_000);
        let _second = budget.charge(8_000);
        assert_eq!(budget.excess(), 6_000);
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(pin!(budget.overdrawn()).poll(&mut cx), Poll::Ready(()));
    }

    #[test]
    fn small_messages_are_free() {
        let budget = Budget::new(1);
        assert!(budget.charge(CHARGED_FROM - 1).is_none());
        assert_eq!(budget.used(), 0);
    }
}
