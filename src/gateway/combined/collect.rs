//! One list of all servers, or of one: asked side by side, read to its end, and bounded. What a server does wrong costs
//! only its own items.

use super::super::directory::Server;
use super::super::directory::Snapshot;
use super::ask::{Ask, Fault, error_of, fault};
use super::kind::{ALL, Kind};
use super::request::Caller;
use super::schema::{Unfit, check};
use crate::era::envelope::Envelope;
use crate::jsonrpc::{Span, codes, items, members, rewrite, string_member, text};
use crate::policy::{Hints, hints_of};
use crate::tasks::{self, Task};
use crate::telemetry::Seldom;
use serde_json::Value;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout_at;

/// Number of servers that are asked at the same time for one list.
const SIDE_BY_SIDE: usize = 16;
/// Maximum time for one list of all servers. Those that have not answered by then have failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Maximum length of one page of a server.
const LONGEST_PAGE: usize = 8 << 20;
/// Maximum number of pages, of items, and of bytes of one list of a server. The rest is left out.
const MOST_PAGES: usize = 100;
const MOST_ITEMS: usize = 5_000;
const MOST_BYTES: usize = 2 << 20;
/// Maximum length of a cursor.
const LONGEST_CURSOR: usize = 16 << 10;
/// Maximum length of a name in the log.
const LONGEST_LOGGED: usize = 128;
/// The longest time for which a list is fresh, in milliseconds: a day. Some clients read no number of 64 bits.
pub(super) const LONGEST_TTL: u64 = 24 * 60 * 60 * 1000;

/// The items of one server.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// The items as clients get them, one behind another.
    pub bytes: Vec<u8>,
    /// Where each item ends.
    pub ends: Vec<usize>,
    /// The URI or the template of each; empty for tools and prompts, whose names are unique.
    pub keys: Vec<String>,
    /// The server's own names, with annotations, if policies decide on them.
    pub things: Vec<(String, Hints)>,
    /// The smallest `ttlMs`.
    pub ttl: u64,
    seen: HashSet<String>,
}

/// The items of each server, in the order of the servers, or why it has none.
pub(super) type Parts = Vec<(Arc<Server>, Result<Part, Fault>)>;

/// What asks the servers in their order, several at a time.
pub(super) struct Asking {
    caller: Caller,
    kind: Kind,
    until: Instant,
    servers: Arc<Snapshot>,
    left: VecDeque<Arc<Server>>,
    running: VecDeque<(Arc<Server>, Running)>,
}

