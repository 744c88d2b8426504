//! The one exchange that has a leased child.

use super::{Changes, Running};
use crate::exchange::{Interim, Mailbox};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

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

    /// Gives a message to the exchange that has the child.
    ///
    /// # Errors
    /// Gives it back when there is none, or it has no room.
    pub fn tell(&self, interim: Interim) -> Result<(), Interim> {
        let mailbox = self.mailbox().upgrade();
        match mailbox {
            Some(mailbox) => mailbox.push(interim),
            None => Err(interim),
        }
    }

    fn mailbox(&self) -> MutexGuard<'_, Weak<Mailbox>> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
