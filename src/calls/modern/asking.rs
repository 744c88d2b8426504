//! A legacy child's questions within a modern call (basic/patterns/mrtr): they are collected, sent to the client as
//! `input_required`, and answered by its retry, or refused.

use super::{Happening, MOST_ANSWERS, ModernCall, Open, Reply, SIBLINGS, State};
use crate::budget::Charged;
use crate::calls::parked::Full;
use crate::clock::now;
use crate::era::input::{self, Retry};
use crate::era::question::Question;
use crate::exchange::{Exchange, Failure};
use crate::jsonrpc::{self, Spliced, codes, rewrite, text};
use crate::telemetry::{Verdict, names};
use std::sync::Arc;

impl ModernCall {
    pub(super) fn question(&mut self, child_id: Charged, frame: Spliced) {
        self.asked += 1;
        let read = frame.flatten().ok().and_then(|frame| {
            let message = jsonrpc::scan(&frame).ok()?;
            Question::of_child(&format!("q{}", self.asked), &frame, &message).ok()
        });
        match read {
            Some(question) if self.open.len() < MOST_ANSWERS && self.may_be_asked(&question) => {
                let lacks = |required| self.caller.capabilities.missing(required).is_some();
                if question.required().is_some_and(lacks) {
                    // This question makes the call fail, whatever else is asked.
                    self.ask_at = Some(now());
                }
                self.open.push(Open { child_id, question });
                // Waits briefly for further questions, so that the client is asked once.
                self.ask_at.get_or_insert_with(|| now() + SIBLINGS);
                self.note_waiting();
            }
            _ => self.answer(rewrite::error(
                Some(&child_id),
                codes::METHOD_NOT_FOUND,
                "no client can be asked this question",
                None,
            )),
        }
    }

    /// Marks the child as waiting for a client, so that its silence is expected.
    pub(super) fn note_waiting(&self) {
        if let Some(lease) = &self.lease {
            lease.child().holder.set_waiting(!self.open.is_empty());
        }
    }

    /// Returns whether the client may be asked. Roots extend the directories that some servers read, so the operator
    /// has to allow them.
    fn may_be_asked(&self, question: &Question) -> bool {
        question.method != "roots/list" || self.calls.children.settings().forward_roots
    }

    /// Sends the child an answer to its question.
    fn answer(&self, frame: impl Into<Spliced>) {
        self.link().answer(frame.into());
    }

    /// Sends the child the answers of a retry. Unanswered questions are asked again; answers to other questions are
    /// ignored.
    pub(super) fn take_answers(&mut self, retry: &Retry) {
        let open = std::mem::take(&mut self.open);
        for open in open {
            let key = text(&open.question.key, &(0..open.question.key.len())).into_owned();
            match retry.response(&key) {
                Some(answer) => {
                    self.answer(rewrite::result_of(&open.child_id, &Spliced::from(answer.clone())));
                }
                None => self.open.push(open),
            }
        }
        // The child may have withdrawn its questions meanwhile, or have answered.
        self.ask_at = (!self.open.is_empty()).then(|| now() + SIBLINGS);
        self.note_waiting();
    }

    /// Asks the client, or fails the call if the client did not declare the capability.
    pub(super) fn ask_client(&mut self) -> Happening {
        let missing =
            self.open.iter().find_map(|open| self.caller.capabilities.missing(open.question.required()?));
        let Some(missing) = missing else { return Happening::Asks };
        self.cancel("the client cannot be asked");
        let why = "the server asks for a capability that the request did not declare";
        let data = serde_json::json!({"requiredCapabilities": missing});
        Happening::Answered(self.fail_with(codes::MISSING_CAPABILITY, why, Some(data)))
    }

