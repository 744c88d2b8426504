//! The queues of clients' requests: each request takes a permit of its child first, then one of the common permits.
//! In this order, a request that waits for a slow child takes no permit from requests to others, and no two requests
//! wait for each other. Both waits together take at most `--queue-timeout`.
//!
//! Some requests wait for another event, such as the start of a child. They are counted and bounded as well.

use super::{Incoming, Refusal};
use crate::admission::{Accepted, Admission, Bounds, Decision, Permit};
use crate::client::Client;
use crate::clock::now;
use crate::exchange::{Link, Places};
use crate::telemetry::{Operation, counters};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::time::timeout_at;

/// Bytes that a request in progress takes besides its messages, as measured: its tasks and its state.
const REQUEST: usize = 8 * 1024;
/// Approximate number of copies of a request's id, token and name.
const COPIES: usize = 4;
/// Maximum length of these copies together, in bytes.
const LONGEST_COPIED: usize = 3 * 1024;
/// Time that a request of a client that holds little memory waits for room.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);
const NO_ROOM: Refusal = Refusal::Busy("--max-buffered is used up by messages in transit");

/// The divisor of `--max-child-in-flight` for notifications.
const NOTICES: usize = 4;

/// The bounds, and the counts of waiting requests.
#[derive(Debug)]
pub(crate) struct Entrance {
    all: Arc<Admission>,
    at_child: Bounds,
    /// Requests that wait for another event than a permit: as many as may wait for a permit, and per client as many
    /// as it may have in flight.
    elsewhere: Arc<Admission>,
    patience: Duration,
    waiting: AtomicUsize,
    lingering: Arc<AtomicUsize>,
    accepted: Arc<AtomicUsize>,
}

/// The maximum numbers of requests in flight and waiting, and the maximum wait.
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

/// A request on its way through the queues, and its timeout once it waits.
struct Turns<'a> {
    operation: &'a Operation,
    client: Client,
    until: Option<Instant>,
}

/// The bound that a request waits for.
#[derive(Clone, Copy, Debug)]
enum Level {
    All,
    Child,
}

impl Entrance {
    /// Creates the queues without requests.
    pub fn new(limits: &Limits) -> Self {
        let Limits { in_flight, per_client, per_child, queued, patience } = *limits;
        Entrance {
            all: Admission::new(Bounds { in_flight, per_client, queued }),
            at_child: Bounds { in_flight: per_child, per_client, queued },
            // Even if no request may wait for a permit, requests may wait for a server's start.
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

    /// Accepts a notification: a drain waits until the guard is dropped.
    pub fn accept_notification(&self) -> Accepted {
        Accepted::count(&self.accepted, None)
    }

    /// Accepts a request: a drain waits until the guard is dropped, and its client is charged for the request's
    /// memory.
    ///
    /// # Errors
    /// When `--max-buffered` has no room for it.
    pub async fn accept(&self, incoming: &Incoming) -> Result<Accepted, Refusal> {
        let takes = REQUEST + COPIES * incoming.frame.len().min(LONGEST_COPIED);
        let charge = match incoming.frame.account() {
            Some(account) => Some(account.charge_soon(takes, ROOM_PATIENCE).await.ok_or(NO_ROOM)?),
            None => None,
        };
        Ok(Accepted::count(&self.accepted, charge))
    }

    /// Returns the number of accepted requests that have not ended.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Returns the number of requests in flight.
    pub fn in_flight(&self) -> usize {
        self.all.in_flight()
    }

    /// Returns the number of requests that wait for a permit or a child.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Waits for the permits of a request. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// When too many wait, or `--queue-timeout` is over; the refusal names the bound.
    pub async fn enter(&self, operation: &Operation, client: Client, link: &Link) -> Result<Places, Refusal> {
        self.enter_among(None, Turns { operation, client, until: None }, link).await
    }

    /// Waits for the permits of a notification. The number of notifications at a shared child is limited, since a
    /// child that handles one message at a time would be busy with them, and they have no answers.
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

    /// Waits for the permits of a call that has begun: it is never refused, and continues without permits if the
    /// queues are full.
    pub async fn enter_again(&self, client: Client, link: &Link) -> Option<Places> {
        let child = self.patient_turn(link.admission(self.at_child), client).await?;
        let all = self.patient_turn(&self.all, client).await?;
        Some(Places { all, child, notice: None, accepted: None })
    }

    /// Counts a request that waits for another event than a permit.
    ///
    /// # Errors
    /// When too many wait.
    pub fn wait(&self, client: Client) -> Result<Waits<'_>, Refusal> {
        match self.elsewhere.take(client) {
            Some(permit) => Ok(Waits { _counted: self.count(), _permit: permit }),
            None if self.elsewhere.is_at_own_bound(client) => {
                Err(Refusal::Busy("--max-client-in-flight requests of this client are waiting"))
            }
            None => Err(Refusal::Busy("--max-queued requests are waiting")),
        }
    }

    /// Counts a request that is at no child and has no permits, but that a drain waits for.
    pub fn linger(&self) -> Lingering {
        self.lingering.fetch_add(1, Ordering::Relaxed);
        Lingering(Arc::clone(&self.lingering))
    }

    /// Returns the number of lingering requests.
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
            Decision::Granted(permit) => return Ok(permit),
            Decision::Full => return Err(full(admission, client, level)),
            Decision::Waits(waiting) => waiting,
        };
        let (_counted, _seen) = (self.count(), operation.wait());
        // Only waiting requests read the clock, and are boxed.
        let until = *until.get_or_insert_with(|| now() + self.patience);
        match Box::pin(timeout_at(until.into(), waiting)).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(full(admission, client, level)),
            Err(_) => Err(late(admission, client, level)),
        }
    }

    async fn patient_turn(&self, admission: &Arc<Admission>, client: Client) -> Option<Permit> {
        match admission.ask(client) {
            Decision::Granted(permit) => Some(permit),
            Decision::Full => None,
            Decision::Waits(waiting) => {
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

/// A count of one waiting request.
#[derive(Debug)]
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that waits for another event than a permit, until this is dropped.
#[derive(Debug)]
pub(crate) struct Waits<'a> {
    _counted: Counted<'a>,
    _permit: Permit,
}

/// A lingering request, until this is dropped.
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
            "--max-client-in-flight requests of this client are in flight, and --max-queued are waiting"
        }
        Level::All => "--max-in-flight requests are in flight, and --max-queued are waiting",
        Level::Child => {
            "--max-child-in-flight requests are in flight at this server, and --max-queued are waiting"
        }
    })
}

fn late(admission: &Admission, client: Client, level: Level) -> Refusal {
    Refusal::Busy(match level {
        _ if admission.is_at_own_bound(client) => {
            "the request waited for --queue-timeout: --max-client-in-flight requests of this client are in flight"
        }
        Level::All => "the request waited for --queue-timeout: --max-in-flight requests are in flight",
        Level::Child => {
            "the request waited for --queue-timeout: --max-child-in-flight requests are in flight at this server"
        }
    })
}
