//! The children, and the selection of the child that serves a request.
//!
//! | files | subject |
//! | --- | --- |
//! | `guest`, `greet`, `greeting`, `initialize`, `revisions` | starting a child, detecting its era, the handshake |
//! | `crew`, `keeper` | the shared children, and their replacement when they exit |
//! | `find_shared`, `seating` | the shared child for a request or a session |
//! | `subscriptions`, `common_subscription` | subscriptions of all sessions at a shared child |
//! | `exclusive`, `handshake`, `resume` | a session's own child, its handshake and its replacement |
//! | `lease`, `pool` | a child for one exchange only |
//! | `places`, `eviction` | `--max-children`: who holds a place, and who gives one up |
//! | `renewal`, `renewals` | replacing every child without losing a call |
//! | `health`, `pings`, `single_instance` | hung children, servers without pings, servers that run only once |
//! | `settings`, `slots`, `tools` | settings, the size of a child's slot table, what calls know about tools |
//!
//! This module never starts a process itself: it sends a [`Want`] to the supervisor. It does not depend on calls,
//! which use it.

mod common_subscription;
mod crew;
mod eviction;
mod exclusive;
mod find_shared;
mod greet;
mod greeting;
mod guest;
mod handshake;
mod health;
mod initialize;
mod keeper;
mod lease;
mod pings;
mod places;
mod pool;
mod renewal;
mod renewals;
mod resume;
mod revisions;
mod seating;
mod settings;
mod single_instance;
mod slots;
mod subscriptions;
mod tools;

pub(crate) use crew::Shared;
pub(crate) use handshake::await_initialized;
pub use places::ChildPlace;
pub(crate) use pool::{Lease, Owner};
pub use settings::{AtCap, Isolation, Settings};
pub(crate) use subscriptions::WATCHES_ENOUGH;
pub(crate) use tools::{OwnChanges, ToolSource};

use crate::audience::{Audience, Members};
use crate::child::StartError;
use crate::era::Era;
use crate::exchange::{Failure, Link};
use crate::identity::{Identity, Variables};
use crate::ingress::{Entrance, Refusal};
use crate::jsonrpc::codes;
use crate::phase::Phase;
use crate::session::{Directory, Session};
use crew::Crew;
use parking_lot::Mutex;
use pings::Pings;
use places::ChildPlaces;
use pool::Pool;
use renewals::Renewals;
use revisions::KnownRevisions;
use single_instance::SingleInstance;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tools::{OwnCaches, OwnTools};

/// The message for a request while no child is running.
pub(crate) const RESTARTING: &str = "the server exited and is being restarted";

/// The refusal of a second `initialize` in a session.
const SEATED: Refusal = Refusal::Withheld(codes::INVALID_REQUEST, "the session is already initialized");

/// A request for a child, for the supervisor.
#[derive(Debug)]
pub struct Want {
    /// The audience of the child's messages.
    pub audience: Audience,
    /// Maximum number of requests in flight at the child.
    pub slots: usize,
    /// What the child learns about its only caller (`--child-identity env`).
    pub variables: Option<Variables>,
    /// Its place among `--max-children`, to be held until the process is gone.
    pub place: ChildPlace,
    /// Receives the started child.
    pub reply: oneshot::Sender<Result<Arc<Link>, StartError>>,
}

/// All children of this process.
#[derive(Debug)]
pub(crate) struct Children {
    /// The operator's settings.
    settings: Settings,
    /// `--start-timeout`: maximum time for a child to start and to complete its handshake.
    start_timeout: Duration,
    /// The legacy sessions, which end with their children.
    directory: Arc<Directory>,
    /// The queues in which handshakes wait, like every request of a client.
    entrance: Arc<Entrance>,
    /// Sends requests for a child to the supervisor.
    wants: mpsc::Sender<Want>,
    /// The `--max-children` places.
    places: ChildPlaces,
    /// Locked while room is made for another child.
    making_room: Mutex<()>,
    /// The shared children.
    crew: Crew,
    /// The legacy revisions that the server accepts.
    revisions: KnownRevisions,
    /// Whether the server runs only once.
    single_instance: SingleInstance,
    /// The sessions that have an exclusive child.
    exclusive: Mutex<Vec<Weak<Session>>>,
    /// What is remembered of the tools of children that have one session each.
    own_caches: OwnCaches,
    /// The children that are not leased at the moment.
    pool: Arc<Pool>,
    /// The changes of the child's environment that make every child be replaced.
    renewals: Arc<Renewals>,
    /// Whether the server answers pings.
    pings: Pings,
    /// The phase that probes see.
    phase: watch::Sender<Phase>,
    /// Set when proxyrunner shuts down: children are no longer replaced.
    closed: AtomicBool,
    /// The failure after which no server runs any more.
    failed: OnceLock<Failure>,
}

