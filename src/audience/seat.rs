//! The seat of a session: at an exclusive child, at a shared child, or at a modern child, which knows no sessions.

use super::watched::WatchedResources;
use super::{Members, Post, SeatedSession, SessionId};
use crate::budget::Charged;
use crate::exchange::Link;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use tokio::sync::{Notify, OnceCell};

/// A session's seat at a child.
#[derive(Clone, Debug)]
pub enum Seat {
    /// A seat at an exclusive child.
    Exclusive(Arc<Own>),
    /// A seat at a shared child.
    Shared {
        /// The members of the child.
        members: Arc<Members>,
        /// Whether the child was initialized with a later revision than the session's, and may send features that the
        /// session lacks.
        newer: bool,
    },
    /// A seat at a modern child, which is told about its client with each request.
    Stateless(Arc<Stateless>),
}

/// An exclusive child of a session.
#[derive(Debug)]
pub struct Own {
    /// The post at which it serves.
    pub post: Post,
    /// The state that a replacement has to be told again.
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
    /// Sends the notification by `send` unless it was sent before. Concurrent callers wait for the one that sends it.
    pub async fn send(&self, send: impl Future<Output = ()>) {
        self.sent.get_or_init(|| send).await;
        self.changed.notify_waiters();
    }

    /// Waits until the notification was sent.
    pub async fn sent(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_sent() {
                return;
            }
            changed.await;
        }
    }

    /// Returns whether the notification was sent.
    pub fn is_sent(&self) -> bool {
        self.sent.initialized()
    }
}

/// The state that a child was told about a session after the handshake.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The minimum level of log messages that the child sends.
    pub level: Option<&'static str>,
    /// The resources whose changes the child announces.
    pub watched: WatchedResources,
}

impl Own {
    /// Returns the exclusive child behind `link`, which has been told nothing yet.
    pub fn new(link: &Arc<Link>) -> Self {
        Own { post: Post::of(link), told: Mutex::default(), initialized: Initialized::default() }
    }

    /// Returns the state of its handshake.
    pub fn initialized(&self) -> &Initialized {
        &self.initialized
    }

    /// Locks the state that the child was told.
    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock()
    }
}

/// A session's seat at a child that knows no sessions.
#[derive(Debug)]
pub struct Stateless {
    /// The members of the child.
    pub members: Arc<Members>,
    /// Whether the child runs for this session only, and ends with it.
    pub own: bool,
    /// The client's capabilities in the form that the child understands: a JSON object.
    pub capabilities: Charged,
    /// The members of `_meta` that describe the client in each request, as raw JSON.
    pub envelope: String,
    level: Mutex<Option<&'static str>>,
}

impl Stateless {
    /// Returns a seat without a log level, so that the child logs nothing.
    pub fn new(members: Arc<Members>, own: bool, capabilities: Charged, envelope: String) -> Self {
        Stateless { members, own, capabilities, envelope, level: Mutex::default() }
    }

    /// Returns the minimum level of log messages that the client set, if any.
    pub fn level(&self) -> Option<&'static str> {
        *self.level.lock()
    }

    /// Sets the minimum level of log messages for the client.
    pub fn set_level(&self, level: &'static str) {
        *self.level.lock() = Some(level);
    }
}

impl Seat {
    /// Returns the post at which the child serves.
    pub fn post(&self) -> &Post {
        match self {
            Seat::Exclusive(own) => &own.post,
            Seat::Shared { members, .. } => &members.post,
            Seat::Stateless(seat) => &seat.members.post,
        }
    }

    /// Returns the child, if there is one at the moment.
    pub fn link(&self) -> Option<Arc<Link>> {
        self.post().link()
    }

    /// Returns the members of the child; `None` if it is exclusive.
    pub fn members(&self) -> Option<&Arc<Members>> {
        match self {
            Seat::Exclusive(_) => None,
            Seat::Shared { members, .. } => Some(members),
            Seat::Stateless(seat) => Some(&seat.members),
        }
    }

    /// Returns whether the child serves only this session and has the same era.
    pub fn is_exclusive(&self) -> bool {
        matches!(self, Seat::Exclusive(_))
    }

    /// Adds the session to the members of the child.
    pub fn join<S: SeatedSession + 'static>(&self, session: &Arc<S>) {
        if let Some(members) = self.members() {
            members.join(session);
        }
    }

    /// Gives up the seat of the session `id`; a child that serves only this session ends.
    pub fn leave(&self, id: &SessionId) {
        match self {
            Seat::Exclusive(own) => own.post.stop(),
            Seat::Shared { members, .. } => members.leave(id),
            Seat::Stateless(seat) => {
                seat.members.leave(id);
                if seat.own {
                    seat.members.post.stop();
                }
            }
        }
    }
}
