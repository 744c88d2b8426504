//! The `--max-children` places: the client that holds each, and the queue of waiting clients.

use crate::client::Client;
use crate::clock::now;
use crate::exchange::Link;
use crate::ingress::Refusal;
use crate::sorted::{sorted, sorted_by_key};
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::oneshot;

/// The refusal for a client whose child was ended while it started.
const GAVE_WAY: Refusal =
    Refusal::Busy("--max-children servers are running, and this client holds the most; try again later");

/// The places of all children. A place is taken before its child starts, and released once the process is gone: a
/// child counts for its client during its whole life. A released place goes to the waiting client that holds fewest.
#[derive(Clone, Debug)]
pub(super) struct ChildPlaces(Arc<Mutex<Room>>);

#[derive(Debug)]
struct Room {
    limit: usize,
    free: usize,
    taken: Vec<Weak<Taken>>,
    /// The waiters in order of arrival.
    waiting: Vec<Waiter>,
    /// Number of the last waiter.
    waited: u64,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    purpose: Use,
    sender: oneshot::Sender<ChildPlace>,
}

/// A place. A post keeps its place, so that no other child gets it while the next one starts.
pub type ChildPlace = Arc<Taken>;

/// A held place; dropping it releases the place.
#[derive(Debug)]
pub struct Taken {
    held: Mutex<Holding>,
    places: ChildPlaces,
}

/// The holder of a place.
#[derive(Debug)]
struct Holding {
    purpose: Use,
    since: Instant,
    /// The child, once it is started.
    child: Weak<Link>,
    /// Whether the child was ended to make room.
    gave_way: bool,
}

/// The purpose of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// A child that clients share, or that no client uses at the moment.
    Shared,
    /// A child that a call of this client leases, or that is being started for a call or session of it.
    Call(Client),
    /// The child of a session of this client.
    Session(Client),
}

/// A wait for a place; dropping it leaves the queue.
#[derive(Debug)]
pub(super) struct PlaceWait {
    number: u64,
    place: oneshot::Receiver<ChildPlace>,
    places: ChildPlaces,
}

impl Use {
    /// Returns the client that the place counts for.
    pub fn client(self) -> Option<Client> {
        match self {
            Use::Shared => None,
            Use::Call(client) | Use::Session(client) => Some(client),
        }
    }
}

impl ChildPlaces {
    /// Creates `limit` free places.
    pub fn new(limit: usize) -> Self {
        let room = Room { limit, free: limit, taken: Vec::new(), waiting: Vec::new(), waited: 0 };
        ChildPlaces(Arc::new(Mutex::new(room)))
    }

    /// Takes a free place; `None` while others wait.
    pub fn try_take(&self, purpose: Use) -> Option<ChildPlace> {
        let mut room = self.room();
        if room.free == 0 || !room.waiting.is_empty() {
            return None;
        }
        Some(self.hold(&mut room, purpose))
    }

    /// Queues for a place.
    pub fn wait(&self, purpose: Use) -> PlaceWait {
        let (sender, place) = oneshot::channel();
        let mut room = self.room();
        room.waited += 1;
        let number = room.waited;
        room.waiting.push(Waiter { number, purpose, sender });
        drop(room);
        self.hand_out();
        PlaceWait { number, place, places: self.clone() }
    }

    /// Returns the number of taken places.
    pub fn count(&self) -> usize {
        let room = self.room();
        room.limit - room.free
    }

    /// Counts the places whose child is ending.
    pub fn ending(&self) -> usize {
        self.all().iter().filter(|place| place.is_ending()).count()
    }

    /// Returns the client of each place that is not ending.
    pub fn clients(&self) -> Vec<Client> {
        clients(&self.all())
    }

    /// Ends the child that a call of this client has leased longest, or that is being started for it; returns false
    /// if there is none.
    pub fn end_one_of(&self, client: Client) -> bool {
        let mut all = self.all();
        all.retain(|place| place.now().purpose == Use::Call(client));
        sorted_by_key(all, |place| place.now().since).iter().any(|place| place.end_child())
    }

    /// Returns whether a child of this client is still to be started.
    pub fn is_starting_one_of(&self, client: Client) -> bool {
        self.all().iter().any(|place| {
            let held = place.now();
            held.purpose == Use::Call(client) && held.child.upgrade().is_none()
        })
    }

    /// Gives the free places to waiting clients.
    fn hand_out(&self) {
        loop {
            let all = self.all();
            let mut room = self.room();
            room.waiting.retain(|waiter| !waiter.sender.is_closed());
            let next = room.order(&clients(&all)).first().copied();
            let Some(next) = next.filter(|_| room.free > 0) else { return };
            let Waiter { purpose, sender, .. } = room.waiting.remove(next);
            let place = self.hold(&mut room, purpose);
            // The lock is released before a returned place locks this again.
            drop(room);
            drop(sender.send(place));
        }
    }

    fn hold(&self, room: &mut Room, purpose: Use) -> ChildPlace {
        room.free -= 1;
        let held = Holding { purpose, since: now(), child: Weak::new(), gave_way: false };
        let place = Arc::new(Taken { held: Mutex::new(held), places: self.clone() });
        room.taken.retain(|place| place.strong_count() > 0);
        room.taken.push(Arc::downgrade(&place));
        place
    }

