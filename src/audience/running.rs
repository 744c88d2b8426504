//! Calls that continue as tasks after their child answered them. The child still reports their progress under the
//! call's own token (2025-11-25, basic/utilities/tasks §Task Progress).

use crate::exchange::Mailbox;
use crate::mux::WireId;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// The calls at one post that continue as tasks, by the child's number and the wire id of the call: a child and its
/// successor mint the same wire ids. A call is over when its mailbox is gone.
#[derive(Debug, Default)]
pub struct Running(Mutex<HashMap<(u64, u64), Weak<Mailbox>>>);

impl Running {
    /// Adds a call that is about to be sent and will run as a task.
    pub fn note(&self, child: u64, wire_id: WireId, mailbox: &Arc<Mailbox>) {
        let mut running = self.running();
        running.retain(|_, mailbox| mailbox.strong_count() > 0);
        running.insert((child, wire_id.as_u64()), Arc::downgrade(mailbox));
    }

    /// Returns the mailbox of the call, if it still runs.
    pub fn find(&self, child: u64, wire_id: WireId) -> Option<Arc<Mailbox>> {
        self.running().get(&(child, wire_id.as_u64()))?.upgrade()
    }

    /// Returns whether a call of a child still runs.
    pub fn is_any_of(&self, child: u64) -> bool {
        self.running().iter().any(|(&(number, _), mailbox)| number == child && mailbox.strong_count() > 0)
    }

    /// Forgets all calls of a child that is gone.
    pub fn clear(&self, child: u64) {
        self.running().retain(|&(number, _), _| number != child);
    }

    fn running(&self) -> MutexGuard<'_, HashMap<(u64, u64), Weak<Mailbox>>> {
        self.0.lock()
    }
}
