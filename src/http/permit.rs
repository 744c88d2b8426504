//! Decides by the policies whether a request goes on, and how its caller sees the answer. Both fronts begin a request
//! only with the permit that it gets here.

use super::Server;
use super::reject::Rejection;
use crate::client::Client;
#[cfg(feature = "gateway")]
use crate::gateway::{Decided, Located, One, Subject};
use crate::identity::Identity;
use crate::policy::{Asked, Asker, Decision, Feature, Hints, Policies, Request, View, ambiguous, asked};
use crate::session::Session;
use crate::telemetry::{counters, names};
use crate::upstream::{Incoming, Refusal};
use hyper::StatusCode;
use std::sync::Arc;

/// The code of a JSON-RPC error that says that policies refuse a request, as ToolHive's.
const UNAUTHORIZED: i64 = 403;

#[cfg(feature = "gateway")]
const UNREAD: Refusal = Refusal::Busy("the server has not listed its tools, on which the policies depend");

/// The permit of a request.
#[derive(Debug, Default)]
pub struct Permit {
    /// The caller's view of the answer, unless the answer passes as it is.
    pub view: Option<Box<View>>,
    /// What the server of all servers of a gateway must know of the decision, as members of `_meta`; empty elsewhere.
    pub note: String,
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
    match &server.policies {
        None => Ok(Permit::default()),
        // Boxed, since most servers have no policies.
        Some(policies) => {
            let deciding = Box::pin(decide(server, policies, identity, (session, client), incoming));
            deciding.await.map_err(|rejection| rejection.of(incoming.id()))
        }
    }
}

async fn decide(
    server: &Server,
    policies: &Arc<Policies>,
    identity: &Arc<Identity>,
    (session, client): (Option<&Session>, Client),
    incoming: &Incoming,
) -> Result<Permit, Rejection> {
    #[cfg(feature = "gateway")]
    if let Some(gateway) = &server.gateway {
        let all = gateway.locate(identity, (&incoming.frame, &incoming.message), &server.budget);
        return Check { policies, identity, of: Of::All(&all), incoming }.permit().await;
    }
    Check { policies, identity, of: Of::Child { server, session, client }, incoming }.permit().await
}

