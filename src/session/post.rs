//! A place at which children serve, one after the other: who sits there stays when the child is replaced.

use super::Wish;
use crate::exchange::Link;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// A post, and which child fills it at the moment.
#[derive(Debug)]
pub struct Post(watch::Sender<State>);

#[derive(Clone, Debug, Default)]
enum State {
    /// No child yet, or the next one is on its way.
    #[default]
    Vacant,
    Filled(Filled),
    /// No child will fill it again.
    Closed,
}

/// The child that fills a post.
#[derive(Clone, Debug)]
struct Filled {
    link: Arc<Link>,
    /// What a modern child's sessions want to hear of.
    wishes: Option<mpsc::Sender<Wish>>,
}

impl Default for Post {
    fn default() -> Self {
        Post(watch::Sender::new(State::Vacant))
    }
}

impl Post {
    /// One that a child fills.
    pub fn of(link: &Arc<Link>) -> Self {
        let post = Post::default();
        post.fill(link, None);
        post
    }

    /// From now on this child serves here.
    pub fn fill(&self, link: &Arc<Link>, wishes: Option<mpsc::Sender<Wish>>) {
        self.0.send_replace(State::Filled(Filled { link: Arc::clone(link), wishes }));
    }

    /// The child is gone, another one will come.
    pub fn vacate(&self) {
        self.0.send_replace(State::Vacant);
    }

    /// The child is gone, and no other comes.
    pub fn close(&self) {
        self.0.send_replace(State::Closed);
    }

    /// The child here, which may be ending.
    pub fn link(&self) -> Option<Arc<Link>> {
        match &*self.0.borrow() {
            State::Filled(filled) => Some(Arc::clone(&filled.link)),
            State::Vacant | State::Closed => None,
        }
    }

    /// Whether no child will ever serve here again.
    pub fn is_closed(&self) -> bool {
        matches!(*self.0.borrow(), State::Closed)
    }

    /// A child that serves; waits for the next one at most for `patience`.
    pub async fn serving(&self, patience: Duration) -> Option<Arc<Link>> {
        // As it nearly always is.
        if let Some(link) = self.link().filter(|link| !link.is_closed()) {
            return Some(link);
        }
        let mut changes = self.0.subscribe();
        let settled = changes.wait_for(|state| match state {
            State::Vacant => false,
            State::Filled(filled) => !filled.link.is_closed(),
            State::Closed => true,
        });
        match timeout(patience, settled).await {
            Ok(Ok(state)) => match &*state {
                State::Filled(filled) => Some(Arc::clone(&filled.link)),
                State::Vacant | State::Closed => None,
            },
            _ => None,
        }
    }

    /// Has the subscription to a modern child be there, without waiting for it.
    pub fn listen_soon(&self) {
        let (reply, _) = oneshot::channel();
        if let Some(wishes) = self.wishes() {
            // Where there is no room, another wish that waits has the same effect.
            let _ = wishes.try_send(Wish { also: None, reply });
        }
    }

    /// Has that subscription cover what is watched, and `also`; whether the child agreed.
    pub async fn listen(&self, also: Option<String>) -> bool {
        let Some(wishes) = self.wishes() else { return false };
        let (reply, covered) = oneshot::channel();
        wishes.send(Wish { also, reply }).await.is_ok() && covered.await.unwrap_or(false)
    }

    fn wishes(&self) -> Option<mpsc::Sender<Wish>> {
        match &*self.0.borrow() {
            State::Filled(filled) => filled.wishes.clone(),
            State::Vacant | State::Closed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn who_waits_gets_the_next_child() {
        let (first, first_ends) = Link::new(1, 1);
        let (second, _second_ends) = Link::new(2, 1);
        let post = Arc::new(Post::of(&first));
        assert_eq!(post.serving(LONG).await.map(|link| link.number()), Some(1));
        first_ends.mute.cancel();
        let waiting = tokio::spawn({
            let post = Arc::clone(&post);
            async move { post.serving(LONG).await.map(|link| link.number()) }
        });
        tokio::task::yield_now().await;
        post.vacate();
        assert!(post.link().is_none());
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        post.fill(&second, None);
        assert_eq!(waiting.await.ok().flatten(), Some(2));
    }

    #[tokio::test]
    async fn a_closed_post_keeps_nobody_waiting_and_an_empty_one_not_for_ever() {
        let post = Post::default();
        assert!(post.serving(Duration::ZERO).await.is_none());
        post.close();
        assert!(post.serving(Duration::MAX).await.is_none());
    }
}
