//! Runs one request of a client from its beginning to its one answer. Requests of legacy sessions begin in [`begin`]
//! and run in [`legacy`]; each request of a modern client is independent ([`modern`], [`listen`]). The module
//! `children` selects the child that serves a request; this module depends on it, never the reverse. A call has two
//! handles: a [`LegacyCall`] or [`ModernCall`] owns all that belongs to the request (its deadline, its lease, its
//! questions); its exchange is the current request at the child, which a translated call replaces from round to
//! round.

mod begin;
mod deadline;
mod hints;
mod legacy;
mod listen;
mod modern;
mod not_begun;
mod notify;
mod parked;
mod seal;
mod subscribe;
mod task_owners;
mod withheld;

pub use begin::Begun;
pub use legacy::{LegacyCall, LegacyStep};
pub use listen::Listening;
pub use modern::{Caller, Happening, ModernCall, Reply, is_retry};
pub use seal::{Purpose, Seal, SealKeys};

use crate::admission::{Admission, Bounds};
use crate::budget::Budget;
use crate::catalogue::lists::{ListRequest, Lists};
use crate::children::{Children, Shared};
use crate::client::Client;
use crate::clock::now;
use crate::era::Era;
use crate::exchange::Answer;
use crate::ingress::{Entrance, Refusal};
use crate::telemetry::Operation;
use parked::Parked;
use std::sync::Arc;
use task_owners::TaskOwners;

/// The requests that are under way, and the limits on them.
#[derive(Debug)]
pub(crate) struct Calls {
    /// The children that serve them.
    children: Arc<Children>,
    /// The queues of waiting requests, and the counts of requests in flight.
    entrance: Arc<Entrance>,
    /// Seals and opens the `requestState` of parked requests, and the cursors of lists.
    seal: Seal,
    /// The requests that wait for a modern client's retry.
    parked: Parked<Box<ModernCall>>,
    /// The bound of open subscriptions.
    listens: Arc<Admission>,
    /// The cached lists.
    lists: Lists,
    /// The owners of tasks at modern children.
    task_owners: TaskOwners,
}

impl Calls {
    /// Creates the state without requests.
    pub fn new(children: Arc<Children>, entrance: Arc<Entrance>, seal: Seal, budget: &Budget) -> Arc<Self> {
        let settings = children.settings();
        Arc::new(Calls {
            parked: Parked::new(settings.max_parked, settings.park_timeout),
            listens: Admission::new(Bounds::shared_out(settings.max_listens)),
            lists: Lists::new(budget.account(Client::lists())),
            task_owners: TaskOwners::default(),
            children,
            entrance,
            seal,
        })
    }

    /// Counts the requests that a client waits for: at a child, waiting for their turn or for a child, or parked
    /// until a modern client's retry. Cancelled and timed-out requests are over, though their child may not have
    /// answered yet.
    pub fn underway(&self) -> usize {
        self.entrance.accepted()
    }

    /// Counts the requests in flight, over all children.
    pub fn in_flight(&self) -> usize {
        self.entrance.in_flight()
    }

    /// Counts the requests that wait for a permit to be in flight.
    pub fn queued(&self) -> usize {
        self.entrance.waiting()
    }

    /// Counts the requests that wait for their client: for a modern client's retry, or a legacy client's answer. They
    /// have no permit to be in flight.
    pub fn parked(&self) -> usize {
        self.parked.count() + self.entrance.lingering()
    }

    /// Returns the seal.
    pub fn seal(&self) -> &Seal {
        &self.seal
    }

    /// Replaces the keys of the seal.
    pub fn reseal(&self, keys: &SealKeys) {
        self.seal.replace(keys);
    }

    /// Clears the cached lists.
    pub fn forget_lists(&self) {
        self.lists.forget();
    }

    /// Returns the shared child for clients of an era. If none is ready, the request waits in the queue.
    async fn shared_for(
        &self,
        era: Era,
        client: Client,
        operation: &Operation,
    ) -> Result<Arc<Shared>, Refusal> {
        if let Some(shared) = self.children.at_hand(era) {
            return Ok(shared);
        }
        let _place = self.entrance.wait(client)?;
        self.children.shared(era, operation).await
    }

    /// Keeps a child's list for the same request of other clients.
    fn keep(&self, request: &ListRequest, answer: &Answer) {
        let Some(shared) = self.children.numbered(request.key.child) else { return };
        if shared.era == Era::Modern {
            // A modern child reports changes only to subscribers. Until then the child's own lifetime for the list
            // holds.
            shared.members.post.listen_soon();
        }
        self.lists.put(request, answer, shared.changes(&request.key.method), now());
    }
}