/// A task that ends with its value.
struct Running(Task<Result<Part, Fault>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Asking {
    /// Begins with the server of this name, or behind it.
    pub fn new(caller: &Caller, servers: &Snapshot, kind: Kind, from: &str) -> Self {
        let left = servers.iter().filter(|(segment, _)| ***segment >= *from);
        let left = left.map(|(_, server)| Arc::clone(server)).collect();
        Asking {
            caller: caller.clone(),
            kind,
            until: Instant::now() + PATIENCE,
            servers: Arc::new(servers.clone()),
            left,
            running: VecDeque::new(),
        }
    }

    /// Returns the items of the next server; `None` if there is none.
    pub async fn next(&mut self) -> Option<(Arc<Server>, Result<Part, Fault>)> {
        while self.running.len() < SIDE_BY_SIDE
            && let Some(server) = self.left.pop_front()
        {
            let (caller, servers, kind) = (self.caller.clone(), Arc::clone(&self.servers), self.kind);
            let (asked, until) = (Arc::clone(&server), self.until);
            let reading = tasks::run(async move {
                let patience = caller.state.patience(&asked, until);
                let read = timeout_at(patience.into(), read(&caller, &servers, &asked, kind)).await;
                let late = || {
                    caller.state.note_late(&asked);
                    fault(&asked, "has not listed its items in time")
                };
                read.unwrap_or_else(|_| Err(late()))
            });
            self.running.push_back((server, Running(reading)));
        }
        let (server, mut running) = self.running.pop_front()?;
        let part = (&mut running.0).await.unwrap_or_else(|_| Err(fault(&server, "could not be asked")));
        if let Err(fault) = &part {
            static FAILED: Seldom = Seldom::new();
            if FAILED.is_due() {
                let (server, list) = (&server.about.name, self.kind.method());
                tracing::warn!(server, list, reason = %fault, "a server is missing from a list of all servers; logged at most once a minute");
            }
        }
        Some((server, part))
    }
}

/// Returns a list of all servers.
pub(super) async fn all(caller: &Caller, servers: &Snapshot, kind: Kind) -> Parts {
    let mut asking = Asking::new(caller, servers, kind, "");
    let mut parts = Vec::with_capacity(servers.len());
    while let Some(part) = asking.next().await {
        parts.push(part);
    }
    parts
}

/// Returns the first server with an item whose URI or template is the wanted one.
pub(super) fn found(parts: &Parts, is_wanted: impl Fn(&str) -> bool) -> Option<Arc<Server>> {
    let has = |part: &Result<Part, Fault>| {
        part.as_ref().is_ok_and(|part| part.keys.iter().any(|key| is_wanted(key)))
    };
    parts.iter().find(|(_, part)| has(part)).map(|(server, _)| Arc::clone(server))
}

/// Reads the list of one server to its end. One that does not offer it has no items.
pub(super) async fn read(
    caller: &Caller,
    servers: &Snapshot,
    server: &Arc<Server>,
    kind: Kind,
) -> Result<Part, Fault> {
    let mut part = Part { ttl: u64::MAX, ..Part::default() };
    let mut cursor: Option<String> = None;
    for _ in 0..MOST_PAGES {
        let ask = Ask {
            caller,
            server,
            method: kind.method(),
            named: None,
            params: Vec::new(),
            body: caller.account.hold(request(caller, kind, cursor.as_deref())),
            key: None,
            longest: LONGEST_PAGE,
            legacy: None,
        };
        let (frame, message) = ask.send().await?.answer().await?;
        match error_of(&frame, &message) {
            Some((codes::METHOD_NOT_FOUND, _)) => return Ok(part),
            Some((code, text)) => return Err(fault(server, &format!("answered the error {code}: {text}"))),
            None => {}
        }
        let result = message.result.clone().filter(|result| frame[result.start] == b'{');
        let result = result.ok_or_else(|| fault(server, "answered no list"))?;
        let page = Page::of(&frame, &result);
        let is_full = part.add(caller, servers, server, kind, &page)?;
        let next = page.next.filter(|next| frame[next.start] == b'"' && next.len() <= LONGEST_CURSOR);
        let next = next.map(|next| text(&frame, &next).into_owned());
        if is_full || next.is_none() || next == cursor {
            return Ok(part);
        }
        cursor = next;
    }
    Ok(part)
}

fn request(caller: &Caller, kind: Kind, cursor: Option<&str>) -> Vec<u8> {
    let meta = match &caller.meta {
        Some(meta) => String::from_utf8_lossy(meta).into_owned(),
        None => format!("{{{}}}", Envelope::own().members()),
    };
    let cursor = cursor.map(|cursor| format!(",\"cursor\":{}", Value::from(cursor))).unwrap_or_default();
    let params = format!("{{\"_meta\":{meta}{cursor}}}");
    rewrite::request(b"1", kind.method(), Some(params.as_bytes())).to_vec()
}

impl Part {
    /// Returns the items.
    pub fn items(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| &self.bytes[begin..*end])
    }

    /// Adds a page. Returns whether there is no room for more.
    fn add(
        &mut self,
        caller: &Caller,
        servers: &Snapshot,
        server: &Server,
        kind: Kind,
        page: &Page<'_>,
    ) -> Result<bool, Fault> {
        let frame = page.frame;
        let list = page.of_kind(kind).filter(|list| frame[list.start] == b'[');
        let list = list.ok_or_else(|| fault(server, "answered no list"))?;
        let ttl = page.ttl.clone().and_then(|ttl| std::str::from_utf8(&frame[ttl]).ok()?.parse().ok());
        self.ttl = self.ttl.min(ttl.unwrap_or_default()).min(LONGEST_TTL);
        let state = &caller.state;
        if kind == Kind::Tools {
            state.headers.learn(&server.about.segment, frame, page.result);
        }
        let (mut left_out, mut is_full) = (LeftOut::default(), false);
        for item in items(frame, list) {
            let key = match check(frame, &item, kind) {
                Ok(key) => key,
                Err(unfit) => {
                    left_out.count += 1;
                    left_out.first.get_or_insert_with(|| (name_of(frame, &item, kind), unfit));
                    continue;
                }
            };
            let own = text(frame, &key);
            let shown = match kind {
                Kind::Tools => server.about.tools.shown(&own),
                _ => Some(&*own),
            };
            let Some(shown) = shown else { continue };
            if !self.seen.insert(shown.to_owned()) {
                continue;
            }
            is_full = self.ends.len() == MOST_ITEMS || self.bytes.len() + item.len() > MOST_BYTES;
            if is_full {
                break;
            }
            if caller.guard.is_some() {
                let hints = if kind == Kind::Tools { hints_of(frame, &item) } else { Hints::default() };
                self.things.push((own.clone().into_owned(), hints));
            }
            self.bytes.extend_from_slice(&frame[item.start..key.start]);
            match kind {
                Kind::Tools | Kind::Prompts => {
                    let shown = state.names.shown(servers, server, shown);
                    self.bytes.extend_from_slice(Value::from(&*shown).to_string().as_bytes());
                }
                _ => {
                    self.bytes.extend_from_slice(&frame[key.clone()]);
                    self.keys.push(shown.to_owned());
                }
            }
            self.bytes.extend_from_slice(&frame[key.end..item.end]);
            self.ends.push(self.bytes.len());
        }
        left_out.tell(server, kind);
        Ok(is_full)
    }
}

