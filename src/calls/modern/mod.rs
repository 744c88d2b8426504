//! Requests of modern clients (2026-07-28). Each stands for itself, so all share a child. At a modern one they pass as
//! they are; at a legacy one, what they mean and are told is translated on the way (protocol C2): a request whose
//! client can be asked something has a child for itself as long as it lasts, since only then it is known whose that
//! child's questions are. A question becomes the answer `input_required`, and the call waits, parked, for the retry
//! (C2a).

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
use crate::jsonrpc::{self, ClientId, Spliced, rewrite};
use crate::session::Principal;
use crate::telemetry::{Operation, Span, Verdict, counters};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use task::Task;
use tokio::time::timeout_at;

/// Questions that a client is asked, and answers that it gives, at once.
const MOST_ANSWERS: usize = 64;
/// How long a child's further questions are waited for before the client is asked.
const SIBLINGS: Duration = Duration::from_millis(25);

/// What happens to a modern request.
#[derive(Debug)]
pub enum Happening {
    /// Something to be told meanwhile.
    Said(Spliced),
    /// Its one answer; nothing follows.
    Answered(Reply),
    /// The child asks the client: the call is to be [parked](ModernCall::park), which gives the answer.
    Asks,
}

/// Who calls, and what it can be asked.
#[derive(Clone, Debug)]
pub struct Caller {
    /// ToolSource request it is.
    pub principal: Principal,
    /// Where it comes from, as far as is known.
    pub address: Option<IpAddr>,
    /// What it declares.
    pub capabilities: Capabilities,
    /// From which level on it wants log messages.
    pub log_level: Option<&'static str>,
    /// The request's `Mcp-Param-*` headers: names in lower case, and values. One that came twice has none.
    pub params: Vec<(String, Option<Vec<u8>>)>,
}

impl Caller {
    /// The client that counts as its sender.
    pub fn client(&self) -> Client {
        self.principal.client_or(|| Client::at(self.address))
    }

    /// The value of a header; that of one that came twice agrees with nothing.
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
    /// The HTTP status that goes with it, as long as the head has not been sent.
    pub status: u16,
}

/// A modern request at a child. Dropping it cancels it there: a modern client that disconnects has cancelled
/// (streamable-http §Cancellation).
#[derive(Debug)]
pub struct ModernCall {
    calls: Arc<Calls>,
    exchange: Option<Exchange>,
    /// The child that it has for itself.
    lease: Option<Lease>,
    /// Describes the server.
    shared: Arc<Shared>,
    caller: Caller,
    /// What it is, for the state that it is resumed by; where it may need one.
    purpose: Option<Purpose>,
    open: Vec<Open>,
    /// When the client is asked, whatever else the child says until then; set while a question is open.
    ask_at: Option<Instant>,
    /// The retry's progress token: the child's slot knows the first request's.
    token: Option<Charged>,
    asked: u64,
    /// How often its client was sent to open a URL before.
    urls: u8,
    /// What the child runs it as.
    task: Option<Task>,
    /// Its answer may be kept.
    listed: Option<ListRequest>,
    /// Its answer, if that was kept.
    fresh: Option<FreshList>,
    method: String,
    /// `params.uri`, in raw JSON.
    uri: Option<Charged>,
    client_id: ClientId,
    deadline: Deadline,
    /// How it is seen: as the request that was last.
    operation: Arc<Operation>,
    /// The wait for its client's answers.
    parked: Option<Span>,
    /// A drain waits for it.
    accepted: Option<Accepted>,
}

impl ModernCall {
    /// What happens next; the answer at the latest when the request's time is over.
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
            // A child that never stops talking does not put it off.
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

    /// proxyrunner ends before it was answered: its one answer.
    pub fn shut_down(&mut self) -> Happening {
        let failure = Failure::ShuttingDown;
        self.fail(&failure);
        Happening::Answered(self.reply_failure(&failure))
    }

    /// Its one answer, and how that is seen.
    fn finish(&self, message: Spliced, status: u16, verdict: &Verdict) -> Reply {
        self.operation.end(verdict);
        Reply { message, status }
    }

    /// The way to its child.
    fn link(&self) -> &Arc<Link> {
        self.lease.as_ref().map_or(&self.shared.link, Lease::link)
    }

    /// It has these places among the requests in flight from now on.
    fn set_places(&mut self, places: Option<Places>) {
        match (&mut self.task, &self.exchange) {
            (Some(task), _) => task.places = places,
            (None, Some(exchange)) => exchange.has_places(places),
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

    /// The child's slot restores the first request's token; a retry may have another, or want no progress.
    fn with_token(&self, frame: Spliced) -> Option<Spliced> {
        let token = self.token.as_ref()?;
        let bytes = frame.flatten().inspect_err(|_| counters::DROPPED_EVENTS.increment()).ok()?;
        let message = jsonrpc::scan(&bytes).ok()?;
        Some(rewrite::with_progress_token(&bytes, &message, token))
    }
}

impl Drop for ModernCall {
    /// However it ends, no question of the child stays without an answer.
    fn drop(&mut self) {
        self.cancel("no longer needed");
        self.cancel_task();
    }
}
