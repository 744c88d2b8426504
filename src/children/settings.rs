//! The settings of children and calls: the number of children, their clients, their health checks, and all timeouts.

use crate::era::probe::Choice;
use crate::identity::Disclosure;
use crate::ingress::Limits;
use crate::lifecycle::Policy;
use std::time::Duration;

/// The clients that get an exclusive child (`docs/architecture.md#isolation`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Clients that declare sampling or elicitation; the others share.
    Auto,
    /// No client.
    Shared,
    /// Every session.
    Session,
}

/// The behavior for a client that needs an exclusive child when `--max-children` is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtCap {
    /// The client shares a child, without the capabilities that need an exclusive one.
    Share,
    /// The client gets 503.
    Refuse,
}

/// The operator's settings of children and calls.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--child-era`
    pub child_era: Choice,
    /// `--probe-timeout`: time to wait for the answer to `server/discover` before `initialize` is sent too.
    pub probe_timeout: Duration,
    /// `--isolation`
    pub isolation: Isolation,
    /// `--children`: number of shared children.
    pub children: usize,
    /// `--max-children`: maximum number of all children.
    pub max_children: usize,
    /// `--warm`: number of children kept ready to be leased.
    pub warm: usize,
    /// `--evict-after`: idle time after which an exclusive child may be closed for another.
    pub evict_after: Duration,
    /// `--at-cap`
    pub at_cap: AtCap,
    /// `--forward-roots`
    pub forward_roots: bool,
    /// `--cache-lists`: lifetime of a legacy child's lists; `None`: until it reports a change, if it does.
    pub cache_lists: Option<Duration>,
    /// `--child-identity meta`: a legacy child's lists may differ from caller to caller.
    pub private_lists: bool,
    /// `--child-identity env`: what the process of a caller learns about the caller.
    pub disclosure: Option<Disclosure>,
    /// `--max-in-flight`
    pub max_in_flight: usize,
    /// `--max-client-in-flight`: the part of them for one client.
    pub max_client_in_flight: usize,
    /// `--max-child-in-flight`: the part of them for one child.
    pub max_child_in_flight: usize,
    /// `--max-queued`: maximum number of requests that wait for one of these permits.
    pub max_queued: usize,
    /// `--queue-timeout`: maximum time of each wait.
    pub queue_timeout: Duration,
    /// `--request-timeout`: maximum time without an answer or progress.
    pub request_timeout: Duration,
    /// `--restart-limit` and related settings.
    pub restarts: Policy,
    /// `--restart-wait`: maximum time that requests wait for the next child.
    pub restart_wait: Duration,
    /// `--resume-sessions`: the server keeps no state per session, so the next child may continue it.
    pub resume_sessions: bool,
    /// `--ping-interval`; zero disables pings.
    pub ping_interval: Duration,
    /// `--ping-timeout`
    pub ping_timeout: Duration,
    /// `--request-max`: maximum duration of a request; at least `--request-timeout`.
    pub request_max: Duration,
    /// `--cancel-grace`: time that a cancelled request counts as in flight if the child does not answer it.
    pub cancel_grace: Duration,
    /// `--max-listens`: maximum number of open subscriptions of modern clients.
    pub max_listens: usize,
    /// `--max-parked`: maximum number of requests that wait for a modern client's retry.
    pub max_parked: usize,
    /// `--park-timeout`: maximum time of each wait.
    pub park_timeout: Duration,
}

impl Settings {
    /// Returns whether a client may share a child if it cannot have its own.
    pub(crate) fn may_share(&self) -> bool {
        self.isolation == Isolation::Auto && self.at_cap == AtCap::Share
    }

    /// Returns the limits of the queues of waiting requests.
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
