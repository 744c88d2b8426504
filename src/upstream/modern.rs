//! A request of a modern client at a child of either era: what it says meanwhile, what it asks, and its one answer.
//!
//! A modern child gets the request as it is. A legacy child gets it without its envelope, from a place of its own if
//! its client can be asked something; its questions become `input_required`, and the exchange waits, parked, for the
//! retry (protocol C2, C2a).

use super::lease::Lease;
use super::seal::Purpose;
use super::{Incoming, Refusal, Shared, Upstream};
use crate::era::{self, Envelope, Era, input};
use crate::exchange::{Answer, Exchange, Failure, Held, Interim, Link, Mailbox, Outcome, Step, Topic};
use crate::jsonrpc::{self, ClientId, Message, Spliced, codes, rewrite};
use crate::session::Principal;
use crate::telemetry::counters;
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout_at;

/// How long a child's further questions are waited for before the client is asked.
const SIBLINGS: Duration = Duration::from_millis(25);

/// Who calls, and what its request says of it.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Whose request it is.
    pub principal: Principal,
    /// What it declares.
    pub envelope: Envelope,
}

/// What happens to a modern request.
#[derive(Debug)]
pub enum Happening {
    /// Something to be told meanwhile.
    Said(Spliced),
    /// Its one answer; nothing follows.
    Answered(Reply),
}

/// The answer to a modern request.
#[derive(Debug)]
pub struct Reply {
    /// The response.
    pub message: Spliced,
    /// The HTTP status that goes with it, if the head has not been sent yet.
    pub status: u16,
}

/// A modern request at a child. Dropping it cancels it there: a modern client that disconnects has cancelled (A4).
#[derive(Debug)]
pub struct ModernCall {
    upstream: Arc<Upstream>,
    exchange: Option<Exchange>,
    /// The legacy child that it has for itself.
    lease: Option<Lease>,
    /// The link to the child.
    link: Arc<Link>,
    era: Era,
    server_info: Option<Bytes>,
    method: String,
    client_id: ClientId,
    /// The retry's progress token, where it isn't the first request's.
    token: Option<Bytes>,
    caller: Caller,
    purpose: Purpose,
    /// Time left; it stands still while parked.
    patience: Duration,
    deadline: Instant,
    /// Questions that the client was asked and has not answered.
    open: Vec<input::Question>,
}

impl ModernCall {
    /// What happens next.
    pub async fn next(self: &mut Box<Self>) -> Happening {
        loop {
            let Some(exchange) = self.exchange.as_mut() else {
                return Happening::Answered(self.failed(&Failure::Lost));
            };
            let step = match timeout_at(self.deadline.into(), exchange.next()).await {
                Ok(step) => step,
                Err(_) => return Happening::Answered(self.timed_out()),
            };
            match step {
                Step::Interim(interim) => {
                    if let Some(happening) = self.interim(interim).await {
                        return happening;
                    }
                }
                Step::Outcome(outcome) => return Happening::Answered(self.outcome(outcome)),
            }
        }
    }

    async fn interim(&mut self, Interim { frame, topic, .. }: Interim) -> Option<Happening> {
        match topic {
            Topic::Progress => Some(Happening::Said(self.with_token(frame))),
            Topic::Log if self.era == Era::Legacy => {
                self.caller.envelope.log_level.is_some().then_some(Happening::Said(frame))
            }
            Topic::Question(child_id) => {
                self.asked(frame, child_id);
                Some(self.gather().await)
            }
            Topic::Withdrawn(child_id) => {
                self.open.retain(|question| question.child_id != child_id);
                None
            }
            Topic::Log | Topic::Other => Some(Happening::Said(self.with_subscription(frame))),
        }
    }

    fn asked(&mut self, frame: Spliced, child_id: Bytes) {
        let frame = frame.into_bytes();
        if let Ok(message) = jsonrpc::scan(&frame) {
            self.open.push(input::Question::new(child_id, frame, message));
        }
    }

    /// Waits a moment for siblings of a question, then asks the client.
    async fn gather(&mut self) -> Happening {
        let until = Instant::now() + SIBLINGS;
        while let Some(exchange) = self.exchange.as_mut() {
            match timeout_at(until.into(), exchange.next()).await {
                Err(_) => break,
                Ok(Step::Outcome(outcome)) => return Happening::Answered(self.outcome(outcome)),
                Ok(Step::Interim(Interim { frame, topic: Topic::Question(child_id), .. })) => {
                    self.asked(frame, child_id);
                }
                Ok(Step::Interim(Interim { topic: Topic::Withdrawn(child_id), .. })) => {
                    self.open.retain(|question| question.child_id != child_id);
                }
                // Said between two questions: it can't follow the answer that asks for input.
                Ok(Step::Interim(_)) => counters::DROPPED_EVENTS.increment(),
            }
        }
        Happening::Answered(self.ask_client())
    }
}
