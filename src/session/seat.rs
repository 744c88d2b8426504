//! Where a session sits: at a child of its own, or at a shared one.

use super::Members;
use crate::exchange::Link;
use std::sync::Arc;

/// A session's place at a child.
#[derive(Clone, Debug)]
pub enum Seat {
    /// A child of its own.
    Exclusive(Arc<Link>),
    /// A place at a shared child.
    Shared(Arc<Link>, Arc<Members>),
}

impl Seat {
    /// The child.
    pub fn link(&self) -> &Arc<Link> {
        match self {
            Seat::Exclusive(link) | Seat::Shared(link, _) => link,
        }
    }

    /// Whether the child is this session's alone.
    pub fn is_exclusive(&self) -> bool {
        matches!(self, Seat::Exclusive(_))
    }
}
