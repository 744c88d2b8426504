//! A tool that a legacy child runs as a task only, called by a client that knows nothing of tasks (protocol C2): the
//! call creates the task, which is asked for until it is over, and its result is the call's answer (2025-11-25,
//! basic/utilities/tasks).

use super::{Happening, ModernCall};
use crate::budget::Charged;
use crate::clock::now;
use crate::era::keys;
use crate::exchange::{Answer, Exchange, Failure, Link, Mailbox, Outcome, Places, Step};
use crate::ingress::Incoming;
use crate::inquiry::{self, begin_for};
use crate::jsonrpc::{self, Amendment, Edits, Spliced, amend, kept, member, rewrite, splice, string_member};
use crate::mux::WireId;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep_until;

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;

/// How often a task is asked for: as the child wishes, within these bounds; and if it wishes nothing.
const POLL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
const DEFAULT_POLL: Duration = Duration::from_millis(500);
/// How long a child may take to agree that a task is cancelled.
const CANCEL_PATIENCE: Duration = Duration::from_secs(10);

/// A task at a legacy child.
#[derive(Debug, Default)]
pub(super) struct Task {
    stage: Stage,
    /// Its id, in raw JSON, once it is created.
    id: Option<Charged>,
    /// What the child asks and tells while it runs, whichever request of ours is under way.
    desk: Arc<Mailbox>,
    /// Its places among the requests in flight.
    pub places: Option<Places>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Creating,
    /// To be asked for at this time.
    Waiting(Instant),
    Asking,
    /// Over: its result is to be fetched.
    Over,
    Fetching,
}

impl Task {
    /// One that is to be created by this call.
    pub fn of(call: &Incoming) -> Self {
        Task { desk: call.mailbox(), ..Task::default() }
    }

    /// Where the child's questions and progress go.
    pub fn desk(&self) -> &Arc<Mailbox> {
        &self.desk
    }

    /// The child's answer to what was asked last. Gives it back if it is the call's.
    fn hear(&mut self, answer: Answer, now: Instant) -> Option<Answer> {
        let Some(result) = answer.result.clone() else { return Some(answer) };
        let frame = &answer.frame;
        let task = match self.stage {
            Stage::Creating => match member(frame, &result, "task") {
                Some(task) => task,
                None => return Some(answer),
            },
            Stage::Asking => result,
            _ => return Some(without_related_task(answer)),
        };
        if let Some(id) = member(frame, &task, "taskId").filter(|_| self.id.is_none()) {
            self.id = Some(kept(frame, &id));
        }
        let working = string_member(frame, &task, "status").is_none_or(|status| status == "working");
        let poll = member(frame, &task, "pollInterval").and_then(|poll| jsonrpc::integer(&frame[poll]));
        let poll = poll.map_or(DEFAULT_POLL, Duration::from_millis).clamp(POLL.0, POLL.1);
        // One that needs input asks for it while its result is fetched.
        self.stage = if working { Stage::Waiting(now + poll) } else { Stage::Over };
        None
    }

    /// Sends what is due next.
    async fn go_on(&self, link: &Link) -> Result<Exchange, Failure> {
        let (method, mailbox) = match self.stage {
            Stage::Waiting(at) => {
                sleep_until(at.into()).await;
                ("tasks/get", Arc::default())
            }
            // So what the child said before the result is told before it.
            Stage::Over => ("tasks/result", Arc::clone(&self.desk)),
            _ => return std::future::pending().await,
        };
        begin_for(link, method, mailbox, |wire_id| self.request(wire_id, method))
    }

    fn request(&self, wire_id: WireId, method: &str) -> Spliced {
        let id = self.id.as_deref().unwrap_or(b"null");
        let params = [b"{\"taskId\":", id, b"}"].concat();
        let wire_id = wire_id.as_u64().to_string();
        Spliced::from(rewrite::request(wire_id.as_bytes(), method, Some(&params)))
    }
}

