//! A frame from a child, to the request, session or stream where it belongs. Never waits, so that a child's stdout
//! is always read.

use crate::budget::Budget;
use crate::exchange::{Answer, Answering, Class, Failure, Inbox, Interim, Outcome, Topic, Urgent};
use crate::framing::{Framed, IdSeeker};
use crate::jsonrpc::{self, Kind, Message, Span, Spliced, codes, integer, rewrite, text};
use crate::mux::{Completed, WireId};
use crate::session::{Audience, Kind as ListKind, Session};
use crate::telemetry::counters;
use bytes::Bytes;
use std::sync::Arc;

#[cfg(test)]
#[path = "router_tests.rs"]
mod tests;

/// What is shown of a frame that is no message, in bytes.
const SHOWN: usize = 120;

/// Knows who waits for what at one child, and who listens to it.
#[derive(Debug)]
pub struct Router {
    child: u64,
    answering: Answering,
    audience: Audience,
    inbox: Inbox,
    budget: Budget,
    cancel_grace: u64,
    ticks: u64,
}

impl Router {
    /// The router of child number `child`; a cancelled request is forgotten after `cancel_grace` ticks.
    pub fn new(
        child: u64,
        answering: Answering,
        audience: Audience,
        inbox: Inbox,
        budget: Budget,
        cancel_grace: u64,
    ) -> Self {
        Router { child, answering, audience, inbox, budget, cancel_grace, ticks: 0 }
    }

    /// Passes a frame on.
    pub fn deliver(&mut self, framed: Framed) {
        match framed {
            Framed::Frame { bytes, bom } => {
                if bom {
                    counters::REPAIRED_FRAMES.increment();
                    tracing::warn!(
                        child = self.child,
                        "the server began a line with a byte order mark; it was taken off"
                    );
                }
                self.frame(bytes);
            }
            Framed::Oversized { id, length, head } => self.oversized(id, length, &head),
        }
    }

    /// Passes on what the child wrote last, without a newline. If it was cut short, its request fails with the
    /// child's end, which says more than the half of an answer does.
    pub fn deliver_rest(&mut self, framed: Framed) {
        match &framed {
            Framed::Frame { bytes, .. } => match jsonrpc::scan(bytes) {
                Ok(_) => self.deliver(framed),
                Err(fault) => self.note_malformed(bytes, fault.reason),
            },
            Framed::Oversized { length, head, .. } => self.note_oversized(*length, head),
        }
    }

    /// A second has passed: forgets cancelled requests that the child never answers.
    pub fn tick(&mut self) {
        self.ticks += 1;
        self.answering.expire(self.ticks, self.cancel_grace);
    }

    /// The child can't answer any more: everyone who waits gets `failure`, and nobody can begin to wait.
    pub fn close(&mut self, failure: &Failure) {
        let failed = self.answering.close(|| Err(failure.clone()));
        if failed > 0 {
            tracing::warn!(child = self.child, requests = failed, "requests failed: {failure}");
        }
    }

    fn frame(&mut self, bytes: Bytes) {
        let bytes = self.budget.hold(bytes);
        match jsonrpc::scan(&bytes) {
            Ok(message) => match message.kind {
                Kind::Response => self.response(bytes, &message),
                Kind::Notification => self.notification(&bytes, &message),
                Kind::Request => self.request(&bytes, &message),
            },
            Err(fault) => self.malformed(&bytes, fault.reason),
        }
    }

    // ---- answers

    fn response(&mut self, frame: Bytes, message: &Message) {
        let Some(id) = message.id.clone() else { return self.unattributed(&frame) };
        let wire_id = integer(&frame[id.clone()]).and_then(WireId::new);
        let answer = Answer {
            object: message.object.clone(),
            id,
            result: message.result.clone(),
            error: message.error.clone(),
            multiline: message.multiline,
            is_error: message.is_error,
            frame,
        };
        match wire_id {
            Some(wire_id) => self.complete(wire_id, Ok(answer)),
            None => self.unknown(&answer.frame[answer.id.clone()]),
        }
    }

    fn complete(&mut self, wire_id: WireId, outcome: Outcome) {
        match self.answering.complete(wire_id, outcome) {
            Completed::Delivered => {}
            Completed::Late | Completed::Duplicate(_) => {
                counters::LATE_ANSWERS.increment();
                tracing::debug!(child = self.child, id = wire_id.as_u64(), "late answer discarded");
            }
            Completed::Unknown(_) => self.unknown(wire_id.as_u64().to_string().as_bytes()),
        }
    }

    /// What it answers is nobody's, and is not shown either.
    fn unknown(&self, id: &[u8]) {
        counters::UNKNOWN_ANSWERS.increment();
        tracing::warn!(
            child = self.child,
            id = shown(id),
            "the server answered a request that it was never sent"
        );
    }

    /// An error without an id. If one request only is in flight, it is about that one (protocol D8).
    fn unattributed(&mut self, frame: &[u8]) {
        match self.answering.only_waiting() {
            Some(wire_id) => {
                tracing::warn!(
                    child = self.child,
                    frame = shown(frame),
                    "the server answered without an id; one request was waiting, and fails"
                );
                self.complete(wire_id, Err(Failure::Malformed("it is an error without an id")));
            }
            None => self.unknown(frame),
        }
    }

