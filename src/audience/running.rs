//! Calls that continue as tasks after their child answered them. The child still reports their progress under the
//! call's own token (2025-11-25, basic/utilities/tasks §Task Progress).

use crate::exchange::Mailbox;
use crate::mux::WireId;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// The calls of one child that continue as tasks, by the wire id of the call. A call is over when its mailbox is
/// gone.
#[derive(Debug, Default)]
pub struct Running(Mutex<HashMap<u64, Weak<Mailbox>>>);

impl Running {
    /// Adds a call that is about to be sent and will run as a task.
    pub fn note(&self, wire_id: WireId, mailbox: &Arc<Mailbox>) {
        let mut running = self.running();
        running.retain(|_, mailbox| mailbox.strong_count() > 0);
        running.insert(wire_id.as_u64(), Arc::downgrade(mailbox));
    }

    /// Returns the mailbox of the call, if it still runs.
    pub fn find(&self, wire_id: WireId) -> Option<Arc<Mailbox>> {
        self.running().get(&wire_id.as_u64())?.upgrade()
    }

    /// Forgets all calls: the child is gone, and the next one mints the same wire ids.
    pub fn clear(&self) {
        self.running().clear();
    }

    fn running(&self) -> MutexGuard<'_, HashMap<u64, Weak<Mailbox>>> {
        self.0.lock()
    }
}
