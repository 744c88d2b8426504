//! A client's subscription at all servers (basic/patterns/subscriptions): changes of lists come from the watch of all
//! servers, changes of resources from a subscription at the server of each.

use super::super::directory::Server;
use super::super::directory::Snapshot;
use super::ask::{Ask, Fault, Reply, Said, fault};
use super::calls::owners_of;
use super::changes::Lists;
use super::request::{Caller, Refused, Request};
use crate::backoff::Backoff;
use crate::era::envelope::Envelope;
use crate::era::{keys, notifications};
use crate::jsonrpc::{self, Spliced, items, member, rewrite, splice, text, unportable};
use crate::tasks;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot, watch as watched};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Maximum number of resources of one subscription.
const MOST: usize = 4_096;
/// Maximum length of a notification of a server.
const LONGEST: usize = 1 << 20;
/// Time for a server to acknowledge a subscription.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time in which further changes of lists are told together. Each one makes clients ask all servers again.
const TOGETHER: Duration = Duration::from_secs(1);
/// The shortest and the longest time before a subscription at a server is opened again.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Time after which a subscription has not ended at once, so that the next one is opened soon.
const LASTING: Duration = Duration::from_secs(10);

const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
const UPDATED: &str = "notifications/resources/updated";

/// Counts a subscriber, for as long as it exists.
struct Listener<'a>(&'a watched::Sender<usize>);

