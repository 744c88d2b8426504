//! Owns who may have a request in flight: a bound for all, a bound for each client, and fair queues between them.
//!
//! One who finds no permit waits in its client's queue; what becomes free goes round
//! the clients that wait, and within a client to the one who waits longest. The queues are bounded together; when they
//! are full, the longest gives way to a client with a shorter one, so that a noisy client cannot keep the others out.
//!
//! There is no clock here: who waits no longer drops the [`QueuedPermit`], at any time, and loses no permit by it.
//! A mutex is enough: it is held for a few map operations, and no waker is woken or dropped meanwhile.

#[cfg(all(test, proxyrunner_loom))]
mod loom_tests;
mod queues;
mod shares;
#[cfg(all(test, not(proxyrunner_loom)))]
mod tests;

pub use queues::Bounds;
pub use shares::{Holder, Share, Shares, Taken};

use crate::client::Client;
use crate::sync::{Mutex, MutexGuard};
use queues::{Left, Queues, Ruling, Ticket, TicketState};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

/// The permits of one thing that is bounded, and who waits for them.
#[derive(Debug)]
pub struct Admission {
    // None until the waiter was polled first.
    queues: Mutex<Queues<Option<Waker>>>,
}

/// One that was accepted and is not over: counted until it is dropped.
#[derive(Debug)]
pub struct Accepted(Arc<AtomicUsize>);

impl Accepted {
    /// Counts one more.
    pub fn count(all: &Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Accepted(Arc::clone(all))
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What comes of asking for a permit.
#[derive(Debug)]
pub enum Decision {
    /// There it is.
    Granted(Permit),
    /// It takes a while.
    Waits(QueuedPermit),
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
    pub fn ask(self: &Arc<Self>, client: Client) -> Decision {
        let verdict = self.lock().ask(client, None);
        match verdict {
            Ruling::Granted => Decision::Granted(Permit { admission: Arc::clone(self), client }),
            Ruling::Full => Decision::Full,
            Ruling::Waits(ticket, displaced) => {
                tell(displaced);
                Decision::Waits(QueuedPermit { admission: Some(Arc::clone(self)), client, ticket })
            }
        }
    }

    /// Takes a permit if one may be had at once, out of nobody's turn.
    pub fn take(self: &Arc<Self>, client: Client) -> Option<Permit> {
        let taken = self.lock().take(client);
        taken.then(|| Permit { admission: Arc::clone(self), client })
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
    pub fn is_at_own_bound(&self, client: Client) -> bool {
        self.lock().is_at_own_bound(client)
    }

    fn lock(&self) -> MutexGuard<'_, Queues<Option<Waker>>> {
        // Nothing in there can panic half way, short of a broken invariant.
        self.queues.lock()
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
    client: Client,
}

impl Permit {
    /// Whose it is.
    pub fn client(&self) -> Client {
        self.client
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let next = self.admission.lock().release(self.client);
        tell(next);
    }
}

/// A place in a client's queue, which is left when this is dropped. Resolves to a permit.
#[derive(Debug)]
#[must_use = "a place that is dropped is left"]
pub struct QueuedPermit {
    // Taken when it resolves.
    admission: Option<Arc<Admission>>,
    client: Client,
    ticket: Ticket,
}

impl Future for QueuedPermit {
    type Output = Result<Permit, Displaced>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (client, ticket) = (self.client, self.ticket);
        let admission = self.admission.as_ref().expect("it is not polled after it resolved");
        let stands = match admission.lock().ticket_state(client, ticket) {
            TicketState::Granted => Ok(true),
            TicketState::Displaced => Ok(false),
            TicketState::Waiting(waker) if waker.as_ref().is_some_and(|old| old.will_wake(cx.waker())) => {
                Err(None)
            }
            TicketState::Waiting(waker) => Err(waker.replace(cx.waker().clone())),
        };
        // A waker that is left over is dropped here, without the lock.
        let Ok(granted) = stands else { return Poll::Pending };
        let admission = self.admission.take().expect("it was there above");
        Poll::Ready(if granted { Ok(Permit { admission, client }) } else { Err(Displaced) })
    }
}

impl Drop for QueuedPermit {
    fn drop(&mut self) {
        if let Some(admission) = &self.admission {
            let left = admission.lock().leave(self.client, self.ticket);
            if let Left::Granted(next) = left {
                tell(next);
            }
        }
    }
}