    fn oversized(&mut self, id: Option<Bytes>, length: u64, head: &[u8]) {
        self.note_oversized(length, head);
        if let Some(wire_id) = id.and_then(|id| integer(&id)).and_then(WireId::new) {
            self.complete(wire_id, Err(Failure::Oversized { length }));
        }
    }

    fn note_oversized(&self, length: u64, head: &[u8]) {
        counters::OVERSIZED_FRAMES.increment();
        tracing::warn!(
            child = self.child,
            length,
            frame = shown(head),
            "the server wrote a line longer than --max-frame; it was thrown away"
        );
    }

    fn malformed(&mut self, frame: &[u8], reason: &'static str) {
        self.note_malformed(frame, reason);
        let mut seeker = IdSeeker::default();
        seeker.feed(frame);
        if let Some(wire_id) = seeker.id().and_then(|id| integer(&id)).and_then(WireId::new) {
            self.complete(wire_id, Err(Failure::Malformed(reason)));
        }
    }

    fn note_malformed(&self, frame: &[u8], reason: &'static str) {
        counters::MALFORMED_FRAMES.increment();
        tracing::warn!(
            child = self.child,
            reason,
            frame = shown(frame),
            "the server wrote a line that is no JSON-RPC message"
        );
    }

    // ---- what the child says of its own accord

    fn notification(&mut self, frame: &Bytes, message: &Message) {
        let method = method(frame, message);
        if let (Some(kind), Some(changes)) = (ListKind::changed_by(&method), self.audience.changes()) {
            // Before anyone hears of it: who then asks again gets the new list.
            changes.note(kind);
        }
        let meta = message.params.as_ref().and_then(|params| params.meta.as_ref());
        if let Some(listen) = meta.and_then(|meta| meta.subscription_id.clone()) {
            return self.subscribed(frame, message, &listen);
        }
        match &*method {
            "notifications/progress" => self.progress(frame, message),
            "notifications/cancelled" => self.question_withdrawn(frame, message),
            "notifications/resources/updated" => {
                let uri = message
                    .params
                    .as_ref()
                    .and_then(|params| params.uri.as_ref())
                    .map(|uri| text(frame, uri));
                self.changed(frame, message, uri.as_deref());
            }
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed" => self.changed(frame, message, None),
            "notifications/tasks/status" | "notifications/elicitation/complete" => {
                self.to_exclusive(frame, message, Class::Idempotent);
            }
            // Logs, and what we don't know: whose it is can be told for an exclusive child only.
            "notifications/message" => self.to_one(frame, message, Class::Droppable, Topic::Log),
            _ => self.to_exclusive(frame, message, Class::Droppable),
        }
    }

    /// What a modern child says to one `subscriptions/listen`, which it names.
    fn subscribed(&self, frame: &Bytes, message: &Message, listen: &Span) {
        let class = match &*method(frame, message) {
            "notifications/subscriptions/acknowledged" => Class::Dear,
            _ => Class::Idempotent,
        };
        let interim = Interim { frame: rewrite::unchanged(frame, message), class, topic: Topic::Other };
        let held = integer(&frame[listen.clone()]).and_then(WireId::new);
        let held = held.and_then(|wire_id| self.answering.held(wire_id));
        if held.is_none_or(|held| held.mailbox.push(interim).is_err()) {
            counters::DROPPED_EVENTS.increment();
        }
    }

    fn progress(&mut self, frame: &Bytes, message: &Message) {
        let running;
        let token = message.params.as_ref().and_then(|params| params.progress_token.clone());
        let wire_id = token.and_then(|token| integer(&frame[token])).and_then(WireId::new);
        let held = wire_id.and_then(|wire_id| self.answering.held(wire_id));
        let heard = if let Some((held, token)) = held.and_then(|held| Some((held, held.token.as_ref()?))) {
            Some((&held.mailbox, rewrite::with_progress_token(frame, message, token)))
        } else {
            running = wire_id.and_then(|wire_id| self.audience.running()?.find(wire_id));
            running.as_ref().map(|mailbox| (mailbox, rewrite::unchanged(frame, message)))
        };
        let interim = |frame| Interim { frame, class: Class::Droppable, topic: Topic::Progress };
        if heard.is_none_or(|(mailbox, frame)| mailbox.push(interim(frame)).is_err()) {
            counters::DROPPED_EVENTS.increment();
        }
    }

    fn question_withdrawn(&self, frame: &Bytes, message: &Message) {
        let id = message.params.as_ref().and_then(|params| params.request_id.clone());
        if let (Audience::Leased(_), Some(id)) = (&self.audience, &id) {
            let topic = Topic::Withdrawn(Bytes::copy_from_slice(&frame[id.clone()]));
            return self.to_one(frame, message, Class::Dear, topic);
        }
        let Some(id) = id else { return };
        if let Audience::Shared(_) = &self.audience {
            return self.listen_ended(&frame[id]);
        }
        if let Some(session) = self.exclusive() {
            session.question_withdrawn(&frame[id], frame, message);
        }
    }

