//! Where requests of clients wait until they may go to their child: first for one of the child's places, then for one
//! among all. In this order, since one that waits for a slow child must not take a place from requests to others; and
//! always in this order, so that no two wait for each other. Both waits together take `--queue-timeout` at most.
//!
//! Some wait for something else, each for its own reason. They are counted among those who wait, and bounded as they are.

use super::Refusal;
use crate::admission::{Accepted, Admission, Asked, Bounds, Permit};
use crate::client::Client;
use crate::clock::now;
use crate::exchange::{Link, Places};
use crate::telemetry::{Operation, counters};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::time::timeout_at;

/// What part of `--max-child-in-flight` notifications may take.
const NOTICES: usize = 4;

/// The bounds, and who waits for them.
#[derive(Debug)]
pub(crate) struct Entrance {
    all: Arc<Admission>,
    at_child: Bounds,
    /// Those that wait for something else than a place, such as a child: as many as may wait for a place, and of one client
    /// as many as it may have in flight.
    elsewhere: Arc<Admission>,
    patience: Duration,
    waiting: AtomicUsize,
    lingering: Arc<AtomicUsize>,
    accepted: Arc<AtomicUsize>,
}

/// How many requests may be in flight and wait, and for how long.
#[derive(Debug)]
pub(crate) struct Limits {
    /// `--max-in-flight`
    pub in_flight: usize,
    /// `--max-client-in-flight`
    pub per_client: usize,
    /// `--max-child-in-flight`
    pub per_child: usize,
    /// `--max-queued`
    pub queued: usize,
    /// `--queue-timeout`
    pub patience: Duration,
}

/// One request on its way through both queues, and until when it waits, once it does.
struct Turns<'a> {
    operation: &'a Operation,
    client: Client,
    until: Option<Instant>,
}

/// Why one had to wait, in the flag's name.
#[derive(Clone, Copy, Debug)]
enum Level {
    All,
    Child,
}

impl Entrance {
    pub fn new(limits: &Limits) -> Self {
        let Limits { in_flight, per_client, per_child, queued, patience } = *limits;
        Entrance {
            all: Admission::new(Bounds { in_flight, per_client, queued }),
            at_child: Bounds { in_flight: per_child, per_client, queued },
            // Where nobody may wait for a place, a server's start is waited for all the same.
            elsewhere: Admission::new(Bounds {
                in_flight: if queued == 0 { per_client } else { queued },
                per_client,
                queued: 0,
            }),
            patience,
            waiting: AtomicUsize::new(0),
            lingering: Arc::default(),
            accepted: Arc::default(),
        }
    }

    /// A request or notification is taken: until the guard is dropped, a drain waits for it.
    pub fn accept(&self) -> Accepted {
        Accepted::count(&self.accepted)
    }

    /// Requests that are taken and not over.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Requests that have their places.
    pub fn in_flight(&self) -> usize {
        self.all.in_flight()
    }

    /// Requests that wait for a place, or for a child.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The places of a request, as soon as it is its turn. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// When too many wait, or it was not its turn within `--queue-timeout`; the refusal says which bound it was.
    pub async fn enter(&self, operation: &Operation, client: Client, link: &Link) -> Result<Places, Refusal> {
        self.enter_among(None, Turns { operation, client, until: None }, link).await
    }

    /// The same for a notification, which is one of few at a child that several clients share: nothing answers it, and a
    /// child that handles one thing at a time would be busy with them for long.
    ///
    /// # Errors
    /// As [`enter`](Self::enter).
    pub async fn enter_notice(
        &self,
        operation: &Operation,
        client: Client,
        link: &Link,
    ) -> Result<Places, Refusal> {
        let Bounds { in_flight, per_client, queued } = self.at_child;
        let in_flight = (in_flight / NOTICES).max(1);
        let few = link.notices(Bounds { in_flight, per_client: per_client.min(in_flight), queued });
        self.enter_among(Some(few), Turns { operation, client, until: None }, link).await
    }

