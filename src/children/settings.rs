//! The settings of children and calls: how many children run, who gets one, how they are watched, and all timeouts.

use crate::era::probe::Choice;
use crate::ingress::Limits;
use crate::lifecycle::Policy;
use std::time::Duration;

/// Who gets a child of its own (`docs/architecture.md#isolation`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Clients that declare sampling or elicitation; the others share.
    Auto,
    /// Nobody.
    Shared,
    /// Every session.
    Session,
}

/// The behaviour for a client that needs its own child when `--max-children` is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtCap {
    /// It shares a child, without the capabilities that need an exclusive one.
    Share,
    /// It gets 503.
    Refuse,
}

/// The operator's settings of children and calls.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--child-era`
    pub child_era: Choice,
    /// `--probe-timeout`: a child silent for so long after `server/discover` is sent `initialize` too.
    pub probe_timeout: Duration,
    /// `--isolation`
    pub isolation: Isolation,
    /// `--children`: shared ones.
    pub children: usize,
    /// `--max-children`: all together.
    pub max_children: usize,
    /// `--warm`: children that are ready to be leased.
    pub warm: usize,
    /// `--evict-after`: a quiet exclusive child may be closed for another after so long.
    pub evict_after: Duration,
    /// `--at-cap`
    pub at_cap: AtCap,
    /// `--forward-roots`
    pub forward_roots: bool,
    /// `--cache-lists`: how long a legacy child's lists are good; unset: until it says that they changed, if it does.
    pub cache_lists: Option<Duration>,
    /// `--max-in-flight`
    pub max_in_flight: usize,
    /// `--max-client-in-flight`: of these, so many of one client.
    pub max_client_in_flight: usize,
    /// `--max-child-in-flight`: of these, so many at one child.
    pub max_child_in_flight: usize,
    /// `--max-queued`: requests that may wait for one of these places.
    pub max_queued: usize,
    /// `--queue-timeout`: how long each may wait.
    pub queue_timeout: Duration,
    /// `--request-timeout`: how long a child may neither answer nor report progress.
    pub request_timeout: Duration,
    /// `--restart-limit` and what belongs to it.
    pub restarts: Policy,
    /// `--restart-wait`: how long requests wait for the next child.
    pub restart_wait: Duration,
    /// `--resume-sessions`: the server keeps nothing of a session, so that the next child may serve it.
    pub resume_sessions: bool,
    /// `--ping-interval`: zero asks for no signs of life.
    pub ping_interval: Duration,
    /// `--ping-timeout`
    pub ping_timeout: Duration,
    /// `--request-max`: how long a request may take in all; `--request-timeout` at least.
    pub request_max: Duration,
    /// `--cancel-grace`: how long a cancelled request still counts as in flight when the child doesn't answer it.
    pub cancel_grace: Duration,
    /// `--max-listens`: subscriptions of modern clients that are open.
    pub max_listens: usize,
    /// `--max-parked`: exchanges that wait for a modern client's retry.
    pub max_parked: usize,
    /// `--park-timeout`: how long each of them waits.
    pub park_timeout: Duration,
}

impl Settings {
    /// Whether a client may share a child if it cannot have its own.
    pub(crate) fn may_share(&self) -> bool {
        self.isolation == Isolation::Auto && self.at_cap == AtCap::Share
    }

    /// The limits of the queues that requests wait in.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            in_flight: self.max_in_flight,
            per_client: self.max_client_in_flight,
            per_child: self.max_child_in_flight,
            queued: self.max_queued,
            patience: self.queue_timeout,
        }
    }
}
