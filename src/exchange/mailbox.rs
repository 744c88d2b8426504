//! The bounded queue of messages about one running request, and the way to interrupt it.
//!
//! A channel would cost 2 KiB per request. A mailbox costs one small allocation, and nothing more until a message
//! arrives; for most requests none does.

use super::{Class, Failure, Interim, Topic};
use crate::budget::{Account, Charged};
use crate::jsonrpc::Spliced;
use crate::telemetry::counters;
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Capacity for messages. The request's driver only forwards them, so this is far more than it needs.
const CAPACITY: usize = 256;

/// The reason why a request ends before its answer.
#[derive(Debug)]
pub struct Interruption {
    /// The failure that is reported to the client.
    pub failure: Failure,
    /// The client's own cancellation with the wire id in it, if the client cancelled.
    pub cancellation: Option<Spliced>,
}

/// Written by the child's router and by the session, read by the request's [`Exchange`](super::Exchange).
#[derive(Debug, Default)]
pub struct Mailbox {
    state: Mutex<State>,
    /// The account that messages are charged to; `None` for proxyrunner's own requests.
    account: Option<Account>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Interim>,
    interruption: Option<Interruption>,
    reader: Option<Waker>,
    closed: bool,
}

impl State {
    /// Drops the oldest droppable message to make room for a newer one, since the latest progress is the most useful.
    fn make_room_for(&mut self, interim: &Interim) -> bool {
        let droppable = |interim: &Interim| interim.class == Class::Droppable;
        let oldest = self.queue.iter().position(droppable).filter(|_| droppable(interim));
        let dropped = oldest.is_some_and(|at| self.queue.remove(at).is_some());
        counters::DROPPED_EVENTS.add(dropped.into());
        dropped
    }
}

impl Mailbox {
    /// Creates the mailbox of a client's request, whose messages are charged to `account`.
    pub fn charging(account: Option<&Account>) -> Arc<Self> {
        Arc::new(Mailbox { account: account.cloned(), ..Mailbox::default() })
    }

    /// Returns the account that messages are charged to.
    pub fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    /// Charges a child's message to the request's client, and queues the frame that `write` makes; returns whether it
    /// was queued. Without room, a droppable message is dropped; otherwise the request fails.
    pub fn take_in(
        &self,
        frame: &mut Charged,
        class: Class,
        topic: Topic,
        write: impl FnOnce(&Charged) -> Spliced,
    ) -> bool {
        if let Some(account) = &self.account {
            if !account.may_take_over(frame.len()) {
                let failure = Failure::NoRoom;
                if class == Class::Dear && !matches!(topic, Topic::Question(_)) {
                    self.interrupt(Interruption { failure, cancellation: None });
                }
                return false;
            }
            frame.move_to(account);
        }
        self.push(Interim { frame: write(frame), class, topic }).is_ok()
    }

    /// Queues a message.
    ///
    /// # Errors
    /// Returns the message if the request is over or the queue is full. Dear messages have twice the capacity.
    pub fn push(&self, interim: Interim) -> Result<(), Interim> {
        let mut state = self.state();
        // A waiting message with the same state is enough.
        if interim.class == Class::Idempotent && state.queue.contains(&interim) {
            return Ok(());
        }
        let bound = if interim.class == Class::Dear { 2 * CAPACITY } else { CAPACITY };
        if state.closed || (state.queue.len() >= bound && !state.make_room_for(&interim)) {
            return Err(interim);
        }
        state.queue.push_back(interim);
        wake(state);
        Ok(())
    }

    /// Ends the request before its answer. The first interruption counts.
    pub fn interrupt(&self, interruption: Interruption) {
        let mut state = self.state();
        state.interruption.get_or_insert(interruption);
        wake(state);
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// The interruption, after which no message arrives.
    pub async fn next(&self) -> Result<Interim, Interruption> {
        poll_fn(|cx| self.poll_pop(cx)).await
    }

    /// Takes the oldest message, else the interruption.
    pub(super) fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<Result<Interim, Interruption>> {
        let mut state = self.state();
        if let Some(interim) = state.queue.pop_front() {
            return Poll::Ready(Ok(interim));
        }
        if let Some(interruption) = state.interruption.take() {
            state.closed = true;
            return Poll::Ready(Err(interruption));
        }
        match &mut state.reader {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Takes the oldest message. If there is none, closes the mailbox, since no later message would be read.
    pub fn pop_or_close(&self) -> Option<Interim> {
        let mut state = self.state();
        let interim = state.queue.pop_front();
        state.closed = interim.is_none();
        interim
    }

    /// Closes the mailbox. Unread messages are dropped and counted.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        counters::DROPPED_EVENTS.add(std::mem::take(&mut state.queue).len() as u64);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Wakes the reader after releasing the lock.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.reader.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}
