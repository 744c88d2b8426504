//! `subscriptions/listen` (basic/patterns/subscriptions). A modern child receives the request and answers it itself.
//! In front of a legacy child, proxyrunner acknowledges the subscription, then filters and stamps the child's
//! notifications until the client disconnects or proxyrunner shuts down.

use super::Calls;
mod filter;

use super::modern::{Caller, Happening, Reply};
use crate::admission::Permit;
use crate::audience::{Filter, SessionId};
use crate::children::Shared;
use crate::era::{Era, discover, errors, keys, notifications};
use crate::exchange::{
    Answer, Exchange, Failure, Held, Interim, Interruption, Link, Mailbox, Standing, Step, Topic,
};
use crate::ingress::{Incoming, Received, Refusal};
use crate::inquiry;
use crate::jsonrpc::{self, ClientId, Edits, Spliced, codes, member, rewrite, splice};
use crate::mux::WireId;
use crate::telemetry::counters;
use filter::{RequestedFilter, acknowledgement, changed_since};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Maximum length of a subscription request, in bytes: parts of it are kept while it is open.
const LONGEST: usize = 32 * 1024;

/// A subscription. Dropping it ends it.
#[derive(Debug)]
pub struct Listening {
    shared: Arc<Shared>,
    ear: SessionId,
    mailbox: Arc<Mailbox>,
    client_id: ClientId,
    /// Messages for the client that go before new ones.
    outbox: VecDeque<Spliced>,
    /// The subscription at a modern child, if any.
    passed: Option<Passed>,
    place: Arc<Permit>,
}

/// A subscription at a modern child, with all that is needed to open it again at the next child.
#[derive(Debug)]
struct Passed {
    incoming: Incoming,
    /// Maximum time to wait for the next child.
    replacing: Duration,
    /// The open subscription; or the child's failure, while the child is being replaced.
    open: Result<(Exchange, Standing), Failure>,
    /// Whether the client has received an acknowledgement.
    acknowledged: bool,
}

impl Calls {
    /// Opens a subscription.
    ///
    /// # Errors
    /// When there are too many, or the filter is malformed.
    pub async fn listen(
        self: &Arc<Self>,
        caller: &Caller,
        incoming: Incoming,
    ) -> Result<Box<Listening>, Refusal> {
        if incoming.frame.len() > LONGEST {
            return Err(Refusal::Withheld(codes::INVALID_PARAMS, "the subscription is longer than 32 KiB"));
        }
        let client = caller.client();
        let place = self.listens.take(client).map(Arc::new).ok_or_else(|| {
            Refusal::Busy(if self.listens.is_at_own_bound(client) {
                "this client has reached its share of subscriptions (a quarter of --max-listens)"
            } else {
                "--max-listens subscriptions are open"
            })
        })?;
        let shared = self.children.shared(Era::Modern, &incoming.operation).await?;
        if shared.era == Era::Modern {
            let own = |task: &String| self.task_owners.may_use(task, &caller.principal);
            if !caller.principal.is_anonymous()
                && !filter::tasks(&incoming).is_some_and(|tasks| tasks.iter().all(own))
            {
                return Err(Refusal::Withheld(codes::INVALID_PARAMS, "no such task"));
            }
            return self.pass_listen(shared, &incoming, place).await;
        }
        let requested = RequestedFilter::read(&incoming).ok_or(Refusal::Withheld(
            codes::INVALID_PARAMS,
            "params.notifications is not a subscription filter",
        ))?;
        let described = shared.discovered.clone();
        let offered = discover::capabilities_of(&described);
        let filter = Filter {
            tools: requested.tools && offered("tools", "listChanged"),
            prompts: requested.prompts && offered("prompts", "listChanged"),
            resources: requested.resources && offered("resources", "listChanged"),
        };
        let ear = ear()?;
        let mailbox = incoming.mailbox();
        let client_id = ClientId::new(incoming.id());
        let mut listening = Box::new(Listening {
            shared,
            ear,
            mailbox,
            client_id,
            outbox: VecDeque::new(),
            passed: None,
            place,
        });
        listening.shared.members.listen(&listening.ear, filter, &listening.mailbox);
        let watched = match requested.uris {
            Some(uris) if offered("resources", "subscribe") => Some(self.watch_all(&listening, uris).await),
            _ => None,
        };
        let acknowledged = acknowledgement(&listening.client_id, filter, watched, &incoming.frame);
        listening.outbox.push_back(Spliced::from(acknowledged));
        Ok(listening)
    }

