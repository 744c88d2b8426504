//! The `--max-children` places, and for whom each was taken.

use super::{Refusal, now};
use crate::client::Client;
use crate::exchange::Link;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Answers a client whose child was ended while it started.
const GAVE_WAY: Refusal =
    Refusal::Busy("--max-children servers run already, and this client has most of them: try again later");

/// The places of all children. A place is taken before its child is started and is free again once the process is gone,
/// so that a child counts for its client at every moment of its life.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    limit: usize,
    taken: Mutex<Vec<Weak<Taken>>>,
}

/// One place. A post keeps its own, so that no other child gets it while the next one is started.
pub type Place = Arc<Taken>;

/// A place, held until this is dropped.
#[derive(Debug)]
pub struct Taken {
    held: Mutex<Held>,
    _permit: OwnedSemaphorePermit,
}

/// By whom, and since when.
#[derive(Debug)]
struct Held {
    purpose: Use,
    since: Instant,
    /// The child that has it, once it is started.
    child: Weak<Link>,
    /// Whether the child was ended to make room.
    gave_way: bool,
}

/// What a place is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// A child that clients share, or that nobody has at the moment.
    Shared,
    /// A child that a call of this client has, or that is being started for one of its calls or sessions.
    Call(Client),
    /// The child of a session of this client.
    Session(Client),
}

impl Use {
    /// The client that it counts for.
    pub fn client(self) -> Option<Client> {
        match self {
            Use::Shared => None,
            Use::Call(client) | Use::Session(client) => Some(client),
        }
    }
}

impl Places {
    /// `limit` free ones.
    pub fn new(limit: usize) -> Self {
        let free = Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
        Places { free, limit, taken: Mutex::default() }
    }

    /// A place, if one is free.
    pub fn try_take(&self, purpose: Use) -> Option<Place> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(self.hold(permit, purpose))
    }

    /// A place, once one is free.
    pub async fn take(&self, purpose: Use) -> Option<Place> {
        let permit = Arc::clone(&self.free).acquire_owned().await.ok()?;
        Some(self.hold(permit, purpose))
    }

    /// Those taken.
    pub fn count(&self) -> usize {
        self.limit.saturating_sub(self.free.available_permits())
    }

    /// Those whose child was asked to end and has not ended yet.
    pub fn ending(&self) -> usize {
        self.all().iter().filter(|place| place.is_ending()).count()
    }

    /// For each place that some client has, and whose child is not ending: that client.
    pub fn clients(&self) -> Vec<Client> {
        let all = self.all();
        let kept = all.iter().filter(|place| !place.is_ending());
        kept.filter_map(|place| place.now().purpose.client()).collect()
    }

    /// Ends the child that a call of this client has had longest, or that is started for the client; false if there is
    /// none.
    pub fn end_one_of(&self, client: Client) -> bool {
        let mut all = self.all();
        all.retain(|place| place.now().purpose == Use::Call(client));
        all.sort_by_key(|place| place.now().since);
        all.iter().any(|place| place.gives_way())
    }

    /// Whether a place of this client is taken, and its child is still to be started.
    pub fn is_starting_one_of(&self, client: Client) -> bool {
        self.all().iter().any(|place| {
            let held = place.now();
            held.purpose == Use::Call(client) && held.child.upgrade().is_none()
        })
    }

    fn hold(&self, permit: OwnedSemaphorePermit, purpose: Use) -> Place {
        let held = Held { purpose, since: now(), child: Weak::new(), gave_way: false };
        let place = Arc::new(Taken { held: Mutex::new(held), _permit: permit });
        let mut taken = self.taken();
        taken.retain(|place| place.strong_count() > 0);
        taken.push(Arc::downgrade(&place));
        place
    }

    fn all(&self) -> Vec<Place> {
        self.taken().iter().filter_map(Weak::upgrade).collect()
    }

    fn taken(&self) -> MutexGuard<'_, Vec<Weak<Taken>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// From now on it is this one's.
    pub(super) fn pass_to(&self, purpose: Use) {
        let mut held = self.now();
        (held.purpose, held.since) = (purpose, now());
    }

    /// From now on this child has it.
    pub(super) fn seat(&self, child: &Arc<Link>) {
        self.now().child = Arc::downgrade(child);
    }

    /// What came of starting its child; if that was ended to make room for another, the client is told so.
    pub(super) fn outcome<T>(&self, started: Result<T, Refusal>) -> Result<T, Refusal> {
        match started {
            Err(_) if self.now().gave_way => Err(GAVE_WAY),
            other => other,
        }
    }

    /// Ends its child; false if there is none that is not ending.
    fn gives_way(&self) -> bool {
        let mut held = self.now();
        let open = held.child.upgrade().filter(|link| !link.is_closed());
        held.gave_way |= open.is_some();
        open.inspect(|link| link.stop()).is_some()
    }

    fn is_ending(&self) -> bool {
        let child = self.now().child.upgrade();
        child.is_some_and(|link| link.is_ending())
    }

    fn now(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
