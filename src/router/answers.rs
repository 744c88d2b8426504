//! Routes a child's answers, and finds the request that an invalid line concerns.

use super::Router;
use super::habits::Habit;
use crate::budget::{Charge, Charged};
use crate::era::errors;
use crate::exchange::{Answer, Failure, Outcome, quoted as shown};
use crate::framing::IdSeeker;
use crate::jsonrpc::{self, Defect, Fault, Message, Span, Spelling, codes, echoed, member, string_member};
use crate::mux::{Completed, WireId};
use crate::telemetry::counters;
use std::time::Instant;

/// Limit on the messages in one batch of a child.
const MAX_BATCHED: usize = 10_000;

impl Router {
    pub(super) fn deliver_fault(&mut self, mut frame: Vec<u8>, charge: Charge, fault: &Fault) {
        if jsonrpc::is_batch(&frame)
            && let Ok(elements) = jsonrpc::elements(&frame, MAX_BATCHED)
        {
            return self.batch(frame, charge, elements);
        }
        let Some((message, defect)) = jsonrpc::mended(&mut frame, fault) else {
            return self.fail_malformed(&frame, fault.reason);
        };
        self.note_repair(match defect {
            Defect::FloatId => Habit::FloatIds,
            Defect::Nulls => Habit::NullMembers,
            Defect::Escapes => Habit::Escapes,
        });
        self.deliver_message(frame, charge, &message);
    }

    pub(super) fn note_repair(&self, habit: Habit) {
        counters::REPAIRED_FRAMES.increment();
        self.habits.note(self.child, habit);
    }

    /// Returns the wire id of a request as the child wrote it, in any unambiguous spelling.
    pub(super) fn wire_id(&self, raw: &[u8]) -> Option<WireId> {
        let (number, spelling) = echoed(raw)?;
        match spelling {
            Spelling::Integer => {}
            Spelling::String => self.habits.note(self.child, Habit::StringIds),
            Spelling::Float => self.habits.note(self.child, Habit::FloatIds),
        }
        WireId::new(number)
    }

    pub(super) fn response(&mut self, mut frame: Charged, message: &Message) {
        let Some(id) = message.id.clone() else { return self.deliver_unattributed(&frame, message) };
        let wire_id = self.wire_id(&frame[id.clone()]);
        if let (Some(wire_id), Some(error)) = (wire_id, &message.error)
            && !is_error(&frame, error)
        {
            // Clients would not accept it as an answer, and would keep waiting.
            self.note_malformed(&frame, NO_ERROR);
            return self.complete(wire_id, Err(Failure::Malformed(NO_ERROR)));
        }
        let held = wire_id.and_then(|wire_id| self.answering.held(wire_id));
        if let (Some(wire_id), Some(account)) = (wire_id, held.and_then(|held| held.mailbox.account())) {
            if !account.may_take_over(frame.len()) {
                return self.complete(wire_id, Err(Failure::NoRoom));
            }
            frame.move_to(account);
        }
        let answer = Answer {
            object: message.object.clone(),
            id,
            result: message.result.clone(),
            error: message.error.clone(),
            is_error: message.is_error,
            frame,
        };
        match wire_id {
            Some(wire_id) => self.complete(wire_id, Ok(answer)),
            None => self.note_unknown(&answer.frame[answer.id.clone()]),
        }
    }

    pub(super) fn complete(&mut self, wire_id: WireId, outcome: Outcome) {
        match self.answering.complete(wire_id, outcome) {
            Completed::Delivered => {}
            Completed::Late | Completed::Duplicate(_) => {
                counters::LATE_ANSWERS.increment();
                tracing::debug!(child = self.child, id = wire_id.as_u64(), "discarded a late answer");
            }
            Completed::Unknown(_) => self.note_unknown(wire_id.as_u64().to_string().as_bytes()),
        }
    }

    /// Counts an answer that belongs to no request. Its content may be another client's, so it is not logged.
    fn note_unknown(&mut self, id: &[u8]) {
        counters::UNKNOWN_ANSWERS.increment();
        if self.allowance.take(Instant::now()) {
            tracing::warn!(
                child = self.child,
                id = shown(id),
                "the server answered a request that was never sent to it"
            );
        }
    }

