//! Places that clients hold for long. A single client may hold all of them. When another client asks for one, the
//! client that holds most gives way.

use crate::client::Client;
use crate::sync::{Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A bounded number of places, and each client's holdings.
#[derive(Debug)]
pub struct Shares {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    held: BTreeMap<Client, usize>,
    /// The same clients, sorted by their number of places.
    by_number: BTreeSet<(usize, Client)>,
}

/// All places are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The client that has to give up a place, if one holds enough more than the asking client.
    pub by: Option<Holder>,
}

/// A client that holds places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The client.
    pub client: Client,
    /// Whether it holds more than half of all places.
    pub has_most: bool,
}

impl Shares {
    /// Creates `most` places, all of them free.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Shares { most, state: Mutex::new(State::default()) })
    }

    /// Takes a place.
    ///
    /// # Errors
    /// When all places are taken; names the client that has to give one up.
    pub fn take(self: &Arc<Self>, client: Client) -> Result<Share, Taken> {
        let mut state = self.state();
        if state.taken < self.most {
            state.change(client, 1);
            return Ok(Share { shares: Arc::clone(self), client });
        }
        let own = state.held.get(&client).copied().unwrap_or_default();
        let by = state.by_number.last().filter(|(number, _)| *number > own + 1);
        Err(Taken { by: by.map(|&(number, client)| Holder { client, has_most: number * 2 > self.most }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn change(&mut self, client: Client, by: isize) {
        let held = self.held.remove(&client).unwrap_or_default();
        self.by_number.remove(&(held, client));
        let now = held.saturating_add_signed(by);
        if now > 0 {
            self.held.insert(client, now);
            self.by_number.insert((now, client));
        }
        self.taken = self.taken.saturating_add_signed(by);
    }
}

/// One place of a client, given back on drop.
#[derive(Debug)]
pub struct Share {
    shares: Arc<Shares>,
    client: Client,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shares.state().change(self.client, -1);
    }
}

#[cfg(all(test, not(proxyrunner_loom)))]
mod tests {
    use super::*;

    const A: Client = Client::numbered(1);
    const B: Client = Client::numbered(2);
    const C: Client = Client::numbered(3);

    #[test]
    fn a_lone_client_may_hold_all_places_and_gives_way_down_to_an_equal_share() {
        let shares = Shares::new(4);
        let mut held: Vec<Share> = (0..4).map(|_| shares.take(A).unwrap()).collect();
        assert_eq!(shares.take(A).unwrap_err(), Taken { by: None }, "it would give way to itself");
        assert_eq!(shares.take(B).unwrap_err().by, Some(Holder { client: A, has_most: true }));
        held.pop();
        let _first = shares.take(B).unwrap();
        assert_eq!(shares.take(B).unwrap_err().by, Some(Holder { client: A, has_most: true }));
        held.pop();
        let _second = shares.take(B).unwrap();
        assert_eq!(shares.take(B).unwrap_err().by, None);
        assert_eq!(shares.take(A).unwrap_err().by, None);
        assert!(matches!(shares.take(C).unwrap_err().by, Some(Holder { has_most: false, .. })));
        drop(held);
        let _third = [shares.take(C).unwrap(), shares.take(C).unwrap()];
        assert_eq!(shares.state().held.len(), 2);
    }
}
