//! How a child takes what is written to its stdin: said by the task that writes, seen by whoever watches the child.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counts of what a child was given and has taken. What is read of it may be a moment old.
#[derive(Debug, Default)]
pub struct Uptake {
    waits: AtomicBool,
    taken: AtomicU64,
    notified: AtomicU64,
    read_all: AtomicBool,
}

impl Uptake {
    /// Charged wait from now on, or no longer.
    pub fn note_waiting(&self, waits: bool) {
        self.waits.store(waits, Ordering::Relaxed);
    }

    /// The child has taken some of them.
    pub fn note_taken(&self) {
        self.taken.store(self.taken.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Nothing is written any more; whether the child has read all that was.
    pub fn note_read(&self, all: bool) {
        self.read_all.store(all, Ordering::Relaxed);
    }

    /// Whether a child to which nothing is written any more has read all that was.
    pub fn has_read_all(&self) -> bool {
        self.read_all.load(Ordering::Relaxed)
    }

    /// A notification is on its way to the child, which may answer it although it must not.
    pub fn note_notified(&self) {
        self.notified.fetch_add(1, Ordering::Relaxed);
    }

    /// Notifications for the child so far.
    pub fn notified(&self) -> u64 {
        self.notified.load(Ordering::Relaxed)
    }

    /// Whether bytes wait to be taken.
    pub fn waits(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// How often the child has taken some.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}
