//! The data about a child's tools that proxyrunner itself needs: the parameters that a client repeats in headers, and
//! the tools that run as tasks only. They are read from the child's own `tools/list` when the first call needs them,
//! and again after a change.

use super::pages::{self, MOST_PAGES, PATIENCE, next_cursor};
use crate::clock::now;
use crate::era::Era;
use crate::era::headers::HeaderParams;
use crate::exchange::{Answer, Link};
use crate::inquiry;
use crate::jsonrpc::{LONGEST_NAME, Span, items, member, string_member};
use crate::policy::{Hints, hints_of};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout_at;

/// Maximum number of tools remembered per child.
const MOST_TOOLS: usize = 4_096;
/// Maximum time that calls wait for the list while it is being read; then calls without `Mcp-Param` headers continue.
pub(crate) const CALL_PATIENCE: Duration = Duration::from_secs(2);
/// Delay after a failure before the list is read again.
const RETRY: Duration = Duration::from_secs(30);

/// A child's tools.
#[derive(Debug, Default)]
pub(crate) struct Tools {
    /// The parameters that are repeated in headers.
    pub headers: HeaderParams,
    /// The tools that a legacy child runs as tasks only.
    pub tasks: HashSet<String>,
    /// The annotations of the tools that have any, for policies.
    hints: HashMap<String, Hints>,
    /// Whether there are more tools with annotations than are read or remembered.
    has_more: bool,
    /// Whether the child did not list its tools in time, so that nothing is known about them.
    pub are_unread: bool,
}

/// The remembered tools of one child.
#[derive(Debug, Default)]
pub(crate) struct ToolCache(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    read: Option<ReadTools>,
    reading: Option<Reading>,
}

#[derive(Debug)]
struct ReadTools {
    tools: Arc<Tools>,
    /// The number of changes when the list was read.
    changes: u64,
    /// The time of the next attempt, if the list could not be read.
    until: Option<Instant>,
}

/// A read of the list by one task for all calls.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// The end of the time that calls wait.
    until: Instant,
    /// Closed when the task is done.
    over: watch::Receiver<()>,
}

impl Reading {
    /// Waits until the list is read, at most as long as calls wait.
    pub async fn over(mut self) {
        // An error means that the task is done.
        let _ = timeout_at(self.until.into(), self.over.changed()).await;
    }
}

/// The state of the cache as a call finds it.
pub(crate) enum Found {
    /// The list has been read.
    Read(Arc<Tools>),
    /// Another call is reading the list.
    Awaited(Reading),
    /// The caller has to read the list, and drops the sender when it is done.
    Unknown(Reading, watch::Sender<()>),
}

impl ToolCache {
    /// Looks up the tools; `changes` is the current number of changes.
    pub fn look(&self, changes: u64) -> Found {
        let now = now();
        let mut state = self.state();
        if let Some(tools) = state.tools(changes, now) {
            return Found::Read(tools);
        }
        if let Some(reading) = state.reading.as_ref().filter(|reading| reading.over.has_changed().is_ok()) {
            return Found::Awaited(reading.clone());
        }
        let (sender, over) = watch::channel(());
        let reading = Reading { until: now + CALL_PATIENCE, over };
        state.reading = Some(reading.clone());
        Found::Unknown(reading, sender)
    }

    /// Returns the tools if they were read after the last of `changes` changes.
    pub fn tools(&self, changes: u64) -> Option<Arc<Tools>> {
        self.state().tools(changes, now())
    }

    /// Stores the tools as of `changes` changes; `None` if they could not be read.
    pub fn put(&self, read: Option<Tools>, changes: u64) {
        let until = read.is_none().then(|| now() + RETRY);
        let tools = read.unwrap_or_else(|| Tools { are_unread: true, ..Tools::default() });
        self.state().read = Some(ReadTools { tools: Arc::new(tools), changes, until });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    fn tools(&self, changes: u64, now: Instant) -> Option<Arc<Tools>> {
        let good = |read: &&ReadTools| read.changes == changes && read.until.is_none_or(|until| now < until);
        self.read.as_ref().filter(good).map(|read| Arc::clone(&read.tools))
    }
}

/// Reads a child's list of tools; `None` if it cannot be read.
pub(crate) async fn read(link: &Link, era: Era) -> Option<Tools> {
    let mut tools = Tools::default();
    let mut cursor = None;
    for _ in 0..MOST_PAGES {
        let write = |wire_id| pages::request(wire_id, era, "tools/list", cursor.as_deref());
        let answer = inquiry::ask(link, "tools/list", PATIENCE, write).await.ok()?.ok()?;
        cursor = tools.add(&answer)?;
        if cursor.is_none() {
            break;
        }
    }
    tools.has_more |= cursor.is_some();
    Some(tools)
}

impl Tools {
    /// Returns the annotations of a tool; `None` if they are not known.
    pub fn hints(&self, tool: &str) -> Option<Hints> {
        match self.hints.get(tool) {
            Some(hints) => Some(*hints),
            None => (!self.are_unread && !self.has_more).then(Hints::default),
        }
    }

    /// Adds a page. Returns the cursor of the next page, if there is one; `None` if the answer is no page.
    fn add(&mut self, answer: &Answer) -> Option<Option<String>> {
        let (frame, result) = (&answer.frame, answer.result.as_ref()?);
        self.headers.add_page(frame, result);
        for tool in member(frame, result, "tools").into_iter().flat_map(|tools| items(frame, tools)) {
            self.note_hints(frame, &tool);
            let execution = member(frame, &tool, "execution");
            let support = execution.and_then(|execution| string_member(frame, &execution, "taskSupport"));
            if let (Some("required"), Some(name)) = (support.as_deref(), string_member(frame, &tool, "name"))
                && name.len() <= LONGEST_NAME
                && self.tasks.len() < MOST_TOOLS
            {
                self.tasks.insert(name.into_owned());
            }
        }
        Some(next_cursor(frame, result))
    }

    fn note_hints(&mut self, frame: &[u8], tool: &Span) {
        let hints = hints_of(frame, tool);
        let name = string_member(frame, tool, "name").filter(|name| name.len() <= LONGEST_NAME);
        let Some(name) = name.filter(|_| !hints.is_empty()) else { return };
        if self.hints.len() < MOST_TOOLS {
            self.hints.insert(name.into_owned(), hints);
        } else {
            self.has_more = true;
        }
    }
}
