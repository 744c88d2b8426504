//! The one handle that HTTP has on the children: who sits where, and what a shared child must not see.
//!
//! A child is greeted first, which tells its era ([`greet`]); the shared ones are the [`crew`]. Legacy sessions sit at a
//! child ([`exclusive`], [`shared`]) and have their requests there ([`legacy`]); modern requests stand for themselves
//! ([`modern`], [`listen`]).
//!
//! It never starts a process itself: it says what it [`Want`]s, and whoever supervises listens.

mod crew;
mod deadline;
mod entrance;
mod eviction;
mod exclusive;
mod greet;
mod greeting;
mod incoming;
mod initialize;
mod keeper;
mod lease;
mod legacy;
mod listen;
mod lists;
mod modern;
mod names;
mod notify;
mod parked;
mod places;
mod resume;
mod revisions;
mod seal;
mod settings;
mod shared;
mod slots;
mod solitude;
mod tools;
mod union;
mod vigil;

pub use crew::Shared;
pub use incoming::{Incoming, Refusal};
pub use legacy::{LegacyCall, LegacyStep};
pub use listen::Listening;
pub use modern::{Caller, Happening, ModernCall, Reply, is_retry};
pub use places::Place;
pub use seal::{Key, Seal};
pub use settings::{AtCap, Isolation, Settings};

use crate::admission::{Admission, Bounds};
use crate::audience::{Audience, Seat};
use crate::budget::Budget;
use crate::child::StartError;
use crate::client::Client;
use crate::era::capabilities::Capabilities;
use crate::exchange::{Failure, Link, Refused};
use crate::jsonrpc::{Spliced, codes, rewrite};
use crate::phase::Phase;
use crate::session::{Directory, Session};
use crate::telemetry::{Verdict, counters};
use crew::Crew;
use entrance::Entrance;
use lease::Pool;
use lists::{Asked, Lists};
use parked::Parked;
use parking_lot::Mutex;
use places::{Places, Use};
use solitude::Solitude;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use vigil::Pings;

/// What is remembered of one session's handshake as long as the session lasts, in bytes.
const MOST_REMEMBERED: usize = 64 * 1024;

/// The time as the runtime's timers see it: where a test moves that, deadlines move too.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A child is wanted.
#[derive(Debug)]
pub struct Want {
    /// Who listens to it.
    pub audience: Audience,
    /// Requests that it may have in flight.
    pub slots: usize,
    /// Its place among `--max-children`, to be held until the process is gone.
    pub place: Place,
    /// Where the started child goes.
    pub reply: oneshot::Sender<Result<Arc<Link>, StartError>>,
}

/// There is no child at the moment.
const RESTARTING: &str = "the server has ended, and is being restarted";

/// A session has one handshake.
const SEATED: Refusal = Refusal::Withheld(codes::INVALID_REQUEST, "this session is initialized already");

/// A request that was taken.
#[derive(Debug)]
pub enum Begun {
    /// It is at the child, and noted in its session.
    Running(Box<LegacyCall>),
    /// It is answered already.
    Answered(Spliced),
}

/// All children of this process, as HTTP sees them.
#[derive(Debug)]
pub struct Upstream {
    settings: Settings,
    start_timeout: Duration,
    directory: Arc<Directory>,
    wants: mpsc::Sender<Want>,
    places: Places,
    /// Locked while room is made for another child.
    making_room: Mutex<()>,
    entrance: Entrance,
    crew: Crew,
    revisions: revisions::Known,
    solitude: Solitude,
    exclusive: Mutex<Vec<Weak<Session>>>,
    phase: watch::Sender<Phase>,
    seal: Seal,
    parked: Parked<Box<ModernCall>>,
    pool: Arc<Pool>,
    listens: Arc<Admission>,
    lists: Lists,
    pings: Pings,
    closed: AtomicBool,
    /// Why no server runs, and none will.
    failed: OnceLock<Failure>,
}

impl Upstream {
    /// Without a child yet; what it wants comes out of the receiver.
    pub fn new(
        settings: Settings,
        start_timeout: Duration,
        directory: Arc<Directory>,
        phase: watch::Sender<Phase>,
        seal: Seal,
        budget: &Budget,
    ) -> (Arc<Self>, mpsc::Receiver<Want>) {
        let (wants, wanted) = mpsc::channel(16);
        let crew = Crew::new(settings.child_era);
        let upstream = Upstream {
            places: Places::new(settings.max_children),
            making_room: Mutex::default(),
            entrance: Entrance::new(&settings),
            parked: Parked::new(settings.max_parked, settings.park_timeout),
            pool: Pool::new(settings.cancel_grace),
            seal,
            listens: Admission::new(Bounds::shared_out(settings.max_listens)),
            lists: Lists::new(budget.account(Client::lists())),
            pings: Pings::default(),
            closed: AtomicBool::new(false),
            failed: OnceLock::new(),
            settings,
            start_timeout,
            directory,
            wants,
            crew,
            revisions: revisions::Known::default(),
            solitude: Solitude::default(),
            exclusive: Mutex::default(),
            phase,
        };
        (Arc::new(upstream), wanted)
    }

    /// From now on children that end are not followed by others: proxyrunner ends them.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// How long what a client says may wait for its child to read.
    pub fn request_timeout(&self) -> Duration {
        self.settings.request_timeout
    }

    /// How many requests one client may have in flight.
    pub fn max_client_in_flight(&self) -> usize {
        self.settings.max_client_in_flight
    }

