//! A legacy session's request at a modern child. Each round is a separate request there, whose envelope names the
//! client (basic/patterns/mrtr). The child's questions are sent to the client, and the next round carries the
//! answers.

use super::asking::Asking;
use super::{LegacyCall, LegacyStep, unless_interrupted};
use crate::admission::Accepted;
use crate::audience::{Seat, Stateless};
use crate::calls::Calls;
use crate::catalogue::lists::ListRequest;
use crate::children::{Lease, Owner, RESTARTING};
use crate::client::Client;
use crate::clock::now;
use crate::era::input::{ASKING, Answers, InputRequired};
use crate::era::results::{self, Unknown};
use crate::era::{envelope, errors, keys};
use crate::exchange::{Answer, Exchange, Failure, Held, Interim, Interruption, Mailbox, Places, Step, Topic};
use crate::ingress::{Incoming, Received, Refusal};
use crate::jsonrpc::rewrite::Changes;
use crate::jsonrpc::{ClientId, Edits, Spliced, codes, kept, rewrite, splice};
use crate::mux::WireId;
use crate::session::{Session, Underway, Version};
use crate::telemetry::Verdict;
use crate::trace_context::Trace;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep_until;

/// Maximum number of questions that a child may ask at once.
const MOST_QUESTIONS: usize = 64;
/// Maximum number of consecutive rounds without a question.
const MOST_IDLE_ROUNDS: u32 = 8;
/// Maximum number of rounds in total.
const MOST_ROUNDS: u32 = 64;
/// Delay of a round that carries only the state.
const PACE: Duration = Duration::from_millis(250);

/// The state of a translated request beside its exchange.
#[derive(Debug)]
pub(super) struct Translation {
    pub(super) seat: Arc<Stateless>,
    /// The client's request; each round is made from it.
    incoming: Incoming,
    pub(super) method: String,
    /// Receives cancellations and the client's answers.
    pub(super) desk: Arc<Mailbox>,
    /// The leased child, if log messages have to be attributed.
    lease: Option<Lease>,
    pub(super) asking: Option<Asking>,
    /// Messages for the client.
    pub(super) outbox: VecDeque<Interim>,
    /// The answer, to be sent after the outbox.
    pub(super) ending: Option<(Spliced, Verdict)>,
    /// The next round: its time, and the raw members of `params` that make it a retry.
    pub(super) again: Option<(Instant, Spliced)>,
    rounds: u32,
    idle_rounds: u32,
}

/// An event of a translated request.
enum Event {
    Desk(Result<Interim, Interruption>),
    Child(Step),
    Begun(Result<Exchange, Refusal>),
    Late,
}

impl Calls {
    /// Begins a session's request at a modern child.
    pub(in crate::calls) async fn translate(
        self: &Arc<Self>,
        session: &Arc<Session>,
        seat: &Arc<Stateless>,
        incoming: Incoming,
        accepted: Accepted,
        asked: Option<ListRequest>,
    ) -> Result<Box<LegacyCall>, Refusal> {
        let method = incoming.method().into_owned();
        // Log messages name no request: only those of a child without other calls can be attributed.
        let logs = seat.level().is_some() && !seat.own && ASKING.contains(&&*method);
        let owner = logs.then(|| Owner::of_session(session));
        let lease = if logs {
            self.children.lease_modern(owner.as_ref(), session.opener(), None).await
        } else {
            None
        };
        let client_id = ClientId::new(incoming.id());
        let desk = Arc::new(Mailbox::default());
        let underway = Underway::begin(session, client_id.clone(), Arc::clone(&desk));
        let translation = Translation {
            seat: Arc::clone(seat),
            incoming,
            method,
            desk,
            lease,
            asking: None,
            outbox: VecDeque::new(),
            ending: None,
            again: None,
            rounds: 1,
            idle_rounds: 0,
        };
        let write = |wire_id: WireId, trace: &Trace| {
            underway.mark_sent(wire_id);
            translation.frame(wire_id, trace, &Spliced::of([]))
        };
        let beginning = async {
            let place = Seat::Stateless(Arc::clone(seat));
            let leased = translation.lease.as_ref().map(Lease::link);
            let held = |places| translation.held(session.client(), Some(places));
            self.begin_where_it_sits(session, &place, leased, &translation.incoming, held, &write).await
        };
        let (exchange, deadline) = unless_interrupted(&underway, beginning).await?;
        Ok(Box::new(LegacyCall {
            calls: Arc::clone(self),
            session: Arc::clone(session),
            exchange: Some(exchange),
            underway: Some(underway),
            client_id,
            deadline,
            downgrade: None,
            asked,
            is_answered: false,
            operation: Arc::clone(&translation.incoming.operation),
            translation: Some(Box::new(translation)),
            _accepted: accepted,
        }))
    }
}

