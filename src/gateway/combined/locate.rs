//! Finds what a request is about before it is decided on: which server of all, and by which name there.

use super::super::directory::{Server, Snapshot};
use super::super::forward::Aim;
use super::super::headers::PROTOCOL_VERSION;
use super::super::passed::Passed;
use super::request::{Caller, Request, separate};
use super::state::State;
use super::{annotations, calls, search};
use crate::budget::{Budget, Charged};
use crate::identity::Identity;
use crate::jsonrpc::Message;
use crate::policy::Hints;
use hyper::HeaderMap;
use std::sync::Arc;

/// What is decided on for a request to all servers.
pub(crate) enum Subject {
    /// The request itself.
    Itself,
    /// Tools are searched: only those that the caller may call are found.
    Search,
    /// Nothing, since it will be refused as malformed.
    Nothing,
}

/// A request to all servers.
pub(crate) struct Located {
    caller: Caller,
    /// `None` for a message that is no request.
    request: Option<Request>,
    is_search: bool,
    /// Whether it is a call of `call_tool`: others were replaced by the calls that they stand for.
    is_malformed: bool,
    servers: Arc<Snapshot>,
}

/// A request to one server.
pub(crate) struct One {
    /// The segment of the server's path, its name in policies.
    pub name: Arc<str>,
    caller: Caller,
    server: Arc<Server>,
    /// How a request of the legacy era is sent.
    legacy: Option<(HeaderMap, Aim)>,
}

/// Returns the caller of a client's request, and the request without what proxyrunner has written into it.
fn caller(
    state: &Arc<State>,
    identity: &Arc<Identity>,
    (frame, message): (&Charged, &Message),
    passed: Option<Passed>,
    budget: &Budget,
) -> (Caller, Option<Request>) {
    let own = Caller::new(state, Arc::clone(identity), budget);
    let Some(separated) = separate(frame.clone(), message.clone()) else { return (own, None) };
    let request = separated.request;
    let meta = request.message.params.as_ref().and_then(|params| params.meta.as_ref());
    // That of a legacy client is no envelope.
    let meta = meta.filter(|meta| meta.era_version.is_some());
    let meta = meta.map(|meta| request.frame.slice(meta.span.clone()));
    let passed = passed.unwrap_or(separated.passed);
    (Caller { meta, passed, ..own }, Some(request))
}

impl Located {
    /// Begins with a request to all servers.
    pub(in super::super) fn new(
        state: &Arc<State>,
        identity: &Arc<Identity>,
        (frame, message): (&Charged, &Message),
        budget: &Budget,
    ) -> Self {
        let (caller, request) = caller(state, identity, (frame, message), None, budget);
        let (mut is_search, mut is_malformed) = (false, false);
        if state.core.settings.searches
            && let Some(call) = request.as_ref().filter(|request| request.method == "tools/call")
        {
            let name = call.param("name").map(|(_, name)| name.into_owned()).unwrap_or_default();
            (is_search, is_malformed) = (name == search::SEARCH, name == search::CALL);
        }
        Located { caller, request, is_search, is_malformed, servers: state.servers() }
    }

    /// Returns what is decided on.
    pub(crate) fn subject(&self) -> Subject {
        match (self.is_search, self.is_malformed) {
            (true, _) => Subject::Search,
            (_, true) => Subject::Nothing,
            _ => Subject::Itself,
        }
    }

    /// Returns the server that the request is for, and its own name of what it asks for, if it asks for something with a
    /// name. `None` if no server is known to have it: then the request will not pass.
    pub(crate) async fn find(&self) -> Option<(Arc<str>, Option<String>)> {
        let request = self.request.as_ref()?;
        let target = calls::target(&self.caller, &self.servers, request).await.ok()?;
        Some((Arc::from(&*target.server.about.segment), target.own))
    }

    /// Returns resources with the servers that they belong to.
    pub(crate) async fn owners(&self, uris: &[String]) -> Vec<(Arc<str>, String)> {
        let owned = calls::owners_of(&self.caller, &self.servers, uris).await;
        owned.into_iter().map(|(uri, server)| (Arc::from(&*server.about.segment), uri)).collect()
    }

    /// Returns the annotations of a tool; `None` if its server does not list it in time.
    pub(crate) async fn hints(&self, server: &str, tool: &str) -> Option<Hints> {
        annotations::of(&self.caller, self.servers.get(server)?, tool, None).await
    }
}

impl One {
    /// Begins with a message to one server. `legacy` is the replica of a request of the legacy era.
    pub(in super::super) fn new(
        state: &Arc<State>,
        identity: &Arc<Identity>,
        server: &Arc<Server>,
        message: (&Charged, &Message),
        (headers, legacy): (&HeaderMap, Option<Aim>),
        budget: &Budget,
    ) -> Self {
        let (caller, _) = caller(state, identity, message, Passed::of(headers), budget);
        let version = headers.get(PROTOCOL_VERSION).map(|version| (PROTOCOL_VERSION, version.clone()));
        let legacy = legacy.map(|aim| (version.into_iter().collect(), aim));
        One { name: Arc::from(&*server.about.segment), caller, server: Arc::clone(server), legacy }
    }

    /// Returns the annotations of a tool; `None` if its server does not list it in time.
    pub(crate) async fn hints(&self, tool: &str) -> Option<Hints> {
        annotations::of(&self.caller, &self.server, tool, self.legacy.as_ref()).await
    }
}
