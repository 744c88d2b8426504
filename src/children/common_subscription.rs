//! The common subscription of the legacy sessions at a modern child: one `subscriptions/listen`, kept open by a task,
//! that covers the child's lists and every watched resource (basic/patterns/subscriptions).
//!
//! A subscription's filter cannot be changed. To change it, the next subscription is opened first, and the old one is
//! cancelled after the acknowledgement.

use crate::audience::{Members, Wish};
use crate::backoff::Backoff;
use crate::clock::now;
use crate::era::{discover, notifications};
use crate::exchange::{Exchange, Interim, Link, Standing, Step, Topic};
use crate::inquiry::{begin_as, modern_request};
use crate::jsonrpc::{self, LONGEST_URI, items, member, splice, text};
use crate::tasks;
use crate::telemetry::counters;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};

/// Capacity of the queue of subscription requests.
const WISHES: usize = 256;
/// Minimum and maximum delay before an ended subscription is opened again.
const REOPEN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

fn reopening() -> Backoff {
    Backoff::new(REOPEN.0, REOPEN.1)
}

/// The subscription of one child.
#[derive(Debug)]
struct Union {
    link: Arc<Link>,
    members: Arc<Members>,
    /// The filter without resources: the lists whose changes the child reports.
    lists: serde_json::Map<String, Value>,
    resources: bool,
    patience: Duration,
    listen: Option<(Exchange, Standing)>,
    covers: HashSet<String>,
    /// The time of the next attempt to open it, and the following delays.
    again: Option<(Instant, Backoff)>,
    /// Set when the subscription ended and is not open again yet.
    lapsed: bool,
    /// Covered resources that a session is about to watch; bounded by the requests to watch.
    promised: HashSet<String>,
}

/// Starts the task, which opens no subscription until it is asked to, and ends with the child. `words` is the child's
/// `DiscoverResult`; a missing acknowledgement within `patience` counts as a refusal.
pub(super) fn start(
    link: &Arc<Link>,
    members: &Arc<Members>,
    words: &[u8],
    patience: Duration,
) -> mpsc::Sender<Wish> {
    let offers = discover::capabilities_of(words);
    let lists = [
        ("toolsListChanged", "tools"),
        ("promptsListChanged", "prompts"),
        ("resourcesListChanged", "resources"),
    ];
    let lists = lists.into_iter().filter(|(_, kind)| offers(kind, "listChanged"));
    let union = Union {
        link: Arc::clone(link),
        members: Arc::clone(members),
        lists: lists.map(|(name, _)| (name.to_owned(), Value::from(true))).collect(),
        resources: offers("resources", "subscribe"),
        patience,
        listen: None,
        covers: HashSet::new(),
        again: None,
        lapsed: false,
        promised: HashSet::new(),
    };
    let (wishes, wished) = mpsc::channel(WISHES);
    tasks::spawn(union.run(wished));
    wishes
}

impl Union {
    async fn run(mut self, mut wished: mpsc::Receiver<Wish>) {
        let link = Arc::clone(&self.link);
        loop {
            let again = self.again.map(|(at, _)| at);
            tokio::select! {
                wish = wished.recv() => {
                    let Some(Wish { also, reply }) = wish else { return };
                    let covered = self.cover(also).await;
                    let _ = reply.send(covered);
                }
                step = next_of(&mut self.listen) => self.hear(step),
                () = sleep_until(again.unwrap_or_else(now).into()), if again.is_some() => {
                    let mut pauses = self.again.take().map_or_else(reopening, |(_, pauses)| pauses);
                    if !self.cover(None).await {
                        self.again = Some((now() + pauses.advance(), pauses));
                    }
                }
                // The subscription is cancelled with the child's end, so that no change is missed.
                () = link.stopped() => return,
                _ = link.ended() => return,
            }
        }
    }

    /// Makes the subscription cover the watched resources and `also`. Returns whether the child accepted it.
    async fn cover(&mut self, also: Option<String>) -> bool {
        // A session is recorded as a watcher slightly after it gets its answer, and another change may come in
        // between. Sessions that are no longer awaited have been recorded by now, or have left.
        self.promised.retain(|uri| self.members.is_awaited(uri));
        let mut wanted: HashSet<String> = self.members.watched().into_iter().collect();
        wanted.extend(self.promised.iter().cloned());
        wanted.extend(also.clone());
        if !wanted.is_empty() && !self.resources {
            return false;
        }
        if wanted == self.covers && self.listen.is_some() {
            self.promise(also);
            return true;
        }
        if wanted.is_empty() && self.lists.is_empty() {
            self.listen = None;
            return true;
        }
        let Some((listen, honoured)) = self.open(&wanted).await else { return false };
        if also.as_ref().is_some_and(|uri| !honoured.contains(uri)) {
            return false;
        }
        self.promise(also);
        if std::mem::take(&mut self.lapsed) {
            // Changes since the last subscription ended were missed.
            self.members.changes.note_all();
        }
        // Only now may the old subscription be cancelled.
        let standing = self.link.mark_standing();
        (self.listen, self.covers, self.again) = (Some((listen, standing)), wanted, None);
        true
    }

