//! What proxyrunner itself must know of a child's tools: which parameters a client repeats in headers, and which tools
//! run as tasks only. Read from the child's own `tools/list` when the first call needs it, and again after a change.

use super::lease::Leasable;
use super::names::{MOST_PAGES, PATIENCE, list, next_cursor};
use super::{Shared, Upstream, now};
use crate::audience::ListKind;
use crate::era::Era;
use crate::era::headers::HeaderParams;
use crate::exchange::{Answer, Link};
use crate::jsonrpc::{LONGEST_NAME, items, member, string_member};
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{timeout, timeout_at};

/// Tools that are remembered of one child.
const MOST_TOOLS: usize = 4_096;
/// How long calls wait for the list once it is being read; then those without `Mcp-Param` headers go on.
const CALL_PATIENCE: Duration = Duration::from_secs(2);
/// After what time a list that could not be read is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// A child's tools.
#[derive(Debug, Default)]
pub(super) struct Tools {
    /// The parameters that are repeated in headers.
    pub headers: HeaderParams,
    /// Those that a legacy child runs as tasks only.
    pub tasks: HashSet<String>,
    /// The child did not list its tools in time, so nothing is known about them.
    pub are_unread: bool,
}

/// What is known of one child's tools.
#[derive(Debug, Default)]
pub(super) struct Catalogue(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    known: Option<Known>,
    reading: Option<Reading>,
}

#[derive(Debug)]
struct Known {
    tools: Arc<Tools>,
    /// How many changes there had been.
    changes: u64,
    /// Set if the list could not be read.
    until: Option<Instant>,
}

/// The list is being read; one reads it for all.
#[derive(Clone, Debug)]
struct Reading {
    /// Until when calls wait for that.
    until: Instant,
    /// Closed when it is over.
    over: watch::Receiver<()>,
}

/// What a call finds.
enum Found {
    Known(Arc<Tools>),
    Awaited(Reading),
    /// It is to be read; dropping the sender says that this is over.
    Unknown(Reading, watch::Sender<()>),
}

impl Catalogue {
    fn look(&self, changes: u64, now: Instant) -> Found {
        let mut state = self.state();
        if let Some(tools) = state.known(changes, now) {
            return Found::Known(tools);
        }
        if let Some(reading) = state.reading.as_ref().filter(|reading| reading.over.has_changed().is_ok()) {
            return Found::Awaited(reading.clone());
        }
        let (sender, over) = watch::channel(());
        let reading = Reading { until: now + CALL_PATIENCE, over };
        state.reading = Some(reading.clone());
        Found::Unknown(reading, sender)
    }

    fn known(&self, changes: u64) -> Option<Arc<Tools>> {
        self.state().known(changes, now())
    }

    fn learn(&self, known: Known) {
        self.state().known = Some(known);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    fn known(&self, changes: u64, now: Instant) -> Option<Arc<Tools>> {
        let good = |known: &&Known| known.changes == changes && known.until.is_none_or(|until| now < until);
        self.known.as_ref().filter(good).map(|known| Arc::clone(&known.tools))
    }
}

/// A child whose tools matter to a call.
#[derive(Clone, Debug)]
pub(super) enum Whose {
    /// The one that the call shares.
    Shared(Arc<Shared>),
    /// The one that it has for itself.
    Leased(Leasable),
}

impl Whose {
    fn catalogue(&self) -> &Catalogue {
        match self {
            Whose::Shared(shared) => &shared.catalogue,
            Whose::Leased(child) => &child.catalogue,
        }
    }

    fn changes(&self) -> u64 {
        match self {
            Whose::Shared(shared) => shared.members.changes.of(ListKind::Tools),
            Whose::Leased(child) => child.holder.changes.of(ListKind::Tools),
        }
    }

    /// What is known already.
    pub fn known_tools(&self) -> Option<Arc<Tools>> {
        self.catalogue().known(self.changes())
    }
}

impl Upstream {
    /// The tools of a child; `None` if they can't be known in time.
    pub(super) async fn tools(self: &Arc<Self>, whose: Whose) -> Option<Arc<Tools>> {
        let mut reading = match whose.catalogue().look(whose.changes(), now()) {
            Found::Known(tools) => return Some(tools),
            Found::Awaited(reading) => reading,
            Found::Unknown(reading, over) => {
                // Goes on if this call gives up: the next one needs it too.
                tokio::spawn(Arc::clone(self).learn_tools(whose.clone(), over));
                reading
            }
        };
        // An error says that it is over.
        let _ = timeout_at(reading.until.into(), reading.over.changed()).await;
        whose.known_tools()
    }

    async fn learn_tools(self: Arc<Self>, whose: Whose, _over: watch::Sender<()>) {
        let (link, era) = match &whose {
            Whose::Shared(shared) => {
                // One that does not agree in time is read all the same.
                let _ = timeout(CALL_PATIENCE / 2, shared.hear_of_changes()).await;
                (&shared.link, shared.era)
            }
            Whose::Leased(child) => (&child.link, child.era),
        };
        let changes = whose.changes();
        let read = self.read_tools(link, era).await;
        let until = read.is_none().then(|| now() + RETRY);
        let tools = read.unwrap_or_else(|| Tools { are_unread: true, ..Tools::default() });
        whose.catalogue().learn(Known { tools: Arc::new(tools), changes, until });
    }

    async fn read_tools(&self, link: &Link, era: Era) -> Option<Tools> {
        let mut tools = Tools::default();
        let mut cursor = None;
        for _ in 0..MOST_PAGES {
            let write = |wire_id| list(wire_id, era, "tools/list", cursor.as_deref());
            let answer = self.ask(link, "tools/list", PATIENCE, write).await.ok()?.ok()?;
            cursor = tools.add(&answer)?;
            if cursor.is_none() {
                break;
            }
        }
        Some(tools)
    }
}

impl Tools {
    /// Adds a page; the cursor of the next one, if there is one. `None` if it is no page.
    fn add(&mut self, answer: &Answer) -> Option<Option<String>> {
        let (frame, result) = (&answer.frame, answer.result.as_ref()?);
        self.headers.add_page(frame, result);
        for tool in member(frame, result, "tools").into_iter().flat_map(|tools| items(frame, tools)) {
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
}
