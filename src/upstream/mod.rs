//! The one handle that HTTP has on the children: who sits where, and what a shared child must not see.
//!
//! Legacy sessions sit at a child ([`exclusive`], [`shared`]); modern requests stand for themselves ([`modern`],
//! [`listen`]).
//!
//! It never starts a process itself: it says what it [`Want`]s, and whoever supervises listens.

mod exclusive;
mod initialize;
mod lease;
mod listen;
mod modern;
mod parked;
mod seal;
mod shared;

pub use listen::Listening;
pub use modern::{Caller, Happening, ModernCall, Reply, is_retry};
pub use seal::Seal;
pub use shared::Shared;

use crate::child::StartError;
use crate::exchange::{Exchange, Failure, Held, Link, Mailbox, Outcome, Refused};
use crate::jsonrpc::{ClientId, Message, Spliced, codes, kept, rewrite, text};
use crate::phase::Phase;
use crate::session::{Audience, Directory, Seat, Session, Underway};
use crate::trace_context::Trace;
use bytes::Bytes;
use lease::Pool;
use parked::Parked;
use std::borrow::Cow;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

/// Who gets a child of its own (D6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Clients that declare sampling or elicitation; the others share.
    Auto,
    /// Nobody.
    Shared,
    /// Every session.
    Session,
}

/// What happens to a client that should have a child of its own when there are `--max-children`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtCap {
    /// It shares, without the capabilities that need an exclusive child.
    Share,
    /// It gets 503.
    Refuse,
}

/// The operator's choice of children.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--isolation`
    pub isolation: Isolation,
    /// `--children`: shared ones.
    pub children: usize,
    /// `--max-children`: all together.
    pub max_children: usize,
    /// `--evict-after`: a quiet exclusive child may be closed for another after so long.
    pub evict_after: Duration,
    /// `--at-cap`
    pub at_cap: AtCap,
    /// `--forward-roots`
    pub forward_roots: bool,
    /// `--max-in-flight`
    pub max_in_flight: usize,
    /// `--request-timeout`
    pub request_timeout: Duration,
    /// `--cancel-grace`: how long a cancelled request still counts as in flight when the child doesn't answer it.
    pub cancel_grace: Duration,
    /// `--max-parked`: exchanges that wait for a modern client's retry.
    pub max_parked: usize,
    /// `--park-timeout`: how long each of them waits.
    pub park_timeout: Duration,
}

/// Subscriptions of modern clients that may be open at once.
const MOST_LISTENS: usize = 1_024;

/// A child is wanted.
#[derive(Debug)]
pub struct Want {
    /// Who listens to it.
    pub audience: Audience,
    /// Requests that it may have in flight.
    pub slots: usize,
    /// Its place among `--max-children`, to be held until the process is gone.
    pub place: OwnedSemaphorePermit,
    /// Where the started child goes.
    pub reply: oneshot::Sender<Result<Arc<Link>, StartError>>,
}

/// A message of a client, as it came.
#[derive(Debug)]
pub struct Incoming {
    /// Its bytes.
    pub frame: Bytes,
    /// Where its parts are.
    pub message: Message,
    /// The trace context of its HTTP request.
    pub trace: Trace,
}

impl Incoming {
    /// The method; empty for a response.
    pub fn method(&self) -> Cow<'_, str> {
        self.message.method.as_ref().map(|method| text(&self.frame, method)).unwrap_or_default()
    }

    /// The id, to outlive the message.
    pub fn client_id(&self) -> ClientId {
        ClientId::within(&self.frame, &self.message.id.clone().unwrap_or_default())
    }

    /// The id as the client wrote it.
    pub fn id(&self) -> &[u8] {
        self.message.id.clone().map_or(&[], |id| &self.frame[id])
    }
}