    /// Requests that a client waits for: at a child, or waiting for their turn, for a child, or for a modern client's
    /// retry. Those that were cancelled or timed out are over, though their child may not have answered yet.
    pub fn underway(&self) -> usize {
        self.entrance.accepted()
    }

    /// The operator's choices.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Requests in flight, over all children.
    pub fn in_flight(&self) -> usize {
        self.entrance.in_flight()
    }

    /// Requests that wait for a place among those in flight.
    pub fn queued(&self) -> usize {
        self.entrance.waiting()
    }

    /// Requests that wait for their client: a modern one's retry, a legacy one's answer. They have no place among those
    /// in flight.
    pub fn parked(&self) -> usize {
        self.parked.count() + self.entrance.lingering()
    }

    /// Children that run, or are being started or ended.
    pub fn children(&self) -> usize {
        self.places.count()
    }

    /// Begins a request of a session at its child.
    ///
    /// # Errors
    /// When a bound is reached, the child is gone, or it is shared and must not see the request.
    pub async fn begin(
        self: &Arc<Self>,
        session: &Arc<Session>,
        incoming: Incoming,
    ) -> Result<Begun, Refusal> {
        let operation = Arc::clone(&incoming.operation);
        let begun = self.begin_seen(session, incoming).await;
        if let Ok(Begun::Answered(_)) = &begun {
            operation.end(&Verdict::Success);
        }
        begun
    }

    async fn begin_seen(
        self: &Arc<Self>,
        session: &Arc<Session>,
        incoming: Incoming,
    ) -> Result<Begun, Refusal> {
        let accepted = self.entrance.accept(&incoming).await?;
        let uninitialized = Refusal::Withheld(codes::INVALID_REQUEST, "send initialize first");
        let seat = session.seat().ok_or(uninitialized)?;
        if let Seat::Exclusive(own) = seat {
            self.note_told(own, &incoming)?;
            self.await_initialized(own, &incoming).await;
            return Box::pin(self.pass(session, seat, incoming, accepted, false, None))
                .await
                .map(Begun::Running);
        }
        if let Some(result) = shared::answered_here(seat, &incoming)? {
            return Ok(Begun::Answered(Spliced::from(rewrite::result(incoming.id(), result))));
        }
        let subscribing = match &*incoming.method() {
            "resources/subscribe" => Some(true),
            "resources/unsubscribe" => Some(false),
            _ => None,
        };
        let asked = self.asks_for_list(session, seat, &incoming);
        if let Some(fresh) = asked.as_ref().and_then(|asked| self.lists.find(asked, now())) {
            return Ok(Begun::Answered(legacy::from_memory(session, seat, &incoming, &fresh.answer)));
        }
        match (seat, subscribing) {
            (_, Some(subscribe)) => {
                let patience = self.settings.request_timeout;
                let change = Box::pin(self.change_subscription(session, seat, incoming, accepted, subscribe));
                let timed_out = |_| {
                    counters::TIMED_OUT_REQUESTS.increment();
                    Refusal::Failed(Failure::TimedOut(patience))
                };
                Ok(Begun::Answered(timeout(patience, change).await.map_err(timed_out)??))
            }
            (Seat::Stateless(seat), None) => {
                Box::pin(self.translate(session, seat, incoming, accepted, asked)).await.map(Begun::Running)
            }
            (seat, None) => {
                let newer = matches!(seat, Seat::Shared { newer: true, .. });
                Box::pin(self.pass(session, seat, incoming, accepted, newer, asked)).await.map(Begun::Running)
            }
        }
    }

    /// A session's request as one whose answer may be kept.
    fn asks_for_list(&self, session: &Session, seat: &Seat, incoming: &Incoming) -> Option<Asked> {
        lists::kind_of(&incoming.method())?;
        let members = seat.members()?;
        let here = |shared: &Arc<Shared>| Arc::ptr_eq(&shared.members, members) && !shared.link.is_closed();
        let shared = self.crew.all().into_iter().find(here)?;
        let class = match seat {
            Seat::Stateless(seat) => Capabilities::read(&seat.capabilities, &(0..seat.capabilities.len())),
            _ => Capabilities::default(),
        };
        shared.asks_for_list(incoming, class, session.principal(), self.settings.cache_lists)
    }

    /// Whether a request that a child was sent nothing of may look for the next one; for `--restart-wait` since the first
    /// was `gone`.
    fn may_look_again(&self, failure: &Failure, gone: &mut Option<Instant>) -> bool {
        let since = *gone.get_or_insert_with(now);
        failure.is_childs_end() && now() - since < self.settings.restart_wait
    }
}

/// Why a request did not begin at a child.
enum NotBegun {
    /// The child is gone, and was sent nothing of it.
    Gone(Failure),
    /// Anything else.
    Refused(Refusal),
}

impl From<Refused> for NotBegun {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Closed(failure) => NotBegun::Gone(failure),
            Refused::Full => NotBegun::Refused(refusal(refused)),
        }
    }
}

impl From<NotBegun> for Refusal {
    fn from(not_begun: NotBegun) -> Self {
        match not_begun {
            NotBegun::Gone(failure) => Refusal::Failed(failure),
            NotBegun::Refused(refusal) => refusal,
        }
    }
}

fn refusal(refused: Refused) -> Refusal {
    match refused {
        Refused::Full => Refusal::Busy("the server has as many requests in flight as it may have"),
        Refused::Closed(failure) => Refusal::Failed(failure),
    }
}
