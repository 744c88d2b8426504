//! The shared children: those that are there from the start, and the one of the other era that is started when that
//! era's first client comes; which eras the operator's server serves, as far as that is known.
//!
//! A server that serves both eras is run once per era, so that clients of both are served untranslated (C0). Where
//! the second process is not allowed or does not start, clients of its era are translated for.

use super::greet::{Greeted, Guest};
use super::lists::{self, Asked, Freshness, Key};
use super::tools::Catalogue;
use super::{Incoming, Isolation, MOST_LISTENS, Refusal, Upstream, listen, now, union};
use crate::era::capabilities::Capabilities;
use crate::era::probe::Choice;
use crate::era::results::{Hint, Signature};
use crate::era::{Era, discover};
use crate::exchange::{End, Failure, Link};
use crate::phase::Phase;
use crate::session::{Audience, Kind, Members, Principal, Wish};
use bytes::Bytes;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::timeout;

/// A shared child that is ready to serve.
#[derive(Debug)]
pub struct Shared {
    /// The child.
    pub link: Arc<Link>,
    /// Who shares it.
    pub members: Arc<Members>,
    /// How it is spoken to.
    pub era: Era,
    /// What it says of itself: its `InitializeResult` or `DiscoverResult`.
    pub words: Bytes,
    /// The same as the `DiscoverResult` that modern clients are given.
    pub discovered: Bytes,
    info: Option<Bytes>,
    /// What a legacy child's results are completed with.
    pub(super) signature: Signature,
    /// The names of its capabilities.
    capabilities: Vec<String>,
    /// What its legacy sessions, if it is modern, want to hear of; see [`union`].
    pub(super) wishes: mpsc::Sender<Wish>,
    /// Its tools.
    pub(super) catalogue: Catalogue,
}

impl Shared {
    /// A greeted child; `patience` is for its subscriptions.
    pub(super) fn new(greeted: Greeted, members: Arc<Members>, patience: Duration) -> Arc<Self> {
        let Greeted { link, era, words, .. } = greeted;
        let discovered = match era {
            Era::Legacy => discover::from_initialize(&words, Hint::default()),
            Era::Modern => discover::served(&words),
        };
        let wishes = union::start(&link, &members, &words, patience);
        let catalogue = Catalogue::default();
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
            catalogue,
        })
    }

    /// Has a modern child tell of changes to its lists, if it can; a legacy one does by itself.
    pub(super) async fn hear_of_changes(&self) {
        if self.era == Era::Modern {
            let (reply, covered) = oneshot::channel();
            if self.wishes.send(Wish { also: None, reply }).await.is_ok() {
                let _ = covered.await;
            }
        }
    }

    /// How often the list of a method has changed.
    pub(super) fn changes(&self, method: &str) -> u64 {
        lists::kind_of(method).map_or(0, |kind| self.members.changes.of(kind))
    }

    /// A request as one whose answer may be kept, if it is for a list, and this child's lists may be kept. `period` is
    /// what the operator says of a legacy child.
    pub(super) fn asks_for_list(
        &self,
        incoming: &Incoming,
        class: Capabilities,
        principal: &Principal,
        period: Option<Duration>,
    ) -> Option<Asked> {
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
        let key = Key {
            child: self.link.number(),
            class,
            method: method.into_owned(),
            params: lists::distinguishing(&incoming.frame, &incoming.message)?,
        };
        let changes = self.changes(&key.method);
        Some(Asked { key, principal: principal.clone(), changes, legacy })
    }

    /// Its union subscription may have to cover something else.
    pub(super) fn refresh_union(&self) {
        let (reply, _) = oneshot::channel();
        // When there is no room, another wish that waits has the same effect.
        let _ = self.wishes.try_send(Wish { also: None, reply });
    }

    /// A legacy child's `serverInfo`, in raw JSON; a modern one puts its own into every result.
    pub fn server_info(&self) -> Option<&[u8]> {
        self.info.as_deref()
    }

    /// Whether it declares a capability.
    pub(super) fn declares(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|declared| declared == capability)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Crew {
    from_start: OnceLock<Vec<Arc<Shared>>>,
    legacy: Late,
    modern: Late,
    /// How long the first child took to be ready.
    took: OnceLock<Duration>,
}

