//! Requests of modern clients (2026-07-28) at a legacy child: each stands for itself, so all share a child, and what
//! they mean and are told is translated on the way (protocol C2).

use super::{Incoming, Refusal, Shared, Upstream, refusal};
use crate::era::results::Hint;
use crate::era::{Era, envelope, errors, results};
use crate::exchange::{Answer, Exchange, Failure, Held, Interim, Mailbox, Outcome, Step, Topic};
use crate::jsonrpc::rewrite::Changes;
use crate::jsonrpc::{ClientId, Spliced, codes, member, rewrite, splice};
use crate::mux::WireId;
use crate::telemetry::counters;
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{timeout, timeout_at};

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
    /// The HTTP status that goes with it, as long as the head has not been sent.
    pub status: u16,
}

/// A modern request at a legacy child. Dropping it cancels it there: a modern client that disconnects has cancelled
/// (streamable-http §Cancellation).
#[derive(Debug)]
pub struct ModernCall {
    exchange: Option<Exchange>,
    shared: Arc<Shared>,
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
        self.shared().await.map(|shared| shared.discovered.clone())
    }

    /// Begins a modern request at a shared child.
    ///
    /// # Errors
    /// When a bound is reached, the child is gone, or it does not offer what the method is about.
    pub async fn begin_modern(&self, incoming: Incoming) -> Result<Box<ModernCall>, Refusal> {
        let shared = self.shared().await?;
        let method = incoming.method().into_owned();
        if !offers(&shared.discovered, &method) {
            return Err(Refusal::Withheld(codes::METHOD_NOT_FOUND, "the server does not offer this"));
        }
        let patience = self.settings.request_timeout;
        let deadline = Instant::now() + patience;
        let client_id = ClientId::new(incoming.id());
        let params = incoming.message.params.as_ref();
        let token = params.and_then(|params| params.meta.as_ref()?.progress_token.clone());
        let token = token.map(|token| Bytes::copy_from_slice(&incoming.frame[token]));
        let uri = params.and_then(|params| params.uri.clone());
        let uri = uri.map(|uri| Bytes::copy_from_slice(&incoming.frame[uri]));
        let held = Held { mailbox: Arc::new(Mailbox::default()), token, permit: Some(self.permit()?) };
        let begun =
            timeout(patience, shared.link.begin(held, |wire_id| for_legacy(&incoming, wire_id))).await;
        let begun = begun.map_err(|_| Refusal::Failed(Failure::TimedOut(patience)))?;
        let exchange = Some(begun.map_err(refusal)?);
        Ok(Box::new(ModernCall { exchange, shared, method, uri, client_id, patience, deadline }))
    }
}

/// The request as a legacy child may read it: without its envelope, which some refuse.
fn for_legacy(incoming: &Incoming, wire_id: WireId) -> Spliced {
    let id = Some(wire_id.as_u64());
    let changes = Changes { wire_id: id, progress_token: id, ..Changes::new(&incoming.trace) };
    let edits = envelope::take_off(&incoming.frame, &incoming.message, &changes);
    splice(&incoming.frame, &incoming.message.object, incoming.message.multiline, edits)
}

/// Whether a server of these capabilities offers a method. Children exist that answer what they do not declare, and
/// others that call it wrong parameters.
fn offers(discovered: &[u8], method: &str) -> bool {
    let capability = match method.split('/').next() {
        Some("tools") => "tools",
        Some("prompts") => "prompts",
        Some("resources") => "resources",
        Some("completion") => "completions",
        _ => return true,
    };
    let capabilities = member(discovered, &(0..discovered.len()), "capabilities");
    capabilities.is_some_and(|capabilities| member(discovered, &capabilities, capability).is_some())
}

impl ModernCall {
    /// What happens next; the answer at the latest when the request's time is over.
    pub async fn next(&mut self) -> Happening {
        loop {
            let Some(exchange) = self.exchange.as_mut() else {
                return Happening::Answered(self.failed(&Failure::Lost));
            };
            match timeout_at(self.deadline.into(), exchange.next()).await {
                Ok(Step::Interim(Interim { frame, topic: Topic::Progress, .. })) => {
                    return Happening::Said(frame);
                }
                // A shared child's other messages name no request, and reach no mailbox.
                Ok(Step::Interim(_)) => counters::WITHHELD_MESSAGES.increment(),
                Ok(Step::Outcome(outcome)) => return Happening::Answered(self.reply(outcome)),
                Err(_) => return Happening::Answered(self.timed_out()),
            }
        }
    }

    fn timed_out(&mut self) -> Reply {
        counters::TIMED_OUT_REQUESTS.increment();
        let failure = Failure::TimedOut(self.patience);
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

    /// The child's answer in the words of the modern revision.
    fn translated(&self, answer: &Answer) -> Reply {
        let mut edits = crate::jsonrpc::Edits::new();
        edits.replace(&answer.id, self.client_id.raw());
        let mut status = 200;
        if let Some(result) = &answer.result {
            let info = self.shared.server_info();
            results::complete(&answer.frame, result, &self.method, info, Hint::default(), &mut edits);
        } else if let Some(error) = &answer.error {
            match errors::to_modern(&answer.frame, error, self.uri.as_deref(), &mut edits) {
                errors::ForModern::Error(code) => status = errors::http_status(code, Era::Modern),
                errors::ForModern::UrlElicitation => return self.needs_a_person(),
            }
        }
        Reply { message: splice(&answer.frame, &answer.object, answer.multiline, edits), status }
    }

    fn needs_a_person(&self) -> Reply {
        let why = "the server wants the user to open a URL first, which is not translated for this revision yet; \
                   use a client of 2025-11-25";
        let message = rewrite::error(Some(self.client_id.raw()), codes::INTERNAL_ERROR, why, None);
        Reply { message: Spliced::from(message), status: 200 }
    }
}