    /// Some modern children end a subscription by cancelling it (2026-07-28, basic/patterns/cancellation).
    fn listen_ended(&self, raw_id: &[u8]) {
        let held = integer(raw_id).and_then(WireId::new).and_then(|wire_id| self.answering.held(wire_id));
        let topic = Topic::Withdrawn(Bytes::copy_from_slice(raw_id));
        let frame = Spliced::from(Bytes::new());
        let heard = held.map(|held| held.mailbox.push(Interim { frame, class: Class::Dear, topic }));
        if !matches!(heard, Some(Ok(()))) {
            counters::DROPPED_EVENTS.increment();
        }
    }

    fn changed(&self, frame: &Bytes, message: &Message, uri: Option<&str>) {
        let spliced = rewrite::unchanged(frame, message);
        match (&self.audience, uri) {
            (Audience::Shared(members), Some(uri)) => members.tell_watchers(uri, &spliced),
            (Audience::Shared(members), None) => members.tell_changed(&method(frame, message), &spliced),
            _ => self.to_exclusive(frame, message, Class::Idempotent),
        }
    }

    fn to_exclusive(&self, frame: &Bytes, message: &Message, class: Class) {
        self.to_one(frame, message, class, Topic::Other);
    }

    fn to_one(&self, frame: &Bytes, message: &Message, class: Class, topic: Topic) {
        if let Audience::Leased(holder) = &self.audience {
            let interim = Interim { frame: rewrite::unchanged(frame, message), class, topic };
            if holder.tell(interim).is_err() {
                counters::DROPPED_EVENTS.increment();
            }
            return;
        }
        match self.exclusive() {
            Some(session) => session.notify(rewrite::unchanged(frame, message), class),
            None => counters::WITHHELD_MESSAGES.increment(),
        }
    }

    fn request(&self, frame: &Bytes, message: &Message) {
        let id = message.id.clone().unwrap_or_default();
        let name = method(frame, message);
        if name == "ping" {
            return self.reply(rewrite::result(&frame[id], b"{}"));
        }
        if let Audience::Leased(holder) = &self.audience {
            let topic = Topic::Question(Bytes::copy_from_slice(&frame[id.clone()]));
            let interim = Interim { frame: rewrite::unchanged(frame, message), class: Class::Dear, topic };
            if holder.tell(interim).is_err() {
                let why = "no request is running that could ask the client";
                self.reply(rewrite::error(Some(&frame[id]), codes::METHOD_NOT_FOUND, why, None));
            }
            return;
        }
        if self.asks_the_only_one(frame, message, &frame[id.clone()]) {
            return;
        }
        let refusal = match self.exclusive().filter(|_| self.may_ask(&name)) {
            Some(session) => match session.ask(frame, message) {
                Ok(()) => return,
                Err(_) => rewrite::error(
                    Some(&frame[id]),
                    codes::INTERNAL_ERROR,
                    "the client leaves too many questions unanswered",
                    None,
                ),
            },
            None => {
                counters::WITHHELD_MESSAGES.increment();
                let why = format!(
                    "no client of this server can be asked for {name}: it is withheld, or several share the server"
                );
                rewrite::error(Some(&frame[id]), codes::METHOD_NOT_FOUND, &why, None)
            }
        };
        self.reply(refusal);
    }

    /// Gives a question of a shared child to the one request that is in flight, if it takes questions: then there is no
    /// doubt which request it is about.
    fn asks_the_only_one(&self, frame: &Bytes, message: &Message, raw_id: &[u8]) -> bool {
        if !matches!(self.audience, Audience::Shared(_)) {
            return false;
        }
        let held = self.answering.only_waiting().and_then(|wire_id| self.answering.held(wire_id));
        let topic = Topic::Question(Bytes::copy_from_slice(raw_id));
        let interim = Interim { frame: rewrite::unchanged(frame, message), class: Class::Dear, topic };
        held.filter(|held| held.takes_questions).is_some_and(|held| held.mailbox.push(interim).is_ok())
    }

    fn reply(&self, frame: Bytes) {
        self.inbox.urge(Urgent(Spliced::from(frame)));
    }

    fn exclusive(&self) -> Option<Arc<Session>> {
        match &self.audience {
            Audience::Exclusive { session, .. } => session.upgrade(),
            Audience::Nobody | Audience::Shared(_) | Audience::Leased(_) => None,
        }
    }

    fn may_ask(&self, name: &str) -> bool {
        name != "roots/list" || matches!(self.audience, Audience::Exclusive { roots: true, .. })
    }
}

fn method<'a>(frame: &'a [u8], message: &Message) -> std::borrow::Cow<'a, str> {
    message.method.as_ref().map(|method| text(frame, method)).unwrap_or_default()
}

/// The beginning of a frame, for a log line.
fn shown(frame: &[u8]) -> String {
    let head = &frame[..frame.len().min(SHOWN)];
    let more = if frame.len() > SHOWN { "…" } else { "" };
    format!("{}{more}", head.escape_ascii())
}
