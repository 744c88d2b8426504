//! Messages of a session's child that name no request, and its questions to the client.

use super::Session;
use super::questions::AnswerFor;
use super::streams::StreamEvent;
use crate::audience::{ListChanges, SeatedSession, SessionId, TooManyQuestions};
use crate::budget::Charged;
use crate::exchange::{Class, Failure, Interim, Mailbox, Topic};
use crate::jsonrpc::{ClientId, Message, Spliced, rewrite};
use crate::telemetry::counters;
use std::sync::Arc;

impl SeatedSession for Session {
    fn id(&self) -> &SessionId {
        self.id()
    }

    fn changes(&self) -> &ListChanges {
        self.list_changes()
    }

    fn notify(&self, frame: Spliced, class: Class) {
        self.notify(frame, class);
    }

    fn deliver(&self, mut frame: Charged, message: &Message, class: Class) {
        if !self.account().may_take_over(frame.len()) {
            return counters::DROPPED_EVENTS.increment();
        }
        frame.move_to(self.account());
        self.notify(rewrite::unchanged(&frame, message), class);
    }

    fn ask(&self, frame: &mut Charged, message: &Message) -> Result<(), TooManyQuestions> {
        if !self.account().may_take_over(frame.len()) {
            return Err(TooManyQuestions);
        }
        frame.move_to(self.account());
        let (our_id, frame) = self.state().questions.ask(frame, message)?;
        match self.give_to_newest(Interim { frame, class: Class::Dear, topic: Topic::Other }) {
            Ok(mailbox) => self.state().questions.set_asked_on(our_id, &mailbox),
            Err(interim) => self.say(interim.frame, Class::Dear),
        }
        Ok(())
    }

    fn withdraw_question(&self, child_id: &[u8], frame: &Charged, message: &Message) {
        let withdrawn = self.state().questions.withdraw(child_id, frame, message);
        let Some((frame, asked_on)) = withdrawn else { return };
        // This message follows the question on the same stream, if that still exists.
        let interim = Interim { frame, class: Class::Dear, topic: Topic::Other };
        let refused = match asked_on.upgrade() {
            Some(mailbox) => mailbox.push(interim).err(),
            None => Some(interim),
        };
        if let Some(interim) = refused {
            self.say(interim.frame, Class::Dear);
        }
    }

    fn end(&self, failure: &Failure) {
        self.end(failure);
    }
}

impl Session {
    /// Puts a notification of the child on the stream to which it belongs.
    ///
    /// In the legacy stdio transport a notification does not name the request that it concerns
    /// (`docs/architecture.md#isolation`). Logs and unknown notifications go with the newest request in flight;
    /// notifications of a change go to the standalone stream.
    pub fn notify(&self, frame: Spliced, class: Class) {
        let frame = match class {
            Class::Idempotent => frame,
            Class::Droppable | Class::Dear => {
                match self.give_to_newest(Interim { frame, class, topic: Topic::Other }) {
                    Ok(_) => return,
                    Err(interim) => interim.frame,
                }
            }
        };
        self.say(frame, class);
    }

    /// Puts a message on the standalone stream.
    pub fn say(&self, frame: Spliced, class: Class) {
        self.state().streams.push_standalone(StreamEvent { frame, class });
    }

    /// Opens a question that a request itself asks the client; returns its id, which is unique in the session. The
    /// answer goes to the request's mailbox.
    ///
    /// # Errors
    /// Fails when too many questions are unanswered.
    pub fn ask_for(&self, request: &Arc<Mailbox>) -> Result<u64, TooManyQuestions> {
        self.state().questions.ask_for(request)
    }

    /// Returns whether a question waits for the client's answer.
    pub fn has_open_question(&self) -> bool {
        !self.state().questions.is_quiet()
    }

    /// Forgets the questions of a child that is gone; its replacement reuses their numbers.
    pub fn forget_child_questions(&self) {
        self.state().questions.forget_child();
    }

    /// Forgets a question whose request is over, or needs no answer any more.
    pub fn forget_question(&self, our_id: u64) {
        self.state().questions.forget(our_id);
    }

    /// Takes the client's answer to a question. Returns the frame for the child, with the child's own id; `None` if a
    /// request gets the answer, or none is expected.
    pub fn take_answer(&self, id: &ClientId, frame: &Charged, message: &Message) -> Option<Spliced> {
        let recipient = self.state().questions.answer(id, frame, message);
        let undelivered = match recipient {
            Some(AnswerFor::Child(frame)) => return Some(frame),
            Some(AnswerFor::Call(request, our_id)) => {
                let frame = rewrite::unchanged(frame, message);
                let interim = Interim { frame, class: Class::Dear, topic: Topic::Answer(our_id) };
                request.upgrade().is_none_or(|request| request.push(interim).is_err())
            }
            None => true,
        };
        if undelivered {
            counters::UNMATCHED_CLIENT_ANSWERS.increment();
        }
        None
    }

    /// Returns the client's progress on a question with the child's own token; `None` if it names no open question.
    pub fn question_progress(&self, token: &ClientId, frame: &Charged, message: &Message) -> Option<Spliced> {
        self.state().questions.progress(token, frame, message)
    }
}
