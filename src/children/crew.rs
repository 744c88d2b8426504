//! The shared children: those that run from the start, and one of the other era that is started for that era's first
//! client. Also records the eras that the server serves, as far as known.
//!
//! A server that serves both eras runs once per era, so that all clients are served untranslated
//! (`docs/architecture.md#eras`). Where the second process is not allowed or does not start, its clients' requests
//! are translated.
//!
//! Each child serves at a post; the `keeper` fills the post with the next child when it ends.

use super::common_subscription;
use super::guest::Greeted;
use super::places::ChildPlace;
use super::settings::Settings;
use crate::audience::{ListKind, Members, Wish};
use crate::budget::Charged;
use crate::catalogue::lists::{self, Freshness, ListKey, ListRequest};
use crate::catalogue::tools::ToolCache;
use crate::era::capabilities::Capabilities;
use crate::era::probe::Choice;
use crate::era::results::{Hint, Signature};
use crate::era::{Era, discover};
use crate::exchange::Failure;
use crate::exchange::Link;
use crate::identity::Principal;
use crate::ingress::Incoming;
use parking_lot::{Mutex, MutexGuard};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

/// Maximum length of a `serverInfo` that is kept for the server's card.
const LONGEST_INFO: usize = 64 * 1024;

/// A shared child that is ready to serve.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The child.
    pub link: Arc<Link>,
    /// The sessions and subscriptions that share it.
    pub members: Arc<Members>,
    /// The protocol era that it is spoken to in.
    pub era: Era,
    /// Its `InitializeResult` or `DiscoverResult`.
    pub words: Charged,
    /// The `DiscoverResult` for modern clients.
    pub discovered: Charged,
    info: Option<Charged>,
    /// Members that complete a legacy child's results.
    pub(crate) signature: Signature,
    /// The names of its capabilities.
    capabilities: Vec<String>,
    /// Receives requests to subscribe for the legacy sessions of a modern child; see [`common_subscription`].
    wishes: mpsc::Sender<Wish>,
    /// Its tools.
    pub(super) tools: ToolCache,
    /// Its place among `--max-children`, which its successor takes over.
    pub(super) place: ChildPlace,
    /// The renewal that it was started after.
    pub(super) renewal: u64,
}

impl Shared {
    /// Creates a shared child for the post of `members`; `patience` is the timeout of its subscriptions.
    pub(super) fn new(greeted: Greeted, members: Arc<Members>, patience: Duration) -> Arc<Self> {
        let Greeted { link, era, words, place, renewal, .. } = greeted;
        let discovered = match era {
            Era::Legacy => discover::from_initialize(&words, Hint::default()),
            Era::Modern => discover::served(&words),
        };
        let wishes = common_subscription::start(&link, &members, &words, patience);
        let tools = ToolCache::default();
        // Looked up once, since nearly every request needs them.
        let info = discover::server_info(&words).map(|info| words.slice(info));
        let signature = Signature::of(info.as_deref());
        let capabilities = discover::capability_names(&discovered);
        Arc::new(Shared {
            link,
            members,
            era,
            words,
            discovered,
            info,
            signature,
            capabilities,
            wishes,
            tools,
            place,
            renewal,
        })
    }

    /// Takes the post, so that the child serves from now on.
    pub(super) fn serve(self: Arc<Self>) -> Arc<Self> {
        self.members.post.fill(&self.link, Some(self.wishes.clone()));
        self
    }

    /// Subscribes to a modern child's list changes, if it offers that; a legacy child reports them without a request.
    pub(super) async fn hear_of_changes(&self) {
        if self.era == Era::Modern {
            self.members.post.listen(None).await;
        }
    }

    /// Returns how many times the list of a method has changed.
    pub(crate) fn changes(&self, method: &str) -> u64 {
        lists::kind_of(method).map_or(0, |kind| self.members.changes.of(kind))
    }

    /// Describes a request for a list, if this child's lists may be kept.
    pub(crate) fn asks_for_list(
        &self,
        incoming: &Incoming,
        class: Capabilities,
        principal: &Principal,
        settings: &Settings,
    ) -> Option<ListRequest> {
        let method = incoming.method();
        let kind = lists::kind_of(&method);
        let legacy = match (self.era, kind) {
            (Era::Modern, None) if method != "server/discover" => return None,
            (Era::Modern, _) => None,
            (Era::Legacy, None) => return None,
            (Era::Legacy, Some(kind)) => {
                let capability = match kind {
                    ListKind::Tools => "tools",
                    ListKind::Prompts => "prompts",
                    ListKind::Resources => "resources",
                };
                let tells = discover::capabilities_of(&self.words)(capability, "listChanged");
                let until_changed = tells.then_some(Freshness::UntilChanged);
                Some(settings.cache_lists.map(Freshness::For).or(until_changed)?)
            }
        };
        let key = ListKey {
            child: self.link.number(),
            class,
            method: method.into_owned(),
            params: lists::distinguishing(&incoming.frame, &incoming.message)?,
        };
        let changes = self.changes(&key.method);
        let is_private = settings.private_lists;
        Some(ListRequest { key, principal: principal.clone(), changes, legacy, is_private })
    }

