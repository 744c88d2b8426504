//! The two queues in front of a child's stdin: what waits its turn, and what never waits.
//!
//! Requests and notifications take turns, as [`orders`](super::orders) says. Answers to the child's own questions and
//! cancellations overtake them: the child may need them to make progress at all.

use super::backlog::Backlog;
use super::orders::{self, Orders, OrdersIntake};
use super::uptake::Uptake;
use crate::budget::Charged;
use crate::jsonrpc::Spliced;
use crate::mux::WireId;
use crate::telemetry::counters;
use std::sync::Arc;
use tokio::sync::mpsc::{self, Receiver, Sender};

/// Answers and cancellations. They are as many as the child's questions and the calls in flight, both bounded;
/// a child that lets so many pile up reads nothing at all, and what comes on top is dropped.
const URGENT: usize = 8_192;
/// Urgent messages that may wait for a child that still gets replies to its own requests.
const REPLIES: usize = 256;

/// What never waits: an answer to a question of the child, a message about one, or a cancellation.
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
    /// What waits its turn.
    pub orders: OrdersIntake,
    /// What never waits.
    pub urgent: Receiver<Urgent>,
    /// Where the writer says how the child takes it.
    pub uptake: Arc<Uptake>,
}

/// A new pair. What was written of notifications is noted in the backlog.
pub fn inbox(backlog: Arc<Backlog>) -> (Inbox, Intake) {
    let (urgent, urgent_intake) = mpsc::channel(URGENT);
    let uptake = Arc::<Uptake>::default();
    let (orders, orders_intake) = orders::orders(backlog, Arc::clone(&uptake));
    let intake = Intake { orders: orders_intake, urgent: urgent_intake, uptake: Arc::clone(&uptake) };
    (Inbox { orders, urgent, uptake }, intake)
}

impl Inbox {
    /// How the child takes what is written to it.
    pub fn uptake(&self) -> &Uptake {
        &self.uptake
    }

    /// A reply of proxyrunner's own to a request of the child; never waits. A child that leaves so many unread needs no more.
    pub fn reply(&self, frame: Charged) {
        if self.urgent.max_capacity() - self.urgent.capacity() < REPLIES {
            self.urge(Urgent(Spliced::from(frame)));
        } else {
            counters::DROPPED_EVENTS.increment();
        }
    }

    /// Never waits. What a child that reads nothing has no room for is dropped and counted.
    pub fn urge(&self, urgent: Urgent) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.urgent.try_send(urgent) {
            counters::DROPPED_EVENTS.increment();
        }
    }
}

/// `notifications/cancelled` for a request of ours. `reason` is proxyrunner's own text.
pub fn cancellation(wire_id: WireId, reason: &str) -> Spliced {
    let params = serde_json::json!({"requestId": wire_id.as_u64(), "reason": reason});
    let frame = serde_json::json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
    Spliced::from(Charged::own(frame.to_string()))
}
