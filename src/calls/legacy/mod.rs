//! Requests of legacy sessions at a child, from beginning to answer. A child of the session's own era receives them
//! unchanged; for a modern child they are [translated](translation).

mod asking;
mod translation;

use super::Calls;
use super::not_begun::NotBegun;
use crate::admission::Accepted;
use crate::audience::Seat;
use crate::calls::deadline::Deadline;
use crate::catalogue::lists::ListRequest;
use crate::children::RESTARTING;
use crate::clock::now;
use crate::era::downgrade;
use crate::exchange::{Answer, Exchange, Failure, Held, Interim, Link, Outcome, Places, Step, Topic};
use crate::ingress::{Incoming, Refusal};
use crate::jsonrpc::{ClientId, Edits, Spliced, kept, rewrite, splice};
use crate::mux::WireId;
use crate::session::{Session, Underway, Version};
use crate::telemetry::{Operation, Verdict, counters};
use crate::trace_context::Trace;
use std::sync::Arc;
use std::time::Instant;
use tokio::time::timeout_at;
use translation::Translation;

/// An event of a request.
#[derive(Debug)]
pub enum LegacyStep {
    /// A message that goes before the answer: the child's, or a question to the client.
    Said(Interim),
    /// The one answer; nothing follows.
    Answered(Spliced),
}

/// A session's request at its child. Dropping it cancels it there.
#[derive(Debug)]
pub struct LegacyCall {
    calls: Arc<Calls>,
    session: Arc<Session>,
    exchange: Option<Exchange>,
    underway: Option<Underway>,
    client_id: ClientId,
    deadline: Deadline,
    /// The method, if the child's answer may contain features beyond the session's revision.
    downgrade: Option<String>,
    /// Set if the answer may be kept.
    asked: Option<ListRequest>,
    /// The translation, if the child is modern.
    translation: Option<Box<Translation>>,
    /// Whether the child has answered.
    is_answered: bool,
    /// The recorded operation.
    operation: Arc<Operation>,
    /// Makes a drain wait for the call.
    _accepted: Accepted,
}

impl Calls {
    /// Begins a request at a child of the session's own era. `newer` says that the child's revision is later than the
    /// session's.
    pub(super) async fn pass(
        self: &Arc<Self>,
        session: &Arc<Session>,
        seat: &Seat,
        incoming: Incoming,
        accepted: Accepted,
        newer: bool,
        asked: Option<ListRequest>,
    ) -> Result<Box<LegacyCall>, Refusal> {
        let client_id = ClientId::new(incoming.id());
        let mailbox = incoming.mailbox();
        let underway = Underway::begin(session, client_id.clone(), Arc::clone(&mailbox));
        let downgrade = newer.then(|| incoming.method().into_owned());
        let (frame, message) = (&incoming.frame, &incoming.message);
        let token = message.params.as_ref().and_then(|params| params.meta.as_ref()?.progress_token.clone());
        let token = token.map(|token| kept(frame, &token));
        let write = |wire_id: WireId, trace: &Trace| {
            underway.mark_sent(wire_id);
            let id = Some(wire_id.as_u64());
            rewrite::request_for_child(frame, message, id, id, trace)
        };
        let beginning = async {
            let held = |places| {
                let (mailbox, token) = (Arc::clone(&mailbox), token.clone());
                let client = Some(session.client());
                Held { token, client, places: Some(places).into(), ..Held::unasked(mailbox) }
            };
            self.begin_where_it_sits(session, seat, None, &incoming, held, &write).await
        };
        let (exchange, deadline) = unless_interrupted(&underway, beginning).await?;
        Ok(Box::new(LegacyCall {
            calls: Arc::clone(self),
            session: Arc::clone(session),
            exchange: Some(exchange),
            underway: Some(underway),
            client_id,
            deadline,
            downgrade,
            asked,
            translation: None,
            is_answered: false,
            operation: Arc::clone(&incoming.operation),
            _accepted: accepted,
        }))
    }
}

