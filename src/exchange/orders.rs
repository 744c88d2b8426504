//! The queue of what waits its turn in front of a child's stdin. It keeps its order and pushes back when the child reads
//! slowly; and a request that is cancelled before its turn leaves it at once, with its bytes, though the child may not
//! read again for long.

use crate::jsonrpc::Spliced;
use crate::mux::WireId;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Requests and notifications that wait for a child that reads slowly; then the HTTP bodies wait.
const CAPACITY: usize = 256;

/// What waits its turn.
#[derive(Debug)]
pub enum Order {
    /// A request.
    Request {
        /// Its id at the child.
        wire_id: WireId,
        /// The message, without a newline.
        frame: Spliced,
    },
    /// A notification.
    Notification(Spliced),
}

/// The sending half; clones share the queue.
#[derive(Clone, Debug)]
pub(super) struct Orders(Arc<Queue>);

/// The receiving half. Dropping it closes the queue, and drops what is in it.
#[derive(Debug)]
pub struct OrdersIntake(Arc<Queue>);

/// Room for one order.
#[derive(Debug)]
pub(super) struct Place<'a> {
    queue: &'a Queue,
    permit: SemaphorePermit<'a>,
}

#[derive(Debug)]
struct Queue {
    places: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Order>,
    writer: Option<Waker>,
    closed: bool,
}

/// A new pair.
pub(super) fn orders() -> (Orders, OrdersIntake) {
    let queue = Arc::new(Queue { places: Semaphore::new(CAPACITY), state: Mutex::default() });
    (Orders(Arc::clone(&queue)), OrdersIntake(queue))
}

impl Orders {
    /// Waits for a place; `None` once nobody writes to the child any more.
    pub(super) async fn place(&self) -> Option<Place<'_>> {
        let permit = self.0.places.acquire().await.ok()?;
        Some(Place { queue: &self.0, permit })
    }

    /// Takes a request out whose turn has not come.
    pub(super) fn withdraw(&self, wire_id: WireId) {
        let is_it = |order: &Order| matches!(order, Order::Request { wire_id: id, .. } if *id == wire_id);
        let mut state = self.0.state();
        let withdrawn = state.waiting.iter().position(is_it).and_then(|at| state.waiting.remove(at));
        drop(state);
        if withdrawn.is_some() {
            self.0.places.add_permits(1);
        }
    }
}

impl Place<'_> {
    /// Puts an order last. One to a child to which nobody writes any more is dropped.
    pub(super) fn send(self, order: Order) {
        let mut state = self.queue.state();
        if state.closed {
            return;
        }
        // Given back with the order's turn.
        self.permit.forget();
        state.waiting.push_back(order);
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

impl OrdersIntake {
    /// The order whose turn it is, as soon as there is one.
    pub async fn next(&mut self) -> Order {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The order whose turn it is, if there is one.
    pub fn ready(&mut self) -> Option<Order> {
        let order = self.0.state().waiting.pop_front()?;
        self.0.places.add_permits(1);
        Some(order)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Order> {
        let mut state = self.0.state();
        let Some(order) = state.waiting.pop_front() else {
            match &mut state.writer {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        };
        drop(state);
        self.0.places.add_permits(1);
        Poll::Ready(order)
    }
}

impl Drop for OrdersIntake {
    fn drop(&mut self) {
        self.0.places.close();
        let mut state = self.0.state();
        state.closed = true;
        let unwritten = std::mem::take(&mut state.waiting);
        drop(state);
        drop(unwritten);
    }
}

impl Queue {
    /// No code panics while it holds the lock, so a poisoned one is whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