    /// Routes an error without an id, which a child sends when it could not read the request's id (JSON-RPC 2.0 §5).
    fn deliver_unattributed(&mut self, frame: &[u8], message: &Message) {
        let code = message.error.as_ref().and_then(|error| errors::code(frame, error)).map(|(code, _)| code);
        let only = self.answering.only_waiting();
        let only = only.filter(|wire_id| code.is_some_and(|code| self.may_mean(*wire_id, code)));
        let Some(wire_id) = only else {
            counters::UNKNOWN_ANSWERS.increment();
            self.answered_notifications += 1;
            return self.habits.note(self.child, Habit::AnswersNotifications);
        };
        if self.allowance.take(Instant::now()) {
            tracing::warn!(
                child = self.child,
                frame = shown(frame),
                "the server wrote an error without an id; failed the only request in flight"
            );
        }
        self.complete(wire_id, Err(Failure::Malformed("an error without an id")));
    }

    /// Returns whether an error without an id may concern this request. Many servers answer notifications with
    /// errors, and some of these report an invalid request or unparsable text, since a notification has no id.
    fn may_mean(&self, wire_id: WireId, code: i64) -> bool {
        let unanswered = self.inbox.uptake().notified().saturating_sub(self.answered_notifications);
        match code {
            // The one unanswered notification may have completed proxyrunner's own handshake, long before this
            // request.
            codes::PARSE_ERROR if self.answered_notifications == 0 && self.is_of_client(wire_id) => {
                unanswered <= u64::from(!self.audience.is_exclusive())
            }
            codes::PARSE_ERROR | codes::INVALID_REQUEST => unanswered == 0,
            _ => false,
        }
    }

    /// Returns whether the request is a client's. proxyrunner's own requests need no permits.
    fn is_of_client(&self, wire_id: WireId) -> bool {
        let held = self.answering.held(wire_id);
        held.is_some_and(|held| held.places.lock().is_some())
    }

    pub(super) fn fail_oversized(&mut self, id: Option<Vec<u8>>, failure: Failure) {
        if let Some(wire_id) = id.and_then(|id| self.wire_id(&id)) {
            self.complete(wire_id, Err(failure));
        }
    }

    pub(super) fn note_oversized(&mut self, length: u64, head: &[u8], given_up: bool) {
        let counter = if given_up { &counters::DROPPED_EVENTS } else { &counters::OVERSIZED_FRAMES };
        counter.increment();
        self.noise.note(head);
        if !self.allowance.take(Instant::now()) {
            return;
        }
        let (child, frame) = (self.child, shown(head));
        if given_up {
            tracing::warn!(
                child,
                length,
                frame,
                "dropped a line from the server: it exceeds the memory left (--max-buffered)"
            );
        } else {
            tracing::warn!(child, length, frame, "discarded a line from the server: it exceeds --max-frame");
        }
    }

    pub(super) fn fail_malformed(&mut self, frame: &[u8], reason: &'static str) {
        self.note_malformed(frame, reason);
        let mut seeker = IdSeeker::default();
        seeker.feed(frame);
        if let Some(wire_id) = seeker.id().and_then(|id| self.wire_id(&id)) {
            self.complete(wire_id, Err(Failure::Malformed(reason)));
        }
    }

    pub(super) fn note_malformed(&mut self, frame: &[u8], reason: &'static str) {
        counters::MALFORMED_FRAMES.increment();
        self.noise.note(frame);
        if self.allowance.take(Instant::now()) {
            tracing::warn!(
                child = self.child,
                reason,
                frame = shown(frame),
                hint = self.noise.mistake().map(tracing::field::display),
                "the server wrote a line that is not a JSON-RPC message"
            );
        }
    }
}

/// The reason for the failure of a request whose answer contains an invalid error.
const NO_ERROR: &str = "error is not an object with a numeric code and a message";

/// Returns whether an error has the numeric code and the message that clients expect.
fn is_error(frame: &[u8], error: &Span) -> bool {
    let code = member(frame, error, "code");
    let is_number = code.is_some_and(|code| matches!(frame[code.start], b'-' | b'0'..=b'9'));
    is_number && string_member(frame, error, "message").is_some()
}