/// The shared child of one era that is started when it is needed.
#[derive(Debug, Default)]
struct Late {
    /// Held by whoever starts it.
    turn: AsyncMutex<()>,
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
        self.from_start.get().into_iter().flatten().cloned().chain(late).collect()
    }

    /// Whether the server serves an era, if that is known.
    pub fn serves(&self, era: Era) -> Option<bool> {
        *self.late(era).serves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found out.
    pub fn note(&self, era: Era, serves: bool) {
        *self.late(era).serves.lock().unwrap_or_else(PoisonError::into_inner) = Some(serves);
    }

    /// The running child of an era that the fewest share.
    fn open(&self, era: Era) -> Option<Arc<Shared>> {
        let is_open = |shared: &&Arc<Shared>| shared.era == era && !shared.link.is_closed();
        match self.from_start.get().map(Vec::as_slice) {
            // As it nearly always is.
            Some([only]) if is_open(&only) => return Some(Arc::clone(only)),
            _ => {}
        }
        let all = self.all();
        all.iter().filter(is_open).min_by_key(|shared| shared.members.count()).cloned()
    }

    fn late(&self, era: Era) -> &Late {
        match era {
            Era::Legacy => &self.legacy,
            Era::Modern => &self.modern,
        }
    }

    fn took(&self) -> Duration {
        self.took.get().copied().unwrap_or_default()
    }

    fn learn(&self, greeted: &Greeted) {
        self.note(greeted.era, true);
        if let Some(serves) = greeted.other {
            self.note(greeted.era.other(), serves);
        }
    }
}

impl Late {
    fn child(&self) -> MutexGuard<'_, Option<Arc<Shared>>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upstream {
    /// Starts the shared children, or in `session` mode one that is only to show that it starts.
    ///
    /// # Errors
    /// When one can't be started or doesn't complete its handshake.
    pub async fn start(self: &Arc<Self>) -> Result<(), Failure> {
        let started = match self.settings.isolation {
            Isolation::Session => self.try_one().await.map(|()| Vec::new()),
            _ => self.start_shared().await,
        };
        match started {
            Ok(shared) => {
                let _ = self.crew.from_start.set(shared);
                self.phase.send_replace(Phase::Ready);
                self.keep_warm();
                Ok(())
            }
            Err(failure) => {
                self.phase.send_replace(Phase::Failed(failure.to_string()));
                Err(failure)
            }
        }
    }

    async fn start_shared(&self) -> Result<Vec<Arc<Shared>>, Failure> {
        // All places are taken first: an exclusive child must not get one of them while the first child still starts.
        let mut places = Vec::with_capacity(self.settings.children);
        for _ in 0..self.settings.children {
            places.push(self.place_at_start().await?);
        }
        let mut choice = self.settings.child_era;
        let mut shared = Vec::with_capacity(places.len());
        for place in places {
            let child = self.raise(choice, self.start_timeout, place).await?;
            // What the first one was found to be, the others are.
            choice = Choice::from(child.era);
            shared.push(child);
        }
        Ok(shared)
    }

    async fn try_one(&self) -> Result<(), Failure> {
        let place = self.place_at_start().await?;
        let guest = Guest::shared(Audience::Nobody, 16, self.settings.child_era, self.start_timeout);
        let begun = now();
        let greeted = self.greet(guest, place).await?;
        let _ = self.crew.took.set(now() - begun);
        self.crew.learn(&greeted);
        greeted.link.stop();
        Ok(())
    }

    async fn place_at_start(&self) -> Result<OwnedSemaphorePermit, Failure> {
        Arc::clone(&self.places).acquire_owned().await.map_err(|_| Failure::ShuttingDown)
    }

