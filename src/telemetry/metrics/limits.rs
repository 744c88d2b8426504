//! Counts the decisions of rate limits.

use super::definitions::RATE_LIMIT_DECISIONS;
use super::family::{Family, Sample, Value};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The kinds of limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Of a client's address.
    Address,
    /// Of all callers of the server.
    Shared,
    /// Of one caller of the server.
    PerUser,
    /// Of all callers of a tool.
    ToolShared,
    /// Of one caller of a tool.
    ToolPerUser,
    /// Of calls of one caller at the same time.
    Calls,
}

const ALL: [Limit; 6] =
    [Limit::Address, Limit::Shared, Limit::PerUser, Limit::ToolShared, Limit::ToolPerUser, Limit::Calls];

/// Refused and allowed decisions of each kind.
static DECISIONS: [[AtomicU64; 2]; ALL.len()] = [const { [const { AtomicU64::new(0) }; 2] }; ALL.len()];

impl Limit {
    /// Returns the name for metrics and headers.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Address => "address",
            Limit::Shared => "shared",
            Limit::PerUser => "per-user",
            Limit::ToolShared => "tool-shared",
            Limit::ToolPerUser => "tool-per-user",
            Limit::Calls => "calls",
        }
    }

    /// Returns whether each tool has its own bucket.
    pub fn is_of_tool(self) -> bool {
        matches!(self, Limit::ToolShared | Limit::ToolPerUser)
    }

    /// Returns whether each caller has its own bucket.
    pub fn is_of_caller(self) -> bool {
        matches!(self, Limit::PerUser | Limit::ToolPerUser)
    }
}

/// Counts a decision.
pub fn count(limit: Limit, is_allowed: bool) {
    DECISIONS[limit as usize][usize::from(is_allowed)].fetch_add(1, Relaxed);
}

pub(super) fn family() -> Family {
    let samples = ALL.iter().flat_map(|limit| {
        let labelled = |at: usize, result: &'static str| Sample {
            labels: vec![("limit", limit.name().into()), ("result", result.into())],
            value: Value::Count(DECISIONS[*limit as usize][at].load(Relaxed)),
        };
        [labelled(0, "refused"), labelled(1, "allowed")]
    });
    RATE_LIMIT_DECISIONS.family(samples.collect())
}
