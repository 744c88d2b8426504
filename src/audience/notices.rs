//! Combines notices of changed lists: the first change is told at once, those that follow shortly after together. A child
//! that changes its lists all the time must not cost a walk over all members each time.

use super::ListKind;
use crate::jsonrpc::Spliced;
use parking_lot::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::sleep;

/// Pause between two notices of the same list.
const PAUSE: Duration = Duration::from_millis(100);

/// The notices of each kind of list.
#[derive(Debug, Default)]
pub(super) struct Notices(Mutex<[Notice; 3]>);

#[derive(Debug, Default)]
enum Notice {
    /// Nothing was told for the length of a pause.
    #[default]
    Quiet,
    /// A change was told within the last pause.
    Told,
    /// Another change followed, and is told when the pause is over.
    Deferred(Spliced),
}

impl Notices {
    /// Waits for the pause between two notices.
    pub(super) async fn pause() {
        sleep(PAUSE).await;
    }

    /// Returns whether a change is to be told at once; else keeps it until the pause is over.
    pub(super) fn take_or_defer(&self, kind: ListKind, frame: &Spliced) -> bool {
        let notice = &mut self.notices()[kind as usize];
        let is_first = matches!(notice, Notice::Quiet);
        *notice = if is_first { Notice::Told } else { Notice::Deferred(frame.clone()) };
        is_first
    }

    /// Takes the change that was deferred; without one, the next change is told at once.
    pub(super) fn take_deferred(&self, kind: ListKind) -> Option<Spliced> {
        let notice = &mut self.notices()[kind as usize];
        match std::mem::take(notice) {
            Notice::Deferred(frame) => {
                *notice = Notice::Told;
                Some(frame)
            }
            Notice::Told | Notice::Quiet => None,
        }
    }

    fn notices(&self) -> MutexGuard<'_, [Notice; 3]> {
        self.0.lock()
    }
}