    /// Returns all taken places. The caller drops the result after unlocking, since the last holder of a place
    /// returns it.
    fn all(&self) -> Vec<ChildPlace> {
        self.room().taken.iter().filter_map(Weak::upgrade).collect()
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.0.lock()
    }
}

fn clients(all: &[ChildPlace]) -> Vec<Client> {
    let kept = all.iter().filter(|place| !place.is_ending());
    kept.filter_map(|place| place.now().purpose.client()).collect()
}

impl Room {
    /// Returns the order in which waiting clients get places: fewest places first. `holders` names the client of each
    /// taken place.
    fn order(&self, holders: &[Client]) -> Vec<usize> {
        let mut counts: HashMap<Client, usize> = HashMap::new();
        holders.iter().for_each(|&holder| *counts.entry(holder).or_default() += 1);
        let mut ranks = Vec::with_capacity(self.waiting.len());
        for (at, waiter) in self.waiting.iter().enumerate() {
            let count = waiter.purpose.client().map(|client| counts.entry(client).or_default());
            let rank = count.map_or(0, |count| std::mem::replace(count, *count + 1));
            ranks.push((rank, at));
        }
        sorted(ranks).into_iter().map(|(_, at)| at).collect()
    }
}

impl PlaceWait {
    /// Returns the position in the queue, from 1; 0 when the wait has its place.
    pub fn turn(&self) -> usize {
        let all = self.places.all();
        let room = self.places.room();
        let order = room.order(&clients(&all));
        order.iter().position(|&at| room.waiting[at].number == self.number).map_or(0, |before| before + 1)
    }
}

impl Future for PlaceWait {
    type Output = ChildPlace;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ChildPlace> {
        match Pin::new(&mut self.place).poll(cx) {
            Poll::Ready(Ok(place)) => Poll::Ready(place),
            // The sender lives as long as the wait.
            _ => Poll::Pending,
        }
    }
}

impl Drop for PlaceWait {
    fn drop(&mut self) {
        self.place.close();
        self.places.room().waiting.retain(|waiter| waiter.number != self.number);
    }
}

impl Taken {
    /// Changes the purpose of the place.
    pub(super) fn pass_to(&self, purpose: Use) {
        let mut held = self.now();
        (held.purpose, held.since) = (purpose, now());
    }

    /// Notes the child that takes the place.
    pub(super) fn seat(&self, child: &Arc<Link>) {
        self.now().child = Arc::downgrade(child);
    }

    /// Replaces the error of a child that was ended to make room while it started.
    pub(super) fn outcome<T>(&self, started: Result<T, Refusal>) -> Result<T, Refusal> {
        match started {
            Err(_) if self.now().gave_way => Err(GAVE_WAY),
            other => other,
        }
    }

    /// Ends the child; returns false if it does not run or is ending already.
    fn end_child(&self) -> bool {
        let mut held = self.now();
        let open = held.child.upgrade().filter(|link| !link.is_closed());
        held.gave_way |= open.is_some();
        open.inspect(|link| link.stop()).is_some()
    }

    fn is_ending(&self) -> bool {
        let child = self.now().child.upgrade();
        child.is_some_and(|link| link.is_ending())
    }

    fn now(&self) -> MutexGuard<'_, Holding> {
        self.held.lock()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.places.room().free += 1;
        self.places.hand_out();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::Waker;

    fn call(client: u64) -> Use {
        Use::Call(Client::numbered(client))
    }

    fn given(waiting: &mut Pin<&mut PlaceWait>) -> Option<ChildPlace> {
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(place) => Some(place),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_place_goes_to_the_client_with_the_fewest() {
        let places = ChildPlaces::new(3);
        let [first, second, third] =
            [1, 1, 2].map(|client| places.try_take(call(client)).expect("it is free"));
        let (mut hog, mut again) = (pin!(places.wait(call(1))), pin!(places.wait(call(1))));
        let (mut other, mut newcomer) = (pin!(places.wait(call(2))), pin!(places.wait(call(3))));
        assert_eq!([newcomer.turn(), other.turn(), hog.turn(), again.turn()], [1, 2, 3, 4]);
        drop(first);
        assert!(given(&mut hog).is_none() && given(&mut again).is_none() && given(&mut other).is_none());
        let newcomers = given(&mut newcomer).expect("it had none");
        assert_eq!((newcomer.turn(), hog.turn()), (0, 1), "equal clients are served in order of arrival");
        drop(third);
        assert!(
            given(&mut other).is_some_and(|place| place.now().purpose == call(2)),
            "it has no place any more"
        );
        // The place was given back at once.
        assert!(given(&mut hog).is_some());
        assert!(given(&mut again).is_some());
        drop((second, newcomers));
        assert_eq!(places.count(), 0);
    }

    #[test]
    fn a_dropped_waiter_keeps_no_place() {
        let places = ChildPlaces::new(1);
        let held = places.try_take(Use::Shared).expect("it is free");
        let (left, stays) = (places.wait(call(1)), places.wait(call(2)));
        drop(left);
        assert_eq!(stays.turn(), 1);
        drop(held);
        assert_eq!(stays.turn(), 0);
        // The place was granted to `stays`, which has not been polled since.
        drop(stays);
        assert_eq!(places.count(), 0);
        assert!(places.try_take(call(3)).is_some());
    }
}
