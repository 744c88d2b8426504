//! The bounded queue of messages about one running request, and the way to interrupt it.
//!
//! A channel would do, but costs 2 KiB per request; this costs one small allocation and nothing more until a
//! message comes, which for most requests is never.

use super::{Class, Failure, Interim, Topic};
use crate::budget::{Account, Charged};
use crate::jsonrpc::Spliced;
use crate::telemetry::counters;
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Messages that wait for a request's driver. It only moves them on, so this is far more than it needs.
const CAPACITY: usize = 256;

/// Why a request ends before its answer.
#[derive(Debug)]
pub struct Interruption {
    /// What its client is told.
    pub failure: Failure,
    /// The cancellation as the client wrote it, with the wire id in it, if it was the client who cancelled.
    pub cancellation: Option<Spliced>,
}

/// Written by the child's router and by the session, read by the request's [`Exchange`](super::Exchange).
#[derive(Debug, Default)]
pub struct Mailbox {
    state: Mutex<State>,
    /// Whom messages about the request are charged to; nobody for proxyrunner's own requests.
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
    /// Makes room for what can be dropped in place of the oldest such, since the latest progress says most.
    fn make_room_for(&mut self, interim: &Interim) -> bool {
        let droppable = |interim: &Interim| interim.class == Class::Droppable;
        let oldest = self.queue.iter().position(droppable).filter(|_| droppable(interim));
        let dropped = oldest.is_some_and(|at| self.queue.remove(at).is_some());
        counters::DROPPED_EVENTS.add(dropped.into());
        dropped
    }
}

impl Mailbox {
    /// The mailbox of a client's request, whose messages are charged to this account.
    pub fn charging(account: Option<&Account>) -> Arc<Self> {
        Arc::new(Mailbox { account: account.cloned(), ..Mailbox::default() })
    }

    /// Whom messages about the request are charged to.
    pub fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    /// Charges a child's message to the request's client, and puts it in as `write` makes it; whether it was put in. A
    /// client that has no room loses what may be dropped, and for anything else the request.
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

    /// Puts a message in.
    ///
    /// # Errors
    /// Gives it back when the request is over, or the queue is full. Dear ones may exceed the bound of the others twice.
    pub fn push(&self, interim: Interim) -> Result<(), Interim> {
        let mut state = self.state();
        // A state that is said twice before it is heard is one state.
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

    /// Ends the request before its answer; the first interruption counts.
    pub fn interrupt(&self, interruption: Interruption) {
        let mut state = self.state();
        state.interruption.get_or_insert(interruption);
        wake(state);
    }

    /// The next message, or the end.
    ///
    /// # Errors
    /// The interruption, after which nothing comes.
    pub async fn next(&self) -> Result<Interim, Interruption> {
        poll_fn(|cx| self.poll_pop(cx)).await
    }

    /// The oldest message, else the interruption.
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

    /// The oldest message. Without one, nothing can be put in any more: it would never be read.
    pub fn pop_or_close(&self) -> Option<Interim> {
        let mut state = self.state();
        let interim = state.queue.pop_front();
        state.closed = interim.is_none();
        interim
    }

    /// Nobody reads it any more; what is still in it is lost, and counted.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        counters::DROPPED_EVENTS.add(std::mem::take(&mut state.queue).len() as u64);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Wakes outside the lock.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.reader.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}