    /// Returns a legacy child's `serverInfo`, in raw JSON; a modern child puts its own into every result.
    pub fn server_info(&self) -> Option<&Charged> {
        self.info.as_ref()
    }

    /// Ends every modern client's subscription gracefully.
    pub fn end_listens(&self) {
        self.members.end_listeners(&Failure::ShuttingDown);
    }

    /// Returns whether the child declares a capability.
    pub(crate) fn declares(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|declared| declared == capability)
    }
}

/// All shared children.
#[derive(Debug, Default)]
pub(super) struct Crew {
    from_start: Mutex<Vec<Arc<Shared>>>,
    legacy: Late,
    modern: Late,
    /// The time that the first child took to become ready.
    took: OnceLock<Duration>,
    /// The `serverInfo` of the child that became ready last, in raw JSON.
    info: Mutex<Vec<u8>>,
}

/// The shared child of one era that is started on demand.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// Held while the child is started.
    pub turn: AsyncMutex<()>,
    child: Mutex<Option<Arc<Shared>>>,
    /// Whether the server serves this era, if known.
    serves: Mutex<Option<bool>>,
}

impl Crew {
    /// Creates an empty crew; `choice` is the operator's setting for the server's era.
    pub fn new(choice: Choice) -> Self {
        let crew = Crew::default();
        if choice != Choice::Auto {
            crew.note(Era::Legacy, choice == Choice::Legacy);
            crew.note(Era::Modern, choice == Choice::Modern);
        }
        crew
    }

    /// Returns the running children of both eras.
    pub fn all(&self) -> Vec<Arc<Shared>> {
        let late = [&self.legacy, &self.modern].into_iter().filter_map(|late| late.child().clone());
        self.at_start().iter().cloned().chain(late).collect()
    }

    /// Returns the children that run from the start.
    pub fn at_start(&self) -> MutexGuard<'_, Vec<Arc<Shared>>> {
        self.from_start.lock()
    }

    /// Replaces the child at the same post.
    pub fn succeed(&self, next: &Arc<Shared>) {
        let same_post = |shared: &&mut Arc<Shared>| Arc::ptr_eq(&shared.members, &next.members);
        if let Some(shared) = self.at_start().iter_mut().find(same_post) {
            *shared = Arc::clone(next);
            return;
        }
        for late in [&self.legacy, &self.modern] {
            if let Some(shared) = late.child().as_mut().filter(|shared| same_post(shared)) {
                *shared = Arc::clone(next);
            }
        }
    }

    /// Returns whether a child that runs from the start is serving.
    pub fn is_serving(&self) -> bool {
        self.at_start().iter().any(|shared| !shared.link.is_closed())
    }

    /// Returns whether the server serves an era, if known.
    pub fn serves(&self, era: Era) -> Option<bool> {
        *self.late(era).serves.lock()
    }

    /// Notes whether the server serves an era.
    pub fn note(&self, era: Era, serves: bool) {
        *self.late(era).serves.lock() = Some(serves);
    }

    /// Returns the running child of an era that has the fewest members.
    pub fn open(&self, era: Era) -> Option<Arc<Shared>> {
        let is_open = |shared: &&Arc<Shared>| shared.era == era && !shared.link.is_closed();
        // The usual case.
        if let [only] = &**self.at_start()
            && is_open(&only)
        {
            return Some(Arc::clone(only));
        }
        let all = self.all();
        all.iter().filter(is_open).min_by_key(|shared| shared.members.count()).cloned()
    }

    /// Returns a post of this era that has no child at the moment.
    pub fn vacant(&self, era: Era) -> Option<Arc<Members>> {
        let vacant = self.all().into_iter().find(|shared| shared.era == era && shared.link.is_closed());
        vacant.map(|shared| Arc::clone(&shared.members))
    }

    pub fn late(&self, era: Era) -> &Late {
        match era {
            Era::Legacy => &self.legacy,
            Era::Modern => &self.modern,
        }
    }

    /// Returns the time that the first child took to become ready.
    pub fn took(&self) -> Duration {
        self.took.get().copied().unwrap_or_default()
    }

    /// Returns the `serverInfo` of the child that became ready last, in raw JSON; empty if it is unknown.
    pub fn info(&self) -> Vec<u8> {
        self.info.lock().clone()
    }

    /// Records the time that a child took to become ready, and the eras that it serves.
    pub fn learn(&self, greeted: &Greeted, took: Duration) {
        let _ = self.took.set(took);
        let info = discover::info_of(&greeted.words).map_or(&[][..], |info| &greeted.words[info]);
        *self.info.lock() = if info.len() > LONGEST_INFO { Vec::new() } else { info.to_vec() };
        self.note(greeted.era, true);
        if let Some(serves) = greeted.other {
            self.note(greeted.era.other(), serves);
        }
    }
}

impl Late {
    pub fn child(&self) -> MutexGuard<'_, Option<Arc<Shared>>> {
        self.child.lock()
    }
}
