//! Where a session sits: at a child of its own, at a shared one, or at one that knows no sessions.

use super::Members;
use crate::exchange::Link;
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// A session's place at a child.
#[derive(Clone, Debug)]
pub enum Seat {
    /// A child of its own.
    Exclusive(Arc<Link>),
    /// A place at a shared child.
    Shared {
        /// The child.
        link: Arc<Link>,
        /// Who shares it.
        members: Arc<Members>,
        /// The child was initialised at a later revision than the session's, and may say what that does not know.
        newer: bool,
    },
    /// A place at a modern child, which is told with each request whose it is.
    Stateless(Arc<Stateless>),
}

/// What a session is at a child that knows none.
#[derive(Debug)]
pub struct Stateless {
    /// The child.
    pub link: Arc<Link>,
    /// Who shares it.
    pub members: Arc<Members>,
    /// Whether it runs for this session only, and ends with it.
    pub own: bool,
    /// What its client declared to be able to answer, in the child's words; raw JSON, an object.
    pub capabilities: Bytes,
    /// What each request says of its client: raw members of `_meta`.
    pub envelope: String,
    /// What its clients want to hear of.
    pub wishes: mpsc::Sender<Wish>,
    level: Mutex<Option<&'static str>>,
}

/// The subscription to a modern child is to cover what its members watch.
#[derive(Debug)]
pub struct Wish {
    /// And this resource.
    pub also: Option<String>,
    /// Told whether it does.
    pub reply: oneshot::Sender<bool>,
}

impl Stateless {
    /// Without a log level, so that the child logs nothing.
    pub fn new(
        link: Arc<Link>,
        members: Arc<Members>,
        own: bool,
        capabilities: Bytes,
        envelope: String,
        wishes: mpsc::Sender<Wish>,
    ) -> Self {
        Stateless { link, members, own, capabilities, envelope, wishes, level: Mutex::default() }
    }

    /// Has the subscription be there, without waiting for it.
    pub fn listen_soon(&self) {
        let (reply, _) = oneshot::channel();
        // Where there is no room, another wish that waits has the same effect.
        let _ = self.wishes.try_send(Wish { also: None, reply });
    }

    /// Has the subscription cover what is watched, and `also`; whether the child agreed.
    pub async fn listen(&self, also: Option<String>) -> bool {
        let (reply, covered) = oneshot::channel();
        self.wishes.send(Wish { also, reply }).await.is_ok() && covered.await.unwrap_or(false)
    }

    /// From which level on the client wants log messages; none until it said.
    pub fn level(&self) -> Option<&'static str> {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client said it.
    pub fn set_level(&self, level: &'static str) {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner) = Some(level);
    }
}

impl Seat {
    /// The child.
    pub fn link(&self) -> &Arc<Link> {
        match self {
            Seat::Exclusive(link) | Seat::Shared { link, .. } => link,
            Seat::Stateless(seat) => &seat.link,
        }
    }

    /// The others at the child; none at one of its own.
    pub fn members(&self) -> Option<&Arc<Members>> {
        match self {
            Seat::Exclusive(_) => None,
            Seat::Shared { members, .. } => Some(members),
            Seat::Stateless(seat) => Some(&seat.members),
        }
    }

    /// Whether the child is this session's alone, and of its era.
    pub fn is_exclusive(&self) -> bool {
        matches!(self, Seat::Exclusive(_))
    }
}