impl<'a> Listener<'a> {
    fn new(listeners: &'a watched::Sender<usize>) -> Self {
        listeners.send_modify(|count| *count += 1);
        Listener(listeners)
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Serves a subscription until it is cancelled.
///
/// # Errors
/// When its filter is malformed.
pub(super) async fn serve(
    caller: &Caller,
    request: &Request,
    out: &mpsc::Sender<Spliced>,
) -> Result<Spliced, Refused> {
    let (lists, uris) = filter(request).ok_or_else(|| Refused::params("notifications is not a filter"))?;
    let state = &caller.state;
    let mut changes = Changes { receiver: state.changes.subscribe(), lists, due: Instant::now() };
    let _listener = Listener::new(&state.listeners);
    let (mut running, mut honoured) = (JoinSet::new(), None);
    // Nothing may come before the acknowledgement.
    let (begin, begun) = watched::channel(false);
    if let Some(uris) = uris {
        honoured = Some(watch_all(caller, request, uris, (out, &begun), &mut running).await?);
    }
    let _ = out.send(acknowledgement(request.id(), lists, honoured)).await;
    begin.send_replace(true);
    loop {
        let Some(told) = changes.next().await else {
            return Err(Refused::failed("the gateway is shutting down"));
        };
        for method in told.methods() {
            let plain = rewrite::notification(method, None);
            let Ok(message) = jsonrpc::scan(&plain) else { continue };
            let edits = notifications::stamp(&plain, &message, request.id());
            let _ = out.send(splice(&plain, &message.object, edits)).await;
        }
    }
}

/// The changes of the lists that a subscription asks for, those in quick succession together.
struct Changes {
    receiver: broadcast::Receiver<Lists>,
    lists: Lists,
    /// When the next ones may be told.
    due: Instant,
}

impl Changes {
    /// Returns the next changes; `None` when there will be none.
    async fn next(&mut self) -> Option<Lists> {
        let mut changed = Lists::NONE;
        while changed == Lists::NONE {
            changed = self.lists.and(match self.receiver.recv().await {
                Ok(changed) => changed,
                Err(broadcast::error::RecvError::Lagged(_)) => Lists::ALL,
                Err(broadcast::error::RecvError::Closed) => return None,
            });
        }
        sleep_until(self.due).await;
        loop {
            match self.receiver.try_recv() {
                Ok(more) => changed = changed.or(self.lists.and(more)),
                Err(broadcast::error::TryRecvError::Lagged(_)) => changed = self.lists,
                Err(_) => break,
            }
        }
        self.due = Instant::now() + TOGETHER;
        Some(changed)
    }
}

/// Reads what a subscription asks for: lists, and resources if it has any.
fn filter(request: &Request) -> Option<(Lists, Option<Vec<String>>)> {
    let frame = &request.frame;
    let params = request.message.params.as_ref()?;
    let filter = member(frame, &params.span, "notifications").filter(|filter| frame[filter.start] == b'{')?;
    let flag = |name: &str| match member(frame, &filter, name).map(|span| &frame[span]) {
        None | Some(b"false") => Some(false),
        Some(b"true") => Some(true),
        Some(_) => None,
    };
    let lists =
        Lists::of(flag("toolsListChanged")?, flag("promptsListChanged")?, flag("resourcesListChanged")?);
    let Some(list) = member(frame, &filter, "resourceSubscriptions") else { return Some((lists, None)) };
    if frame[list.start] != b'[' {
        return None;
    }
    let uris = items(frame, list).take(MOST);
    let uris = uris.map(|uri| (frame[uri.start] == b'"').then(|| text(frame, &uri).into_owned()));
    Some((lists, Some(uris.collect::<Option<_>>()?)))
}

fn acknowledgement(id: &[u8], lists: Lists, uris: Option<Vec<String>>) -> Spliced {
    let mut honoured: Map<String, Value> = lists.filter();
    if let Some(uris) = uris {
        honoured.insert("resourceSubscriptions".to_owned(), json!(uris));
    }
    let id = String::from_utf8_lossy(id);
    let params = format!(
        "{{\"_meta\":{{\"{}\":{id}}},\"notifications\":{}}}",
        keys::SUBSCRIPTION_ID,
        Value::from(honoured)
    );
    Spliced::from(rewrite::notification(ACKNOWLEDGED, Some(params.as_bytes())))
}

/// Subscribes to resources at their servers. Returns those that the servers acknowledge.
///
/// # Errors
/// When the policies have not decided on them.
async fn watch_all(
    caller: &Caller,
    request: &Request,
    uris: Vec<String>,
    (out, begun): (&mpsc::Sender<Spliced>, &watched::Receiver<bool>),
    running: &mut JoinSet<()>,
) -> Result<Vec<String>, Refused> {
    let servers: Arc<Snapshot> = caller.state.servers();
    let mut of_servers: BTreeMap<Box<str>, BTreeSet<String>> = BTreeMap::new();
    let owned = owners_of(caller, &servers, &uris).await;
    if caller.guard.is_some() && !owned.is_empty() {
        request.check_decided(owned.iter().map(|(uri, server)| (&*server.about.segment, &**uri)))?;
    }
    for (uri, server) in owned {
        of_servers.entry(server.about.segment.clone()).or_default().insert(uri);
    }
    let mut told = Vec::new();
    for (segment, uris) in of_servers {
        let (tell, acknowledged) = oneshot::channel();
        let id = request.id().to_vec();
        let (out, begun) = (out.clone(), begun.clone());
        let watching = Watching { caller: caller.clone(), segment, uris, id, out, begun };
        running.spawn(tasks::boxed(watching.run(tell)));
        told.push(acknowledged);
    }
    let mut honoured = BTreeSet::new();
    for acknowledged in told {
        honoured.extend(acknowledged.await.unwrap_or_default());
    }
    Ok(uris.into_iter().filter(|uri| honoured.remove(uri)).collect())
}

/// A subscription to resources of one server.
struct Watching {
    caller: Caller,
    segment: Box<str>,
    uris: BTreeSet<String>,
    /// The raw id of the client's subscription.
    id: Vec<u8>,
    out: mpsc::Sender<Spliced>,
    /// Whether the client's subscription is acknowledged.
    begun: watched::Receiver<bool>,
}

impl Watching {
    /// Keeps it open. Tells once what the server acknowledges.
    async fn run(mut self, tell: oneshot::Sender<BTreeSet<String>>) {
        let mut tell = Some(tell);
        let mut pauses = Backoff::new(AGAIN.0, AGAIN.1);
        loop {
            let Some(server) = self.caller.state.servers().get(&self.segment).map(Arc::clone) else { return };
            let filter = json!({"resourceSubscriptions": self.uris});
            let opened = timeout(PATIENCE, open(&self.caller, &server, &filter)).await;
            if let Ok(Ok((mut reply, acknowledged))) = opened {
                let own = acknowledged["resourceSubscriptions"].as_array();
                let own = own.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
                let own: BTreeSet<String> = own.filter(|uri| self.uris.contains(uri)).collect();
                if let Some(tell) = tell.take() {
                    let is_none = own.is_empty();
                    let _ = tell.send(own);
                    if is_none {
                        return;
                    }
                }
                if self.begun.wait_for(|begun| *begun).await.is_err() {
                    return;
                }
                let begun = Instant::now();
                self.pass(&mut reply).await;
                if begun.elapsed() >= LASTING {
                    pauses.reset();
                }
            } else if tell.is_some() {
                return;
            }
            sleep(pauses.advance()).await;
        }
    }

    /// Passes notifications until the server ends the subscription.
    async fn pass(&self, reply: &mut Reply) {
        while let Ok(Said::Before(frame, message)) = reply.next().await {
            let is_update = message.method.as_ref().is_some_and(|method| text(&frame, method) == UPDATED);
            let uri = message.params.as_ref().and_then(|params| params.uri.as_ref());
            let is_own = uri.is_some_and(|uri| self.uris.contains(&*text(&frame, uri)));
            // Other servers' changes come to the client on the same stream.
            if is_update && is_own && unportable(&frame).is_none() {
                let edits = notifications::stamp(&frame, &message, &self.id);
                let _ = self.out.send(splice(&frame, &message.object, edits)).await;
            }
        }
    }
}

/// Opens a subscription at a server. Returns it, and what the server acknowledges.
pub(super) async fn open(
    caller: &Caller,
    server: &Arc<Server>,
    filter: &Value,
) -> Result<(Reply, Value), Fault> {
    const METHOD: &str = "subscriptions/listen";
    let meta = match &caller.meta {
        Some(meta) => String::from_utf8_lossy(meta).into_owned(),
        None => format!("{{{}}}", Envelope::own().members()),
    };
    let params = format!("{{\"_meta\":{meta},\"notifications\":{filter}}}");
    let body = caller.account.hold(rewrite::request(b"1", METHOD, Some(params.as_bytes())).to_vec());
    let (named, params) = (None, Vec::new());
    let ask = Ask {
        caller,
        server,
        method: METHOD,
        named,
        params,
        body,
        key: None,
        longest: LONGEST,
        legacy: None,
    };
    let mut reply = ask.send().await?;
    loop {
        let Said::Before(frame, message) = reply.next().await? else {
            return Err(Fault { is_refusal: true, ..fault(server, "takes no subscriptions") });
        };
        if message.method.as_ref().is_some_and(|method| text(&frame, method) == ACKNOWLEDGED) {
            let filter =
                message.params.as_ref().and_then(|params| member(&frame, &params.span, "notifications"));
            let filter = filter.and_then(|filter| serde_json::from_slice(&frame[filter]).ok());
            return Ok((reply, filter.unwrap_or_default()));
        }
    }
}

/// Returns the lists that a notification says have changed.
pub(super) fn changed(frame: &[u8], message: &jsonrpc::Message) -> Lists {
    message.method.as_ref().map_or(Lists::NONE, |method| Lists::of_method(&text(frame, method)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn changes_in_quick_succession_are_told_together() {
        let (sender, receiver) = broadcast::channel(64);
        let (tools, all) = (Lists::of(true, false, false), Lists::ALL);
        let mut changes = Changes { receiver, lists: all, due: Instant::now() };
        let begun = Instant::now();
        tokio::spawn(async move {
            for number in 0..100 {
                let _ = sender.send(if number == 99 { all } else { tools });
                sleep(Duration::from_millis(50)).await;
            }
        });
        let mut told = Vec::new();
        while let Some(changed) = changes.next().await {
            told.push((begun.elapsed().as_secs(), changed));
        }
        assert_eq!(told, [(0, tools), (1, tools), (2, tools), (3, tools), (4, tools), (5, all)]);
    }

    #[tokio::test]
    async fn changes_of_other_lists_are_not_told() {
        let (sender, receiver) = broadcast::channel(16);
        let mut changes = Changes { receiver, lists: Lists::of(false, true, false), due: Instant::now() };
        let _ = sender.send(Lists::of(true, false, true));
        drop(sender);
        assert_eq!(changes.next().await, None);
    }
}
