//! Calls that run on as tasks once their child has answered them: where what it says of their progress goes, which it
//! still says under the call's own token (2025-11-25, basic/utilities/tasks §Task Progress).

use crate::exchange::Mailbox;
use crate::mux::WireId;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// Those of one child, by the wire id of the call. One whose mailbox is gone is over.
#[derive(Debug, Default)]
pub struct Running(Mutex<HashMap<u64, Weak<Mailbox>>>);

impl Running {
    /// A call that is about to be sent will run as a task.
    pub fn note(&self, wire_id: WireId, mailbox: &Arc<Mailbox>) {
        let mut running = self.running();
        running.retain(|_, mailbox| mailbox.strong_count() > 0);
        running.insert(wire_id.as_u64(), Arc::downgrade(mailbox));
    }

    /// Who hears of the call.
    pub fn find(&self, wire_id: WireId) -> Option<Arc<Mailbox>> {
        self.running().get(&wire_id.as_u64())?.upgrade()
    }

    /// The child is gone; the next one mints the same wire ids.
    pub fn clear(&self) {
        self.running().clear();
    }

    fn running(&self) -> MutexGuard<'_, HashMap<u64, Weak<Mailbox>>> {
        self.0.lock()
    }
}
