//! One question for all who ask the same at the same time.

use super::cache::Digest;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// Answers in progress, by the digest of what is asked about. An answer is forgotten once nobody waits for it.
pub(super) struct Shared<T>(Mutex<HashMap<Digest, Arc<OnceCell<T>>>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Shared(Mutex::default())
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&self.0.lock().len()).finish()
    }
}

/// One who waits.
struct Waiting<'a, T> {
    shared: &'a Shared<T>,
    digest: Digest,
    cell: Arc<OnceCell<T>>,
}

impl<T: Clone> Shared<T> {
    /// Returns the answer to this question, or to the equal one that is in progress. If its asker gives up, the next one
    /// asks.
    pub(super) async fn one(&self, digest: Digest, answer: impl Future<Output = T>) -> T {
        let cell = Arc::clone(self.0.lock().entry(digest).or_default());
        let waiting = Waiting { shared: self, digest, cell };
        waiting.cell.get_or_init(|| answer).await.clone()
    }
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        let mut all = self.shared.0.lock();
        // The other one is the map's.
        if Arc::strong_count(&self.cell) == 2 {
            all.remove(&self.digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn equal_questions_are_asked_once_and_forgotten() {
        let (shared, asked, go) = (Shared::<usize>::default(), AtomicUsize::new(0), Notify::new());
        let ask = |digest: u8| {
            shared.one([digest; 32], async {
                go.notified().await;
                go.notify_one();
                asked.fetch_add(1, Ordering::Relaxed)
            })
        };
        let all = async { tokio::join!(ask(1), ask(1), ask(1), ask(2)) };
        let ((first, second, third, other), ()) = tokio::join!(all, async { go.notify_one() });
        assert_eq!((second, third), (first, first));
        assert_ne!(other, first);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        assert!(shared.0.lock().is_empty());
    }

    #[tokio::test]
    async fn the_next_one_asks_if_the_asker_gives_up() {
        let shared = Shared::<usize>::default();
        let mut leaving = Box::pin(shared.one([1; 32], pending()));
        tokio::select! {
            biased;
            _ = &mut leaving => unreachable!("nobody answers"),
            () = std::future::ready(()) => {}
        }
        let next = shared.one([1; 32], async { 7 });
        let (next, ()) = tokio::join!(next, async { drop(leaving) });
        assert_eq!(next, 7);
        assert!(shared.0.lock().is_empty());
    }
}