    /// Starts a shared child.
    pub(super) async fn raise(
        &self,
        choice: Choice,
        patience: Duration,
        place: OwnedSemaphorePermit,
    ) -> Result<Arc<Shared>, Failure> {
        let members = Arc::new(Members::default());
        // A modern child's subscriptions are requests too.
        let slots = self.settings.max_in_flight + 2 * MOST_LISTENS;
        let guest = Guest::shared(Audience::Shared(Arc::clone(&members)), slots, choice, patience);
        let begun = now();
        let greeted = self.greet(guest, place).await?;
        let _ = self.crew.took.set(now() - begun);
        self.crew.learn(&greeted);
        Ok(Shared::new(greeted, members, self.settings.request_timeout))
    }

    /// Resolves with the first shared child that ends, of those that are there from the start.
    pub async fn shared_ended(&self) -> End {
        let mut ends = tokio::task::JoinSet::new();
        for child in self.crew.from_start.get().into_iter().flatten() {
            let link = Arc::clone(&child.link);
            ends.spawn(async move { link.ended().await });
        }
        match ends.join_next().await {
            Some(Ok(end)) => {
                self.phase.send_replace(Phase::Failed(end.to_string()));
                end
            }
            // No shared child: nothing to wait for.
            _ => std::future::pending().await,
        }
    }

    pub(super) async fn until_ready(&self) -> Result<(), Refusal> {
        if *self.phase.borrow() != Phase::Starting {
            return Ok(());
        }
        let mut phase = self.phase.subscribe();
        let ready = timeout(self.start_timeout, phase.wait_for(|phase| *phase != Phase::Starting)).await;
        if matches!(ready, Ok(Ok(_))) { Ok(()) } else { Err(Refusal::Busy("the server is still starting")) }
    }

    /// The shared child for clients of an era, once it is ready: one of their own era if the server serves that, else
    /// one that is translated for.
    pub(super) async fn shared(&self, client: Era) -> Result<Arc<Shared>, Refusal> {
        self.until_ready().await?;
        if let Some(shared) = self.crew.open(client) {
            return Ok(shared);
        }
        let other = self.crew.open(client.other());
        if other.is_none() && self.settings.isolation != Isolation::Session {
            return Err(Refusal::Busy("the server has ended"));
        }
        if self.crew.serves(client) != Some(false) {
            match self.start_late(client).await {
                Ok(started) => return Ok(started),
                Err(refusal) if other.is_none() && self.crew.serves(client.other()) != Some(true) => {
                    return Err(refusal);
                }
                Err(_) => {}
            }
        }
        match other {
            Some(other) => Ok(other),
            None => self.start_late(client.other()).await,
        }
    }

    /// The child of an era that nobody needed until now.
    async fn start_late(&self, era: Era) -> Result<Arc<Shared>, Refusal> {
        let late = self.crew.late(era);
        let _turn = late.turn.lock().await;
        if let Some(shared) = self.crew.open(era) {
            return Ok(shared);
        }
        let unserved = Refusal::Busy("the server does not serve this protocol era");
        if self.crew.serves(era) == Some(false) {
            return Err(unserved);
        }
        let place = self.place().await.ok_or(Refusal::Busy("--max-children servers run already"))?;
        let known = self.crew.serves(era) == Some(true);
        tracing::info!(
            "the first client of the {era} protocol era: starting the server once more, for that era"
        );
        match self.raise(Choice::from(era), self.patience_for(known), place).await {
            Ok(shared) => {
                *late.child() = Some(Arc::clone(&shared));
                Ok(shared)
            }
            Err(failure @ Failure::ShuttingDown) => Err(Refusal::Failed(failure)),
            Err(failure) if known => Err(Refusal::Failed(failure)),
            Err(failure) => {
                tracing::info!("{failure}: it is translated for clients of the {era} protocol era");
                self.crew.note(era, false);
                Err(unserved)
            }
        }
    }

    /// How long a child may take to start that may turn out not to serve its era: what the first one took, with room.
    pub(super) fn patience_for(&self, known: bool) -> Duration {
        if known {
            return self.start_timeout;
        }
        self.start_timeout.min(self.crew.took() * 2 + self.settings.probe_timeout)
    }

    /// Ends the subscriptions of modern clients: proxyrunner ends.
    pub fn end_listens(&self) {
        self.crew.all().iter().for_each(|shared| listen::end_all(shared));
    }
}
