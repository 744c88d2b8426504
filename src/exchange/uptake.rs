//! How a child takes what is written to its stdin: said by the task that writes, seen by whoever watches the child.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// One task writes it; what others see may be a moment old.
#[derive(Debug, Default)]
pub struct Uptake {
    waits: AtomicBool,
    taken: AtomicU64,
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

    /// Whether bytes wait to be taken.
    pub fn waits(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// How often the child has taken some.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}