/// A task's result, without the word that it is one's.
fn without_related_task(answer: Answer) -> Answer {
    let meta = answer.result.as_ref().and_then(|result| member(&answer.frame, result, "_meta"));
    let Some(meta) = meta.filter(|meta| answer.frame[meta.start] == b'{') else { return answer };
    let mut edits = Edits::new();
    amend(&answer.frame, &meta, Amendment { drop: &[keys::RELATED_TASK], add: b"" }, &mut edits);
    // Where there is no room for a copy, the word stays.
    let Ok(frame) = splice(&answer.frame, &answer.object, edits).flatten() else { return answer };
    match jsonrpc::scan(&frame) {
        Ok(message) => Answer {
            object: message.object,
            id: message.id.unwrap_or_default(),
            result: message.result,
            error: message.error,
            is_error: message.is_error,
            frame,
        },
        Err(_) => answer,
    }
}

/// What happens next to a call that runs as a task.
enum Event {
    Child(Step),
    Begun(Result<Exchange, Failure>),
    Late,
}

impl ModernCall {
    /// What happens next, if that is to be told.
    pub(super) async fn next_of_task(&mut self) -> Option<Happening> {
        let task = self.task.as_ref()?;
        let link = self.lease.as_ref().map_or(&self.shared.link, |lease| lease.link());
        let until = self.ask_at.unwrap_or_else(|| self.deadline.at());
        let event = tokio::select! {
            biased;
            // First, since a child that never stops talking does not put it off.
            () = sleep_until(until.into()) => Event::Late,
            heard = task.desk.next() => match heard {
                Ok(interim) => Event::Child(Step::Interim(interim)),
                Err(interruption) => Event::Child(Step::Outcome(Err(interruption.failure))),
            },
            step = next_of(&mut self.exchange) => Event::Child(step),
            begun = task.go_on(link), if self.exchange.is_none() => Event::Begun(begun),
        };
        match event {
            Event::Child(Step::Interim(interim)) => self.interim(interim).map(Happening::Said),
            Event::Child(Step::Outcome(outcome)) => self.task_heard(outcome),
            Event::Begun(Ok(exchange)) => {
                self.exchange = Some(exchange);
                let task = self.task.as_mut()?;
                task.stage = if task.stage == Stage::Over { Stage::Fetching } else { Stage::Asking };
                None
            }
            Event::Begun(Err(failure)) => Some(Happening::Answered(self.reply_failure(&failure))),
            Event::Late if self.ask_at.is_some() => Some(self.ask_client()),
            Event::Late => Some(Happening::Answered(self.time_out())),
        }
    }

    fn task_heard(&mut self, outcome: Outcome) -> Option<Happening> {
        self.exchange = None;
        let outcome = match outcome {
            Ok(answer) => {
                let task = self.task.as_mut()?;
                let answer = task.hear(answer, now())?;
                if task.stage != Stage::Asking {
                    // It is over, so that nothing is left to be cancelled.
                    self.task = None;
                }
                Ok(answer)
            }
            Err(failure) => Err(failure),
        };
        Some(Happening::Answered(self.reply(outcome)))
    }

    /// Ends what the child still works on, where the call ends before it. Until the child agrees, the task keeps its
    /// places, and the child that it has for itself.
    pub(super) fn cancel_task(&mut self) {
        let Some(task) = self.task.take().filter(|task| task.id.is_some()) else { return };
        let lease = self.lease.take();
        let link = Arc::clone(lease.as_ref().map_or(&self.shared.link, |lease| lease.link()));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let write = |wire_id| task.request(wire_id, "tasks/cancel");
                let _ = inquiry::ask(&link, "tasks/cancel", CANCEL_PATIENCE, write).await;
                drop((task, lease));
            });
        }
    }
}

/// What a child says next; never, if nothing is in flight.
async fn next_of(exchange: &mut Option<Exchange>) -> Step {
    match exchange {
        Some(exchange) => exchange.next().await,
        None => std::future::pending().await,
    }
}
