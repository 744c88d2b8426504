//! Decides by the policies whether a request goes on, and how its caller sees the answer. Both fronts begin a request
//! only with the permit that it gets here.

use super::Server;
use super::reject::Rejection;
use crate::client::Client;
use crate::identity::Identity;
use crate::policy::{Asked, Asker, Decision, Feature, Hints, Policies, Request, View, ambiguous, asked};
use crate::session::Session;
use crate::telemetry::{counters, names};
use crate::upstream::{Incoming, Refusal};
use hyper::StatusCode;
use std::sync::Arc;

/// The code of a JSON-RPC error that says that policies refuse a request, as ToolHive's.
const UNAUTHORIZED: i64 = 403;

/// The permit of a request. It holds the caller's view of the answer, unless the answer passes as it is.
#[derive(Debug)]
pub struct Permit(Option<Box<View>>);

impl Permit {
    /// Takes the view of the answer.
    pub fn into_view(self) -> Option<Box<View>> {
        self.0
    }
}

/// Decides on a request of a session, or of a modern client.
///
/// # Errors
/// 403 when the policies refuse it, with nothing about the reason; 400 when it could be read in two ways; 503 when the
/// server has not listed its tools, on which the policies depend.
pub async fn permit(
    server: &Server,
    identity: &Arc<Identity>,
    session: Option<&Session>,
    client: Client,
    incoming: &Incoming,
) -> Result<Permit, Rejection> {
    let Some(policies) = &server.policies else { return Ok(Permit(None)) };
    let check = Check { server, policies, identity, session, client, incoming };
    // Boxed, since most servers have no policies.
    Box::pin(check.permit()).await.map_err(|rejection| rejection.of(incoming.id()))
}

/// Checks that every server reads a message as proxyrunner does, because what it asks for decides on it.
///
/// # Errors
/// 400 when a server could take one of its members for another one.
pub fn check_spelling(incoming: &Incoming) -> Result<(), Rejection> {
    match ambiguous(&incoming.frame, &incoming.message) {
        Some(member) => Err(Rejection::invalid(format!(
            "some servers ignore the case of members: spell {member:?} exactly so, and give it once"
        ))),
        None => Ok(()),
    }
}

struct Check<'a> {
    server: &'a Server,
    policies: &'a Arc<Policies>,
    identity: &'a Arc<Identity>,
    session: Option<&'a Session>,
    client: Client,
    incoming: &'a Incoming,
}

impl Check<'_> {
    async fn permit(&self) -> Result<Permit, Rejection> {
        let (frame, message) = (&self.incoming.frame, &self.incoming.message);
        check_spelling(self.incoming)?;
        let view = match asked(frame, message) {
            Asked::Free => None,
            Asked::Never(why) => return Err(self.refuse(&Decision::denied(why))),
            Asked::Use(feature, name, arguments) => {
                let hints = self.hints(feature, &name).await?;
                let arguments = arguments.map(|arguments| &frame[arguments]);
                self.decide(&Request { feature, name: &name, arguments, hints }).await?;
                self.view_of_use(feature, name, hints)
            }
            Asked::Watch(uris, tasks) => {
                for name in &uris {
                    let hints = Hints::default();
                    self.decide(&Request { feature: Feature::Resource, name, arguments: None, hints })
                        .await?;
                }
                for id in &tasks {
                    self.task(id).await?;
                }
                None
            }
            Asked::List(feature) => {
                Some(View::of_list(self.policies, self.identity, self.incoming.id(), feature))
            }
            Asked::Task(id) => {
                self.task(&id).await?;
                None
            }
            Asked::Tasks => Some(View::of_tasks(self.policies, self.identity, self.incoming.id())),
        };
        Ok(Permit(view.map(Box::new)))
    }

    fn view_of_use(&self, feature: Feature, name: String, hints: Hints) -> Option<View> {
        let id = self.incoming.id();
        match (&*self.incoming.method(), feature) {
            ("tools/call", _) => Some(View::of_call(self.policies, self.identity, id, name, hints)),
            ("resources/read", _) => Some(View::of_private(self.policies, self.identity, id)),
            _ => None,
        }
    }

    /// Returns the annotations of a tool, if a decision may depend on them.
    async fn hints(&self, feature: Feature, tool: &str) -> Result<Hints, Rejection> {
        if feature != Feature::Tool || !self.policies.needs_hints() {
            return Ok(Hints::default());
        }
        let hints = self.server.upstream.hints(self.session, self.client, self.incoming, tool).await;
        hints.map_err(|refusal| match refusal {
            Refusal::Busy(why) => Rejection::busy(why),
            _ => Rejection::busy("the server that lists the tools does not serve"),
        })
    }

    async fn task(&self, id: &str) -> Result<(), Rejection> {
        let decision = self.policies.decide_on_task(self.identity, id).await;
        self.settle(&decision)
    }

    async fn decide(&self, request: &Request<'_>) -> Result<(), Rejection> {
        let decision = self.policies.decide(&Asker::new(self.identity), request).await;
        self.settle(&decision)
    }

    fn settle(&self, decision: &Decision) -> Result<(), Rejection> {
        if !decision.is_allowed() {
            return Err(self.refuse(decision));
        }
        self.note(decision);
        Ok(())
    }

    /// Records a decision in the span and for the audit log, and counts it.
    fn note(&self, decision: &Decision) {
        counters::POLICY_DECISIONS.increment(decision.outcome as usize);
        if !decision.policies.is_empty() {
            let policies = || decision.policies.join(",").into_boxed_str();
            self.incoming.operation.note(|details| details.policy = Some(policies()));
        }
        self.incoming.operation.describe(|attributes| {
            attributes.constant(names::POLICY_DECISION, decision.outcome.name());
            if !decision.policies.is_empty() {
                attributes.text(names::POLICY_IDS, &decision.policies.join(","));
            }
        });
    }

    fn refuse(&self, decision: &Decision) -> Rejection {
        self.note(decision);
        tracing::info!(
            principal = &*self.identity.principal.shown(),
            method = &*self.incoming.method(),
            decision = decision.outcome.name(),
            policies = decision.policies.join(","),
            why = &*decision.why,
            "the policies refuse a request"
        );
        Rejection::new(StatusCode::FORBIDDEN, UNAUTHORIZED, "Unauthorized")
    }
}
