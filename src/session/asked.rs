//! A child's open questions to its client (sampling, elicitation, roots), under ids of ours.
//!
//! A child numbers its questions from 0, and so does the next one; ours are unique in the session (protocol D2).
//! The question's progress token, if it has one, becomes our id too. A modern child asks in its answer instead: then
//! it is the call that asks, on the child's behalf, and that gets the answers.

use super::TooManyQuestions;
use crate::budget::Charged;
use crate::exchange::Mailbox;
use crate::jsonrpc::{ClientId, Edits, Message, Spliced, integer, rewrite, splice};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// Questions that a client may leave unanswered.
const CAPACITY: usize = 1_024;

/// The open questions of one session.
#[derive(Debug, Default)]
pub(super) struct Asked {
    last: u64,
    open: HashMap<u64, Question>,
}

#[derive(Debug)]
struct Question {
    asker: Asker,
    /// The request on whose stream it went out; none for the standalone stream.
    asked_on: Option<Weak<Mailbox>>,
}

/// Who asks.
#[derive(Debug)]
enum Asker {
    /// An exclusive child. This is put back when the answer comes; raw JSON.
    Child { id: Charged, token: Option<Charged> },
    /// The request on whose stream it goes out.
    Call,
}

impl Question {
    /// The request on whose stream it went out is over.
    fn is_over(&self) -> bool {
        self.asked_on.as_ref().is_some_and(|on| on.strong_count() == 0)
    }
}

/// Where an answer of the client goes.
#[derive(Debug)]
pub(super) enum Answered {
    /// To the child, as it is here.
    ForChild(Spliced),
    /// To the request that asked.
    ForCall(Weak<Mailbox>, u64),
}

impl Asked {
    /// Whether nobody waits for an answer: what was asked for a request that is over is not likely to be answered.
    pub(super) fn is_quiet(&self) -> bool {
        self.open.values().all(Question::is_over)
    }

    /// The question under an id of ours, and that id.
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
        self.open.insert(number, Question { asker, asked_on: None });
        Ok((number, spliced))
    }

    /// An id for a question that a request asks by itself.
    pub(super) fn ask_for(&mut self, request: &Arc<Mailbox>) -> Result<u64, TooManyQuestions> {
        if self.open.len() >= CAPACITY && !self.forget_one() {
            return Err(TooManyQuestions);
        }
        let number = self.next();
        let asked_on = Some(Arc::downgrade(request));
        self.open.insert(number, Question { asker: Asker::Call, asked_on });
        Ok(number)
    }

    /// Nobody waits for the answer any more.
    pub(super) fn forget(&mut self, our_id: u64) {
        self.open.remove(&our_id);
    }

    /// The child is gone: nobody takes the answers to what it asked itself.
    pub(super) fn forget_child(&mut self) {
        self.open.retain(|_, question| !matches!(question.asker, Asker::Child { .. }));
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Forgets the oldest question whose request is over: of all, it is the least likely to be answered.
    fn forget_one(&mut self) -> bool {
        let oldest = self.open.iter().filter(|(_, question)| question.is_over()).map(|(&id, _)| id).min();
        oldest.is_some_and(|id| self.open.remove(&id).is_some())
    }

    /// The question went out on the stream of a request.
    pub(super) fn asked_on(&mut self, our_id: u64, mailbox: &Arc<Mailbox>) {
        if let Some(question) = self.open.get_mut(&our_id) {
            question.asked_on = Some(Arc::downgrade(mailbox));
        }
    }

    /// Whom the client answers; each question is answered once.
    pub(super) fn answer(&mut self, id: &ClientId, frame: &Charged, message: &Message) -> Option<Answered> {
        let number = integer(id.raw())?;
        let question = self.open.remove(&number)?;
        Some(match question.asker {
            Asker::Child { id, .. } => Answered::ForChild(rewrite::with_id(frame, message, &id)),
            Asker::Call => Answered::ForCall(question.asked_on.unwrap_or_default(), number),
        })
    }

    /// The child's cancellation of its question, with our id; and the request on whose stream that went out.
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

    /// The client's progress on a question, with the child's token.
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
    fn a_full_table_forgets_what_was_asked_of_requests_that_are_over_and_nothing_else() {
        let frame =
            Charged::fixed(br#"{"jsonrpc":"2.0","id":0,"method":"sampling/createMessage","params":{}}"#);
        let message = crate::jsonrpc::scan(&frame).unwrap();
        let mut asked = Asked::default();
        let (running, over) = (Arc::new(Mailbox::default()), Arc::new(Mailbox::default()));
        for n in 0..CAPACITY {
            let (id, _) = asked.ask(&frame, &message).unwrap();
            match n {
                0 => asked.asked_on(id, &running),
                1 => asked.asked_on(id, &over),
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
