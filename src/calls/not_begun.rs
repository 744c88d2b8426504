//! Requests that did not begin at a child, and may be sent to the next one.

use super::Calls;
use crate::clock::now;
use crate::exchange::{Failure, Refused};
use crate::ingress::Refusal;
use std::time::Instant;

/// The reason why a request did not begin at a child.
pub(super) enum NotBegun {
    /// The child is gone, and received nothing of the request.
    Gone(Failure),
    /// The request was refused.
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
    /// Returns whether a request may be sent to the next child, since the last one received nothing of it: within
    /// `--restart-wait` of the first attempt, whose time is kept in `gone`.
    pub(super) fn may_look_again(&self, failure: &Failure, gone: &mut Option<Instant>) -> bool {
        let since = *gone.get_or_insert_with(now);
        failure.is_childs_end() && now() - since < self.children.settings().restart_wait
    }
}
