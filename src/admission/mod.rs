//! Owns who may have a request in flight: a bound for all, a bound for each client, and fair queues between them.
//!
//! A client is told by its [`Key`]. One who finds no permit waits in its client's queue; what becomes free goes round
//! the clients that wait, and within a client to the one who waits longest. The queues are bounded together; when they
//! are full, the longest gives way to a client with a shorter one, so that a noisy client cannot keep the others out.
//!
//! There is no clock here: who waits no longer drops the [`Waiting`], at any time, and loses no permit by it.
//! A mutex is enough: it is held for a few map operations, and no waker is woken or dropped meanwhile.

#[cfg(all(test, proxyrunner_loom))]
mod loom_tests;
mod queues;
#[cfg(all(test, not(proxyrunner_loom)))]
mod tests;

pub use queues::Bounds;

use crate::sync::{Mutex, MutexGuard};
use queues::{Left, Place, Queues, Ticket, Verdict};
use std::future::Future;
use std::hash::{BuildHasher, Hash, RandomState};
use std::pin::Pin;
use std::sync::{Arc, LazyLock, PoisonError};
use std::task::{Context, Poll, Waker};

/// Tells the clients apart. Two that should hash alike would share a queue, and nothing else; the hash has a secret
/// of this process, so nobody can aim at another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u64);

impl Key {
    /// The key of the client with this name.
    pub fn of(name: impl Hash) -> Self {
        static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Key(SECRET.hash_one(name))
    }
}

/// The permits of one thing that is bounded, and who waits for them.
#[derive(Debug)]
pub struct Admission {
    // None until the waiter was polled first.
    queues: Mutex<Queues<Option<Waker>>>,
}

/// What comes of asking for a permit.
#[derive(Debug)]
pub enum Asked {
    /// There it is.
    Granted(Permit),
    /// It takes a while.
    Waits(Waiting),
    /// As many wait as may.
    Full,
}

/// The waiter had to give way to a client with a shorter queue.
#[derive(Debug, PartialEq, Eq)]
pub struct Displaced;

impl Admission {
    /// All permits free.
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Admission { queues: Mutex::new(Queues::new(bounds)) })
    }

    /// Takes a permit, or a place in the client's queue.
    pub fn ask(self: &Arc<Self>, key: Key) -> Asked {
        let verdict = self.lock().ask(key, None);
        match verdict {
            Verdict::Granted => Asked::Granted(Permit { admission: Arc::clone(self), key }),
            Verdict::Full => Asked::Full,
            Verdict::Waits(ticket, displaced) => {
                tell(displaced);
                Asked::Waits(Waiting { admission: Some(Arc::clone(self)), key, ticket })
            }
        }
    }

    /// Takes a permit if one may be had at once, out of nobody's turn.
    pub fn take(self: &Arc<Self>, key: Key) -> Option<Permit> {
        let taken = self.lock().take(key);
        taken.then(|| Permit { admission: Arc::clone(self), key })
    }

    /// Permits that are held.
    pub fn in_flight(&self) -> usize {
        self.lock().in_flight()
    }

    /// Requests that wait.
    pub fn queued(&self) -> usize {
        self.lock().queued()
    }

    /// Whether a client holds all that it may have for itself, so that it waits for itself.
    pub fn is_at_own_bound(&self, key: Key) -> bool {
        self.lock().is_at_own_bound(key)
    }

    fn lock(&self) -> MutexGuard<'_, Queues<Option<Waker>>> {
        // Nothing in there can panic half way, short of a broken invariant.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes one whose ticket was granted or displaced; one not polled yet will see it by itself.
fn tell(waiter: Option<Option<Waker>>) {
    if let Some(waker) = waiter.flatten() {
        waker.wake();
    }
}

/// One request's right to be in flight, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    key: Key,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let next = self.admission.lock().release(self.key);
        tell(next);
    }
}

/// A place in a client's queue, which is left when this is dropped. Resolves to a permit.
#[derive(Debug)]
#[must_use = "a place that is dropped is left"]
pub struct Waiting {
    // Taken when it resolves.
    admission: Option<Arc<Admission>>,
    key: Key,
    ticket: Ticket,
}

impl Future for Waiting {
    type Output = Result<Permit, Displaced>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (key, ticket) = (self.key, self.ticket);
        let admission = self.admission.as_ref().expect("it is not polled after it resolved");
        let stands = match admission.lock().place(key, ticket) {
            Place::Granted => Ok(true),
            Place::Displaced => Ok(false),
            Place::Waiting(waker) if waker.as_ref().is_some_and(|old| old.will_wake(cx.waker())) => Err(None),
            Place::Waiting(waker) => Err(waker.replace(cx.waker().clone())),
        };
        // A waker that is left over is dropped here, without the lock.
        let Ok(granted) = stands else { return Poll::Pending };
        let admission = self.admission.take().expect("it was there above");
        Poll::Ready(if granted { Ok(Permit { admission, key }) } else { Err(Displaced) })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(admission) = &self.admission {
            let left = admission.lock().leave(self.key, self.ticket);
            if let Left::Granted(next) = left {
                tell(next);
            }
        }
    }
}