impl Children {
    /// Creates the state without a child; the receiver yields the requests for children.
    pub fn new(
        settings: Settings,
        start_timeout: Duration,
        directory: Arc<Directory>,
        phase: watch::Sender<Phase>,
        entrance: Arc<Entrance>,
    ) -> (Arc<Self>, mpsc::Receiver<Want>) {
        let (wants, wanted) = mpsc::channel(16);
        let renewals = Arc::<Renewals>::default();
        let children = Children {
            places: ChildPlaces::new(settings.max_children),
            making_room: Mutex::default(),
            crew: Crew::new(settings.child_era),
            revisions: KnownRevisions::default(),
            single_instance: SingleInstance::default(),
            exclusive: Mutex::default(),
            own_caches: OwnCaches::default(),
            pool: Pool::new(settings.cancel_grace, Arc::clone(&renewals)),
            renewals,
            pings: Pings::default(),
            closed: AtomicBool::new(false),
            failed: OnceLock::new(),
            settings,
            start_timeout,
            directory,
            entrance,
            wants,
            phase,
        };
        (Arc::new(children), wanted)
    }

    /// Returns the operator's settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns `--start-timeout`.
    pub fn start_timeout(&self) -> Duration {
        self.start_timeout
    }

    /// Returns what a process for this caller only is to learn about the caller; `None` if nothing, or if the caller is
    /// anonymous.
    pub fn variables_for(&self, identity: &Identity) -> Option<Variables> {
        self.settings.disclosure.as_ref()?.variables(identity)
    }

    /// Returns what the server says of itself: its `serverInfo` in raw JSON, empty until it has started.
    pub fn server_info(&self) -> Vec<u8> {
        self.crew.info()
    }

    /// Counts the children that run, or are being started or ended.
    pub fn count(&self) -> usize {
        self.places.count()
    }

    /// Stops replacing children that end: proxyrunner shuts down.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Closes the children that no exchange has leased for `--evict-after`.
    pub fn expire(&self, now: Instant) {
        self.pool.expire(self.settings.evict_after, now);
    }

    /// Returns the shared child that serves these members, if one does.
    pub fn serving(&self, members: &Arc<Members>) -> Option<Arc<Shared>> {
        let serves = |shared: &Arc<Shared>| Arc::ptr_eq(&shared.members, members) && !shared.link.is_closed();
        self.crew.all().into_iter().find(serves)
    }

    /// Returns the shared child of this number, if it is not replaced yet.
    pub fn numbered(&self, number: u64) -> Option<Arc<Shared>> {
        self.crew.all().into_iter().find(|shared| shared.link.number() == number)
    }

    /// Returns the tools of a session's own child.
    pub fn own_tools(&self, link: &Arc<Link>, changes: OwnChanges) -> ToolSource {
        ToolSource::Own(OwnTools { link: Arc::clone(link), cache: self.own_caches.of(link), changes })
    }

    /// Returns whether a client that cannot have its own process shares a running one of this era.
    fn shares(&self, era: Era) -> bool {
        self.settings.isolation != Isolation::Session && self.crew.open(era).is_some()
    }

    /// Ends the subscriptions of modern clients: proxyrunner shuts down.
    pub fn end_listens(&self) {
        self.crew.all().iter().for_each(|shared| shared.end_listens());
    }
}
