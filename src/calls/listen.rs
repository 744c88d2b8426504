//! `subscriptions/listen` (basic/patterns/subscriptions). A modern child is asked for it and speaks for itself. In front
//! of a legacy one: acknowledged first, then what the child says of its own accord, filtered and stamped, until its
//! client goes or proxyrunner ends.

use super::Calls;
use super::modern::{Caller, Happening, Reply};
use crate::admission::Permit;
use crate::budget::Charged;
use crate::children::Shared;
use crate::client::Client;
use crate::era::{Era, discover, errors, keys, notifications};
use crate::exchange::{
    Answer, Exchange, Failure, Interim, Interruption, Link, Mailbox, Standing, Step, Topic,
};
use crate::ingress::{Incoming, Refusal};
use crate::inquiry;
use crate::jsonrpc::{self, ClientId, Edits, Span, Spliced, codes, items, member, rewrite, splice, text};
use crate::mux::WireId;
use crate::session::{Filter, SessionId};
use crate::telemetry::counters;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Resources that one subscription may name.
const MOST_RESOURCES: usize = 256;
/// What a subscription may say, in bytes: some of it is remembered as long as it is open.
const LONGEST: usize = 32 * 1024;

/// A subscription. Dropping it ends it.
#[derive(Debug)]
pub struct Listening {
    shared: Arc<Shared>,
    ear: SessionId,
    mailbox: Arc<Mailbox>,
    client_id: ClientId,
    /// What is to be told first.
    outbox: VecDeque<Spliced>,
    /// The subscription at a modern child.
    passed: Option<Passed>,
    place: Permit,
}

/// A subscription at a modern child, and what it takes to open it again at the next one.
#[derive(Debug)]
struct Passed {
    incoming: Incoming,
    /// How long the next child may take.
    replacing: Duration,
    /// How the child ended that it was open at, while that is being replaced.
    open: Result<(Exchange, Standing), Failure>,
    /// Its client was told already that it is open.
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
        let place = self.listens.take(client).ok_or_else(|| {
            Refusal::Busy(if self.listens.is_at_own_bound(client) {
                "this client has a quarter of --max-listens subscriptions open already"
            } else {
                "--max-listens subscriptions are open already"
            })
        })?;
        let shared = self.children.shared(Era::Modern, &incoming.operation).await?;
        if shared.era == Era::Modern {
            return self.pass_listen(shared, &incoming, place).await;
        }
        let asked = asked(&incoming).ok_or(Refusal::Withheld(
            codes::INVALID_PARAMS,
            "params.notifications is no subscription filter",
        ))?;
        let described = shared.discovered.clone();
        let offered = discover::capabilities_of(&described);
        let filter = Filter {
            tools: asked.tools && offered("tools", "listChanged"),
            prompts: asked.prompts && offered("prompts", "listChanged"),
            resources: asked.resources && offered("resources", "listChanged"),
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
        let watched = match asked.uris {
            Some(uris) if offered("resources", "subscribe") => Some(self.watch_all(&listening, uris).await),
            _ => None,
        };
        let acknowledged = acknowledgement(&listening.client_id, filter, watched, &incoming.frame);
        listening.outbox.push_back(Spliced::from(acknowledged));
        Ok(listening)
    }

    /// Opens a subscription at a modern child. It takes no permit, since it ends when its client wants.
    async fn pass_listen(
        &self,
        shared: Arc<Shared>,
        incoming: &Incoming,
        place: Permit,
    ) -> Result<Box<Listening>, Refusal> {
        let begun = pass(&shared.link, place.client(), incoming).map_err(Refusal::Failed)?;
        let ear = ear()?;
        let mailbox = Arc::clone(begun.mailbox());
        // The child says itself what is for this one; this is for the end that is ours.
        shared.members.listen(&ear, Filter::default(), &mailbox);
        let client_id = ClientId::new(incoming.id());
        let open = Ok((begun, shared.link.stand()));
        let replacing = self.children.start_timeout();
        let incoming = incoming.unseen();
        let passed = Passed { incoming, replacing, open, acknowledged: false };
        let (outbox, passed) = (VecDeque::new(), Some(passed));
        Ok(Box::new(Listening { shared, ear, mailbox, client_id, outbox, passed, place }))
    }

    /// Subscribes to resources; those that the child refuses are left out, and those beyond what one may watch.
    async fn watch_all(&self, listening: &Listening, uris: Vec<String>) -> Vec<String> {
        let (link, members) = (&listening.shared.link, &listening.shared.members);
        let mut watched = Vec::new();
        for uri in uris {
            let _turn = members.turn(&uri).await;
            let Some(room) = members.room_for(&uri, &listening.ear) else { continue };
            if members.is_watched(&uri)
                || self.children.tell_subscription(link, "resources/subscribe", &uri).await
            {
                room.watch();
                watched.push(uri);
            }
        }
        watched
    }
}

fn pass(link: &Link, client: Client, incoming: &Incoming) -> Result<Exchange, Failure> {
    let Incoming { frame, message, trace, operation } = incoming;
    let trace = operation.traced(trace);
    let write = |wire_id: WireId| {
        let id = Some(wire_id.as_u64());
        rewrite::request_for_child(frame, message, id, None, &trace)
    };
    inquiry::begin_as(link, Some(client), None, incoming.mailbox(), write)
}

