//! A child to be started, and the started child that results.

use super::greeting::Initialize;
use super::initialize;
use super::places::ChildPlace;
use crate::audience::Audience;
use crate::budget::Charged;
use crate::era::Era;
use crate::era::probe::Choice;
use crate::exchange::Link;
use crate::identity::Variables;
use std::sync::Arc;
use std::time::Duration;

/// A child that is ready to serve.
#[derive(Debug)]
pub(super) struct Greeted {
    /// The child.
    pub link: Arc<Link>,
    /// Its era.
    pub era: Era,
    /// Its `InitializeResult` or `DiscoverResult`.
    pub words: Charged,
    /// Whether the server also serves the other era in another process, if known.
    pub other: Option<bool>,
    /// Its place among `--max-children`.
    pub place: ChildPlace,
    /// The renewal that it was started after.
    pub renewal: u64,
}

/// A child to be started, and its greeting.
#[derive(Debug)]
pub(super) struct Guest {
    /// The audience of the child's messages.
    pub audience: Audience,
    /// Maximum number of requests in flight at the child.
    pub slots: usize,
    /// The expected era.
    pub choice: Choice,
    /// Writes its `initialize`, if it is sent one.
    pub initialize: Initialize,
    /// Time for start and handshake.
    pub patience: Duration,
    /// What it learns about its only caller.
    pub variables: Option<Variables>,
}

impl Guest {
    /// Creates the guest for a child that several clients share.
    pub fn shared(audience: Audience, slots: usize, choice: Choice, patience: Duration) -> Self {
        Guest { audience, slots, choice, initialize: initialize::for_shared, patience, variables: None }
    }
}
