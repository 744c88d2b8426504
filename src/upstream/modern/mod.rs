//! Requests of modern clients (2026-07-28). Each stands for itself, so all share a child. At a modern one they pass as
//! they are; at a legacy one, what they mean and are told is translated on the way (protocol C2): a request whose
//! client can be asked something has a child for itself as long as it lasts, since only then it is known whose that
//! child's questions are. A question becomes the answer `input_required`, and the call waits, parked, for the retry
//! (C2a).

mod asking;

use super::lease::Lease;
use super::seal::{Purpose, State};
use super::{Incoming, Refusal, Shared, Upstream, refusal};
use crate::era::capabilities::Capabilities;
use crate::era::input::{self, ASKING, Retry};
use crate::era::question::Question;
use crate::era::results::Hint;
use crate::era::{Era, envelope, errors, results};
use crate::exchange::{Answer, Exchange, Failure, Held, Interim, Mailbox, Outcome, Step, Topic};
use crate::jsonrpc::rewrite::Changes;
use crate::jsonrpc::{self, ClientId, Edits, Span, Spliced, codes, member, rewrite, splice};
use crate::mux::WireId;
use crate::session::Principal;
use crate::telemetry::counters;
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{timeout, timeout_at};

/// Questions that a client is asked, and answers that it gives, at once.
const MOST_ANSWERS: usize = 64;
/// How long a child's further questions are waited for before the client is asked.
const SIBLINGS: Duration = Duration::from_millis(25);
/// How often a client is sent to open a URL for one call.
const MOST_URLS: u8 = 8;
/// What a call that was parked at the very end of its time still gets when its client comes back.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

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
    /// Whose request it is.
    pub principal: Principal,
    /// What it declares.
    pub capabilities: Capabilities,
    /// From which level on it wants log messages.
    pub log_level: Option<&'static str>,
}

/// A question of the child that the client has not answered.
#[derive(Debug)]
struct Open {
    child_id: Bytes,
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
    upstream: Arc<Upstream>,
    exchange: Option<Exchange>,
    /// The child that it has for itself.
    lease: Option<Lease>,
    /// Describes the server.
    shared: Arc<Shared>,
    caller: Caller,
    purpose: Purpose,
    open: Vec<Open>,
    /// When the client is asked, whatever else the child says until then; set while a question is open.
    ask_at: Option<Instant>,
    /// The retry's progress token: the child's slot knows the first request's.
    token: Option<Bytes>,
    asked: u64,
    /// How often its client was sent to open a URL before.
    urls: u8,
    method: String,
    /// `params.uri`, in raw JSON.
    uri: Option<Bytes>,
    client_id: ClientId,
    patience: Duration,
    deadline: Instant,
}

impl Upstream {
    /// The result of `server/discover`.
    ///
    /// # Errors
    /// When no child has completed its handshake.
    pub async fn discover(&self) -> Result<Bytes, Refusal> {
        self.shared(Era::Modern).await.map(|shared| shared.discovered.clone())
    }

    /// Begins a modern request, or goes on with the one that it is a retry of.
    ///
    /// # Errors
    /// When a bound is reached, the child is gone, it does not offer what the method is about, or the retry's state
    /// is not one that was given out for this.
    pub async fn begin_modern(
        self: &Arc<Self>,
        caller: Caller,
        incoming: Incoming,
    ) -> Result<Box<ModernCall>, Refusal> {
        let method = incoming.method().into_owned();
        let shared = self.shared(Era::Modern).await?;
        let asking = ASKING.contains(&&*method);
        let purpose = Purpose::of(&caller.principal, &incoming.frame, &incoming.message);
        let mut urls = 0;
        let lease = if shared.era == Era::Modern {
            // What it logs names no request: only of a child that has no other is it known whose it is.
            if caller.log_level.is_some() && asking {
                self.lease_modern(&caller.principal).await
            } else {
                None
            }
        } else {
            let retry = Retry::read(&incoming.frame, &incoming.message, MOST_ANSWERS).map_err(|_| {
                Refusal::Withheld(codes::INVALID_PARAMS, "inputResponses or requestState is malformed")
            })?;
            match retry.state.as_deref().filter(|_| asking).map(|state| self.seal.open(state, &purpose)) {
                None => {}
                // Nothing waits for it: the call is begun anew.
                Some(Some(State::Urls(rounds))) => urls = rounds,
                Some(state) => return self.resume(caller, &incoming, &retry, state),
            }
            if !offers(&shared.discovered, &method) {
                return Err(Refusal::Withheld(codes::METHOD_NOT_FOUND, "the server does not offer this"));
            }
            let exclusive = self.may_ask(caller.capabilities) && (asking || method.ends_with("/list"));
            let lease = if exclusive { self.lease(&caller.principal).await? } else { None };
            if let (Some(lease), Some(level), true) = (&lease, caller.log_level, asking)
                && has_capability(&shared.discovered, "logging")
            {
                self.set_level(lease, level).await;
            }
            lease
        };
        let permit = self.permit()?;
        let patience = self.settings.request_timeout;
        let uri = incoming.message.params.as_ref().and_then(|params| params.uri.clone());
        let uri = uri.map(|uri| Bytes::copy_from_slice(&incoming.frame[uri]));
        let token = progress_token(&incoming);
        let held = Held {
            mailbox: Arc::new(Mailbox::default()),
            token: token.clone(),
            // At a shared child none is answered; but a request that is the only one can be told what it lacks.
            takes_questions: lease.is_none() && asking && !self.may_ask(caller.capabilities),
            permit: Some(permit),
        };
        if let Some(lease) = &lease {
            lease.hear(&held.mailbox);
        }
        let link = lease.as_ref().map_or(&shared.link, Lease::link);
        let begun =
            timeout(patience, link.begin(held, |wire_id| for_child(&incoming, shared.era, wire_id))).await;
        let begun = begun.map_err(|_| Refusal::Failed(Failure::TimedOut(patience)))?;
        Ok(Box::new(ModernCall {
            upstream: Arc::clone(self),
            exchange: Some(begun.map_err(refusal)?),
            lease,
            shared,
            caller,
            purpose,
            open: Vec::new(),
            ask_at: None,
            token,
            asked: 0,
            urls,
            method,
            uri,
            client_id: ClientId::new(incoming.id()),
            patience,
            deadline: Instant::now() + patience,
        }))
    }