    /// Opens a subscription at a modern child. It takes no permit, since the client decides when it ends.
    async fn pass_listen(
        &self,
        shared: Arc<Shared>,
        incoming: &Incoming,
        place: Arc<Permit>,
    ) -> Result<Box<Listening>, Refusal> {
        let begun = pass(&shared.link, &place, incoming).map_err(Refusal::Failed)?;
        let ear = ear()?;
        let mailbox = Arc::clone(begun.mailbox());
        // The child sends this subscription's notifications itself; the mailbox is for an end that proxyrunner
        // causes.
        shared.members.listen(&ear, Filter::default(), &mailbox);
        let client_id = ClientId::new(incoming.id());
        let open = Ok((begun, shared.link.mark_standing()));
        let replacing = self.children.start_timeout();
        let incoming = incoming.unseen();
        let passed = Passed { incoming, replacing, open, acknowledged: false };
        let (outbox, passed) = (VecDeque::new(), Some(passed));
        Ok(Box::new(Listening { shared, ear, mailbox, client_id, outbox, passed, place }))
    }

    /// Subscribes to resources, and returns those that the child and the limits accept.
    async fn watch_all(&self, listening: &Listening, uris: Vec<String>) -> Vec<String> {
        let (link, members) = (&listening.shared.link, &listening.shared.members);
        let mut watched = Vec::new();
        for uri in uris {
            let _turn = members.turn(&uri).await;
            let Some(mut room) = members.room_for(&uri, &listening.ear) else { continue };
            if !members.is_watched(&uri) {
                room.ask();
                match self.children.tell_subscription(link, "resources/subscribe", &uri).await {
                    Some(true) => {}
                    Some(false) => {
                        room.note_answer();
                        continue;
                    }
                    None => continue,
                }
            }
            room.watch();
            watched.push(uri);
        }
        watched
    }
}

fn pass(link: &Link, place: &Arc<Permit>, incoming: &Incoming) -> Result<Exchange, Failure> {
    let Received { frame, message, trace, operation, .. } = &**incoming;
    let trace = operation.traced(trace);
    let write = |wire_id: WireId| {
        let id = Some(wire_id.as_u64());
        rewrite::request_for_child(frame, message, id, None, &trace)
    };
    let held = Held {
        client: Some(place.client()),
        listen: Some(Arc::clone(place)),
        ..Held::unasked(incoming.mailbox())
    };
    inquiry::begin_held(link, held, None, write)
}

fn ear() -> Result<SessionId, Refusal> {
    SessionId::mint().map_err(|_| Refusal::Busy("the system's random number generator failed"))
}

impl Listening {
    /// Returns the next event: the acknowledgement, then notifications, at the end the result. Cancel-safe.
    pub async fn next(&mut self) -> Happening {
        loop {
            if let Some(frame) = self.outbox.pop_front() {
                return Happening::Said(frame);
            }
            let Some(passed) = &mut self.passed else {
                match self.mailbox.next().await {
                    Ok(interim) => match self.stamped(interim.frame) {
                        Some(stamped) => return Happening::Said(stamped),
                        None => continue,
                    },
                    Err(Interruption { .. }) => return Happening::Answered(self.result()),
                }
            };
            let Ok((listen, _)) = &mut passed.open else {
                match self.reopen().await {
                    None => continue,
                    Some(last) => {
                        self.passed = None;
                        return Happening::Answered(last);
                    }
                }
            };
            let step = listen.next().await;
            if let Some(happening) = self.heard(step) {
                return happening;
            }
        }
    }

    /// Ends the subscription gracefully, and returns its last event.
    pub fn close(&mut self) -> Happening {
        self.passed = None;
        Happening::Answered(self.result())
    }

