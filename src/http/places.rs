//! Places for connections. Beside `--max-connections` there are a few [`SPARE`] ones: when all others are busy, probes and
//! scrapers still get through, and everyone else a clear refusal.
//!
//! A spare place can't be kept: it is for one answer, and one that has nothing to ask makes room for the next.

use super::connections::Connections;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

/// Connections above `--max-connections`.
pub const SPARE: usize = 8;
/// Of these, so many may wait for another place; the rest is for those that are answered at once.
const WAITING: usize = SPARE / 2;
/// How long each of them may wait.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a newcomer looks for a connection that has fallen idle.
const IDLE_LOOK: Duration = Duration::from_millis(50);
/// A connection is not idle before it has been silent for so long: its request may be on the way.
const FRESH: Duration = Duration::from_millis(100);

/// All places.
#[derive(Debug)]
pub struct Places {
    regular: Arc<Semaphore>,
    spare: Arc<Semaphore>,
    waiting: Semaphore,
    connections: Arc<Connections>,
}

/// One connection's place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    is_spare: AtomicBool,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Places {
    /// So many places and the spare ones, for these connections.
    pub fn new(most: usize, connections: Arc<Connections>) -> Arc<Self> {
        Arc::new(Places {
            regular: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            spare: Arc::new(Semaphore::new(SPARE)),
            waiting: Semaphore::new(WAITING),
            connections,
        })
    }

    /// A place for one more connection. Where all are taken, the idlest makes room; where all are busy, it gets a spare
    /// one.
    pub async fn take(self: &Arc<Self>) -> Place {
        let mut regular = pin!(Arc::clone(&self.regular).acquire_owned());
        let mut spare = pin!(Arc::clone(&self.spare).acquire_owned());
        if self.regular.available_permits() == 0
            && self.connections.cut_idlest(FRESH)
            && let Ok(permit) = timeout(IDLE_LOOK, &mut regular).await
        {
            return self.place(permit.ok(), false);
        }
        loop {
            tokio::select! {
                biased;
                permit = &mut regular => return self.place(permit.ok(), false),
                permit = &mut spare => return self.place(permit.ok(), true),
                () = sleep(IDLE_LOOK) => {
                    self.connections.cut_idlest(FRESH);
                }
            }
        }
    }

    fn place(self: &Arc<Self>, permit: Option<OwnedSemaphorePermit>, is_spare: bool) -> Place {
        Place { places: Arc::clone(self), is_spare: AtomicBool::new(is_spare), permit: Mutex::new(permit) }
    }

    /// A regular place within a short time.
    async fn soon(&self) -> Option<OwnedSemaphorePermit> {
        let mut regular = pin!(Arc::clone(&self.regular).acquire_owned());
        let found = async {
            loop {
                self.connections.cut_idlest(FRESH);
                if let Ok(permit) = timeout(IDLE_LOOK, &mut regular).await {
                    return permit.ok();
                }
            }
        };
        let Ok(_waits) = self.waiting.try_acquire() else {
            return Arc::clone(&self.regular).try_acquire_owned().ok();
        };
        timeout(PATIENCE, found).await.ok().flatten()
    }
}

impl Place {
    /// Whether it is for one answer only.
    pub fn is_spare(&self) -> bool {
        self.is_spare.load(Ordering::Relaxed)
    }

    /// Changes a spare place for a regular one; false when none came free in time.
    pub async fn settle(&self) -> bool {
        let Some(regular) = self.places.soon().await else { return false };
        let spare = self.permit.lock().unwrap_or_else(PoisonError::into_inner).replace(regular);
        self.is_spare.store(false, Ordering::Relaxed);
        drop(spare);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Waker};

    async fn taken(places: &Arc<Places>, count: usize) -> Vec<Place> {
        let mut taken = Vec::new();
        for _ in 0..count {
            taken.push(places.take().await);
        }
        taken
    }

    fn waits(future: impl Future) -> bool {
        pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    #[tokio::test]
    async fn when_all_are_taken_there_are_a_few_more() {
        let places = Places::new(2, Arc::default());
        let mut regular = taken(&places, 2).await;
        let spare = taken(&places, SPARE).await;
        assert!(regular.iter().all(|place| !place.is_spare()) && spare.iter().all(Place::is_spare));
        assert!(waits(places.take()), "there are no more");
        assert!(waits(spare[0].settle()));
        drop(regular.pop());
        assert!(spare[0].settle().await && !spare[0].is_spare());
        assert!(places.take().await.is_spare(), "its spare place is free again");
    }

    #[tokio::test]
    async fn not_all_spare_places_wait_and_none_for_long() {
        let places = Places::new(1, Arc::default());
        let _regular = places.take().await;
        let spare: Vec<_> = taken(&places, SPARE).await.into_iter().map(Arc::new).collect();
        let settle = |place: &Arc<Place>| {
            let place = Arc::clone(place);
            tokio::spawn(async move { place.settle().await })
        };
        let waiting: Vec<_> = spare[..WAITING].iter().map(settle).collect();
        while places.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(!spare[WAITING].settle().await, "one more is told at once");
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
        for waiting in waiting {
            assert!(!waiting.await.unwrap());
        }
    }
}
