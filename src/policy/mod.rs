//! Who may do what: decides on each message of a client before a child sees it, and removes from lists what their
//! reader may not use.
//!
//! Decisions come from Cedar policies (`--policy`, feature `policy`) with ToolHive's mapping of requests to entities,
//! or from a decision point over HTTP (`--policy-url`). A message is [classified](asked) first. Without a decision,
//! nothing is allowed.

mod ambiguity;
mod asked;
#[cfg(feature = "policy")]
mod cedar;
mod decision;
mod hints;
mod owners;
mod remote;
mod request;
mod view;

pub(crate) use ambiguity::ambiguous;
pub(crate) use asked::{Asked, asked};
#[cfg(feature = "policy")]
pub use cedar::parses;
#[cfg(feature = "policy")]
pub(crate) use cedar::{Explanation, Loaded};
pub(crate) use decision::{Decision, Outcome};
pub(crate) use hints::{Hints, hints_of};
pub(crate) use remote::RemoteSettings;
pub(crate) use request::{Feature, Request};
pub(crate) use view::{View, make_private};

use crate::identity::Identity;
#[cfg(feature = "policy")]
use crate::mounted::{self, MountedFile, Unreadable};
use crate::tasks;
#[cfg(feature = "policy")]
use crate::telemetry::counters;
use owners::Tasks;
use remote::Decider;
use std::sync::Arc;
#[cfg(feature = "policy")]
use std::sync::OnceLock;
use tokio::task::{JoinError, JoinSet};

/// Maximum number of questions about one list that a decision point is asked at a time.
const AT_ONCE: usize = 16;

/// Where decisions come from.
#[derive(Clone, Debug)]
pub(crate) enum Settings {
    /// `--policy`
    #[cfg(feature = "policy")]
    Files(Arc<Loaded>),
    /// `--policy-url`
    Remote(RemoteSettings),
}

/// The decisions of this process.
#[derive(Debug)]
pub(crate) struct Policies {
    engine: Engine,
    tasks: Tasks,
}

#[derive(Debug)]
enum Engine {
    #[cfg(feature = "policy")]
    Cedar(parking_lot::RwLock<Arc<Loaded>>),
    Remote(Box<Decider>),
}

/// A caller whose requests are decided on, with what is computed of its claims once.
#[derive(Debug)]
pub(crate) struct Asker<'a> {
    /// The caller.
    pub(crate) identity: &'a Identity,
    #[cfg(feature = "policy")]
    digest: OnceLock<(u64, u64)>,
}

impl<'a> Asker<'a> {
    /// Returns the caller of this identity.
    pub(crate) fn new(identity: &'a Identity) -> Self {
        Asker {
            identity,
            #[cfg(feature = "policy")]
            digest: OnceLock::new(),
        }
    }

    /// Returns the subject, without which nothing is allowed.
    fn subject(&self) -> Option<&str> {
        self.identity.claims.get("sub")?.as_str().filter(|subject| !subject.is_empty())
    }
}

impl Policies {
    /// Creates the state for these settings. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When there is no TLS for the decision point.
    pub(crate) fn new(settings: &Settings) -> Result<Arc<Self>, String> {
        let engine = match settings {
            #[cfg(feature = "policy")]
            Settings::Files(loaded) => {
                counters::POLICIES_CURRENT.set(1);
                Engine::Cedar(parking_lot::RwLock::new(Arc::clone(loaded)))
            }
            Settings::Remote(remote) => Engine::Remote(Box::new(Decider::new(remote)?)),
        };
        Ok(Arc::new(Policies { engine, tasks: Tasks::default() }))
    }

    /// Returns whether a decision may depend on a tool's annotations.
    pub(crate) fn needs_hints(&self) -> bool {
        match &self.engine {
            #[cfg(feature = "policy")]
            Engine::Cedar(current) => current.read().set.needs_hints(),
            Engine::Remote(_) => true,
        }
    }

    /// Decides on a request.
    pub(crate) async fn decide(&self, asker: &Asker<'_>, request: &Request<'_>) -> Arc<Decision> {
        if asker.subject().is_none() {
            return Arc::new(Decision::denied("the caller has no subject"));
        }
        match &self.engine {
            #[cfg(feature = "policy")]
            Engine::Cedar(current) => {
                let loaded = Arc::clone(&current.read());
                loaded.set.decide(asker, request)
            }
            Engine::Remote(decider) => Arc::new(decider.decide(asker.identity, request).await),
        }
    }

