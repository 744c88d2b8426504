//! The changes of the child's environment after which every child is replaced.

use tokio::sync::{Mutex as AsyncMutex, watch};

/// The changes of the environment, counted.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    count: watch::Sender<u64>,
    /// Locked while a post is renewed.
    pub turn: AsyncMutex<()>,
}

impl Renewals {
    /// Returns the number of the last renewal.
    pub fn current(&self) -> u64 {
        *self.count.borrow()
    }

    /// Begins a renewal.
    pub fn begin(&self) {
        self.count.send_modify(|count| *count += 1);
    }

    /// Resolves once a child that was started after the renewal `known` is to be replaced.
    pub async fn after(&self, known: u64) {
        // The sender lives as long as this.
        let _ = self.count.subscribe().wait_for(|count| *count > known).await;
    }
}