    /// Whether a legacy child may ask such a client anything.
    fn may_ask(&self, capabilities: Capabilities) -> bool {
        capabilities.asks() || (capabilities.roots && self.settings.forward_roots)
    }

    /// Goes on with a parked call. Whatever is wrong with the state, the tool is never run again.
    fn resume(
        &self,
        caller: Caller,
        incoming: &Incoming,
        retry: &Retry,
        state: Option<State>,
    ) -> Result<Box<ModernCall>, Refusal> {
        let parked = match state {
            Some(State::Parked(handle)) => self.parked.claim(handle, Instant::now()),
            Some(State::Elsewhere) => {
                return Err(Refusal::Withheld(
                    codes::INVALID_PARAMS,
                    "requestState was given out by another replica, where the call waits; route retries to the replica that asked",
                ));
            }
            Some(State::Urls(_)) | None => None,
        };
        let mut call = parked.ok_or(Refusal::Withheld(
            codes::INVALID_PARAMS,
            "requestState is unknown, used already, past its time, or was given out for another request; start the call anew",
        ))?;
        call.caller = caller;
        call.client_id = ClientId::new(incoming.id());
        call.token = progress_token(incoming);
        call.deadline = Instant::now() + call.patience;
        call.take_answers(retry);
        Ok(call)
    }

    /// Cancels the parked calls whose clients did not come back in time, and closes children that nobody leases.
    pub fn expire_parked(&self, now: Instant) {
        for call in self.parked.expire(now) {
            counters::EXPIRED_PARKED.increment();
            call.give_up();
        }
        self.pool.expire(self.settings.evict_after, now);
    }

    /// Cancels all parked calls: proxyrunner ends.
    pub fn end_parked(&self) {
        for call in self.parked.drain() {
            call.give_up();
        }
    }
}

/// Whether a request only goes on with a call that was begun before.
pub fn is_retry(incoming: &Incoming) -> bool {
    let params = incoming.message.params.as_ref();
    let state = params.and_then(|params| member(&incoming.frame, &params.span, "requestState"));
    state.is_some() && ASKING.contains(&&*incoming.method())
}

fn progress_token(incoming: &Incoming) -> Option<Bytes> {
    let params = incoming.message.params.as_ref()?;
    let token = params.meta.as_ref()?.progress_token.clone()?;
    Some(Bytes::copy_from_slice(&incoming.frame[token]))
}

/// The request as the child may read it: a legacy one without its envelope, which some refuse.
fn for_child(incoming: &Incoming, era: Era, wire_id: WireId) -> Spliced {
    let Incoming { frame, message, trace } = incoming;
    let id = Some(wire_id.as_u64());
    if era == Era::Modern {
        return rewrite::request_for_child(frame, message, id, id, trace);
    }
    let changes = Changes { wire_id: id, progress_token: id, ..Changes::new(trace) };
    let edits = envelope::take_off(frame, message, &changes);
    splice(frame, &message.object, message.multiline, edits)
}

/// Whether a server of these capabilities offers a method. Children exist that answer what they do not declare, and
/// others that call it wrong parameters.
fn offers(discovered: &[u8], method: &str) -> bool {
    let capability = match method.split('/').next() {
        Some("tools") => "tools",
        Some("prompts") => "prompts",
        Some("resources") => "resources",
        Some("completion") => "completions",
        // An extension of the modern era, which no legacy child has.
        Some("tasks") => return false,
        _ => return true,
    };
    has_capability(discovered, capability)
}

fn has_capability(discovered: &[u8], capability: &str) -> bool {
    let capabilities = member(discovered, &(0..discovered.len()), "capabilities");
    capabilities.is_some_and(|capabilities| member(discovered, &capabilities, capability).is_some())
}

