//! Tools that a legacy child runs as tasks only, for clients that do not know tasks: the call creates the task and
//! polls it, and the task's result is the call's answer (2025-11-25, basic/utilities/tasks).

use super::{Happening, ModernCall};
use crate::budget::Charged;
use crate::clock::now;
use crate::era::keys;
use crate::exchange::{Answer, Exchange, Failure, Link, Mailbox, Outcome, Places, Step};
use crate::ingress::Incoming;
use crate::inquiry::{self, begin_for};
use crate::jsonrpc::{self, Amendment, Edits, Spliced, amend, kept, member, rewrite, splice, string_member};
use crate::mux::WireId;
use crate::tasks;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep_until;

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;

/// Bounds of the poll interval that the child suggests, and the default.
const POLL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
const DEFAULT_POLL: Duration = Duration::from_millis(500);
/// Time a child has to confirm a cancelled task.
const CANCEL_PATIENCE: Duration = Duration::from_secs(10);

/// A task at a legacy child.
#[derive(Debug, Default)]
pub(super) struct Task {
    stage: Stage,
    /// Its id, in raw JSON, once it is created.
    id: Option<Charged>,
    /// Receives the child's questions and progress, independent of the current request.
    desk: Arc<Mailbox>,
    /// The permits of the task.
    pub places: Option<Places>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Creating,
    /// The next poll is due at this time.
    Waiting(Instant),
    Asking,
    /// The task has ended; its result is to be fetched.
    Over,
    Fetching,
}

impl Task {
    /// Creates the task of a call.
    pub fn of(call: &Incoming) -> Self {
        Task { desk: call.mailbox(), ..Task::default() }
    }

    /// Returns the mailbox for the child's questions and progress.
    pub fn desk(&self) -> &Arc<Mailbox> {
        &self.desk
    }

    /// Handles the child's answer to the last request. Returns the answer if it is the answer of the call.
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
        // A task that needs input asks for it while its result is fetched.
        self.stage = if working { Stage::Waiting(now + poll) } else { Stage::Over };
        None
    }

    /// Sends the next request when it is due.
    async fn go_on(&self, link: &Link) -> Result<Exchange, Failure> {
        let (method, mailbox) = match self.stage {
            Stage::Waiting(at) => {
                sleep_until(at.into()).await;
                ("tasks/get", Arc::default())
            }
            // Messages that precede the result are delivered before it.
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

/// Removes the related-task member from a task's result.
fn without_related_task(answer: Answer) -> Answer {
    let meta = answer.result.as_ref().and_then(|result| member(&answer.frame, result, "_meta"));
    let Some(meta) = meta.filter(|meta| answer.frame[meta.start] == b'{') else { return answer };
    let mut edits = Edits::new();
    amend(&answer.frame, &meta, Amendment { drop: &[keys::RELATED_TASK], add: b"" }, &mut edits);
    // Without memory for a copy, the member stays.
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

/// An event of a call that runs as a task.
enum Event {
    Child(Step),
    Begun(Result<Exchange, Failure>),
    Late,
}

impl ModernCall {
    /// Waits for the next event, and returns it if the client is to see it.
    pub(super) async fn next_of_task(&mut self) -> Option<Happening> {
        let task = self.task.as_ref()?;
        let link = self.lease.as_ref().map_or(&self.shared.link, |lease| lease.link());
        let until = self.ask_at.unwrap_or_else(|| self.deadline.at());
        let event = tokio::select! {
            biased;
            // First, since a child that keeps talking does not postpone the deadline.
            () = sleep_until(until.into()) => Event::Late,
            heard = task.desk.next() => match heard {
                Ok(interim) => Event::Child(Step::Interim(interim)),
                Err(interruption) => Event::Child(Step::Outcome(Err(interruption.failure))),
            },
            step = Exchange::next_of(&mut self.exchange) => Event::Child(step),
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
                // Each poll that the child answers is progress.
                self.deadline.progressed(now());
                let answer = task.hear(answer, now())?;
                if task.stage != Stage::Asking {
                    // The task has ended, so nothing is left to cancel.
                    self.task = None;
                }
                Ok(answer)
            }
            Err(failure) => Err(failure),
        };
        Some(Happening::Answered(self.reply(outcome)))
    }

    /// Cancels a task that outlives its call. Until the child confirms, the task keeps its permits and its lease.
    pub(super) fn cancel_task(&mut self) {
        let Some(task) = self.task.take().filter(|task| task.id.is_some()) else { return };
        let lease = self.lease.take();
        let link = Arc::clone(lease.as_ref().map_or(&self.shared.link, |lease| lease.link()));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tasks::boxed(async move {
                let write = |wire_id| task.request(wire_id, "tasks/cancel");
                let _ = inquiry::ask(&link, "tasks/cancel", CANCEL_PATIENCE, write).await;
                drop((task, lease));
            }));
        }
    }
}
