//! A simulated child for tests: reads the messages written to it, and the results that its callers get.

use super::{Ends, Exchange, Held, Link, Mailbox, Order, Outcome, Step};
use crate::jsonrpc::{Spliced, rewrite};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Polls a future once; returns its result if it is ready.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

pub(crate) fn held() -> Held {
    Held::unasked(Arc::new(Mailbox::default()))
}

/// Begins a request that is not written yet.
pub(crate) fn begun(link: &Link) -> Exchange {
    begun_with(link, held())
}

pub(crate) fn begun_with(link: &Link, held: Held) -> Exchange {
    let write = |id: crate::mux::WireId| {
        Spliced::from(rewrite::request(id.as_u64().to_string().as_bytes(), "tools/call", None))
    };
    link.begin(held, None, write).expect("the child is open and has room")
}

/// Writes the waiting messages, as the task for stdin does.
pub(crate) fn written(link: &Link, ends: &mut Ends) -> Vec<String> {
    let mut frames = Vec::new();
    while let Ok(urgent) = ends.intake.urgent.try_recv() {
        frames.push(urgent.0);
    }
    while let Some(order) = ends.intake.orders.try_next() {
        match order {
            Order::Request { wire_id, frame } if link.mux().mark_sent(wire_id) => frames.push(frame),
            Order::Request { .. } => {}
            Order::Notification { frame, places } => {
                frames.push(frame);
                ends.intake.orders.note_written(places);
            }
        }
    }
    frames.into_iter().map(text).collect()
}

/// Returns the next message, if one is ready.
pub(crate) fn interim(exchange: &mut Exchange) -> Option<String> {
    match now(exchange.next())? {
        Step::Interim(interim) => Some(text(interim.frame)),
        Step::Outcome(outcome) => panic!("not a message: {outcome:?}"),
    }
}

/// Returns the outcome, if it is the next step.
pub(crate) fn outcome(exchange: &mut Exchange) -> Option<Outcome> {
    match now(exchange.next())? {
        Step::Outcome(outcome) => Some(outcome),
        Step::Interim(interim) => panic!("not an outcome: {interim:?}"),
    }
}

pub(crate) fn text(frame: Spliced) -> String {
    String::from_utf8(frame.to_vec()).expect("frames are UTF-8")
}
