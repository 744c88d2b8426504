//! The open questions of children to a session's client (sampling, elicitation, roots), under ids of proxyrunner's
//! own.
//!
//! Every child numbers its questions from 0; these ids are unique in the session (`docs/architecture.md#wire-ids`).
//! The progress token of a question is replaced by the same id. A modern child asks in its result instead: then the
//! call asks on the child's behalf, and gets the answers.

use crate::audience::TooManyQuestions;
use crate::budget::Charged;
use crate::exchange::Mailbox;
use crate::jsonrpc::{ClientId, Edits, Message, Spliced, integer, rewrite, splice};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// Limit on the questions that a client may leave unanswered.
const CAPACITY: usize = 1_024;

/// The open questions of one session.
#[derive(Debug, Default)]
pub(super) struct Questions {
    last: u64,
    open: HashMap<u64, OpenQuestion>,
}

#[derive(Debug)]
struct OpenQuestion {
    asker: Asker,
    /// The request whose stream carried the question; none for the standalone stream.
    asked_on: Option<Weak<Mailbox>>,
}

/// The sender of a question.
#[derive(Debug)]
enum Asker {
    /// An exclusive child; its own id and token as raw JSON, which the answer and progress get back.
    Child { id: Charged, token: Option<Charged> },
    /// The request whose stream carries the question.
    Call,
}

impl OpenQuestion {
    /// Returns whether the request whose stream carried it is over.
    fn is_over(&self) -> bool {
        self.asked_on.as_ref().is_some_and(|on| on.strong_count() == 0)
    }
}

/// The recipient of a client's answer.
#[derive(Debug)]
pub(super) enum AnswerFor {
    /// The child, which gets this frame.
    Child(Spliced),
    /// The request that asked.
    Call(Weak<Mailbox>, u64),
}

impl Questions {
    /// Returns whether no answer is expected. A client is unlikely to answer a question whose request is over.
    pub(super) fn is_quiet(&self) -> bool {
        self.open.values().all(OpenQuestion::is_over)
    }

    /// Opens a question of the child; returns its new id and the frame that carries it.
    pub(super) fn ask(
        &mut self,
        frame: &Charged,
        message: &Message,
    ) -> Result<(u64, Spliced), TooManyQuestions> {
        if self.open.len() >= CAPACITY && !self.forget_one() {
            return Err(TooManyQuestions);
        }
        let id = message.id.clone().unwrap_or_default();
        let token = message.params.as_ref().and_then(|params| params.meta.as_ref()?.progress_token.clone());
        let number = self.next();
        let ours = number.to_string();
        let mut edits = Edits::new();
        edits.replace(&id, ours.as_bytes());
        rewrite::fill_null_params(message, b"", &mut edits);
        if let Some(token) = &token {
            edits.replace(token, ours.as_bytes());
        }
        let spliced = splice(frame, &message.object, edits);
        let token = token.map(|token| Charged::own(&frame[token]));
        let asker = Asker::Child { id: Charged::own(&frame[id]), token };
        self.open.insert(number, OpenQuestion { asker, asked_on: None });
        Ok((number, spliced))
    }

    /// Opens a question that a request asks itself; returns its id.
    pub(super) fn ask_for(&mut self, request: &Arc<Mailbox>) -> Result<u64, TooManyQuestions> {
        if self.open.len() >= CAPACITY && !self.forget_one() {
            return Err(TooManyQuestions);
        }
        let number = self.next();
        let asked_on = Some(Arc::downgrade(request));
        self.open.insert(number, OpenQuestion { asker: Asker::Call, asked_on });
        Ok(number)
    }

    /// Removes a question whose answer is not needed.
    pub(super) fn forget(&mut self, our_id: u64) {
        self.open.remove(&our_id);
    }

    /// Forgets the questions of a child that is gone.
    pub(super) fn forget_child(&mut self) {
        self.open.retain(|_, question| !matches!(question.asker, Asker::Child { .. }));
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Forgets the oldest question whose request is over, since it is the least likely to be answered.
    fn forget_one(&mut self) -> bool {
        let oldest = self.open.iter().filter(|(_, question)| question.is_over()).map(|(&id, _)| id).min();
        oldest.is_some_and(|id| self.open.remove(&id).is_some())
    }

    /// Records that the stream of a request carried the question.
    pub(super) fn set_asked_on(&mut self, our_id: u64, mailbox: &Arc<Mailbox>) {
        if let Some(question) = self.open.get_mut(&our_id) {
            question.asked_on = Some(Arc::downgrade(mailbox));
        }
    }

    /// Closes the question that the client answers; returns the recipient of the answer.
    pub(super) fn answer(&mut self, id: &ClientId, frame: &Charged, message: &Message) -> Option<AnswerFor> {
        let number = integer(id.raw())?;
        let question = self.open.remove(&number)?;
        Some(match question.asker {
            Asker::Child { id, .. } => AnswerFor::Child(rewrite::with_id(frame, message, &id)),
            Asker::Call => AnswerFor::Call(question.asked_on.unwrap_or_default(), number),
        })
    }

    /// Closes a question that the child withdraws; returns its cancellation with the id that the client knows, and
    /// the request whose stream carried the question.
    pub(super) fn withdraw(
        &mut self,
        child_id: &[u8],
        frame: &Charged,
        message: &Message,
    ) -> Option<(Spliced, Weak<Mailbox>)> {
        let (&ours, _) = self
            .open
            .iter()
            .find(|(_, question)| matches!(&question.asker, Asker::Child { id, .. } if id == child_id))?;
        let question = self.open.remove(&ours)?;
        Some((
            rewrite::with_request_id(frame, message, ours.to_string().as_bytes()),
            question.asked_on.unwrap_or_default(),
        ))
    }

    /// Returns the client's progress on a question with the child's own token.
    pub(super) fn progress(&self, token: &ClientId, frame: &Charged, message: &Message) -> Option<Spliced> {
        let question = self.open.get(&integer(token.raw())?)?;
        let Asker::Child { token: Some(token), .. } = &question.asker else { return None };
        Some(rewrite::with_progress_token(frame, message, token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_forgets_only_questions_of_finished_requests() {
        let frame =
            Charged::fixed(br#"{"jsonrpc":"2.0","id":0,"method":"sampling/createMessage","params":{}}"#);
        let message = crate::jsonrpc::scan(&frame).unwrap();
        let mut asked = Questions::default();
        let (running, over) = (Arc::new(Mailbox::default()), Arc::new(Mailbox::default()));
        for n in 0..CAPACITY {
            let (id, _) = asked.ask(&frame, &message).unwrap();
            match n {
                0 => asked.set_asked_on(id, &running),
                1 => asked.set_asked_on(id, &over),
                _ => {}
            }
        }
        assert_eq!(asked.ask(&frame, &message), Err(TooManyQuestions), "all may still be answered");
        drop(over);
        assert!(asked.ask(&frame, &message).is_ok());
        assert!(asked.open.contains_key(&1) && !asked.open.contains_key(&2));
        assert_eq!(asked.ask(&frame, &message), Err(TooManyQuestions));
    }
}
