//! Places that clients hold for long. A lone client may hold all of them; when another one asks, the client that holds
//! most gives way.

use crate::client::Client;
use crate::sync::{Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A bounded number of places, and how many each client holds.
#[derive(Debug)]
pub struct Shares {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    held: BTreeMap<Client, usize>,
    /// The same by number; each client that holds one is in it once.
    by_number: BTreeSet<(usize, Client)>,
}

/// All places are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The client that is to give one up, if any holds so many more that it should.
    pub by: Option<Holder>,
}

/// A client, and how many places it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The client.
    pub client: Client,
    /// Whether it holds more than half of all places.
    pub has_most: bool,
}

impl Shares {
    /// A number of places, all free.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Shares { most, state: Mutex::new(State::default()) })
    }

    /// Takes a place.
    ///
    /// # Errors
    /// When all are taken; says which client is to give one up.
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

/// One place of a client, until it is dropped.
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
    fn a_lone_client_may_hold_all_and_gives_way_until_it_holds_no_more_than_others() {
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