impl Calls {
    /// Begins a request at the session's child or at the leased one. If that child ends before it received anything,
    /// uses the next one.
    async fn begin_where_it_sits(
        &self,
        session: &Session,
        seat: &Seat,
        leased: Option<&Arc<Link>>,
        incoming: &Incoming,
        held: impl Fn(Places) -> Held,
        write: &impl Fn(WireId, &Trace) -> Spliced,
    ) -> Result<(Exchange, Deadline), Refusal> {
        let mut gone = None;
        loop {
            let serving = self.serving(session, seat, &incoming.operation).await?;
            let link = leased.unwrap_or(&serving);
            let places = self.entrance.enter(&incoming.operation, session.client(), link).await?;
            let deadline = Deadline::new(self.children.settings(), now());
            let asked = incoming.ask(link);
            let trace = incoming.trace_for(asked.as_ref());
            let begun = link.begin(held(places), asked, |wire_id| write(wire_id, &trace));
            match begun.map_err(NotBegun::from) {
                Ok(exchange) => return Ok((exchange, deadline)),
                Err(NotBegun::Gone(failure))
                    if leased.is_none() && self.stays(seat) && self.may_look_again(&failure, &mut gone) => {}
                Err(not_begun) => return Err(not_begun.into()),
            }
        }
    }

    /// Returns whether a session stays when its child is replaced.
    fn stays(&self, seat: &Seat) -> bool {
        !seat.is_exclusive() || self.children.settings().resume_sessions
    }

    /// Returns the session's child. While the child is being replaced, waits up to `--restart-wait` for the next one.
    /// A session with an exclusive child ends with it, unless it may be resumed.
    pub(super) async fn serving(
        &self,
        session: &Session,
        seat: &Seat,
        operation: &Operation,
    ) -> Result<Arc<Link>, Refusal> {
        let (post, stays) = (seat.post(), self.stays(seat));
        let link = match post.link() {
            Some(link) if !stays || !link.is_closed() => Some(link),
            // The child is being replaced. Boxed, like everything that few requests wait for.
            _ if stays => {
                let (_place, _seen) = (self.entrance.wait(session.client())?, operation.wait());
                Box::pin(post.serving(self.children.settings().restart_wait)).await
            }
            _ => None,
        };
        match link {
            // The session may have ended meanwhile, since the next child differs.
            _ if session.is_ended() => Err(Refusal::Failed(session.why_ended())),
            Some(link) => Ok(link),
            None => Err(Refusal::Busy(RESTARTING)),
        }
    }
}

/// Runs the beginning of a request until its client cancels it.
async fn unless_interrupted<T>(
    underway: &Underway,
    beginning: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    tokio::select! {
        biased;
        begun = beginning => begun,
        failure = underway.interrupted() => Err(Refusal::Failed(failure)),
    }
}

