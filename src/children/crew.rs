//! The shared children: those that are there from the start, and the one of the other era that is started when that
//! era's first client comes; which eras the operator's server serves, as far as that is known.
//!
//! A server that serves both eras is run once per era, so that clients of both are served untranslated (C0). Where
//! the second process is not allowed or does not start, clients of its era are translated for.
//!
//! Each serves at a post, where the next one follows it when it ends; the `keeper` sees to that.

use super::greet::Greeted;
use super::places::ChildPlace;
use super::union;
use crate::budget::Charged;
use crate::catalogue::lists::{self, Freshness, ListKey, ListRequest};
use crate::catalogue::tools::ToolCache;
use crate::era::capabilities::Capabilities;
use crate::era::probe::Choice;
use crate::era::results::{Hint, Signature};
use crate::era::{Era, discover};
use crate::exchange::Failure;
use crate::exchange::Link;
use crate::ingress::Incoming;
use crate::session::{Kind, Members, Principal, Wish};
use parking_lot::{Mutex, MutexGuard};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

/// A shared child that is ready to serve.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The child.
    pub link: Arc<Link>,
    /// Who shares it.
    pub members: Arc<Members>,
    /// How it is spoken to.
    pub era: Era,
    /// What it says of itself: its `InitializeResult` or `DiscoverResult`.
    pub words: Charged,
    /// The same as the `DiscoverResult` that modern clients are given.
    pub discovered: Charged,
    info: Option<Charged>,
    /// What a legacy child's results are completed with.
    pub(crate) signature: Signature,
    /// The names of its capabilities.
    capabilities: Vec<String>,
    /// What its legacy sessions, if it is modern, want to hear of; see [`union`].
    wishes: mpsc::Sender<Wish>,
    /// Its tools.
    pub(super) tools: ToolCache,
    /// Its place among `--max-children`, which is its successor's too.
    pub(super) place: ChildPlace,
}

impl Shared {
    /// A greeted child for the post of `members`; `patience` is for its subscriptions.
    pub(super) fn new(greeted: Greeted, members: Arc<Members>, patience: Duration) -> Arc<Self> {
        let Greeted { link, era, words, place, .. } = greeted;
        let discovered = match era {
            Era::Legacy => discover::from_initialize(&words, Hint::default()),
            Era::Modern => discover::served(&words),
        };
        let wishes = union::start(&link, &members, &words, patience);
        let tools = ToolCache::default();
        // Looked up once: every answer needs the one, and nearly every request one of the others.
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
        })
    }

    /// From now on it serves at its post.
    pub(super) fn serve(self: Arc<Self>) -> Arc<Self> {
        self.members.post.fill(&self.link, Some(self.wishes.clone()));
        self
    }

    /// Has a modern child tell of changes to its lists, if it can; a legacy one does by itself.
    pub(super) async fn hear_of_changes(&self) {
        if self.era == Era::Modern {
            self.members.post.listen(None).await;
        }
    }

    /// How often the list of a method has changed.
    pub(crate) fn changes(&self, method: &str) -> u64 {
        lists::kind_of(method).map_or(0, |kind| self.members.changes.of(kind))
    }

    /// A request as one whose answer may be kept, if it is for a list, and this child's lists may be kept. `period` is
    /// what the operator says of a legacy child.
    pub(crate) fn asks_for_list(
        &self,
        incoming: &Incoming,
        class: Capabilities,
        principal: &Principal,
        period: Option<Duration>,
    ) -> Option<ListRequest> {
        let method = incoming.method();
        let kind = lists::kind_of(&method);
        let legacy = match (self.era, kind) {
            (Era::Modern, None) if method != "server/discover" => return None,
            (Era::Modern, _) => None,
            (Era::Legacy, None) => return None,
            (Era::Legacy, Some(kind)) => {
                let capability = match kind {
                    Kind::Tools => "tools",
                    Kind::Prompts => "prompts",
                    Kind::Resources => "resources",
                };
                let tells = discover::capabilities_of(&self.words)(capability, "listChanged");
                let until_changed = tells.then_some(Freshness::UntilChanged);
                Some(period.map(Freshness::For).or(until_changed)?)
            }
        };
        let key = ListKey {
            child: self.link.number(),
            class,
            method: method.into_owned(),
            params: lists::distinguishing(&incoming.frame, &incoming.message)?,
        };
        let changes = self.changes(&key.method);
        Some(ListRequest { key, principal: principal.clone(), changes, legacy })
    }

    /// A legacy child's `serverInfo`, in raw JSON; a modern one puts its own into every result.
    pub fn server_info(&self) -> Option<&Charged> {
        self.info.as_ref()
    }

    /// Ends every modern client's subscription gracefully.
    pub fn end_listens(&self) {
        self.members.end_listeners(&Failure::ShuttingDown);
    }

    /// Whether it declares a capability.
    pub(crate) fn declares(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|declared| declared == capability)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Crew {
    from_start: Mutex<Vec<Arc<Shared>>>,
    legacy: Late,
    modern: Late,
    /// How long the first child took to be ready.
    took: OnceLock<Duration>,
}

/// The shared child of one era that is started when it is needed.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// Held by whoever starts it.
    pub turn: AsyncMutex<()>,
    child: Mutex<Option<Arc<Shared>>>,
    /// Whether the server serves this era, if that is known.
    serves: Mutex<Option<bool>>,
}

impl Crew {
    /// None yet, of a server of which the operator says this.
    pub fn new(choice: Choice) -> Self {
        let crew = Crew::default();
        if choice != Choice::Auto {
            crew.note(Era::Legacy, choice == Choice::Legacy);
            crew.note(Era::Modern, choice == Choice::Modern);
        }
        crew
    }

    /// Those that run, of both eras.
    pub fn all(&self) -> Vec<Arc<Shared>> {
        let late = [&self.legacy, &self.modern].into_iter().filter_map(|late| late.child().clone());
        self.at_start().iter().cloned().chain(late).collect()
    }

    /// Those that are there from the start.
    pub fn at_start(&self) -> MutexGuard<'_, Vec<Arc<Shared>>> {
        self.from_start.lock()
    }

    /// Puts a child where its predecessor at the same post was.
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

    /// Whether one of those that are there from the start serves.
    pub fn is_serving(&self) -> bool {
        self.at_start().iter().any(|shared| !shared.link.is_closed())
    }

    /// Whether the server serves an era, if that is known.
    pub fn serves(&self, era: Era) -> Option<bool> {
        *self.late(era).serves.lock()
    }

    /// What was found out.
    pub fn note(&self, era: Era, serves: bool) {
        *self.late(era).serves.lock() = Some(serves);
    }

    /// The running child of an era that the fewest share.
    pub fn open(&self, era: Era) -> Option<Arc<Shared>> {
        let is_open = |shared: &&Arc<Shared>| shared.era == era && !shared.link.is_closed();
        // As it nearly always is.
        if let [only] = &**self.at_start()
            && is_open(&only)
        {
            return Some(Arc::clone(only));
        }
        let all = self.all();
        all.iter().filter(is_open).min_by_key(|shared| shared.members.count()).cloned()
    }

    /// A post of this era that has no child at the moment.
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

    /// How long the first child took to be ready.
    pub fn took(&self) -> Duration {
        self.took.get().copied().unwrap_or_default()
    }

    /// A child was ready after so long.
    pub fn learn(&self, greeted: &Greeted, took: Duration) {
        let _ = self.took.set(took);
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