    fn refuse_questions(&mut self) {
        for open in std::mem::take(&mut self.open) {
            let answer = match open.question.method.as_str() {
                "elicitation/create" => rewrite::result(&open.child_id, br#"{"action":"cancel"}"#),
                _ => rewrite::error(
                    Some(&open.child_id),
                    codes::INTERNAL_ERROR,
                    "the client did not answer",
                    None,
                ),
            };
            self.answer(answer);
        }
    }

    /// Parks the call, and returns the `input_required` answer. Its clock stops, and its permits are released, so
    /// that a client that never answers does not block others.
    pub fn park(mut self: Box<Self>) -> Reply {
        let (client_id, operation) = (self.client_id.clone(), Arc::clone(&self.operation));
        let questions: Vec<Question> = self.open.iter().map(|open| open.question.clone()).collect();
        let info = self.shared.server_info().cloned();
        self.deadline.stop(now());
        self.set_places(None);
        self.parked = operation.internal(names::PARK);
        if let Some(parked) = &mut self.parked {
            parked.describe(|attributes| attributes.number(names::QUESTIONS, questions.len() as i64));
        }
        let (message, verdict) = match self.wait_parked() {
            Ok(state) => {
                let required = input::input_required(&questions, Some(&state), info.as_ref());
                (rewrite::result_of(client_id.raw(), &required), Verdict::Success)
            }
            Err(why) => {
                let message = rewrite::error(Some(client_id.raw()), codes::INTERNAL_ERROR, why, None);
                let verdict = Verdict::Error { code: codes::INTERNAL_ERROR, message: why.into() };
                (Spliced::from(message), verdict)
            }
        };
        operation.end(&verdict);
        Reply { message, status: 200 }
    }

    /// Puts the call into the table. Returns the `requestState` that claims it, or the reason why the call was
    /// cancelled.
    fn wait_parked(self: Box<Self>) -> Result<String, &'static str> {
        const NO_STATE: &str = "no requestState could be made; the call was cancelled";
        let calls = Arc::clone(&self.calls);
        let purpose = self.purpose.clone().ok_or(NO_STATE)?;
        let client = self.caller.client();
        let handle = calls.parked.park(client, self, now()).map_err(|full| match full {
            Full::ForAll => "--max-parked requests are waiting for their clients' answers; the call was cancelled",
            Full::ForClient => {
                "this client has reached its share of requests waiting for answers (a quarter of --max-parked); the call was cancelled"
            }
        })?;
        let sealed = calls.seal.seal(State::Parked(handle), &purpose);
        // Without a state, no retry can claim the call.
        sealed.map_err(|_| {
            drop(calls.parked.claim(handle, now()));
            NO_STATE
        })
    }

    /// Cancels the call, since its client did not retry it.
    pub(super) fn give_up(mut self: Box<Self>) {
        if let Some(mut parked) = self.parked.take() {
            parked.fail("the client did not answer");
        }
        self.cancel("the client did not answer the server's question");
    }

    /// Cancels the call at the child. Unread and open questions of the child are refused.
    pub(super) fn cancel(&mut self, why: &str) {
        self.end_exchange(|exchange| exchange.cancel(why));
    }

    /// Ends the call at the child with a failure; see [`cancel`](Self::cancel).
    pub(super) fn fail(&mut self, failure: &Failure) {
        self.end_exchange(|exchange| exchange.fail(failure));
    }

    fn end_exchange(&mut self, end: impl FnOnce(Exchange)) {
        let mut exchange = self.exchange.take();
        if let Some(exchange) = &mut exchange {
            // Given up first, since the refusals may make the child answer.
            exchange.give_up();
        }
        let said = exchange.as_ref().map(|exchange| exchange.mailbox());
        let desk = self.task.as_ref().map(|task| task.desk());
        let unread: Vec<_> = [said, desk].into_iter().flatten().cloned().collect();
        for mailbox in unread {
            while let Some(interim) = mailbox.pop_or_close() {
                self.interim(interim);
            }
        }
        self.refuse_questions();
        if let Some(exchange) = exchange {
            end(exchange);
        }
    }
}
