//! The one exchange that has a leased child.

use super::{Changes, Running};
use crate::budget::Charged;
use crate::exchange::{Class, Mailbox, Topic};
use crate::jsonrpc::Spliced;
use parking_lot::{Mutex, MutexGuard};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// Which exchange has a leased child at the moment, and how often the child's lists have changed.
#[derive(Debug, Default)]
pub struct Holder {
    /// Of the child's lists.
    pub changes: Changes,
    /// What runs on as a task.
    pub running: Running,
    mailbox: Mutex<Weak<Mailbox>>,
    waits: AtomicBool,
}

impl Holder {
    /// What the child says of its own accord is for this exchange.
    pub fn hear(&self, mailbox: &Arc<Mailbox>) {
        *self.mailbox() = Arc::downgrade(mailbox);
    }

    /// It is for nobody.
    pub fn hear_nobody(&self) {
        *self.mailbox() = Weak::new();
        self.wait(false);
    }

    /// Whether the child waits for a client's answer.
    pub fn waits(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// Says whether it does.
    pub fn wait(&self, waits: bool) {
        self.waits.store(waits, Ordering::Relaxed);
    }

    /// Gives a message to the exchange that has the child, as `write` makes it; false when there is none, or it has no
    /// room.
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
