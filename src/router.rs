//! A frame from a child, to the request, session or stream where it belongs. Never waits, so that a child's stdout
//! is always read.

mod answers;
mod habits;

use crate::budget::{Charge, Charged};
use crate::exchange::{Answering, Class, Failure, Inbox, Interim, Noise, Topic};
use crate::framing::Framed;
use crate::jsonrpc::{self, Kind, Message, Span, Spliced, codes, rewrite, text};
use crate::session::{Audience, Kind as ListKind, Session};
use crate::telemetry::{Allowance, counters};
use habits::{Habit, Habits};
use std::sync::Arc;
use std::time::Instant;

#[cfg(test)]
#[path = "router_tests.rs"]
mod tests;

/// Knows who waits for what at one child, and who listens to it.
#[derive(Debug)]
pub struct Router {
    child: u64,
    answering: Answering,
    audience: Audience,
    inbox: Inbox,
    noise: Arc<Noise>,
    allowance: Allowance,
    habits: Habits,
    /// Errors without an id that were taken for answers to notifications.
    answered_notifications: u64,
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
        cancel_grace: u64,
    ) -> Self {
        Router {
            child,
            answering,
            audience,
            inbox,
            noise: Arc::default(),
            allowance: Allowance::new(child, "stdout", 0, Instant::now()),
            habits: Habits::default(),
            answered_notifications: 0,
            cancel_grace,
            ticks: 0,
        }
    }

    /// Notes invalid lines in `noise`, and logs at most `log_rate` of them per second (0: all).
    pub fn observed(mut self, noise: Arc<Noise>, log_rate: usize) -> Self {
        self.noise = noise;
        self.allowance = Allowance::new(self.child, "stdout", log_rate, Instant::now());
        self
    }

    /// Passes a frame on, whose bytes `charge` covers as far as they were charged while they arrived.
    pub fn deliver(&mut self, framed: Framed, charge: Charge) {
        match framed {
            Framed::Frame { bytes, bom } => {
                if bom {
                    self.repaired(Habit::ByteOrderMark);
                }
                self.frame(bytes, charge);
            }
            Framed::Oversized { id, length, head, given_up } => {
                self.note_oversized(length, &head, given_up);
                let failure = if given_up { Failure::NoRoom } else { Failure::Oversized { length } };
                self.oversized(id, failure);
            }
        }
    }

    /// Passes on what the child wrote last, without a newline. If it was cut short, its request fails with the
    /// child's end, which says more than the half of an answer does.
    pub fn deliver_rest(&mut self, framed: Framed, charge: Charge) {
        match &framed {
            Framed::Frame { bytes, .. } => match jsonrpc::scan(bytes) {
                // JSON that is no message is whole, too.
                Err(fault) if fault.code == codes::PARSE_ERROR => self.note_malformed(bytes, fault.reason),
                _ => self.deliver(framed, charge),
            },
            Framed::Oversized { length, head, given_up, .. } => {
                self.note_oversized(*length, head, *given_up);
            }
        }
    }

    /// A second has passed: forgets cancelled requests that the child never answers.
    pub fn tick(&mut self) {
        self.ticks += 1;
        self.answering.expire(self.ticks, self.cancel_grace);
        self.allowance.report();
    }

    /// The child can't answer any more: everyone who waits gets `failure`, and nobody can begin to wait.
    pub fn close(&mut self, failure: &Failure) {
        self.allowance.report();
        let failed = self.answering.close(|| Err(failure.clone()));
        if failed > 0 {
            tracing::warn!(child = self.child, requests = failed, "requests failed: {failure}");
        }
    }

    fn frame(&mut self, bytes: Vec<u8>, charge: Charge) {
        match jsonrpc::scan(&bytes) {
            Ok(message) => self.whole(bytes, charge, &message),
            Err(fault) => self.no_message(bytes, charge, &fault),
        }
    }

    fn whole(&mut self, mut bytes: Vec<u8>, charge: Charge, message: &Message) {
        if message.multiline {
            // Carriage returns between tokens: neither a frame nor an SSE field can hold them.
            jsonrpc::break_no_lines(&mut bytes);
        }
        self.message(charge.hold(bytes), message);
    }

    /// Each message of a batch (2025-03-26, basic §Batching). Short ones are copied, so that they keep nothing of the rest.
    fn batch(&mut self, mut bytes: Vec<u8>, charge: Charge, elements: Vec<Span>) {
        self.repaired(Habit::Batches);
        jsonrpc::break_no_lines(&mut bytes);
        let batch = charge.hold(bytes);
        for element in elements {
            let frame = match element.len() <= jsonrpc::FLAT {
                true => batch.derive(batch[element].to_vec()),
                false => batch.slice(element),
            };
            match jsonrpc::scan(&frame) {
                Ok(message) => self.message(frame, &message),
                Err(fault) => self.malformed(&frame, fault.reason),
            }
        }
    }

    fn message(&mut self, frame: Charged, message: &Message) {
        match message.kind {
            Kind::Response => self.response(frame, message),
            Kind::Notification => self.notification(frame, message),
            Kind::Request => self.request(frame, message),
        }
    }

    // ---- what the child says of its own accord

    fn notification(&mut self, frame: Charged, message: &Message) {
        let method = method(&frame, message).into_owned();
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
                    .map(|uri| text(&frame, uri).into_owned());
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
    fn subscribed(&self, mut frame: Charged, message: &Message, listen: &Span) {
        let class = match &*method(&frame, message) {
            "notifications/subscriptions/acknowledged" => Class::Dear,
            _ => Class::Idempotent,
        };
        let held = self.wire_id(&frame[listen.clone()]);
        let held = held.and_then(|wire_id| self.answering.held(wire_id));
        let unchanged = |frame: &Charged| rewrite::unchanged(frame, message);
        if !held.is_some_and(|held| held.mailbox.take_in(&mut frame, class, Topic::Other, unchanged)) {
            counters::DROPPED_EVENTS.increment();
        }
    }

    fn progress(&mut self, mut frame: Charged, message: &Message) {
        let token = message.params.as_ref().and_then(|params| params.progress_token.clone());
        let wire_id = token.and_then(|token| self.wire_id(&frame[token]));
        let held = wire_id.and_then(|wire_id| self.answering.held(wire_id));
        let (class, topic) = (Class::Droppable, Topic::Progress);
        let heard = if let Some((held, token)) = held.and_then(|held| Some((held, held.token.as_ref()?))) {
            held.mailbox.take_in(&mut frame, class, topic, |frame| {
                rewrite::with_progress_token(frame, message, token)
            })
        } else {
            let running = wire_id.and_then(|wire_id| self.audience.running()?.find(wire_id));
            running.is_some_and(|mailbox| {
                mailbox.take_in(&mut frame, class, topic, |frame| rewrite::unchanged(frame, message))
            })
        };
        if !heard {
            counters::DROPPED_EVENTS.increment();
        }
    }

    fn question_withdrawn(&self, frame: Charged, message: &Message) {
        let id = message.params.as_ref().and_then(|params| params.request_id.clone());
        if let (Audience::Leased(_), Some(id)) = (&self.audience, &id) {
            let topic = Topic::Withdrawn(Charged::own(&frame[id.clone()]));
            return self.to_one(frame, message, Class::Dear, topic);
        }
        let Some(id) = id else { return };
        if let Audience::Shared(_) = &self.audience {
            return self.listen_ended(&frame[id]);
        }
        if let Some(session) = self.exclusive() {
            session.question_withdrawn(&frame[id], &frame, message);
        }
    }

    /// Some modern children end a subscription by cancelling it (2026-07-28, basic/patterns/cancellation).
    fn listen_ended(&self, raw_id: &[u8]) {
        let held = self.wire_id(raw_id).and_then(|wire_id| self.answering.held(wire_id));
        let topic = Topic::Withdrawn(Charged::own(raw_id));
        let frame = Spliced::from(Charged::default());
        let heard = held.map(|held| held.mailbox.push(Interim { frame, class: Class::Dear, topic }));
        if !matches!(heard, Some(Ok(()))) {
            counters::DROPPED_EVENTS.increment();
        }
    }

    fn changed(&self, frame: Charged, message: &Message, uri: Option<&str>) {
        let spliced = rewrite::unchanged(&frame, message);
        match (&self.audience, uri) {
            (Audience::Shared(members), Some(uri)) => members.tell_watchers(uri, &spliced),
            (Audience::Shared(members), None) => members.tell_changed(&method(&frame, message), &spliced),
            _ => self.to_exclusive(frame, message, Class::Idempotent),
        }
    }

    fn to_exclusive(&self, frame: Charged, message: &Message, class: Class) {
        self.to_one(frame, message, class, Topic::Other);
    }

    fn to_one(&self, mut frame: Charged, message: &Message, class: Class, topic: Topic) {
        if let Audience::Leased(holder) = &self.audience {
            if !holder.tell(&mut frame, class, topic, |frame| rewrite::unchanged(frame, message)) {
                counters::DROPPED_EVENTS.increment();
            }
            return;
        }
        match self.exclusive() {
            Some(session) => session.hear(frame, message, class),
            None => counters::WITHHELD_MESSAGES.increment(),
        }
    }

    fn request(&mut self, mut frame: Charged, message: &Message) {
        let id = message.id.clone().unwrap_or_default();
        let name = method(&frame, message).into_owned();
        if let "server/discover" | "initialize" = &*name {
            return self.echo(&frame[id]);
        }
        if name == "ping" {
            return self.reply(rewrite::result(&frame[id], b"{}"));
        }
        if let Audience::Leased(holder) = &self.audience {
            let topic = Topic::Question(Charged::own(&frame[id.clone()]));
            if !holder.tell(&mut frame, Class::Dear, topic, |frame| rewrite::unchanged(frame, message)) {
                let why = "no request is running that could ask the client";
                self.reply(rewrite::error(Some(&frame[id]), codes::METHOD_NOT_FOUND, why, None));
            }
            return;
        }
        if self.asks_the_only_one(&mut frame, message, id.clone()) {
            return;
        }
        let refusal = match self.exclusive().filter(|_| self.may_ask(&name)) {
            Some(session) => match session.ask(&mut frame, message) {
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
    fn asks_the_only_one(&self, frame: &mut Charged, message: &Message, id: Span) -> bool {
        if !matches!(self.audience, Audience::Shared(_)) {
            return false;
        }
        let held = self.answering.only_waiting().and_then(|wire_id| self.answering.held(wire_id));
        let topic = Topic::Question(Charged::own(&frame[id]));
        held.filter(|held| held.takes_questions).is_some_and(|held| {
            held.mailbox.take_in(frame, Class::Dear, topic, |frame| rewrite::unchanged(frame, message))
        })
    }

    /// Only clients send these requests: the child writes back what it reads. A reply would come back as an answer.
    fn echo(&mut self, raw_id: &[u8]) {
        self.noise.note_echo();
        if let Some(wire_id) = self.wire_id(raw_id) {
            self.complete(wire_id, Err(Failure::Malformed("it is the request itself")));
        }
    }

    fn reply(&self, frame: Charged) {
        self.inbox.reply(frame);
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
