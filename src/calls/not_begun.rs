//! Requests that did not begin at a child, and may look for the next one.

use super::Calls;
use crate::clock::now;
use crate::exchange::{Failure, Refused};
use crate::ingress::Refusal;
use std::time::Instant;

/// Why a request did not begin at a child.
pub(super) enum NotBegun {
    /// The child is gone, and was sent nothing of it.
    Gone(Failure),
    /// Anything else.
    Refused(Refusal),
}

impl From<Refused> for NotBegun {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Closed(failure) => NotBegun::Gone(failure),
            Refused::Full => NotBegun::Refused(refused.into()),
        }
    }
}

impl From<NotBegun> for Refusal {
    fn from(not_begun: NotBegun) -> Self {
        match not_begun {
            NotBegun::Gone(failure) => Refusal::Failed(failure),
            NotBegun::Refused(refusal) => refusal,
        }
    }
}

impl Calls {
    /// Whether a request that a child was sent nothing of may look for the next one; for `--restart-wait` since the first
    /// was `gone`.
    pub(super) fn may_look_again(&self, failure: &Failure, gone: &mut Option<Instant>) -> bool {
        let since = *gone.get_or_insert_with(now);
        failure.is_childs_end() && now() - since < self.children.settings().restart_wait
    }
}
