//! Admits requests: a bound for all, a bound for each client, and fair queues between clients.
//!
//! A request without a permit waits in its client's queue. Freed permits go to the waiting clients in turn, and
//! within a client to the request that has waited longest. The queues have a common bound. When they are full, the
//! longest gives way to a client with a shorter one, so that a noisy client cannot keep the others out.
//!
//! There is no clock here: a waiter that times out drops its [`QueuedPermit`], which loses no permit. A mutex is
//! enough: it is held for a few map operations, and no waker is woken or dropped meanwhile.

#[cfg(all(test, proxyrunner_loom))]
mod loom_tests;
mod queues;
mod shares;
#[cfg(all(test, not(proxyrunner_loom)))]
mod tests;

pub use queues::Bounds;
pub use shares::{Holder, Share, Shares, Taken};

use crate::budget::Charge;
use crate::client::Client;
use crate::sync::{Mutex, MutexGuard};
use queues::{Left, Queues, Ruling, Ticket, TicketState};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

/// The permits of one bounded resource, and their waiters.
#[derive(Debug)]
pub struct Admission {
    // `None` until the waiter is first polled.
    queues: Mutex<Queues<Option<Waker>>>,
}

/// Counts an accepted request or notification until it is dropped.
#[derive(Debug)]
pub struct Accepted {
    all: Arc<AtomicUsize>,
    /// Covers the memory that the request takes besides its messages.
    _charge: Option<Charge>,
}

impl Accepted {
    /// Increments the counter; `charge` covers the memory that the request takes.
    pub fn count(all: &Arc<AtomicUsize>, charge: Option<Charge>) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Accepted { all: Arc::clone(all), _charge: charge }
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The result of asking for a permit.
#[derive(Debug)]
pub enum Decision {
    /// The permit.
    Granted(Permit),
    /// The request has to wait.
    Waits(QueuedPermit),
    /// The queues are full.
    Full,
}

/// The waiter gave way to a client with a shorter queue.
#[derive(Debug, PartialEq, Eq)]
pub struct Displaced;

impl Admission {
    /// Creates an admission whose permits are all free.
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Admission { queues: Mutex::new(Queues::new(bounds)) })
    }

    /// Takes a permit, or queues for one.
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

    /// Takes a free permit without queueing.
    pub fn take(self: &Arc<Self>, client: Client) -> Option<Permit> {
        let taken = self.lock().take(client);
        taken.then(|| Permit { admission: Arc::clone(self), client })
    }

    /// Returns the number of permits in use.
    pub fn in_flight(&self) -> usize {
        self.lock().in_flight()
    }

    /// Returns the number of waiting requests.
    pub fn queued(&self) -> usize {
        self.lock().queued()
    }

    /// Returns whether a client has used up its own bound, so that it only waits for itself.
    pub fn is_at_own_bound(&self, client: Client) -> bool {
        self.lock().is_at_own_bound(client)
    }

    fn lock(&self) -> MutexGuard<'_, Queues<Option<Waker>>> {
        // The critical sections do not panic unless an invariant is broken.
        self.queues.lock()
    }
}

/// Wakes a waiter whose ticket was granted or displaced. A waiter that was not polled yet reads the result on its
/// first poll.
fn tell(waiter: Option<Option<Waker>>) {
    if let Some(waker) = waiter.flatten() {
        waker.wake();
    }
}

/// The permit of one request to be in flight, returned on drop.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    client: Client,
}

impl Permit {
    /// Returns the client that holds it.
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

/// A place in a client's queue, given up on drop. Resolves to a permit.
#[derive(Debug)]
#[must_use = "dropping it gives up the place in the queue"]
pub struct QueuedPermit {
    // Taken when the future resolves.
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
        // A replaced waker is dropped here, after the lock is released.
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
