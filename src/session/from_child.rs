//! What an exclusive child says of its own accord: notifications that name no request, and questions to its client.

use super::Session;
use super::asked::Answered;
use super::streams::Event;
use crate::budget::Charged;
use crate::exchange::{Class, Interim, Mailbox, Topic};
use crate::jsonrpc::{ClientId, Message, Spliced, rewrite};
use crate::telemetry::counters;
use std::sync::Arc;

/// The client has left as many questions unanswered as are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyQuestions;

impl Session {
    // ---- messages of an exclusive child that name no request

    /// A notification of the child, charged to the session; where that has no room, it is dropped.
    pub fn hear(&self, mut frame: Charged, message: &Message, class: Class) {
        if !self.account().may_take_over(frame.len()) {
            return counters::DROPPED_EVENTS.increment();
        }
        frame.move_to(self.account());
        self.notify(rewrite::unchanged(&frame, message), class);
    }

    /// A notification of the child, for the stream where it belongs.
    ///
    /// Legacy stdio does not say which request a message is about (protocol C0). Logs and messages of a kind
    /// that we don't know go with the newest request in flight; what tells of a change goes to the standalone
    /// stream.
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

    /// A message for the standalone stream.
    pub fn say(&self, frame: Spliced, class: Class) {
        self.state().streams.push_standalone(Event { frame, class });
    }

    /// A question of the child: it goes out under an id of ours, unique in the session.
    ///
    /// # Errors
    /// When too many are unanswered already, or there is no room for it; the child is to be told.
    pub fn ask(&self, frame: &mut Charged, message: &Message) -> Result<(), TooManyQuestions> {
        if !self.account().may_take_over(frame.len()) {
            return Err(TooManyQuestions);
        }
        frame.move_to(self.account());
        let (our_id, frame) = self.state().asked.ask(frame, message)?;
        match self.give_to_newest(Interim { frame, class: Class::Dear, topic: Topic::Other }) {
            Ok(mailbox) => self.state().asked.asked_on(our_id, &mailbox),
            Err(interim) => self.say(interim.frame, Class::Dear),
        }
        Ok(())
    }

    /// An id, unique in the session, under which a request asks the client by itself; the answer comes to its mailbox.
    ///
    /// # Errors
    /// When too many are unanswered already.
    pub fn ask_for(&self, request: &Arc<Mailbox>) -> Result<u64, TooManyQuestions> {
        self.state().asked.ask_for(request)
    }

    /// Whether a question waits for the client's answer.
    pub fn is_asked(&self) -> bool {
        !self.state().asked.is_quiet()
    }

    /// Its child is gone, and the next one numbers its questions anew.
    pub fn forget_child_questions(&self) {
        self.state().asked.forget_child();
    }

    /// The request that asked is over, or needs no answer any more.
    pub fn forget_question(&self, our_id: u64) {
        self.state().asked.forget(our_id);
    }

    /// The client's answer: the frame for the child, with the child's own id; `None` when it is a request's, or nobody
    /// waits for it.
    pub fn answered(&self, id: &ClientId, frame: &Charged, message: &Message) -> Option<Spliced> {
        let answered = self.state().asked.answer(id, frame, message);
        let undelivered = match answered {
            Some(Answered::ForChild(frame)) => return Some(frame),
            Some(Answered::ForCall(request, our_id)) => {
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

    /// The child took its question back: its `notifications/cancelled` with our id in it.
    pub fn question_withdrawn(&self, child_id: &[u8], frame: &Charged, message: &Message) {
        let withdrawn = self.state().asked.withdraw(child_id, frame, message);
        let Some((frame, asked_on)) = withdrawn else { return };
        // On the stream that the question went out on, as long as that is there.
        let interim = Interim { frame, class: Class::Dear, topic: Topic::Other };
        let refused = match asked_on.upgrade() {
            Some(mailbox) => mailbox.push(interim).err(),
            None => Some(interim),
        };
        if let Some(interim) = refused {
            self.say(interim.frame, Class::Dear);
        }
    }

    /// The client's progress on a question: the frame with the child's own token.
    pub fn question_progress(&self, token: &ClientId, frame: &Charged, message: &Message) -> Option<Spliced> {
        self.state().asked.progress(token, frame, message)
    }
}