impl ModernCall {
    /// What happens next; the answer at the latest when the request's time is over.
    pub async fn next(&mut self) -> Happening {
        loop {
            let until = self.ask_at.unwrap_or(self.deadline);
            let Some(exchange) = self.exchange.as_mut() else {
                return Happening::Answered(self.failed(&Failure::Lost));
            };
            // A child that never stops talking does not put it off.
            let over = until <= Instant::now();
            let step = if over { None } else { timeout_at(until.into(), exchange.next()).await.ok() };
            match step {
                Some(Step::Interim(interim)) => {
                    if let Some(said) = self.interim(interim) {
                        return Happening::Said(said);
                    }
                }
                Some(Step::Outcome(outcome)) => return Happening::Answered(self.reply(outcome)),
                None if self.ask_at.is_some() => return self.ask_client(),
                None => return Happening::Answered(self.timed_out()),
            }
        }
    }

    fn interim(&mut self, Interim { frame, topic, .. }: Interim) -> Option<Spliced> {
        match topic {
            Topic::Progress => self.with_token(frame),
            Topic::Log if self.caller.log_level.is_some() => Some(frame),
            Topic::Question(child_id) => {
                self.question(child_id, frame);
                None
            }
            Topic::Withdrawn(child_id) => {
                self.open.retain(|open| open.child_id != child_id);
                self.ask_at = self.ask_at.filter(|_| !self.open.is_empty());
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
        let bytes = frame.into_bytes();
        let message = jsonrpc::scan(&bytes).ok()?;
        Some(rewrite::with_progress_token(&bytes, &message, token))
    }

    fn timed_out(&mut self) -> Reply {
        counters::TIMED_OUT_REQUESTS.increment();
        // A call that was parked has only the rest of that; but what it had in all is what it is told.
        let failure = Failure::TimedOut(self.upstream.settings.request_timeout);
        if let Some(exchange) = self.exchange.take() {
            exchange.cancel(&failure.to_string());
        }
        self.failed(&failure)
    }

    fn reply(&mut self, outcome: Outcome) -> Reply {
        self.exchange = None;
        match outcome {
            Ok(answer) => self.translated(&answer),
            Err(failure) => self.failed(&failure),
        }
    }

    fn failed(&self, failure: &Failure) -> Reply {
        Reply { message: Spliced::from(failure.response(self.client_id.raw())), status: 200 }
    }

    /// The child's answer in the words of the modern revision, which a modern child's are already.
    fn translated(&self, answer: &Answer) -> Reply {
        let mut edits = Edits::new();
        edits.replace(&answer.id, self.client_id.raw());
        let mut status = 200;
        if self.shared.era == Era::Modern {
            let code = answer.error.as_ref().and_then(|error| errors::code(&answer.frame, error));
            status = code.map_or(status, |(code, _)| errors::http_status(code, Era::Modern));
        } else if let Some(result) = &answer.result {
            let info = self.shared.server_info();
            results::complete(&answer.frame, result, &self.method, info, Hint::default(), &mut edits);
        } else if let Some(error) = &answer.error {
            match errors::to_modern(&answer.frame, error, &self.method, self.uri.as_deref(), &mut edits) {
                errors::ForModern::Error(code) => status = errors::http_status(code, Era::Modern),
                errors::ForModern::UrlElicitation => return self.open_url(answer, error),
            }
        }
        Reply { message: splice(&answer.frame, &answer.object, answer.multiline, edits), status }
    }

    /// The child wants the user to open a URL first. Nothing waits for that: the retry is a call of its own.
    fn open_url(&self, answer: &Answer, error: &Span) -> Reply {
        let id = Some(self.client_id.raw().as_ref());
        let questions = input::from_url_required(&answer.frame, error, MOST_ANSWERS);
        let message = match questions {
            Some(_) if self.urls >= MOST_URLS => {
                let why = "the server wants the user to open a URL again and again";
                rewrite::error(id, codes::INTERNAL_ERROR, why, None)
            }
            Some(questions) if self.caller.capabilities.url => {
                let state = self.upstream.seal.seal(State::Urls(self.urls + 1), &self.purpose).ok();
                let info = self.shared.server_info();
                let required = input::input_required(&questions, state.as_deref(), info);
                rewrite::result(self.client_id.raw(), &required)
            }
            Some(_) => {
                let url = Capabilities { url: true, ..Capabilities::default() };
                let data = serde_json::json!({"requiredCapabilities": url.declaration()});
                let why = "the server wants the user to open a URL, which the request did not declare";
                let error = rewrite::error(id, codes::MISSING_CAPABILITY, why, Some(data));
                return Reply { message: Spliced::from(error), status: 400 };
            }
            None => rewrite::error(
                id,
                codes::INTERNAL_ERROR,
                "the server's request to open a URL is malformed",
                None,
            ),
        };
        Reply { message: Spliced::from(message), status: 200 }
    }
}

impl Drop for ModernCall {
    /// However it ends, no question of the child stays without an answer.
    fn drop(&mut self) {
        self.refuse_questions();
    }
}