    /// Handles a message of a modern child; returns the event if the client is to receive one.
    fn heard(&mut self, step: Step) -> Option<Happening> {
        let passed = self.passed.as_mut()?;
        match step {
            Step::Interim(Interim { topic: Topic::Withdrawn(_), .. })
            | Step::Outcome(Err(Failure::ShuttingDown)) => {
                self.passed = None;
                Some(Happening::Answered(self.result()))
            }
            Step::Outcome(Err(failure)) if failure.is_childs_end() => {
                passed.open = Err(failure);
                None
            }
            Step::Interim(interim) => {
                let Ok(frame) = interim.frame.flatten() else {
                    counters::DROPPED_EVENTS.increment();
                    return None;
                };
                match changed_since(&frame, passed.acknowledged) {
                    Some(methods) => {
                        let told = methods.into_iter().map(|method| rewrite::notification(&method, None));
                        let stamped = told.filter_map(|frame| self.stamped(Spliced::from(frame)));
                        let stamped: Vec<_> = stamped.collect();
                        self.outbox.extend(stamped);
                        None
                    }
                    None => {
                        passed.acknowledged = true;
                        self.stamped(Spliced::from(frame)).map(Happening::Said)
                    }
                }
            }
            Step::Outcome(outcome) => {
                self.passed = None;
                Some(Happening::Answered(match outcome {
                    Ok(answer) => self.answered(&answer),
                    Err(failure) => {
                        let message = failure.response(self.client_id.raw());
                        Reply { message: Spliced::from(message), status: 200 }
                    }
                }))
            }
        }
    }

    /// Opens the subscription again at the next child. If that fails, returns the last message for the client.
    async fn reopen(&mut self) -> Option<Reply> {
        let passed = self.passed.as_mut()?;
        let members = &self.shared.members;
        let link = tokio::select! {
            link = members.post.serving(passed.replacing) => link,
            // Only the end of the subscription arrives in this mailbox.
            _ = self.mailbox.next() => return Some(self.result()),
        };
        let begun = match link {
            Some(link) => {
                let begun = pass(&link, &self.place, &passed.incoming);
                begun.map(|begun| (begun, link.mark_standing()))
            }
            None => Err(passed.open.as_ref().err().cloned().unwrap_or(Failure::Lost)),
        };
        match begun {
            Ok((begun, standing)) => {
                self.mailbox = Arc::clone(begun.mailbox());
                members.listen(&self.ear, Filter::default(), &self.mailbox);
                passed.open = Ok((begun, standing));
                None
            }
            // This child ended, too; the next one may serve.
            Err(failure) if failure.is_childs_end() && !members.post.is_closed() => None,
            Err(failure) => {
                let message = failure.response(self.client_id.raw());
                Some(Reply { message: Spliced::from(message), status: 200 })
            }
        }
    }

    /// Returns the child's result of the subscription, under the client's id.
    fn answered(&self, answer: &Answer) -> Reply {
        let frame = &answer.frame;
        let mut edits = Edits::new();
        edits.replace(&answer.id, self.client_id.raw());
        let meta = answer.result.as_ref().and_then(|result| member(frame, result, "_meta"));
        if let Some(stamp) = meta.and_then(|meta| member(frame, &meta, keys::SUBSCRIPTION_ID)) {
            edits.replace(&stamp, self.client_id.raw());
        }
        let code = answer.error.as_ref().and_then(|error| errors::code(frame, error));
        let status = code.map_or(200, |(code, _)| errors::http_status(code, Era::Modern));
        Reply { message: splice(frame, &answer.object, edits), status }
    }

    /// Adds the subscription's id to a notification; `None` if there is no memory for that.
    fn stamped(&self, frame: Spliced) -> Option<Spliced> {
        let Ok(frame) = frame.flatten() else {
            counters::DROPPED_EVENTS.increment();
            return None;
        };
        let Ok(message) = jsonrpc::scan(&frame) else { return Some(Spliced::from(frame)) };
        let edits = notifications::stamp(&frame, &message, self.client_id.raw());
        Some(splice(&frame, &message.object, edits))
    }

    /// Returns the result that ends the subscription gracefully.
    fn result(&self) -> Reply {
        let id = String::from_utf8_lossy(self.client_id.raw()).into_owned();
        let mut meta = format!("\"{}\":{id}", keys::SUBSCRIPTION_ID);
        if let Some(info) = self.shared.server_info() {
            meta += &format!(",\"{}\":{}", keys::SERVER_INFO, String::from_utf8_lossy(info));
        }
        let result = format!("{{\"resultType\":\"complete\",\"_meta\":{{{meta}}}}}");
        let message = Spliced::from(rewrite::result(self.client_id.raw(), result.as_bytes()));
        Reply { message, status: 200 }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.shared.members.leave(&self.ear);
    }
}
