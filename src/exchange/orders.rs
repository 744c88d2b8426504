//! The queue of requests and notifications in front of a child's stdin. It is fair: clients take turns, and each
//! client's messages keep their order, so a client that sends much to a slow child delays only itself. A request that
//! is cancelled before its turn is removed at once, with its bytes.

use super::Places;
use super::backlog::Backlog;
use super::uptake::Uptake;
use crate::client::{BuildClientHasher, Client};
use crate::jsonrpc::Spliced;
use crate::mux::WireId;
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::sync::Semaphore;

/// Capacity for notifications; when it is used up, senders wait. Requests are bounded by their slots.
const NOTIFICATIONS: usize = 256;
/// A message counts as one more for each of this many bytes.
const LARGE: usize = 16 * 1024;
/// Maximum number of clients without waiting messages that are remembered.
const REMEMBERED: usize = 64;

/// A message that waits for its turn.
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
    Notification {
        /// The message, without a newline.
        frame: Spliced,
        /// Its permits, if a client sent it.
        places: Option<Places>,
    },
}

/// The sending half; clones share the queue.
#[derive(Clone, Debug)]
pub(super) struct Orders(Arc<Queue>);

/// The receiving half. Dropping it closes and empties the queue.
#[derive(Debug)]
pub struct OrdersIntake(Arc<Queue>);

#[derive(Debug)]
struct Queue {
    notifications: Semaphore,
    backlog: Arc<Backlog>,
    uptake: Arc<Uptake>,
    state: Mutex<State>,
}

/// Orders by turn: the start time of fair queueing, then the order of arrival.
#[derive(Debug, Default)]
struct State {
    waiting: BTreeMap<(u64, u64), Order>,
    came: u64,
    /// The latest turn.
    now: u64,
    /// Each client's next turn; `None` is proxyrunner itself.
    next: HashMap<Option<Client>, u64, BuildClientHasher>,
    writer: Option<Waker>,
    closed: bool,
}

/// Creates the queue. Notifications are recorded when they are queued and when they are written.
pub(super) fn orders(backlog: Arc<Backlog>, uptake: Arc<Uptake>) -> (Orders, OrdersIntake) {
    let notifications = Semaphore::new(NOTIFICATIONS);
    let queue = Arc::new(Queue { notifications, backlog, uptake, state: Mutex::default() });
    (Orders(Arc::clone(&queue)), OrdersIntake(queue))
}

impl Orders {
    /// Returns whether the child's stdin is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.0.state().closed
    }

    /// Queues a request of a client, or of proxyrunner; returns false if the child's stdin is closed.
    #[must_use]
    pub(super) fn request(&self, client: Option<Client>, wire_id: WireId, frame: Spliced) -> bool {
        let length = frame.len();
        self.0.push(client, length, Order::Request { wire_id, frame })
    }

    /// Queues a notification as soon as there is room. Dropped if the child's stdin is closed.
    pub(super) async fn notification(&self, frame: Spliced, places: Option<Places>) {
        let Ok(permit) = self.0.notifications.acquire().await else { return };
        // The permit is returned when the order is taken out.
        permit.forget();
        let client = places.as_ref().map(|places| places.child.client());
        let length = frame.len();
        self.0.uptake.note_notified();
        self.0.push(client, length, Order::Notification { frame, places });
    }

    /// Returns whether notifications wait.
    pub(super) fn has_notifications(&self) -> bool {
        !self.0.notifications.is_closed() && self.0.notifications.available_permits() < NOTIFICATIONS
    }

    /// Removes a request whose turn has not come.
    pub(super) fn withdraw(&self, wire_id: WireId) {
        let is_it = |order: &Order| matches!(order, Order::Request { wire_id: id, .. } if *id == wire_id);
        let mut state = self.0.state();
        let turn = state.waiting.iter().find(|(_, order)| is_it(order)).map(|(turn, _)| *turn);
        let withdrawn = turn.and_then(|turn| state.waiting.remove(&turn));
        drop(state);
        drop(withdrawn);
    }
}

impl OrdersIntake {
    /// Waits until there is an order.
    pub async fn wait(&self) {
        poll_fn(|cx| self.poll_wait(cx)).await;
    }

    /// Takes the next order, if there is one.
    pub fn try_next(&self) -> Option<Order> {
        let mut state = self.0.state();
        let ((turn, _), order) = state.waiting.pop_first()?;
        state.now = turn;
        drop(state);
        if let Order::Notification { .. } = order {
            self.0.notifications.add_permits(1);
        }
        Some(order)
    }

    /// Records that a notification was written, so that no drain waits for it. It keeps its permits until the child
    /// has proven that it handled it.
    pub fn note_written(&self, places: Option<Places>) {
        if let Some(mut places) = places {
            places.accepted = None;
            self.0.backlog.note_written(places);
        }
    }

    fn poll_wait(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.state();
        if !state.waiting.is_empty() {
            return Poll::Ready(());
        }
        match &mut state.writer {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for OrdersIntake {
    fn drop(&mut self) {
        self.0.notifications.close();
        let mut state = self.0.state();
        state.closed = true;
        let unwritten = std::mem::take(&mut state.waiting);
        drop(state);
        drop(unwritten);
    }
}

impl Queue {
    fn push(&self, client: Option<Client>, length: usize, order: Order) -> bool {
        let mut state = self.state();
        if state.closed {
            return false;
        }
        state.push(client, length, order);
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn push(&mut self, client: Option<Client>, length: usize, order: Order) {
        if self.waiting.is_empty() {
            self.next.clear();
        } else if self.next.len() > self.waiting.len() + REMEMBERED {
            let now = self.now;
            self.next.retain(|_, next| *next > now);
        }
        let next = self.next.entry(client).or_default();
        let turn = self.now.max(*next);
        *next = turn + 1 + (length / LARGE) as u64;
        self.came += 1;
        self.waiting.insert((turn, self.came), order);
    }
}
