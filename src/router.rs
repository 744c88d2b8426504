//! Routes each frame from a child to its request, session or stream. The router never waits, so that a child's stdout
//! is always read (`docs/architecture.md#three-tasks`).

mod answers;
mod habits;

use crate::audience::{Audience, NotAsked};
use crate::budget::{Charge, Charged};
use crate::exchange::{Answering, Class, Failure, Inbox, Interim, Noise, Topic};
use crate::framing::Framed;
use crate::jsonrpc::{self, Kind, Message, Span, Spliced, codes, rewrite, text};
use crate::telemetry::{Allowance, counters};
use habits::{Habit, Habits};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

#[cfg(test)]
#[path = "router_tests.rs"]
mod tests;

/// The router of one child's frames.
#[derive(Debug)]
pub struct Router {
    child: u64,
    answering: Answering,
    audience: Audience,
    inbox: Inbox,
    noise: Arc<Noise>,
    allowance: Allowance,
    habits: Habits,
    /// Number of errors without an id that were counted as answers to notifications.
    answered_notifications: u64,
    cancel_grace: u64,
    ticks: u64,
}

impl Router {
    /// Returns the router of child number `child`. It forgets a cancelled request after `cancel_grace` ticks.
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

    /// Records invalid lines in `noise`, and logs at most `log_rate` of them per second (0: all).
    pub fn with_noise(mut self, noise: Arc<Noise>, log_rate: usize) -> Self {
        self.noise = noise;
        self.allowance = Allowance::new(self.child, "stdout", log_rate, Instant::now());
        self
    }

    /// Routes a frame. `charge` covers its bytes as far as they were charged while they arrived.
    pub fn deliver(&mut self, framed: Framed, charge: Charge) {
        match framed {
            Framed::Frame { bytes, bom } => {
                if bom {
                    self.note_repair(Habit::ByteOrderMark);
                }
                self.deliver_frame(bytes, charge);
            }
            Framed::Oversized { id, length, head, given_up } => {
                self.note_oversized(length, &head, given_up);
                let failure = if given_up { Failure::NoRoom } else { Failure::Oversized { length } };
                self.fail_oversized(id, failure);
            }
        }
    }

    /// Routes the child's last line, which has no newline. If the line was cut short, its request fails with the
    /// child's end, which explains more than half an answer does.
    pub fn deliver_rest(&mut self, framed: Framed, charge: Charge) {
        match &framed {
            Framed::Frame { bytes, .. } => match jsonrpc::scan(bytes) {
                // JSON that is not a message was not cut short.
                Err(fault) if fault.code == codes::PARSE_ERROR => self.note_malformed(bytes, fault.reason),
                _ => self.deliver(framed, charge),
            },
            Framed::Oversized { length, head, given_up, .. } => {
                self.note_oversized(*length, head, *given_up);
            }
        }
    }

    /// Forgets cancelled requests that the child does not answer within the grace; called once a second.
    pub fn tick(&mut self) {
        self.ticks += 1;
        self.answering.expire(self.ticks, self.cancel_grace);
        self.allowance.report();
    }

    /// Fails all requests in flight with `failure`, and prevents new ones: the child can no longer answer.
    pub fn close(&mut self, failure: &Failure) {
        self.allowance.report();
        let failed = self.answering.close(|| Err(failure.clone()));
        if failed > 0 {
            tracing::warn!(child = self.child, requests = failed, "requests failed: {failure}");
        }
    }

    fn deliver_frame(&mut self, bytes: Vec<u8>, charge: Charge) {
        match jsonrpc::scan(&bytes) {
            Ok(message) => self.deliver_message(bytes, charge, &message),
            Err(fault) => self.deliver_fault(bytes, charge, &fault),
        }
    }

    fn deliver_message(&mut self, mut bytes: Vec<u8>, charge: Charge, message: &Message) {
        if message.multiline {
            // There are carriage returns between tokens, which neither a frame nor an SSE field can contain.
            jsonrpc::break_no_lines(&mut bytes);
        }
        self.route(charge.hold(bytes), message);
    }

    /// Routes each message of a batch (2025-03-26, basic §Batching). Short messages are copied, so that they do not
    /// keep the whole batch in memory.
    fn batch(&mut self, mut bytes: Vec<u8>, charge: Charge, elements: Vec<Span>) {
        self.note_repair(Habit::Batches);
        jsonrpc::break_no_lines(&mut bytes);
        let batch = charge.hold(bytes);
        for element in elements {
            let frame = match element.len() <= jsonrpc::FLAT {
                true => batch.derive(batch[element].to_vec()),
                false => batch.slice(element),
            };
            match jsonrpc::scan(&frame) {
                Ok(message) => self.route(frame, &message),
                Err(fault) => self.fail_malformed(&frame, fault.reason),
            }
        }
    }

    fn route(&mut self, frame: Charged, message: &Message) {
        match message.kind {
            Kind::Response => self.response(frame, message),
            Kind::Notification => self.notification(frame, message),
            Kind::Request => self.request(frame, message),
        }
    }

