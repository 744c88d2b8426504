//! A decision, and what led to it. Only logs, spans and the audit see the reason; a client learns that it is refused.

use std::borrow::Cow;

/// The result of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The message may go on.
    Allow,
    /// A policy forbids it, or none permits it.
    Deny,
    /// No decision was possible, which denies.
    Error,
}

impl Outcome {
    /// Returns the name for logs and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Outcome::Allow => "allow",
            Outcome::Deny => "deny",
            Outcome::Error => "error",
        }
    }
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Its result.
    pub(crate) outcome: Outcome,
    /// The ids of the policies that determined it, in their order.
    pub(crate) policies: Vec<String>,
    /// The reason, if no policy is one.
    pub(crate) why: Cow<'static, str>,
}

impl Decision {
    /// Returns the decision to allow, by these policies.
    pub(crate) fn allowed(policies: Vec<String>) -> Self {
        Decision { outcome: Outcome::Allow, policies, why: Cow::Borrowed("") }
    }

    /// Returns the decision to deny for a reason.
    pub(crate) fn denied(why: impl Into<Cow<'static, str>>) -> Self {
        Decision { outcome: Outcome::Deny, policies: Vec::new(), why: why.into() }
    }

    /// Returns the decision to deny because none was possible.
    pub(crate) fn failed(why: impl Into<Cow<'static, str>>) -> Self {
        Decision { outcome: Outcome::Error, ..Decision::denied(why) }
    }

    /// Returns whether the message may go on.
    pub(crate) fn is_allowed(&self) -> bool {
        self.outcome == Outcome::Allow
    }
}