impl Translation {
    /// Returns the contents of a round's slot.
    fn held(&self, client: Client, places: Option<Places>) -> Held {
        let params = self.incoming.message.params.as_ref();
        let token = params.and_then(|params| params.meta.as_ref()?.progress_token.clone());
        let token = token.map(|token| kept(&self.incoming.frame, &token));
        let mailbox = self.incoming.mailbox();
        if let Some(lease) = &self.lease {
            lease.hear(&mailbox);
        }
        Held { token, client: Some(client), places: places.into(), ..Held::unasked(mailbox) }
    }

    /// Writes a round's request; `retry` holds the members of a later round.
    fn frame(&self, wire_id: WireId, trace: &Trace, retry: &Spliced) -> Spliced {
        let Received { frame, message, .. } = &*self.incoming;
        let envelope = &self.seat.envelope;
        let members: Cow<'_, str> = match self.seat.level() {
            Some(level) => format!("{envelope},\"{}\":\"{level}\"", keys::LOG_LEVEL).into(),
            None => envelope.into(),
        };
        let id = Some(wire_id.as_u64());
        let changes = Changes { wire_id: id, progress_token: id, ..Changes::new(trace) };
        let edits = envelope::put_on(frame, message, &changes, &members, retry);
        splice(frame, &message.object, edits)
    }

    /// Begins the next round when it is due. It waits for its permits, since a call is not refused once begun, and is
    /// sent to the process that serves then: the round contains all that a modern child needs.
    async fn round(&self, calls: &Calls, client: Client) -> Result<Exchange, Refusal> {
        let Some((at, retry)) = &self.again else { return std::future::pending().await };
        sleep_until((*at).into()).await;
        let link = match &self.lease {
            Some(lease) => Some(Arc::clone(lease.link())),
            None => self.seat.members.post.serving(calls.children.settings().restart_wait).await,
        };
        let link = link.ok_or(Refusal::Busy(RESTARTING))?;
        let places = calls.entrance.enter_again(client, &link).await;
        let asked = self.incoming.ask(&link);
        let trace = self.incoming.trace_for(asked.as_ref());
        let write = |wire_id| self.frame(wire_id, &trace, retry);
        link.begin(self.held(client, places), asked, write).map_err(Refusal::from)
    }
}

impl LegacyCall {
    /// Waits for the next event, and returns it if the client is to see it.
    pub(super) async fn next_translated(&mut self) -> Option<LegacyStep> {
        let translation = self.translation.as_mut()?;
        if let Some(interim) = translation.outbox.pop_front() {
            return Some(LegacyStep::Said(interim));
        }
        if let Some((message, verdict)) = translation.ending.take() {
            return Some(self.finish(message, &verdict));
        }
        let until = translation.asking.as_ref().map_or(self.deadline.at(), |asking| asking.until);
        let client = self.session.client();
        let event = tokio::select! {
            biased;
            // First, since a child that keeps talking does not postpone the deadline.
            () = sleep_until(until.into()) => Event::Late,
            heard = translation.desk.next() => Event::Desk(heard),
            step = Exchange::next_of(&mut self.exchange) => Event::Child(step),
            begun = translation.round(&self.calls, client) => Event::Begun(begun),
        };
        match event {
            Event::Desk(Ok(Interim { frame, topic: Topic::Answer(our_id), .. })) => {
                self.take_answer(our_id, frame);
                None
            }
            Event::Desk(Ok(interim)) => Some(self.tell(interim)),
            Event::Desk(Err(Interruption { failure, .. })) => {
                if let Some(exchange) = self.exchange.take() {
                    exchange.fail(&failure);
                }
                Some(self.fail(&failure))
            }
            Event::Child(Step::Interim(Interim { topic: Topic::Withdrawn(_), .. })) => None,
            Event::Child(Step::Interim(interim)) => Some(self.tell(interim)),
            Event::Child(Step::Outcome(Ok(answer))) => self.hear_answer(&answer),
            Event::Child(Step::Outcome(Err(failure))) => Some(self.fail(&failure)),
            Event::Begun(Ok(exchange)) => {
                translation.again = None;
                self.exchange = Some(exchange);
                None
            }
            Event::Begun(Err(refusal)) => Some(self.refuse(refusal)),
            Event::Late => self.expire(),
        }
    }

