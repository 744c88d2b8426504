//! Requests of modern clients (2026-07-28). Each request is independent, so all share a child. A modern child
//! receives them unchanged; for a legacy child they are translated (`docs/architecture.md#eras`). A request whose
//! client may be asked questions leases a child for its duration, since otherwise the child's questions could not be
//! attributed. A question becomes the answer `input_required`, and the call is parked until its retry
//! (basic/patterns/mrtr).

mod answer;
mod asking;
mod begin;
mod params;
mod retry;
mod task;

pub use retry::is_retry;

use super::Calls;
use super::seal::{Purpose, State};
use crate::admission::Accepted;
use crate::budget::Charged;
use crate::calls::deadline::Deadline;
use crate::catalogue::lists::{FreshList, ListRequest};
use crate::children::{Lease, Shared};
use crate::client::Client;
use crate::clock::now;
use crate::era::capabilities::Capabilities;
use crate::era::question::Question;
use crate::exchange::{Exchange, Failure, Interim, Link, Places, Step, Topic};
use crate::identity::Principal;
use crate::jsonrpc::{self, ClientId, Spliced, rewrite};
use crate::telemetry::{Operation, Span, Verdict, counters};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use task::Task;
use tokio::time::timeout_at;

/// Maximum number of questions that a client is asked, and of answers that it may give, at once.
const MOST_ANSWERS: usize = 64;
/// Time to wait for further questions of the child before the client is asked.
const SIBLINGS: Duration = Duration::from_millis(25);

/// An event of a modern request.
#[derive(Debug)]
pub enum Happening {
    /// A message that goes before the answer.
    Said(Spliced),
    /// The one answer; nothing follows.
    Answered(Reply),
    /// The child asks the client: [park](ModernCall::park) the call, which returns the answer.
    Asks,
}

/// The sender of a modern request, and its capabilities.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The principal that the request belongs to.
    pub principal: Principal,
    /// The client's address, if known.
    pub address: Option<IpAddr>,
    /// The declared capabilities.
    pub capabilities: Capabilities,
    /// The minimum level of log messages that it wants.
    pub log_level: Option<&'static str>,
    /// The request's `Mcp-Param-*` headers: names in lower case, and values. A repeated header has no value.
    pub params: Vec<(String, Option<Vec<u8>>)>,
}

impl Caller {
    /// Returns the client that the request counts for.
    pub fn client(&self) -> Client {
        self.principal.client_or(|| Client::at(self.address))
    }

    /// Returns the value of a header; a repeated header's value agrees with nothing.
    fn param(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self.params.iter().find(|(given, _)| given == name)?;
        Some(value.as_deref().unwrap_or(b"=?base64?!?="))
    }
}

/// A question of the child that the client has not answered.
#[derive(Debug)]
struct Open {
    child_id: Charged,
    question: Question,
}

/// The answer to a modern request.
#[derive(Debug)]
pub struct Reply {
    /// The response.
    pub message: Spliced,
    /// The HTTP status, for a head that is not sent yet.
    pub status: u16,
}

/// A modern request at a child. Dropping it cancels it there: a modern client that disconnects has cancelled
/// (streamable-http §Cancellation).
#[derive(Debug)]
pub struct ModernCall {
    calls: Arc<Calls>,
    exchange: Option<Exchange>,
    /// The leased child, if any.
    lease: Option<Lease>,
    /// The shared child; it describes the server.
    shared: Arc<Shared>,
    caller: Caller,
    /// The purpose that the `requestState` is bound to, if the call may need one.
    purpose: Option<Purpose>,
    open: Vec<Open>,
    /// The time at which the client is asked; set while a question is open.
    ask_at: Option<Instant>,
    /// The progress token of the last retry. The child's slot knows that of the first request.
    token: Option<Charged>,
    asked: u64,
    /// Number of URLs that the client was asked to open before.
    urls: u8,
    /// The task that the child runs the call as, if any.
    task: Option<Task>,
    /// Set if the answer may be kept.
    listed: Option<ListRequest>,
    /// The cached answer, if any.
    fresh: Option<FreshList>,
    method: String,
    /// `params.uri`, in raw JSON.
    uri: Option<Charged>,
    client_id: ClientId,
    deadline: Deadline,
    /// The recorded operation of the last request.
    operation: Arc<Operation>,
    /// The span of the wait for the client's answers.
    parked: Option<Span>,
    /// Makes a drain wait for the call.
    accepted: Option<Accepted>,
}