    async fn enter_among(
        &self,
        few: Option<&Arc<Admission>>,
        mut turns: Turns<'_>,
        link: &Link,
    ) -> Result<Places, Refusal> {
        let notice = match few {
            Some(few) => Some(self.turn(few, Level::Child, &mut turns).await?),
            None => None,
        };
        let child = self.turn(link.admission(self.at_child), Level::Child, &mut turns).await?;
        let all = self.turn(&self.all, Level::All, &mut turns).await?;
        Ok(Places { all, child, notice, accepted: None })
    }

    /// The same for what was begun, which is not refused half way: it waits for as long as its caller does, and where
    /// the queues are full it goes on without.
    pub async fn enter_again(&self, client: Client, link: &Link) -> Option<Places> {
        let child = self.patient_turn(link.admission(self.at_child), client).await?;
        let all = self.patient_turn(&self.all, client).await?;
        Some(Places { all, child, notice: None, accepted: None })
    }

    /// Counts one among those who wait, that waits for something else than a place.
    ///
    /// # Errors
    /// When too many do.
    pub fn wait(&self, client: Client) -> Result<Waits<'_>, Refusal> {
        match self.elsewhere.take(client) {
            Some(permit) => Ok(Waits { _counted: self.count(), _permit: permit }),
            None if self.elsewhere.is_at_own_bound(client) => {
                Err(Refusal::Busy("--max-client-in-flight requests of this client wait already"))
            }
            None => Err(Refusal::Busy("--max-queued requests wait already")),
        }
    }

    /// Counts what is at no child now and has no place, but is to be waited for.
    pub fn linger(&self) -> Lingering {
        self.lingering.fetch_add(1, Ordering::Relaxed);
        Lingering(Arc::clone(&self.lingering))
    }

    /// What lingers.
    pub fn lingering(&self) -> usize {
        self.lingering.load(Ordering::Relaxed)
    }

    async fn turn(
        &self,
        admission: &Arc<Admission>,
        level: Level,
        Turns { operation, client, until }: &mut Turns<'_>,
    ) -> Result<Permit, Refusal> {
        let client = *client;
        let waiting = match admission.ask(client) {
            Asked::Granted(permit) => return Ok(permit),
            Asked::Full => return Err(full(admission, client, level)),
            Asked::Waits(waiting) => waiting,
        };
        let (_counted, _seen) = (self.count(), operation.wait());
        // The clock is looked at only by those that wait.
        let until = *until.get_or_insert_with(|| now() + self.patience);
        match timeout_at(until.into(), waiting).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(full(admission, client, level)),
            Err(_) => Err(late(admission, client, level)),
        }
    }

    async fn patient_turn(&self, admission: &Arc<Admission>, client: Client) -> Option<Permit> {
        match admission.ask(client) {
            Asked::Granted(permit) => Some(permit),
            Asked::Full => None,
            Asked::Waits(waiting) => {
                let _counted = self.count();
                waiting.await.ok()
            }
        }
    }

    fn count(&self) -> Counted<'_> {
        counters::QUEUED_REQUESTS.increment();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Counted(&self.waiting)
    }
}

/// One that waits.
#[derive(Debug)]
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One that waits for something else, until it is dropped.
#[derive(Debug)]
pub(crate) struct Waits<'a> {
    _counted: Counted<'a>,
    _permit: Permit,
}

/// One that lingers, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lingering(Arc<AtomicUsize>);

impl Drop for Lingering {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn full(admission: &Admission, client: Client, level: Level) -> Refusal {
    Refusal::Busy(match level {
        _ if admission.is_at_own_bound(client) => {
            "--max-client-in-flight requests of this client are in flight already, and --max-queued wait"
        }
        Level::All => "--max-in-flight requests are in flight already, and --max-queued wait",
        Level::Child => "--max-child-in-flight requests are at this server already, and --max-queued wait",
    })
}

fn late(admission: &Admission, client: Client, level: Level) -> Refusal {
    Refusal::Busy(match level {
        _ if admission.is_at_own_bound(client) => {
            "it waited for --queue-timeout: --max-client-in-flight requests of this client are in flight"
        }
        Level::All => "it waited for --queue-timeout: --max-in-flight requests are in flight",
        Level::Child => "it waited for --queue-timeout: --max-child-in-flight requests are at this server",
    })
}