    fn refuse(&mut self, refusal: Refusal) -> LegacyStep {
        match refusal {
            Refusal::Failed(failure) => self.fail(&failure),
            Refusal::Busy(why) | Refusal::Withheld(_, why) => self.fail_with(why),
            Refusal::Mismatch(mismatch) => self.fail_with(&mismatch.to_string()),
        }
    }

    fn expire(&mut self) -> Option<LegacyStep> {
        if self.translation.as_ref().is_some_and(|translation| translation.asking.is_some()) {
            let failure = Failure::Unanswered(self.calls.children.settings().park_timeout);
            let message = failure.response(self.client_id.raw());
            self.withdraw_questions((Spliced::from(message), failure.verdict()));
            return None;
        }
        Some(self.time_out())
    }

    /// Handles the child's answer: translates it, or the questions in it.
    fn hear_answer(&mut self, answer: &Answer) -> Option<LegacyStep> {
        self.exchange = None;
        self.keep_list(answer);
        let method = self.translation.as_ref()?.method.as_str();
        let unknown = match stripped(answer, &self.client_id, &self.session.version(), method) {
            Ok((message, told)) => return Some(self.finish(message, &answer.verdict().with_code(told))),
            Err(unknown) => unknown,
        };
        match &answer.result {
            Some(result) if unknown.is_input_required() && ASKING.contains(&method) => {
                match InputRequired::read(&answer.frame, result, MOST_QUESTIONS) {
                    Ok(required) => self.begin_round(required),
                    Err(bad) => Some(self.fail_with(&bad.to_string())),
                }
            }
            _ => Some(self.fail_with(&unknown.to_string())),
        }
    }

    fn begin_round(&mut self, required: InputRequired) -> Option<LegacyStep> {
        let translation = self.translation.as_mut()?;
        translation.rounds += 1;
        let idle = required.questions.is_empty();
        translation.idle_rounds = if idle { translation.idle_rounds + 1 } else { 0 };
        if translation.idle_rounds > MOST_IDLE_ROUNDS || translation.rounds > MOST_ROUNDS {
            return Some(self.fail_with("the server requested too many rounds of input"));
        }
        if idle {
            let retry = Answers::new(&required).members();
            translation.again = Some((now() + PACE, retry));
            return None;
        }
        self.put_questions(&required);
        None
    }

    fn fail_with(&mut self, why: &str) -> LegacyStep {
        let verdict = Verdict::Error { code: codes::INTERNAL_ERROR, message: why.to_owned().into() };
        self.finish(error(&self.client_id, why), &verdict)
    }
}

pub(super) fn error(client_id: &ClientId, why: &str) -> Spliced {
    Spliced::from(rewrite::error(Some(client_id.raw()), codes::INTERNAL_ERROR, why, None))
}

/// Translates a modern child's answer to the session's revision, under the client's id. Returns the error code that
/// the client sees, too.
pub(super) fn stripped(
    answer: &Answer,
    client_id: &ClientId,
    version: &Version,
    method: &str,
) -> Result<(Spliced, Option<i64>), Unknown> {
    let frame = &answer.frame;
    let mut edits = Edits::new();
    edits.replace(&answer.id, client_id.raw());
    let mut told = None;
    match (&answer.result, &answer.error) {
        (Some(result), _) => results::strip(frame, result, method, version, &mut edits)?,
        (None, Some(error)) => told = Some(errors::to_legacy(frame, error, method, &mut edits)),
        (None, None) => {}
    }
    Ok((splice(frame, &answer.object, edits), told))
}