fn ear() -> Result<SessionId, Refusal> {
    SessionId::mint().map_err(|_| Refusal::Busy("the system has no randomness to give"))
}

/// For the acknowledgement of a subscription whose client was told of one already: the lists that may have changed
/// while it was not open.
fn changed_since(frame: &Charged, acknowledged: bool) -> Option<Vec<String>> {
    let message = jsonrpc::scan(frame).ok().filter(|_| acknowledged)?;
    if text(frame, message.method.as_ref()?) != "notifications/subscriptions/acknowledged" {
        return None;
    }
    let filter = message.params.as_ref().and_then(|params| member(frame, &params.span, "notifications"));
    let honours = |flag: &str| {
        let flag = filter.as_ref().and_then(|filter| member(frame, filter, flag));
        flag.is_some_and(|flag| &frame[flag] == b"true")
    };
    let kinds = ["tools", "prompts", "resources"].into_iter();
    let changed = kinds.filter(|kind| honours(&format!("{kind}ListChanged")));
    Some(changed.map(|kind| format!("notifications/{kind}/list_changed")).collect())
}

struct Asked {
    tools: bool,
    prompts: bool,
    resources: bool,
    uris: Option<Vec<String>>,
}

fn asked(incoming: &Incoming) -> Option<Asked> {
    let frame = &incoming.frame;
    let params = incoming.message.params.as_ref()?;
    let filter = member(frame, &params.span, "notifications").filter(|filter| frame[filter.start] == b'{')?;
    let flag = |name| match member(frame, &filter, name).map(|span| frame.slice(span)) {
        None => Some(false),
        Some(raw) if &raw[..] == b"true" => Some(true),
        Some(raw) if &raw[..] == b"false" => Some(false),
        Some(_) => None,
    };
    let uris = match member(frame, &filter, "resourceSubscriptions") {
        None => None,
        Some(list) => Some(strings(frame, list)?),
    };
    Some(Asked {
        tools: flag("toolsListChanged")?,
        prompts: flag("promptsListChanged")?,
        resources: flag("resourcesListChanged")?,
        uris,
    })
}

fn strings(frame: &[u8], list: Span) -> Option<Vec<String>> {
    if frame[list.start] != b'[' {
        return None;
    }
    let mut strings = Vec::new();
    for item in items(frame, list).take(MOST_RESOURCES) {
        if frame[item.start] != b'"' {
            return None;
        }
        strings.push(text(frame, &item).into_owned());
    }
    Some(strings)
}

fn acknowledgement(
    client_id: &ClientId,
    filter: Filter,
    watched: Option<Vec<String>>,
    incoming: &Charged,
) -> Charged {
    let mut honoured = serde_json::Map::new();
    let flags = [
        ("toolsListChanged", filter.tools),
        ("promptsListChanged", filter.prompts),
        ("resourcesListChanged", filter.resources),
    ];
    honoured.extend(
        flags.into_iter().filter(|(_, on)| *on).map(|(name, _)| (name.to_owned(), Value::from(true))),
    );
    if let Some(watched) = watched {
        honoured.insert("resourceSubscriptions".to_owned(), json!(watched));
    }
    let id = String::from_utf8_lossy(client_id.raw()).into_owned();
    let params = format!(
        "{{\"_meta\":{{\"{}\":{id}}},\"notifications\":{}}}",
        keys::SUBSCRIPTION_ID,
        Value::from(honoured)
    );
    let message = rewrite::notification("notifications/subscriptions/acknowledged", Some(params.as_bytes()));
    // It repeats what the request named.
    incoming.derive(message.to_vec())
}

impl Listening {
    /// What happens next: the acknowledgement, then notifications, at the end the result. Safe to drop and call again.
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

    /// What a modern child says to its subscription, if its client is to be told.
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

    /// Opens it again at the next child; else the last that its client is told.
    async fn reopen(&mut self) -> Option<Reply> {
        let passed = self.passed.as_mut()?;
        let members = &self.shared.members;
        let link = tokio::select! {
            link = members.post.serving(passed.replacing) => link,
            // Nothing is said here any more but that it is over.
            _ = self.mailbox.next() => return Some(self.result()),
        };
        let begun = match link {
            Some(link) => {
                let begun = pass(&link, self.place.client(), &passed.incoming);
                begun.map(|begun| (begun, link.stand()))
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
            // That one ended too: the next one may serve.
            Err(failure) if failure.is_childs_end() && !members.post.is_closed() => None,
            Err(failure) => {
                let message = failure.response(self.client_id.raw());
                Some(Reply { message: Spliced::from(message), status: 200 })
            }
        }
    }

    /// The child's end of its subscription, under the client's id.
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

    /// A notification that says whose it is; `None` if there is no room for that.
    fn stamped(&self, frame: Spliced) -> Option<Spliced> {
        let Ok(frame) = frame.flatten() else {
            counters::DROPPED_EVENTS.increment();
            return None;
        };
        let Ok(message) = jsonrpc::scan(&frame) else { return Some(Spliced::from(frame)) };
        let edits = notifications::stamp(&frame, &message, self.client_id.raw());
        Some(splice(&frame, &message.object, edits))
    }

    /// The graceful end.
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
