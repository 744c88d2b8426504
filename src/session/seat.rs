//! Where a session sits: at a child of its own, at a shared one, or at one that knows no sessions.

use super::{Members, Post, Watched};
use crate::budget::Charged;
use crate::exchange::Link;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use tokio::sync::{Notify, OnceCell, oneshot};

/// A session's place at a child.
#[derive(Clone, Debug)]
pub enum Seat {
    /// A child of its own.
    Exclusive(Arc<Own>),
    /// A place at a shared child.
    Shared {
        /// Who shares it.
        members: Arc<Members>,
        /// The child was initialised at a later revision than the session's, and may say what that does not know.
        newer: bool,
    },
    /// A place at a modern child, which is told with each request whose it is.
    Stateless(Arc<Stateless>),
}

/// A child of a session's own.
#[derive(Debug)]
pub struct Own {
    /// Where it serves.
    pub post: Post,
    /// What it was told that the next one would have to be told again.
    told: Mutex<Told>,
    initialized: Initialized,
}

/// Whether a child was sent `notifications/initialized`, which completes its handshake.
#[derive(Debug, Default)]
pub struct Initialized {
    sent: OnceCell<()>,
    changed: Notify,
}

impl Initialized {
    /// Sends the notification by `send`, unless it was sent before. Only one caller sends it; the others wait for that.
    pub async fn send(&self, send: impl Future<Output = ()>) {
        self.sent.get_or_init(|| send).await;
        self.changed.notify_waiters();
    }

    /// Resolves when it was sent.
    pub async fn sent(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_sent() {
                return;
            }
            changed.await;
        }
    }

    /// Whether it was sent.
    pub fn is_sent(&self) -> bool {
        self.sent.initialized()
    }
}

/// What a child was told of a session beside the handshake.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// From which level on it is to log.
    pub level: Option<&'static str>,
    /// The resources that it is to tell of.
    pub watched: Watched,
}

impl Own {
    /// That of a child which was told nothing yet.
    pub fn new(link: &Arc<Link>) -> Self {
        Own { post: Post::of(link), told: Mutex::default(), initialized: Initialized::default() }
    }

    /// Whether its handshake is complete.
    pub fn initialized(&self) -> &Initialized {
        &self.initialized
    }

    /// What it was told.
    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock()
    }
}

/// What a session is at a child that knows none.
#[derive(Debug)]
pub struct Stateless {
    /// Who shares it.
    pub members: Arc<Members>,
    /// Whether it runs for this session only, and ends with it.
    pub own: bool,
    /// What its client declared to be able to answer, in the child's words; raw JSON, an object.
    pub capabilities: Charged,
    /// What each request says of its client: raw members of `_meta`.
    pub envelope: String,
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
    pub fn new(members: Arc<Members>, own: bool, capabilities: Charged, envelope: String) -> Self {
        Stateless { members, own, capabilities, envelope, level: Mutex::default() }
    }

    /// From which level on the client wants log messages; none until it said.
    pub fn level(&self) -> Option<&'static str> {
        *self.level.lock()
    }

    /// The client said it.
    pub fn set_level(&self, level: &'static str) {
        *self.level.lock() = Some(level);
    }
}

impl Seat {
    /// The post at which the child serves.
    pub fn post(&self) -> &Post {
        match self {
            Seat::Exclusive(own) => &own.post,
            Seat::Shared { members, .. } => &members.post,
            Seat::Stateless(seat) => &seat.members.post,
        }
    }

    /// The child, if there is one at the moment.
    pub fn link(&self) -> Option<Arc<Link>> {
        self.post().link()
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
