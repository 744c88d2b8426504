//! Notifications that a child may not have handled yet. Nothing answers them, so that after a number of them only the
//! answer to a later request shows that the child has come that far. Until then they keep their places.

use super::Places;
use parking_lot::{Mutex, MutexGuard};
use std::mem;

/// Notifications that a child is sent before it has to show that it handles them.
const UNPROVEN: usize = 32;

/// The notifications of one child.
#[derive(Debug, Default)]
pub struct Backlog(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    sent: usize,
    held: Vec<Places>,
    /// A request is to show how far the child has come.
    proving: bool,
}

impl Backlog {
    /// A notification is on its way. True if the caller is to send a request now and to call [`note_proven`](Self::note_proven)
    /// when that is answered.
    #[must_use]
    pub fn add(&self) -> bool {
        let mut state = self.state();
        state.sent += 1;
        state.sent > UNPROVEN && !mem::replace(&mut state.proving, true)
    }

    /// A notification was written to the child. It keeps its places if it is among the unproven.
    pub fn note_written(&self, places: Places) {
        let mut state = self.state();
        if state.proving && places.notice.is_some() {
            state.held.push(places);
        } else {
            drop(state);
            drop(places);
        }
    }

    /// The notifications that have their places now, to be passed to [`note_proven`](Self::note_proven).
    pub fn held(&self) -> usize {
        self.state().held.len()
    }

    /// The child has handled the first `count` of those that had their places; `wait` says whether others still wait to be
    /// written. True if the caller is to ask again: others wait, or were written meanwhile.
    #[must_use]
    pub fn note_proven(&self, count: usize, wait: bool) -> bool {
        let mut state = self.state();
        let count = count.min(state.held.len());
        let rest = state.held.split_off(count);
        let handled = mem::replace(&mut state.held, rest);
        state.proving = wait || !state.held.is_empty();
        if !state.proving {
            state.sent = 0;
        }
        let goes_on = state.proving;
        drop(state);
        drop(handled);
        goes_on
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}
