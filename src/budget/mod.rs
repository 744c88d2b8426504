//! The bytes that messages in transit may take together (`--max-buffered`): bodies being read, answers not yet
//! delivered, events kept for replay.
//!
//! Counts alone are no bound when a message may be tens of MiB. Bodies wait for room ([`Charge::cover`]), in
//! [turn](turns); what a child sends can't wait, so it is charged at once ([`Budget::hold`]). Whoever watches
//! [`Budget::overdrawn`] makes room again.

mod turns;

use bytes::Bytes;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};
use turns::{Due, Number, Turns};

/// Smaller messages on their way are not charged: the bounds on their number bound their bytes too.
pub const CHARGED_FROM: usize = 4 * 1024;

/// What keeping an event costs beside its bytes, about. Sessions keep many small ones for long.
const KEPT_BESIDE: usize = 256;

/// Clones share the same bytes.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    used: AtomicUsize,
    /// How many are in `turns`. Who gives bytes back looks here first, and seldom finds anybody.
    waiting: AtomicUsize,
    turns: Mutex<Turns>,
    awaited: Notify,
    overdrawn: Notify,
}

/// Bytes in use; dropping it gives them back.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    bytes: usize,
    /// It need not wait for more, however little there is.
    over: bool,
}

/// One body's place in the queue, until it is dropped.
struct Waiting<'a> {
    budget: &'a Budget,
    number: Number,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.budget.turns().leave(self.number) {
            self.budget.0.waiting.fetch_sub(1, Ordering::SeqCst);
            // There may be room for those behind it.
            self.budget.serve();
        }
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
            turns: Mutex::default(),
            awaited: Notify::new(),
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

    /// Whether even twice the limit is exceeded.
    pub fn is_far_exceeded(&self) -> bool {
        self.excess() > self.0.limit
    }

    /// How many bytes are too few: above the limit, or for the body whose turn it is.
    pub fn lack(&self) -> usize {
        let needed = if self.is_awaited() { self.turns().needed() } else { 0 };
        (self.used() + needed).saturating_sub(self.0.limit)
    }

    /// Whether a body waits for room.
    pub fn is_awaited(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) > 0
    }

    /// Resolves when a body waits for room.
    pub async fn awaited(&self) {
        loop {
            let mut awaited = pin!(self.0.awaited.notified());
            // Registered before the look, so that one that begins to wait in between is not missed.
            awaited.as_mut().enable();
            if self.is_awaited() {
                return;
            }
            awaited.await;
        }
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

    /// An empty charge, to be grown as a body arrives.
    pub fn open(&self) -> Charge {
        self.charged(0, false)
    }

    fn charged(&self, bytes: usize, over: bool) -> Charge {
        Charge { budget: self.clone(), bytes, over }
    }

    /// Resolves when somebody should make room: a charge has exceeded the limit, or a body has begun to wait.
    pub async fn overdrawn(&self) {
        self.0.overdrawn.notified().await;
    }

    /// Says again that somebody should make room, since what could not go before may go now.
    pub fn remind(&self) {
        self.0.overdrawn.notify_one();
    }

    fn charge(&self, bytes: usize) -> Charge {
        let before = self.0.used.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.0.limit {
            self.0.overdrawn.notify_one();
        }
        self.charged(bytes, false)
    }

    fn try_take(&self, bytes: usize) -> bool {
        self.0
            .used
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |used| {
                used.checked_add(bytes).filter(|&sum| sum <= self.0.limit)
            })
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        // In one order with the count of who waits: one that is counted after this look finds these bytes.
        self.0.used.fetch_sub(bytes, Ordering::SeqCst);
        if self.0.waiting.load(Ordering::SeqCst) > 0 {
            self.serve();
        }
    }

    /// Waits for its turn.
    async fn turn(&self, bytes: usize, holds_nothing: bool) -> Charge {
        let (grant, granted) = oneshot::channel();
        let others = self.0.waiting.fetch_add(1, Ordering::SeqCst);
        let number = self.turns().enter(bytes, holds_nothing, grant);
        let _waiting = Waiting { budget: self, number };
        self.serve();
        if others == 0 && self.is_awaited() {
            self.0.awaited.notify_waiters();
            self.0.overdrawn.notify_one();
        }
        granted.await.expect("a turn is taken out of the queue by who waits, or granted")
    }

    /// Serves those that wait, as far as there is room.
    fn serve(&self) {
        loop {
            let due = self.turns().next_due(|bytes| self.try_take(bytes));
            let Some(Due { bytes, over, grant }) = due else { return };
            self.0.waiting.fetch_sub(1, Ordering::SeqCst);
            let mut granted = if over { self.charge(bytes) } else { self.charged(bytes, false) };
            granted.over = over;
            // Outside of the lock: one that has just given up has its bytes given back at once.
            drop(grant.send(granted));
        }
    }

    /// No code panics while it holds the lock, so a poisoned one is whole.
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.0.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Charge {
    /// Whether it covers nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// What it covers.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whose bytes they are.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Waits until it covers `bytes` together. The caller bounds the wait, and how long it holds them.
    pub async fn cover(&mut self, bytes: usize) {
        if !self.try_cover(bytes) {
            let granted = self.budget.turn(bytes - self.bytes, self.is_empty()).await;
            self.absorb(granted);
        }
    }

    /// Covers `bytes` together if that takes no waiting; whether it does.
    pub fn try_cover(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if bytes < CHARGED_FROM || more == 0 {
            return true;
        }
        if self.over {
            self.absorb(self.budget.charge(more));
            return true;
        }
        // Nobody is overtaken.
        let has_room = !self.budget.is_awaited() && self.budget.try_take(more);
        self.bytes += if has_room { more } else { 0 };
        has_room
    }

    fn absorb(&mut self, mut other: Charge) {
        // What is taken out of it is not given back when it is dropped.
        self.bytes += std::mem::take(&mut other.bytes);
        self.over |= std::mem::take(&mut other.over);
    }

    /// Keeps the charge for as long as any slice of `bytes` lives. It grows no more.
    pub fn hold(mut self, bytes: Bytes) -> Bytes {
        if self.bytes == 0 {
            return bytes;
        }
        self.settle();
        Bytes::from_owner(Charged { bytes, _charge: self })
    }

    fn settle(&mut self) {
        if std::mem::take(&mut self.over) {
            self.budget.turns().settle();
            // The next one may go over.
            self.budget.serve();
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.settle();
        if self.bytes > 0 {
            self.budget.give_back(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests;
