//! A post at which children serve, one after the other. Sessions keep their post when the child is replaced.

use crate::exchange::Link;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// A post, and the child that fills it at the moment.
#[derive(Debug)]
pub struct Post(watch::Sender<Occupant>);

#[derive(Clone, Debug, Default)]
enum Occupant {
    /// No child has started yet, or the next one is starting.
    #[default]
    Vacant,
    Child(Serving),
    /// No child will serve here again.
    Closed,
}

/// The child that serves at a post.
#[derive(Clone, Debug)]
struct Serving {
    link: Arc<Link>,
    /// Takes requests to update the subscription to a modern child.
    wishes: Option<mpsc::Sender<Wish>>,
}

/// A request to update the subscription to a modern child, so that it covers all resources that its members watch.
#[derive(Debug)]
pub struct Wish {
    /// A resource to cover in addition.
    pub also: Option<String>,
    /// Receives whether the subscription covers the resources.
    pub reply: oneshot::Sender<bool>,
}

impl Default for Post {
    fn default() -> Self {
        Post(watch::Sender::new(Occupant::Vacant))
    }
}

impl Post {
    /// Returns a post filled by this child.
    pub fn of(link: &Arc<Link>) -> Self {
        let post = Post::default();
        post.fill(link, None);
        post
    }

    /// Makes this child serve at the post.
    pub fn fill(&self, link: &Arc<Link>, wishes: Option<mpsc::Sender<Wish>>) {
        self.0.send_replace(Occupant::Child(Serving { link: Arc::clone(link), wishes }));
    }

    /// Removes the child; another one will come.
    pub fn vacate(&self) {
        self.0.send_replace(Occupant::Vacant);
    }

    /// Removes the child permanently.
    pub fn close(&self) {
        self.0.send_replace(Occupant::Closed);
    }

    /// Stops the child, and closes the post.
    pub fn stop(&self) {
        if let Some(link) = self.link() {
            link.stop();
        }
        self.close();
    }

    /// Returns the child at the post, which may be ending.
    pub fn link(&self) -> Option<Arc<Link>> {
        match &*self.0.borrow() {
            Occupant::Child(child) => Some(Arc::clone(&child.link)),
            Occupant::Vacant | Occupant::Closed => None,
        }
    }

    /// Returns whether no child will serve at the post again.
    pub fn is_closed(&self) -> bool {
        matches!(*self.0.borrow(), Occupant::Closed)
    }

    /// Returns a child that serves, after waiting at most `patience` for the next one.
    pub async fn serving(&self, patience: Duration) -> Option<Arc<Link>> {
        // The usual case needs no subscription to the channel.
        if let Some(link) = self.link().filter(|link| !link.is_closed()) {
            return Some(link);
        }
        let mut changes = self.0.subscribe();
        let settled = changes.wait_for(|state| match state {
            Occupant::Vacant => false,
            Occupant::Child(child) => !child.link.is_closed(),
            Occupant::Closed => true,
        });
        match timeout(patience, settled).await {
            Ok(Ok(state)) => match &*state {
                Occupant::Child(child) => Some(Arc::clone(&child.link)),
                Occupant::Vacant | Occupant::Closed => None,
            },
            _ => None,
        }
    }

    /// Asks for the subscription to a modern child, without waiting for it.
    pub fn listen_soon(&self) {
        let (reply, _) = oneshot::channel();
        if let Some(wishes) = self.wishes() {
            // If the queue is full, a request in it has the same effect.
            let _ = wishes.try_send(Wish { also: None, reply });
        }
    }

    /// Updates the subscription to cover all watched resources and `also`; returns whether the child accepted it.
    pub async fn listen(&self, also: Option<String>) -> bool {
        let Some(wishes) = self.wishes() else { return false };
        let (reply, covered) = oneshot::channel();
        wishes.send(Wish { also, reply }).await.is_ok() && covered.await.unwrap_or(false)
    }

    fn wishes(&self) -> Option<mpsc::Sender<Wish>> {
        match &*self.0.borrow() {
            Occupant::Child(child) => child.wishes.clone(),
            Occupant::Vacant | Occupant::Closed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn a_waiting_caller_gets_the_next_child() {
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
    async fn a_wait_ends_at_once_at_a_closed_post_and_times_out_at_a_vacant_one() {
        let post = Post::default();
        assert!(post.serving(Duration::ZERO).await.is_none());
        post.close();
        assert!(post.serving(Duration::MAX).await.is_none());
    }
}