    /// Decides on a request for a task: it must be the caller's own, and its tool must be allowed. If decisions depend on
    /// arguments, the one on the call that created the task counts.
    pub(crate) async fn decide_on_task(
        &self,
        identity: &Identity,
        server: Option<&str>,
        id: &str,
    ) -> Arc<Decision> {
        let Some(task) = self.tasks.of(id, server, &identity.principal) else {
            return Arc::new(Decision::denied("the task is not known as the caller's"));
        };
        let asker = Asker::new(identity);
        if asker.subject().is_some() && self.needs_arguments() {
            return Arc::new(Decision::allowed(Vec::new()));
        }
        let (feature, name) = (Feature::Tool, &*task.tool);
        let request = Request { server, feature, name, arguments: None, hints: task.hints };
        self.decide(&asker, &request).await
    }

    /// Returns whether a decision may depend on arguments.
    fn needs_arguments(&self) -> bool {
        match &self.engine {
            #[cfg(feature = "policy")]
            Engine::Cedar(current) => current.read().set.needs_arguments(),
            Engine::Remote(_) => true,
        }
    }

    /// Decides on the things of a list of a server, without arguments: returns for each whether it may be used.
    pub(crate) async fn decide_all(
        self: &Arc<Self>,
        identity: &Arc<Identity>,
        server: Option<&Arc<str>>,
        feature: Feature,
        things: Vec<(String, Hints)>,
    ) -> Vec<bool> {
        match &self.engine {
            #[cfg(feature = "policy")]
            Engine::Cedar(_) => {
                let asker = Asker::new(identity);
                let mut allowed = Vec::with_capacity(things.len());
                for (name, hints) in things {
                    let server = server.map(|server| &**server);
                    let request = Request { server, feature, name: &name, arguments: None, hints };
                    allowed.push(self.decide(&asker, &request).await.is_allowed());
                    // Other requests go on between the decisions on a long list.
                    tokio::task::coop::consume_budget().await;
                }
                allowed
            }
            Engine::Remote(_) => self.ask_all(identity, server, feature, things).await,
        }
    }

    /// Asks the decision point about the things of a list, several at a time.
    async fn ask_all(
        self: &Arc<Self>,
        identity: &Arc<Identity>,
        server: Option<&Arc<str>>,
        feature: Feature,
        things: Vec<(String, Hints)>,
    ) -> Vec<bool> {
        let mut allowed = vec![false; things.len()];
        let mut asking = JoinSet::new();
        for (at, (name, hints)) in things.into_iter().enumerate() {
            if asking.len() >= AT_ONCE && !note(asking.join_next().await, &mut allowed) {
                return allowed;
            }
            let (policies, identity, server) = (Arc::clone(self), Arc::clone(identity), server.cloned());
            asking.spawn(tasks::boxed(async move {
                let server = server.as_deref();
                let request = Request { server, feature, name: &name, arguments: None, hints };
                (at, policies.decide(&Asker::new(&identity), &request).await)
            }));
        }
        while !asking.is_empty() && note(asking.join_next().await, &mut allowed) {}
        allowed
    }

    /// Uses the policies in changed files from now on, if they are valid; else the present ones stay in force. Never
    /// returns, unless no files can change.
    pub(crate) async fn follow(self: Arc<Self>) {
        #[cfg(feature = "policy")]
        if let Engine::Cedar(current) = &self.engine {
            let mounted = current.read().mounted.clone();
            let policies = Arc::clone(&self);
            mounted::watch(mounted, move |changed| {
                policies.take(changed);
                true
            })
            .await;
        }
    }

    /// Takes the policies of changed files.
    #[cfg(feature = "policy")]
    fn take(&self, changed: Result<Vec<MountedFile>, Unreadable>) {
        #[allow(irrefutable_let_patterns, reason = "there may be one engine only")]
        let Engine::Cedar(current) = &self.engine else { return };
        let loaded = Arc::clone(&current.read());
        match loaded.again(changed) {
            Ok(next) => {
                crate::audit::reloaded("--policy");
                tracing::info!(policies = next.count(), "the policies have changed (--policy)");
                next.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                *current.write() = Arc::new(next);
                counters::POLICIES_CURRENT.set(1);
            }
            Err(faults) => {
                counters::FAILED_RELOADS.increment(counters::Reloaded::Policy as usize);
                counters::POLICIES_CURRENT.set(0);
                let reason = faults.first().map(ToString::to_string).unwrap_or_default();
                crate::audit::not_reloaded("--policy", &reason);
                for fault in faults {
                    tracing::error!("{fault}; the policies that were read before stay in force (--policy)");
                }
            }
        }
    }
}

/// Notes a decision on one thing of a list. Returns false if none was possible, so that the other things need not be
/// asked about: all that are not decided on are denied.
fn note(decided: Option<Result<(usize, Arc<Decision>), JoinError>>, allowed: &mut [bool]) -> bool {
    let Some(Ok((at, decision))) = decided else { return false };
    allowed[at] = decision.is_allowed();
    if decision.outcome == Outcome::Error {
        tracing::warn!(why = &*decision.why, "a list cannot be filtered, and is shown empty from there on");
    }
    decision.outcome != Outcome::Error
}
