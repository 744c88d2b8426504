//! Combines notifications of changed lists: the first change is sent at once, further changes within the pause are
//! sent together. Otherwise a child that changes its lists all the time would cost a walk over all members for each
//! change.

use super::ListKind;
use crate::jsonrpc::Spliced;
use parking_lot::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::sleep;

/// Minimum time between two notifications of the same list.
const PAUSE: Duration = Duration::from_millis(100);

/// The pending notifications of each kind of list.
#[derive(Debug, Default)]
pub(super) struct Notices(Mutex<[Notice; 3]>);

#[derive(Debug, Default)]
enum Notice {
    /// No change was sent within the last pause.
    #[default]
    Quiet,
    /// A change was sent within the last pause.
    Told,
    /// Another change followed, and is sent at the end of the pause.
    Deferred(Spliced),
}

impl Notices {
    /// Waits for the pause between two notifications.
    pub(super) async fn pause() {
        sleep(PAUSE).await;
    }

    /// Returns whether a change is to be sent at once; else keeps it until the end of the pause.
    pub(super) fn take_or_defer(&self, kind: ListKind, frame: &Spliced) -> bool {
        let notice = &mut self.notices()[kind as usize];
        let is_first = matches!(notice, Notice::Quiet);
        *notice = if is_first { Notice::Told } else { Notice::Deferred(frame.clone()) };
        is_first
    }

    /// Takes the deferred change. Without one, the next change is sent at once.
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
