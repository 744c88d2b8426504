//! Notifications that a child may not have handled yet. They have no answers, so after a number of them, only the
//! answer to a later request proves that the child has handled them. Until then they keep their permits.

use super::Places;
use parking_lot::{Mutex, MutexGuard};
use std::mem;

/// Notifications that are sent before the child has to prove that it handles them.
const UNPROVEN: usize = 32;

/// The unproven notifications of one child.
#[derive(Debug, Default)]
pub struct Backlog(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    sent: usize,
    held: Vec<Places>,
    /// Set while a request is in flight whose answer proves that earlier notifications were handled.
    proving: bool,
}

impl Backlog {
    /// Counts a notification. Returns true if the caller must now send a request, and call
    /// [`note_proven`](Self::note_proven) when it is answered.
    #[must_use]
    pub fn add(&self) -> bool {
        let mut state = self.state();
        state.sent += 1;
        state.sent > UNPROVEN && !mem::replace(&mut state.proving, true)
    }

    /// Records that a notification was written to the child. An unproven one keeps its permits.
    pub fn note_written(&self, places: Places) {
        let mut state = self.state();
        if state.proving && places.notice.is_some() {
            state.held.push(places);
        } else {
            drop(state);
            drop(places);
        }
    }

    /// Returns the number of unproven notifications, for a later call of [`note_proven`](Self::note_proven).
    pub fn held(&self) -> usize {
        self.state().held.len()
    }

    /// Records that the child has handled the first `count` unproven notifications. `wait` says whether more wait to
    /// be written. Returns true if the caller must send another request: more wait, or were written meanwhile.
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