    /// Records that a session is about to watch the resource.
    fn promise(&mut self, uri: Option<String>) {
        self.promised.extend(uri);
    }

    /// Opens a subscription. Returns it, and the resources that the child acknowledged.
    async fn open(&mut self, wanted: &HashSet<String>) -> Option<(Exchange, HashSet<String>)> {
        let mut filter = self.lists.clone();
        if !wanted.is_empty() {
            filter.insert("resourceSubscriptions".to_owned(), json!(wanted));
        }
        let params = format!("\"notifications\":{}", Value::from(filter));
        let link = Arc::clone(&self.link);
        let patience = self.patience;
        // The subscription is open for hours, so its duration is not recorded as an operation.
        let write = |wire_id| modern_request(wire_id, "subscriptions/listen", &params);
        let opened = async {
            let mut listen = begin_as(&link, None, None, Arc::default(), write).ok()?;
            loop {
                tokio::select! {
                    step = listen.next() => match step {
                        Step::Interim(interim) => {
                            if let Some(honoured) = acknowledged(interim, &self.members) {
                                return Some((listen, honoured));
                            }
                        }
                        Step::Outcome(_) => return None,
                    },
                    step = next_of(&mut self.listen) => self.hear(step),
                }
            }
        };
        timeout(patience, opened).await.ok().flatten()
    }

    fn hear(&mut self, step: Step) {
        match step {
            Step::Interim(Interim { topic: Topic::Withdrawn(_), .. }) | Step::Outcome(_) => {
                self.listen = None;
                self.covers.clear();
                self.lapsed = true;
                let mut pauses = reopening();
                self.again = Some((now() + pauses.advance(), pauses));
            }
            Step::Interim(interim) => self.tell(interim),
        }
    }

    /// Delivers a notification of the subscription, without its stamp.
    fn tell(&self, interim: Interim) {
        let Ok(frame) = interim.frame.flatten() else { return counters::DROPPED_EVENTS.increment() };
        let Ok(message) = jsonrpc::scan(&frame) else { return };
        let edits = notifications::unstamp(&frame, &message);
        let told = splice(&frame, &message.object, edits);
        let method = message.method.as_ref().map(|method| text(&frame, method)).unwrap_or_default();
        match &*method {
            "notifications/resources/updated" => {
                let uri = message.params.as_ref().and_then(|params| params.uri.as_ref());
                if let Some(uri) = uri {
                    self.members.tell_watchers(&text(&frame, uri), &told);
                }
            }
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed" => self.members.tell_changed(&method, &told),
            _ => {}
        }
    }
}

/// Returns the acknowledged resources that are watched or about to be watched; `None` if the message is not an
/// acknowledgement.
fn acknowledged(interim: Interim, members: &Members) -> Option<HashSet<String>> {
    let frame = interim.frame.flatten().ok()?;
    let message = jsonrpc::scan(&frame).ok()?;
    let method = text(&frame, message.method.as_ref()?);
    if method != "notifications/subscriptions/acknowledged" {
        return None;
    }
    let filter = message.params.as_ref().and_then(|params| member(&frame, &params.span, "notifications"));
    let list = filter.and_then(|filter| member(&frame, &filter, "resourceSubscriptions"));
    let uris = list.into_iter().flat_map(|list| items(&frame, list));
    let uris = uris.filter(|uri| uri.len() <= LONGEST_URI).map(|uri| text(&frame, &uri));
    let known = uris.filter(|uri| members.is_watched(uri) || members.is_awaited(uri));
    Some(known.map(std::borrow::Cow::into_owned).collect())
}

/// Returns the child's next step; pending forever without a subscription.
async fn next_of(listen: &mut Option<(Exchange, Standing)>) -> Step {
    match listen {
        Some((exchange, _)) => exchange.next().await,
        None => std::future::pending().await,
    }
}