/// Decides on a message to one server of a gateway.
///
/// # Errors
/// As [`permit`].
#[cfg(feature = "gateway")]
pub async fn permit_at(
    policies: &Arc<Policies>,
    identity: &Arc<Identity>,
    one: &One,
    incoming: &Incoming,
) -> Result<Permit, Rejection> {
    let check = Check { policies, identity, of: Of::One(one), incoming };
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

/// Whose things a message asks for.
#[derive(Clone, Copy)]
enum Of<'a> {
    /// The child's.
    Child { server: &'a Server, session: Option<&'a Session>, client: Client },
    /// Those of one server of a gateway.
    #[cfg(feature = "gateway")]
    One(&'a One),
    /// Those of all servers of a gateway, each by its name among all.
    #[cfg(feature = "gateway")]
    All(&'a Located),
}

/// A thing with its server's own name.
struct Thing {
    /// The server of a gateway.
    server: Option<Arc<str>>,
    name: String,
    /// Its name as the server of all servers knows it; empty if its method has none.
    #[cfg_attr(not(feature = "gateway"), allow(dead_code, reason = "only a gateway has such a server"))]
    known_as: String,
}

impl Thing {
    fn new(server: Option<Arc<str>>, name: String) -> Self {
        Thing { server, known_as: name.clone(), name }
    }
}

struct Check<'a> {
    policies: &'a Arc<Policies>,
    identity: &'a Arc<Identity>,
    of: Of<'a>,
    incoming: &'a Incoming,
}

impl Check<'_> {
    async fn permit(&self) -> Result<Permit, Rejection> {
        let (frame, message) = (&self.incoming.frame, &self.incoming.message);
        check_spelling(self.incoming)?;
        #[cfg(feature = "gateway")]
        let (frame, message) = match self.of {
            Of::All(all) => match all.subject() {
                Subject::Itself => (frame, message),
                Subject::Search => return Ok(Permit { view: None, note: Decided::claims(self.identity) }),
                Subject::Nothing => return Ok(Permit::default()),
            },
            _ => (frame, message),
        };
        match asked(frame, message) {
            Asked::Free => Ok(Permit::default()),
            Asked::Never(why) => Err(self.refuse(&Decision::denied(why))),
            Asked::Use(feature, name, arguments) => {
                let Some(thing) = self.thing(name).await? else { return Ok(Permit::default()) };
                let hints = self.hints(feature, &thing).await?;
                let arguments = arguments.map(|arguments| &frame[arguments]);
                let (server, name) = (thing.server.as_deref(), &*thing.name);
                self.decide(&Request { server, feature, name, arguments, hints }).await?;
                let note = self.note_of([&thing]);
                Ok(self.with_view(self.view_of_use(feature, &thing, hints), thing.server.as_ref(), note))
            }
            Asked::Watch(uris, tasks) => self.watch(uris, &tasks).await,
            Asked::List(feature) => match self.of {
                // Its items have the names of their servers only while they are gathered.
                #[cfg(feature = "gateway")]
                Of::All(_) => Ok(Permit { view: None, note: Decided::claims(self.identity) }),
                _ => {
                    let view = View::of_list(self.policies, self.identity, self.incoming.id(), feature);
                    Ok(self.with_view(Some(view), self.server().as_ref(), String::new()))
                }
            },
            Asked::Task(id) => {
                let Some(thing) = self.thing(id).await? else { return Ok(Permit::default()) };
                self.task(&thing).await?;
                Ok(Permit { view: None, note: self.note_of([&thing]) })
            }
            Asked::Tasks => {
                let Some(thing) = self.thing(String::new()).await? else { return Ok(Permit::default()) };
                let view = View::of_tasks(self.policies, self.identity, self.incoming.id());
                Ok(self.with_view(Some(view), thing.server.as_ref(), self.note_of([&thing])))
            }
        }
    }

    /// Decides on a subscription.
    async fn watch(&self, uris: Vec<String>, tasks: &[String]) -> Result<Permit, Rejection> {
        let mut things = Vec::with_capacity(uris.len());
        match self.of {
            #[cfg(feature = "gateway")]
            Of::All(all) => {
                let owned = all.owners(&uris).await;
                things.extend(owned.into_iter().map(|(server, name)| Thing::new(Some(server), name)));
            }
            _ => things.extend(uris.into_iter().map(|name| Thing::new(self.server(), name))),
        }
        for Thing { server, name, .. } in &things {
            let (feature, server) = (Feature::Resource, server.as_deref());
            self.decide(&Request { server, feature, name, arguments: None, hints: Hints::default() }).await?;
        }
        for id in tasks {
            self.task(&Thing::new(self.server(), id.clone())).await?;
        }
        Ok(Permit { view: None, note: self.note_of(&things) })
    }

    /// Returns the server of a gateway that a message is for, if its path names one.
    fn server(&self) -> Option<Arc<str>> {
        match self.of {
            #[cfg(feature = "gateway")]
            Of::One(one) => Some(Arc::clone(&one.name)),
            _ => None,
        }
    }

    /// Returns the thing of a name; `None` if no server has it, which the answer will say.
    async fn thing(&self, name: String) -> Result<Option<Thing>, Rejection> {
        #[cfg(feature = "gateway")]
        if let Of::All(all) = self.of {
            let found = all.find().await.map(|(server, own)| Thing {
                server: Some(server),
                known_as: own.clone().unwrap_or_default(),
                name: own.unwrap_or(name),
            });
            // The servers are asked for subscriptions of sessions in nobody's name.
            if found.is_none() && self.incoming.method() == "resources/subscribe" {
                return Err(self.refuse(&Decision::denied("no server has this resource")));
            }
            return Ok(found);
        }
        Ok(Some(Thing::new(self.server(), name)))
    }

    /// Returns what the server of all servers must know: which things were decided on.
    fn note_of<'t>(&self, things: impl IntoIterator<Item = &'t Thing>) -> String {
        match self.of {
            #[cfg(feature = "gateway")]
            Of::All(_) => {
                let pairs = things.into_iter().map(|thing| (thing.server.as_deref(), &*thing.known_as));
                Decided::member(pairs.map(|(server, name)| (server.unwrap_or_default(), name)))
            }
            _ => {
                let _ = things;
                String::new()
            }
        }
    }

    fn with_view(&self, view: Option<View>, server: Option<&Arc<str>>, note: String) -> Permit {
        #[cfg(feature = "gateway")]
        let view = match server {
            Some(server) => view.map(|view| view.at(server)),
            None => view,
        };
        let _ = server;
        Permit { view: view.map(Box::new), note }
    }

    fn view_of_use(&self, feature: Feature, thing: &Thing, hints: Hints) -> Option<View> {
        let (id, name) = (self.incoming.id(), &thing.name);
        match (&*self.incoming.method(), feature) {
            ("tools/call", _) => Some(View::of_call(self.policies, self.identity, id, name.clone(), hints)),
            ("resources/read", _) => Some(View::of_private(self.policies, self.identity, id)),
            _ => None,
        }
    }

    /// Returns the annotations of a tool, if a decision may depend on them.
    async fn hints(&self, feature: Feature, tool: &Thing) -> Result<Hints, Rejection> {
        if feature != Feature::Tool || !self.policies.needs_hints() {
            return Ok(Hints::default());
        }
        let hints = match self.of {
            Of::Child { server, session, client } => {
                server.upstream.hints(session, client, self.incoming, &tool.name).await
            }
            #[cfg(feature = "gateway")]
            Of::One(one) => one.hints(&tool.name).await.ok_or(UNREAD),
            #[cfg(feature = "gateway")]
            Of::All(all) => {
                let server = tool.server.as_deref().unwrap_or_default();
                all.hints(server, &tool.name).await.ok_or(UNREAD)
            }
        };
        hints.map_err(|refusal| match refusal {
            Refusal::Busy(why) => Rejection::busy(why),
            _ => Rejection::busy("the server that lists the tools does not serve"),
        })
    }

    async fn task(&self, task: &Thing) -> Result<(), Rejection> {
        let decision = self.policies.decide_on_task(self.identity, task.server.as_deref(), &task.name).await;
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