impl ModernCall {
    /// Returns the next event; at the deadline, the answer.
    pub async fn next(&mut self) -> Happening {
        if let Some(fresh) = self.fresh.take() {
            return self.reply_from_memory(&fresh);
        }
        loop {
            if self.task.is_some() {
                match self.next_of_task().await {
                    Some(happening) => return happening,
                    None => continue,
                }
            }
            let until = self.ask_at.unwrap_or_else(|| self.deadline.at());
            let Some(exchange) = self.exchange.as_mut() else {
                return Happening::Answered(self.reply_failure(&Failure::Lost));
            };
            // A child that keeps talking does not postpone the deadline.
            let over = until <= now();
            let step = if over { None } else { timeout_at(until.into(), exchange.next()).await.ok() };
            match step {
                Some(Step::Interim(interim)) => {
                    if let Some(said) = self.interim(interim) {
                        return Happening::Said(said);
                    }
                }
                Some(Step::Outcome(outcome)) => return Happening::Answered(self.reply(outcome)),
                None if self.ask_at.is_some() => return self.ask_client(),
                None => return Happening::Answered(self.time_out()),
            }
        }
    }

    /// Ends the call, since proxyrunner shuts down.
    pub fn shut_down(&mut self) -> Happening {
        let failure = Failure::ShuttingDown;
        self.fail(&failure);
        Happening::Answered(self.reply_failure(&failure))
    }

    /// Records the outcome, and returns the one answer.
    fn finish(&self, message: Spliced, status: u16, verdict: &Verdict) -> Reply {
        self.operation.note(|details| details.response_size = Some(message.len() as u64));
        self.operation.end(verdict);
        Reply { message, status }
    }

    /// Returns the link to the call's child.
    fn link(&self) -> &Arc<Link> {
        self.lease.as_ref().map_or(&self.shared.link, Lease::link)
    }

    /// Replaces the call's permits.
    fn set_places(&mut self, places: Option<Places>) {
        match (&mut self.task, &self.exchange) {
            (Some(task), _) => task.places = places,
            (None, Some(exchange)) => exchange.set_places(places),
            (None, None) => {}
        }
    }

    fn interim(&mut self, Interim { frame, topic, .. }: Interim) -> Option<Spliced> {
        match topic {
            Topic::Progress => {
                self.deadline.progressed(now());
                self.with_token(frame)
            }
            Topic::Log if self.caller.log_level.is_some() => Some(frame),
            Topic::Question(child_id) => {
                self.question(child_id, frame);
                None
            }
            Topic::Withdrawn(child_id) => {
                self.open.retain(|open| open.child_id != child_id);
                self.ask_at = self.ask_at.filter(|_| !self.open.is_empty());
                self.note_waiting();
                None
            }
            Topic::Log | Topic::Answer(_) | Topic::Other => {
                counters::WITHHELD_MESSAGES.increment();
                None
            }
        }
    }

    /// Writes the last retry's progress token, which may differ from the one that the child's slot restores; `None`
    /// if the retry wants no progress.
    fn with_token(&self, frame: Spliced) -> Option<Spliced> {
        let token = self.token.as_ref()?;
        let bytes = frame.flatten().inspect_err(|_| counters::DROPPED_EVENTS.increment()).ok()?;
        let message = jsonrpc::scan(&bytes).ok()?;
        Some(rewrite::with_progress_token(&bytes, &message, token))
    }
}

impl Drop for ModernCall {
    /// All questions of the child are answered, whichever way the call ends.
    fn drop(&mut self) {
        self.cancel("no longer needed");
        self.cancel_task();
    }
}
