//! Tells the sessions at a shared child that a list changed: the first change at once, those that follow shortly after
//! together. A child that changes its lists all the time must not cost a walk over all sessions each time.

use super::{Kind, Members};
use crate::jsonrpc::Spliced;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::sleep;

/// Between two notices about the same list.
const PAUSE: Duration = Duration::from_millis(100);

/// What was told of each kind of list.
#[derive(Debug, Default)]
pub(super) struct Notices(Mutex<[State; 3]>);

#[derive(Debug, Default)]
enum State {
    /// Nothing for a while.
    #[default]
    Quiet,
    /// A change was told just now.
    Told,
    /// Another one followed, and is to be told.
    Again(Spliced),
}

impl Notices {
    fn states(&self) -> MutexGuard<'_, [State; 3]> {
        self.0.lock()
    }

    /// Whether a change is to be told at once; else it is told with those that follow.
    fn is_first(&self, kind: Kind, frame: &Spliced) -> bool {
        let state = &mut self.states()[kind as usize];
        let is_first = matches!(state, State::Quiet);
        *state = if is_first { State::Told } else { State::Again(frame.clone()) };
        is_first
    }

    /// The change that is to be told now that a pause is over.
    fn next(&self, kind: Kind) -> Option<Spliced> {
        let state = &mut self.states()[kind as usize];
        match std::mem::take(state) {
            State::Again(frame) => {
                *state = State::Told;
                Some(frame)
            }
            State::Told | State::Quiet => None,
        }
    }
}

impl Members {
    /// A list changed, as `method` says: every session is told, and every subscription that asked for it. Changes in
    /// quick succession are told as one.
    pub fn tell_changed(self: &Arc<Self>, method: &str, frame: &Spliced) {
        let (Some(kind), Ok(runtime)) = (Kind::changed_by(method), Handle::try_current()) else {
            return self.tell_all(method, frame);
        };
        if !self.notices.is_first(kind, frame) {
            return;
        }
        self.tell_all(method, frame);
        let (members, method) = (Arc::downgrade(self), method.to_owned());
        runtime.spawn(async move {
            loop {
                sleep(PAUSE).await;
                let Some(members) = members.upgrade() else { return };
                let Some(frame) = members.notices.next(kind) else { return };
                members.tell_all(&method, &frame);
            }
        });
    }
}
