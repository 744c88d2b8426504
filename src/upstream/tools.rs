//! What proxyrunner itself must know of a child's tools: which parameters a client repeats in headers, and which tools
//! run as tasks only. Read from the child's own `tools/list` when the first call needs it, and again after a change.

use super::greet::own_request;
use super::{Shared, Upstream};
use crate::era::Era;
use crate::era::headers::HeaderParams;
use crate::exchange::{Answer, Link};
use crate::jsonrpc::{Spliced, items, member, rewrite, string_member};
use crate::mux::WireId;
use crate::session::Kind;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::timeout;

/// Pages of a list that are read.
const MOST_PAGES: usize = 64;
/// How long a child may take for one of them.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a call waits for the list; then it goes on unchecked.
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
}

/// What is known of the tools of one kind of child.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    known: Mutex<Option<Known>>,
    /// Held by whoever reads the list.
    turn: AsyncMutex<()>,
}

#[derive(Clone, Debug)]
struct Known {
    tools: Arc<Tools>,
    /// How many changes there had been.
    changes: u64,
    /// Set if the list could not be read.
    until: Option<Instant>,
}

impl Catalogue {
    fn known(&self, changes: u64) -> Option<Arc<Tools>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let good = |known: &&Known| {
            known.changes == changes && known.until.is_none_or(|until| Instant::now() < until)
        };
        known.as_ref().filter(good).map(|known| Arc::clone(&known.tools))
    }

    fn learn(&self, known: Known) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }
}

impl Upstream {
    /// The tools of the child at `link`, which is `shared` or like it; `None` if they can't be known in time.
    pub(super) async fn tools(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        link: &Arc<Link>,
    ) -> Option<Arc<Tools>> {
        let leased = !Arc::ptr_eq(link, &shared.link);
        let changes = shared.members.changes(Kind::Tools);
        if let Some(tools) = shared.catalogue(leased).known(changes) {
            return Some(tools);
        }
        let (upstream, shared, link) = (Arc::clone(self), Arc::clone(shared), Arc::clone(link));
        // Goes on if this call gives up: the next one needs it too.
        let reading = tokio::spawn(async move {
            let catalogue = shared.catalogue(leased);
            let _turn = catalogue.turn.lock().await;
            shared.hear_of_changes().await;
            let changes = shared.members.changes(Kind::Tools);
            if let Some(tools) = catalogue.known(changes) {
                return tools;
            }
            let read = upstream.read_tools(&link, shared.era).await;
            let until = read.is_none().then(|| Instant::now() + RETRY);
            let tools = Arc::new(read.unwrap_or_default());
            catalogue.learn(Known { tools: Arc::clone(&tools), changes, until });
            tools
        });
        timeout(CALL_PATIENCE, reading).await.ok()?.ok()
    }

    async fn read_tools(&self, link: &Link, era: Era) -> Option<Tools> {
        let mut tools = Tools::default();
        let mut cursor = None;
        for _ in 0..MOST_PAGES {
            let write = |wire_id| list(wire_id, era, cursor.as_deref());
            let answer = self.ask(link, PATIENCE, write).await.ok()?.ok()?;
            cursor = tools.add(&answer)?;
            if cursor.is_none() {
                break;
            }
        }
        Some(tools)
    }
}

fn list(wire_id: WireId, era: Era, cursor: Option<&str>) -> Spliced {
    let cursor = cursor.map(|cursor| format!("\"cursor\":{}", Value::from(cursor))).unwrap_or_default();
    if era == Era::Modern {
        return own_request(wire_id, "tools/list", &cursor);
    }
    let id = wire_id.as_u64().to_string();
    let params = format!("{{{cursor}}}");
    Spliced::from(rewrite::request(id.as_bytes(), "tools/list", Some(params.as_bytes())))
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
            {
                self.tasks.insert(name.into_owned());
            }
        }
        Some(string_member(frame, result, "nextCursor").map(std::borrow::Cow::into_owned))
    }
}
