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

/// Smaller messages on their way are not charged: the bounds on their number bound their bytes too.
const CHARGED_FROM: usize = 4 * 1024;

/// What keeping an event costs beside its bytes, about. Sessions keep many small ones for long.
const KEPT_BESIDE: usize = 256;

/// Clones share the same bytes.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    used: AtomicUsize,
    waiting: AtomicUsize,
    released: Notify,
    overdrawn: Notify,
}

/// Bytes in use; dropping it gives them back.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    bytes: usize,
}

/// One body that waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn at(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
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
            waiting: AtomicUsize::new(0),
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

    /// Whether a body waits for room.
    pub fn is_awaited(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) > 0
    }

    /// Charges a message that has already arrived, for as long as any slice of it lives.
    pub fn hold(&self, bytes: Bytes) -> Bytes {
        if bytes.len() < CHARGED_FROM {
            return bytes;
        }
        self.charge(bytes.len()).hold(bytes)
    }

    /// Charges a message that waits for a reader or is kept for one, however small: of those, the bounds on
    /// their number are a session's, and sessions are many.
    pub fn keep(&self, bytes: Bytes) -> Bytes {
        self.charge(bytes.len() + KEPT_BESIDE).hold(bytes)
    }

    fn charge(&self, bytes: usize) -> Charge {
        let before = self.0.used.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.0.limit {
            self.0.overdrawn.notify_one();
        }
        Charge { budget: self.clone(), bytes }
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
        if self.budget.try_take(more) {
            self.bytes += more;
            return;
        }
        let budget = self.budget.clone();
        let _waiting = Waiting::at(&budget.0.waiting);
        loop {
            let mut released = pin!(budget.0.released.notified());
            // Registered before the look, so that a release between the look and the wait is not missed.
            released.as_mut().enable();
            if budget.try_take(more) {
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
    fn what_is_kept_is_charged_however_small() {
        let budget = Budget::new(10_000);
        let kept: Vec<_> = (0..100).map(|_| budget.keep(message(1))).collect();
        assert_eq!(budget.used(), 100 * (1 + KEPT_BESIDE));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(pin!(budget.overdrawn()).poll(&mut cx), Poll::Ready(()));
        drop(kept);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn small_messages_are_free() {
        let budget = Budget::new(1);
        let small = budget.hold(message(CHARGED_FROM - 1));
        assert_eq!((small.len(), budget.used()), (CHARGED_FROM - 1, 0));
    }
}