/// Returns the name of an item for the log.
fn name_of(frame: &[u8], item: &Span, kind: Kind) -> String {
    let mut name = string_member(frame, item, kind.key()).unwrap_or_default().into_owned();
    name.truncate(name.floor_char_boundary(LONGEST_LOGGED));
    name
}

/// The items of a page that clients would refuse.
#[derive(Default)]
struct LeftOut {
    count: usize,
    /// The name of the first one, and why.
    first: Option<(String, Unfit)>,
}

impl LeftOut {
    fn tell(&self, server: &Server, kind: Kind) {
        if let Some((item, reason)) = &self.first
            && server.stats.unfit.is_due()
        {
            let (server, list, count) = (&server.about.name, kind.method(), self.count);
            tracing::warn!(server, list, count, item, %reason, "items that clients would refuse are left out of a list of all servers; this is the first one; logged at most once a minute for each server");
        }
    }
}

/// The members of a page.
struct Page<'a> {
    frame: &'a [u8],
    result: &'a Span,
    lists: [Option<Span>; 4],
    ttl: Option<Span>,
    next: Option<Span>,
}

impl<'a> Page<'a> {
    /// Reads them in one pass, since a page may be long.
    fn of(frame: &'a [u8], result: &'a Span) -> Self {
        let mut page = Page { frame, result, lists: [const { None }; 4], ttl: None, next: None };
        for (key, value) in members(frame, result.clone()) {
            match &*text(frame, &key) {
                "ttlMs" => page.ttl = Some(value),
                "nextCursor" => page.next = Some(value),
                name => {
                    if let Some(at) = ALL.iter().position(|kind| kind.member() == name) {
                        page.lists[at] = Some(value);
                    }
                }
            }
        }
        page
    }

    fn of_kind(&self, kind: Kind) -> Option<Span> {
        self.lists[kind as usize].clone()
    }
}