impl LegacyCall {
    /// Returns the next event; at the deadline, the answer. Cancel-safe.
    pub async fn next(&mut self) -> LegacyStep {
        loop {
            let step = match self.translation {
                Some(_) => Box::pin(self.next_translated()).await,
                None => self.next_of_child(self.deadline.at()).await,
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// Returns the next event, or `None` if there is none until then. Cancel-safe.
    pub async fn next_until(&mut self, until: Instant) -> Option<LegacyStep> {
        if self.translation.is_some() {
            return Box::pin(timeout_at(until.into(), self.next())).await.ok();
        }
        // One timer, that of the earlier time, is enough.
        loop {
            let step = self.next_of_child(until.min(self.deadline.at())).await;
            if step.is_some() || until <= now() {
                return step;
            }
        }
    }

    /// Returns the next event of a child of the session's own era, or `None` if there is none until then. At the
    /// deadline, returns the answer.
    async fn next_of_child(&mut self, until: Instant) -> Option<LegacyStep> {
        let Some(exchange) = self.exchange.as_mut() else { return Some(self.fail(&Failure::Lost)) };
        // A child that keeps talking does not postpone the deadline.
        if self.deadline.at() <= now() {
            return Some(self.time_out());
        }
        match timeout_at(until.into(), exchange.next()).await {
            // A withdrawal concerns subscriptions only.
            Ok(Step::Interim(Interim { topic: Topic::Withdrawn(_), .. })) => None,
            Ok(Step::Interim(interim)) => Some(self.tell(interim)),
            Ok(Step::Outcome(outcome)) => Some(self.answer(outcome)),
            Err(_) if self.deadline.at() <= now() => Some(self.time_out()),
            Err(_) => None,
        }
    }

    /// Returns whether an answer was the child's own. That of a translated call is not known.
    pub(super) fn is_answered(&self) -> bool {
        self.is_answered
    }

    /// Runs to the end, and passes interim messages to `each`.
    pub async fn run(mut self: Box<Self>, mut each: impl FnMut(Interim)) -> Spliced {
        loop {
            match self.next().await {
                LegacyStep::Said(interim) => each(interim),
                LegacyStep::Answered(message) => return message,
            }
        }
    }

    fn tell(&mut self, interim: Interim) -> LegacyStep {
        if interim.topic == Topic::Progress {
            self.deadline.progressed(now());
        }
        LegacyStep::Said(interim)
    }

    fn answer(&mut self, outcome: Outcome) -> LegacyStep {
        let answer = match outcome {
            Ok(answer) => answer,
            Err(failure) => return self.fail(&failure),
        };
        self.is_answered = true;
        self.keep_list(&answer);
        let message = match self.downgrade.as_deref() {
            None => answer.restored(&self.client_id),
            method => restored(&answer, &self.client_id, &self.session.version(), method),
        };
        self.finish(message, &answer.verdict())
    }

    /// Keeps the child's answer for the same request of other clients, if it may be kept.
    fn keep_list(&mut self, answer: &Answer) {
        if let Some(asked) = self.asked.take() {
            self.calls.keep(&asked, answer);
        }
    }

    fn time_out(&mut self) -> LegacyStep {
        counters::TIMED_OUT_REQUESTS.increment();
        // The child waits for the client if a question is open.
        let failure = match self.session.has_open_question() {
            true => Failure::Unanswered(self.calls.children.settings().request_timeout),
            false => self.deadline.failure(),
        };
        if let Some(exchange) = self.exchange.take() {
            exchange.fail(&failure);
        }
        self.fail(&failure)
    }

    fn fail(&mut self, failure: &Failure) -> LegacyStep {
        self.finish(Spliced::from(failure.response(self.client_id.raw())), &failure.verdict())
    }

    /// Records the outcome, and returns the one answer.
    fn finish(&mut self, message: Spliced, verdict: &Verdict) -> LegacyStep {
        self.operation.note(|details| details.response_size = Some(message.len() as u64));
        self.operation.end(verdict);
        self.exchange = None;
        self.translation = None;
        if let Some(underway) = self.underway.take() {
            underway.finish(now());
        }
        LegacyStep::Answered(message)
    }
}

/// Restores the client's id in a legacy child's answer. If `downgrade` names the method, removes features that the
/// session's revision does not define.
fn restored(answer: &Answer, client_id: &ClientId, version: &Version, downgrade: Option<&str>) -> Spliced {
    match (downgrade, &answer.result) {
        (Some(method), Some(result)) if answer.frame[result.start] == b'{' => {
            let mut edits = Edits::new();
            edits.replace(&answer.id, client_id.raw());
            downgrade::result(&answer.frame, result, method, version, &mut edits);
            splice(&answer.frame, &answer.object, edits)
        }
        _ => answer.restored(client_id),
    }
}

/// Translates a cached answer for a session's request.
pub(super) fn from_memory(session: &Session, seat: &Seat, incoming: &Incoming, answer: &Answer) -> Spliced {
    let (client_id, version, method) = (ClientId::new(incoming.id()), session.version(), incoming.method());
    match seat {
        Seat::Stateless(_) => translation::stripped(answer, &client_id, &version, &method)
            .map(|(message, _)| message)
            .unwrap_or_else(|unknown| translation::error(&client_id, &unknown.to_string())),
        Seat::Shared { newer: true, .. } => restored(answer, &client_id, &version, Some(&method)),
        _ => restored(answer, &client_id, &version, None),
    }
}
