//! The two queues in front of a child's stdin: one in turns, one urgent.
//!
//! Requests and notifications take turns, see [`orders`](super::orders). Answers to the child's own questions and
//! cancellations overtake them, since the child may need them to make progress.

use super::backlog::Backlog;
use super::orders::{self, Orders, OrdersIntake};
use super::uptake::Uptake;
use crate::budget::Charged;
use crate::jsonrpc::Spliced;
use crate::mux::WireId;
use crate::telemetry::counters;
use std::sync::Arc;
use tokio::sync::mpsc::{self, Receiver, Sender};

/// Capacity for answers and cancellations. Their number is bounded by the child's questions and the calls in flight.
/// A child with this many unread messages reads nothing at all, and further ones are dropped.
const URGENT: usize = 8_192;
/// Urgent messages that may wait while the child still gets replies to its own requests.
const REPLIES: usize = 256;

/// An urgent message: an answer to a question of the child, a message about one, or a cancellation.
#[derive(Debug)]
pub struct Urgent(pub Spliced);

/// The sending half; clones share the queues.
#[derive(Clone, Debug)]
pub struct Inbox {
    pub(super) orders: Orders,
    urgent: Sender<Urgent>,
    uptake: Arc<Uptake>,
}

/// The receiving half, owned by the task that writes stdin.
#[derive(Debug)]
pub struct Intake {
    /// Requests and notifications, in their turns.
    pub orders: OrdersIntake,
    /// Urgent messages.
    pub urgent: Receiver<Urgent>,
    /// Receives the child's progress from the writer.
    pub uptake: Arc<Uptake>,
}

/// Creates the queues. Written notifications are noted in `backlog`.
pub fn inbox(backlog: Arc<Backlog>) -> (Inbox, Intake) {
    let (urgent, urgent_intake) = mpsc::channel(URGENT);
    let uptake = Arc::<Uptake>::default();
    let (orders, orders_intake) = orders::orders(backlog, Arc::clone(&uptake));
    let intake = Intake { orders: orders_intake, urgent: urgent_intake, uptake: Arc::clone(&uptake) };
    (Inbox { orders, urgent, uptake }, intake)
}

impl Inbox {
    /// Returns the child's progress with the written bytes.
    pub fn uptake(&self) -> &Uptake {
        &self.uptake
    }

    /// Sends proxyrunner's own reply to a request of the child. Never waits: dropped and counted if too many are
    /// unread.
    pub fn reply(&self, frame: Charged) {
        if self.urgent.max_capacity() - self.urgent.capacity() < REPLIES {
            self.urge(Urgent(Spliced::from(frame)));
        } else {
            counters::DROPPED_EVENTS.increment();
        }
    }

    /// Sends an urgent message. Never waits: dropped and counted if the queue is full.
    pub fn urge(&self, urgent: Urgent) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.urgent.try_send(urgent) {
            counters::DROPPED_EVENTS.increment();
        }
    }
}

/// Returns a `notifications/cancelled` for a request of proxyrunner. `reason` is proxyrunner's own text.
pub fn cancellation(wire_id: WireId, reason: &str) -> Spliced {
    let params = serde_json::json!({"requestId": wire_id.as_u64(), "reason": reason});
    let frame = serde_json::json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
    Spliced::from(Charged::own(frame.to_string()))
}