/// Why a request goes to no child.
#[derive(Debug)]
pub enum Refusal {
    /// A bound is reached: 503, with the reason.
    Busy(&'static str),
    /// It failed; the client gets the error.
    Failed(Failure),
    /// A shared child must not see it: the code and the reason.
    Withheld(i64, &'static str),
}

/// A session has one handshake.
const SEATED: Refusal = Refusal::Withheld(codes::INVALID_REQUEST, "this session is initialized already");

/// A request that was taken.
#[derive(Debug)]
pub enum Begun {
    /// It is at the child, and noted in its session.
    Exchange(Exchange, Underway),
    /// It is answered already, by the child.
    Outcome(Outcome),
    /// It is answered already, by proxyrunner, with this result.
    Local(&'static [u8]),
}

/// All children of this process, as HTTP sees them.
#[derive(Debug)]
pub struct Upstream {
    settings: Settings,
    start_timeout: Duration,
    directory: Arc<Directory>,
    wants: mpsc::Sender<Want>,
    places: Arc<Semaphore>,
    permits: Arc<Semaphore>,
    shared: OnceLock<Vec<Arc<Shared>>>,
    /// The one that was started for modern clients with `--isolation session`.
    on_demand: AsyncMutex<Option<Arc<Shared>>>,
    exclusive: Mutex<Vec<Weak<Session>>>,
    started: Mutex<Vec<Weak<Link>>>,
    phase: watch::Sender<Phase>,
    seal: Seal,
    parked: Parked<Box<ModernCall>>,
    pool: Arc<Pool>,
    listens: Arc<Semaphore>,
}

impl Upstream {
    /// Without a child yet; what it wants comes out of the receiver.
    pub fn new(
        settings: Settings,
        start_timeout: Duration,
        directory: Arc<Directory>,
        phase: watch::Sender<Phase>,
        seal: Seal,
    ) -> (Arc<Self>, mpsc::Receiver<Want>) {
        let (wants, wanted) = mpsc::channel(16);
        let bound = |n: usize| Arc::new(Semaphore::new(n.min(Semaphore::MAX_PERMITS)));
        let upstream = Upstream {
            places: bound(settings.max_children),
            permits: bound(settings.max_in_flight),
            parked: Parked::new(settings.max_parked, settings.park_timeout),
            pool: Pool::new(settings.cancel_grace),
            seal,
            listens: bound(MOST_LISTENS),
            settings,
            start_timeout,
            directory,
            wants,
            shared: OnceLock::new(),
            on_demand: AsyncMutex::default(),
            exclusive: Mutex::default(),
            started: Mutex::default(),
            phase,
        };
        (Arc::new(upstream), wanted)
    }

    /// How long a request may take.
    pub fn request_timeout(&self) -> Duration {
        self.settings.request_timeout
    }

    /// Requests in flight, over all children.
    pub fn in_flight(&self) -> usize {
        self.settings.max_in_flight.saturating_sub(self.permits.available_permits())
    }

    /// Requests that wait for a modern client's retry.
    pub fn parked(&self) -> usize {
        self.parked.count()
    }

    /// Children that run, or are being started or ended.
    pub fn children(&self) -> usize {
        self.settings.max_children.saturating_sub(self.places.available_permits())
    }

    /// Begins a request of a session at its child.
    ///
    /// # Errors
    /// When a bound is reached, the child is gone, or it is shared and must not see the request.
    pub async fn begin(&self, session: &Arc<Session>, incoming: Incoming) -> Result<Begun, Refusal> {
        let uninitialized = Refusal::Withheld(codes::INVALID_REQUEST, "send initialize first");
        let seat = session.seat().ok_or(uninitialized)?;
        if let Seat::Shared(link, members) = seat {
            if let Some(local) = shared::answered_here(&incoming)? {
                return Ok(Begun::Local(local));
            }
            let subscribing = match &*incoming.method() {
                "resources/subscribe" => Some(true),
                "resources/unsubscribe" => Some(false),
                _ => None,
            };
            if let Some(subscribe) = subscribing {
                return self.change_subscription(link, members, session, incoming, subscribe).await;
            }
        }
        let (exchange, underway) = self.begin_at(session, seat.link(), incoming).await?;
        Ok(Begun::Exchange(exchange, underway))
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        permit.map_err(|_| Refusal::Busy("--max-in-flight requests are in flight already"))
    }

    async fn begin_at(
        &self,
        session: &Arc<Session>,
        link: &Link,
        incoming: Incoming,
    ) -> Result<(Exchange, Underway), Refusal> {
        let client_id = ClientId::new(incoming.id());
        let permit = self.permit()?;
        let Incoming { frame, message, trace } = incoming;
        let token = message.params.as_ref().and_then(|params| params.meta.as_ref()?.progress_token.clone());
        let token = token.map(|token| kept(&frame, &token));
        let mailbox = Arc::new(Mailbox::default());
        let held = Held { mailbox: Arc::clone(&mailbox), token, permit: Some(permit) };
        let mut underway = None;
        let write = |wire_id: crate::mux::WireId| {
            underway = Some(Underway::begin(session, client_id, wire_id, mailbox));
            let id = Some(wire_id.as_u64());
            rewrite::request_for_child(&frame, &message, id, id, &trace)
        };
        let exchange = link.begin(held, write).await.map_err(refusal)?;
        let underway = underway.ok_or(Refusal::Failed(Failure::Lost))?;
        Ok((exchange, underway))
    }

    /// Asks for a child and waits until it has started; its handshake is still to come.
    async fn want(
        &self,
        audience: Audience,
        slots: usize,
        place: OwnedSemaphorePermit,
    ) -> Result<Arc<Link>, Failure> {
        let (reply, started) = oneshot::channel();
        let want = Want { audience, slots, place, reply };
        self.wants.send(want).await.map_err(|_| Failure::ShuttingDown)?;
        let started = started.await.map_err(|_| Failure::ShuttingDown)?;
        let link = started.map_err(|error| Failure::NotStarted(error.to_string().into()))?;
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.retain(|link| link.strong_count() > 0);
        started.push(Arc::downgrade(&link));
        Ok(link)
    }
}

fn refusal(refused: Refused) -> Refusal {
    match refused {
        Refused::Full => Refusal::Busy("the server has as many requests in flight as it may have"),
        Refused::Closed(failure) => Refusal::Failed(failure),
    }
}

/// A notification of a client, as its child may see it.
pub async fn notify(session: &Session, incoming: &Incoming) {
    let Some(seat) = session.seat() else { return };
    let passed = match &*incoming.method() {
        // No request, but a child might take it for one.
        "initialize" => false,
        "notifications/initialized" | "notifications/roots/list_changed" => seat.is_exclusive(),
        _ => true,
    };
    if passed {
        seat.link().notify(notification(incoming)).await;
    }
}

fn notification(incoming: &Incoming) -> Spliced {
    rewrite::request_for_child(&incoming.frame, &incoming.message, None, None, &incoming.trace)
}