    fn notification(&mut self, frame: Charged, message: &Message) {
        let method = method(&frame, message).into_owned();
        self.audience.note_change(&method);
        let meta = message.params.as_ref().and_then(|params| params.meta.as_ref());
        if let Some(listen) = meta.and_then(|meta| meta.subscription_id.clone()) {
            return self.deliver_to_subscription(frame, message, &listen);
        }
        match &*method {
            "notifications/progress" => self.deliver_progress(frame, message),
            "notifications/cancelled" => self.withdraw_question(frame, message),
            "notifications/resources/updated" => {
                let uri = message
                    .params
                    .as_ref()
                    .and_then(|params| params.uri.as_ref())
                    .map(|uri| text(&frame, uri).into_owned());
                self.audience.tell_changed(frame, message, &method, uri.as_deref());
            }
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed" => {
                self.audience.tell_changed(frame, message, &method, None)
            }
            "notifications/tasks/status" | "notifications/elicitation/complete" => {
                self.audience.tell(frame, message, Class::Idempotent, Topic::Other);
            }
            // The client of log messages and unknown notifications is known for an exclusive child only.
            "notifications/message" => self.audience.tell(frame, message, Class::Droppable, Topic::Log),
            _ => self.audience.tell(frame, message, Class::Droppable, Topic::Other),
        }
    }

    /// Routes a modern child's notification to the `subscriptions/listen` that it names.
    fn deliver_to_subscription(&self, mut frame: Charged, message: &Message, listen: &Span) {
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

    fn deliver_progress(&mut self, mut frame: Charged, message: &Message) {
        let token = message.params.as_ref().and_then(|params| params.progress_token.clone());
        let wire_id = token.and_then(|token| self.wire_id(&frame[token]));
        let held = wire_id.and_then(|wire_id| self.answering.held(wire_id));
        let (class, topic) = (Class::Droppable, Topic::Progress);
        let heard = if let Some((held, token)) = held.and_then(|held| Some((held, held.token.as_ref()?))) {
            held.mailbox.take_in(&mut frame, class, topic, |frame| {
                rewrite::with_progress_token(frame, message, token)
            })
        } else {
            let running = wire_id.and_then(|wire_id| self.audience.running()?.find(self.child, wire_id));
            running.is_some_and(|mailbox| {
                mailbox.take_in(&mut frame, class, topic, |frame| rewrite::unchanged(frame, message))
            })
        };
        if !heard {
            counters::DROPPED_EVENTS.increment();
        }
    }

    fn withdraw_question(&self, frame: Charged, message: &Message) {
        let Some(id) = message.params.as_ref().and_then(|params| params.request_id.clone()) else { return };
        if self.audience.is_shared() {
            return self.end_subscription(&frame[id]);
        }
        self.audience.withdraw_question(frame, message, id);
    }

    /// Ends a subscription that the child cancelled, as some modern children do (2026-07-28,
    /// basic/patterns/cancellation).
    fn end_subscription(&self, raw_id: &[u8]) {
        let held = self.wire_id(raw_id).and_then(|wire_id| self.answering.held(wire_id));
        let topic = Topic::Withdrawn(Charged::own(raw_id));
        let frame = Spliced::from(Charged::default());
        let heard = held.map(|held| held.mailbox.push(Interim { frame, class: Class::Dear, topic }));
        if !matches!(heard, Some(Ok(()))) {
            counters::DROPPED_EVENTS.increment();
        }
    }

    fn request(&mut self, mut frame: Charged, message: &Message) {
        let id = message.id.clone().unwrap_or_default();
        let name = method(&frame, message).into_owned();
        if let "server/discover" | "initialize" = &*name {
            return self.fail_echoed(&frame[id]);
        }
        if name == "ping" {
            return self.reply(rewrite::result(&frame[id], b"{}"));
        }
        if self.ask_only_request(&mut frame, message, id.clone()) {
            return;
        }
        if let Err(why) = self.audience.ask(&name, &mut frame, message, &id) {
            self.reply(refusal(&frame[id], &name, why));
        }
    }

    /// Gives a question of a shared child to the only request in flight, if that accepts questions: the question can
    /// concern no other request.
    fn ask_only_request(&self, frame: &mut Charged, message: &Message, id: Span) -> bool {
        if !self.audience.is_shared() {
            return false;
        }
        let held = self.answering.only_waiting().and_then(|wire_id| self.answering.held(wire_id));
        let topic = Topic::Question(Charged::own(&frame[id]));
        held.filter(|held| held.takes_questions).is_some_and(|held| {
            held.mailbox.take_in(frame, Class::Dear, topic, |frame| rewrite::unchanged(frame, message))
        })
    }

    /// Fails a request that the child echoes. Only clients send such requests, and the child would echo a reply, too.
    fn fail_echoed(&mut self, raw_id: &[u8]) {
        self.noise.note_echo();
        if let Some(wire_id) = self.wire_id(raw_id) {
            self.complete(wire_id, Err(Failure::Malformed("the server echoes the request")));
        }
    }

    fn reply(&self, frame: Charged) {
        self.inbox.reply(frame);
    }
}

/// Returns the answer to a question that is not forwarded to a client.
fn refusal(raw_id: &[u8], name: &str, why: NotAsked) -> Charged {
    let (code, message): (_, Cow<'_, str>) = match why {
        NotAsked::NoExchange => {
            (codes::METHOD_NOT_FOUND, "no client can be asked: no request is in flight".into())
        }
        NotAsked::TooMany => {
            (codes::INTERNAL_ERROR, "the client has left too many questions unanswered".into())
        }
        NotAsked::Withheld => (
            codes::METHOD_NOT_FOUND,
            format!(
                "no client can be asked for {name}: it is disabled, or several clients share this server"
            )
            .into(),
        ),
    };
    rewrite::error(Some(raw_id), code, &message, None)
}

fn method<'a>(frame: &'a [u8], message: &Message) -> Cow<'a, str> {
    message.method.as_ref().map(|method| text(frame, method)).unwrap_or_default()
}
