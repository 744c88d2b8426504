//! A child's progress with the bytes written to its stdin: recorded by the writer, read by the child's watchers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters of written and read bytes. Readers may see values that are slightly out of date.
#[derive(Debug, Default)]
pub struct Uptake {
    waits: AtomicBool,
    taken: AtomicU64,
    notified: AtomicU64,
    read_all: AtomicBool,
}

impl Uptake {
    /// Records whether bytes wait to be read.
    pub fn note_waiting(&self, waits: bool) {
        self.waits.store(waits, Ordering::Relaxed);
    }

    /// Records that the child has read some of the bytes.
    pub fn note_taken(&self) {
        self.taken.store(self.taken.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Records, after the last write, whether the child has read everything.
    pub fn note_read(&self, all: bool) {
        self.read_all.store(all, Ordering::Relaxed);
    }

    /// Returns whether the child has read everything, after the last write.
    pub fn has_read_all(&self) -> bool {
        self.read_all.load(Ordering::Relaxed)
    }

    /// Counts a notification for the child. Some children answer notifications, although they must not.
    pub fn note_notified(&self) {
        self.notified.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of notifications for the child.
    pub fn notified(&self) -> u64 {
        self.notified.load(Ordering::Relaxed)
    }

    /// Returns whether bytes wait to be read.
    pub fn waits(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// Returns the number of times that the child has read some bytes.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}
