//! The one handle on the children: its settings.

use std::time::Duration;

/// Who shares a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Clients that may be asked something get an exclusive child, all others share.
    Auto,
    /// All clients share.
    Shared,
    /// Every legacy session gets an exclusive child.
    Session,
}

/// What happens to a client for which there is no exclusive child left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtCap {
    /// It shares, with its capabilities withheld.
    Share,
    /// It is refused with 503.
    Refuse,
}

/// Who gets which child, and how much it is given.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who shares a child.
    pub isolation: Isolation,
    /// Shared children.
    pub children: usize,
    /// Children at once, shared and exclusive together.
    pub max_children: usize,
    /// How long an exclusive child must have been idle to be closed at the cap.
    pub evict_after: Duration,
    /// What happens when none can be closed.
    pub at_cap: AtCap,
    /// Whether clients' roots reach the child.
    pub forward_roots: bool,
    /// Requests a child works on at once.
    pub max_in_flight: usize,
    /// How long a request may be silent.
    pub request_timeout: Duration,
    /// How long a cancelled request keeps its permit when the child doesn't answer.
    pub cancel_grace: Duration,
}
