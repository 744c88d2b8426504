//! The exchange that leases a child.

use super::{ListChanges, Running};
use crate::budget::Charged;
use crate::exchange::{Class, Mailbox, Topic};
use crate::jsonrpc::Spliced;
use parking_lot::{Mutex, MutexGuard};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// The exchange that leases a child at the moment, if any.
#[derive(Debug, Default)]
pub struct LeaseHolder {
    /// The changes of the child's lists.
    pub changes: ListChanges,
    /// The calls of the exchange that continue as tasks.
    pub running: Running,
    mailbox: Mutex<Weak<Mailbox>>,
    is_waiting: AtomicBool,
}

impl LeaseHolder {
    /// Attaches the exchange that receives the child's messages without a request.
    pub fn attach(&self, mailbox: &Arc<Mailbox>) {
        *self.mailbox() = Arc::downgrade(mailbox);
    }

    /// Detaches the exchange: such messages are dropped from now on.
    pub fn detach(&self) {
        *self.mailbox() = Weak::new();
        self.set_waiting(false);
    }

    /// Returns whether the child waits for a client's answer.
    pub fn is_waiting(&self) -> bool {
        self.is_waiting.load(Ordering::Relaxed)
    }

    /// Sets whether the child waits for a client's answer.
    pub fn set_waiting(&self, is_waiting: bool) {
        self.is_waiting.store(is_waiting, Ordering::Relaxed);
    }

    /// Passes the exchange the message that `write` makes; returns false if there is no exchange or it has no room.
    pub fn tell(
        &self,
        frame: &mut Charged,
        class: Class,
        topic: Topic,
        write: impl FnOnce(&Charged) -> Spliced,
    ) -> bool {
        let mailbox = self.mailbox().upgrade();
        mailbox.is_some_and(|mailbox| mailbox.take_in(frame, class, topic, write))
    }

    fn mailbox(&self) -> MutexGuard<'_, Weak<Mailbox>> {
        self.mailbox.lock()
    }
}
