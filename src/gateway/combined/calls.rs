//! Requests that one server answers: it gets them as they are, except for its own names, and its answer passes as it is.

use super::super::directory::Server;
use super::super::directory::Snapshot;
use super::super::forward::Aim;
use super::ask::{Ask, Said, error_of};
use super::asking;
use super::collect::{PATIENCE, found, read};
use super::kind::Kind;
use super::owners;
use super::request::{Caller, Refused, Request};
use crate::calls::Purpose;
use crate::era::capabilities::Capabilities;
use crate::era::headers::named_by;
use crate::era::input::ASKING;
use crate::jsonrpc::{self, Edits, NoRoom, Span, Spliced, codes, member, splice, string_member, text};
use crate::policy::{Asked, asked};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::mpsc::Sender;
use tokio::time::timeout;

/// Maximum length of a message of an answer. What a client can be sent is bounded by `--max-buffered`, too.
const LONGEST: usize = 64 << 20;

/// The server of a request, and the changes to the request.
pub(super) struct Target {
    pub server: Arc<Server>,
    /// Replaced parts of the request.
    replaced: Vec<(Span, String)>,
    /// The server's own name of what the request concerns, which a header repeats.
    named: Option<String>,
    /// The server's own name of what the request concerns.
    pub own: Option<String>,
}

impl From<NoRoom> for Refused {
    fn from(no_room: NoRoom) -> Self {
        Refused::failed(no_room)
    }
}

/// Passes a request to its server, and what comes before its answer to `before`.
///
/// # Errors
/// When no server has what the request concerns, or the server does not answer.
pub(super) async fn pass(
    caller: &Caller,
    servers: &Snapshot,
    request: &Request,
    before: &Sender<Spliced>,
) -> Result<Spliced, Refused> {
    let target = target(caller, servers, request).await?;
    if caller.guard.is_some() && asked(&request.frame, &request.message) != Asked::Free {
        let own = target.own.as_deref().unwrap_or_default();
        request.check_decided(std::iter::once((&*target.server.about.segment, own)))?;
    }
    let is_only = servers.len() == 1;
    let call = Call { caller, target: &target, request, before };
    let (frame, message) = call.answer(0).await?;
    if is_only {
        return Ok(Spliced::from(frame));
    }
    let seal = &caller.state.core.seal;
    Ok(asking::named(seal, &caller.identity.principal, &target.server, frame, &message)?)
}

/// Finds the server of a request.
///
/// # Errors
/// When no server has what the request concerns.
pub(super) async fn target(
    caller: &Caller,
    servers: &Snapshot,
    request: &Request,
) -> Result<Target, Refused> {
    if servers.is_empty() {
        return Err(Refused::failed("this gateway has no servers"));
    }
    let mut target = match &*request.method {
        "tools/call" | "prompts/get" => by_name(caller, servers, request).await?,
        "resources/read" => by_uri(caller, servers, request).await?,
        "completion/complete" => by_reference(caller, servers, request).await?,
        _ => match servers.values().next() {
            Some(only) if servers.len() == 1 => {
                let named = named_by(&request.method).and_then(|member| request.param(member).ok());
                let named = named.map(|(_, text)| text.into_owned());
                Target { server: Arc::clone(only), replaced: Vec::new(), own: named.clone(), named }
            }
            _ => return Err(Refused::method()),
        },
    };
    let state = request.message.params.as_ref().and_then(|params| params.request_state.clone());
    if let Some(state) = state.filter(|_| servers.len() > 1) {
        let principal = &caller.identity.principal;
        let (segment, inner) =
            asking::opened(&caller.state.core.seal, principal, &text(&request.frame, &state))?;
        if *segment != *target.server.about.segment {
            return Err(Refused::params("requestState was not issued for this call"));
        }
        target.replaced.push((state, inner));
    }
    Ok(target)
}

async fn by_name(caller: &Caller, servers: &Snapshot, request: &Request) -> Result<Target, Refused> {
    let (span, shown) = request.param("name")?;
    let kind = if request.method == "tools/call" { Kind::Tools } else { Kind::Prompts };
    let (server, name) = own_name(caller, servers, kind, &shown).await?;
    let replaced = if name == shown { Vec::new() } else { vec![(span, name.clone())] };
    Ok(Target { server, replaced, own: Some(name.clone()), named: Some(name) })
}

/// Returns the server of a tool or prompt, and its own name there.
async fn own_name(
    caller: &Caller,
    servers: &Snapshot,
    kind: Kind,
    shown: &str,
) -> Result<(Arc<Server>, String), Refused> {
    let names = &caller.state.names;
    let what = if kind == Kind::Tools { "tool" } else { "prompt" };
    let unknown = || {
        let shown = &shown[..shown.floor_char_boundary(200)];
        Refused::params(format_args!("unknown {what} {shown:?}"))
    };
    let mut found = names.find(servers, shown).ok_or_else(unknown)?;
    if found.is_doubtful {
        // Names are shortened when they are listed.
        let _ = super::collect::all(caller, servers, kind).await;
        found = names.find(servers, shown).ok_or_else(unknown)?;
    }
    let own = match kind {
        Kind::Tools => found.server.about.tools.own(&found.name).map(str::to_owned).ok_or_else(unknown)?,
        _ => found.name,
    };
    Ok((found.server, own))
}

async fn by_uri(caller: &Caller, servers: &Snapshot, request: &Request) -> Result<Target, Refused> {
    let (_, uri) = request.param("uri")?;
    let server = owner(caller, servers, &uri).await?;
    let uri = uri.into_owned();
    Ok(Target { server, replaced: Vec::new(), own: Some(uri.clone()), named: Some(uri) })
}

/// Returns the server that a resource belongs to.
async fn owner(caller: &Caller, servers: &Snapshot, uri: &str) -> Result<Arc<Server>, Refused> {
    let owned = owners_of(caller, servers, &[uri.to_owned()]).await.pop();
    owned.map(|(_, server)| server).ok_or_else(|| {
        let data = Some(json!({"uri": uri}));
        Refused { data, ..Refused::params("no server has this resource") }
    })
}

/// Returns resources with the servers that they belong to. Those that are not remembered are looked for in the lists,
/// and then among the templates; of several servers the first one counts.
pub(super) async fn owners_of(
    caller: &Caller,
    servers: &Snapshot,
    uris: &[String],
) -> Vec<(String, Arc<Server>)> {
    if let (Some(only), 1) = (servers.values().next(), servers.len()) {
        return uris.iter().map(|uri| (uri.clone(), Arc::clone(only))).collect();
    }
    let state = &caller.state;
    let known = |uri: &String| {
        let segment = state.owners.of(&caller.identity.principal, uri)?;
        Some((uri.clone(), Arc::clone(servers.get(&segment)?)))
    };
    let mut owned: Vec<_> = uris.iter().filter_map(known).collect();
    for kind in [Kind::Resources, Kind::Templates] {
        let left: Vec<_> = uris.iter().filter(|uri| !owned.iter().any(|(own, _)| own == *uri)).collect();
        if left.is_empty() {
            break;
        }
        let parts = super::collect::all(caller, servers, kind).await;
        for uri in left {
            let is_wanted = |key: &str| match kind {
                Kind::Templates => owners::matches(key, uri),
                _ => key == uri,
            };
            if let Some(server) = found(&parts, is_wanted) {
                state.owners.learn(&caller.identity.principal, uri, &server.about.segment);
                owned.push((uri.clone(), server));
            }
        }
    }
    owned
}

async fn by_reference(caller: &Caller, servers: &Snapshot, request: &Request) -> Result<Target, Refused> {
    let frame = &request.frame;
    let params = request.message.params.as_ref();
    let reference = params.and_then(|params| member(frame, &params.span, "ref"));
    let reference = reference.ok_or_else(|| Refused::params("ref is missing"))?;
    let kind = string_member(frame, &reference, "type").unwrap_or_default();
    let (name, is_prompt) = match &*kind {
        "ref/prompt" => ("name", true),
        "ref/resource" => ("uri", false),
        _ => return Err(Refused::params("ref.type is neither ref/prompt nor ref/resource")),
    };
    let span = member(frame, &reference, name).filter(|span| frame[span.start] == b'"');
    let span = span.ok_or_else(|| Refused::params(format_args!("ref.{name} must be one text")))?;
    let shown = text(frame, &span);
    if is_prompt {
        let (server, own) = own_name(caller, servers, Kind::Prompts, &shown).await?;
        let replaced = if own == shown { Vec::new() } else { vec![(span, own.clone())] };
        return Ok(Target { server, replaced, named: None, own: Some(own) });
    }
    let only = servers.values().next().filter(|_| servers.len() == 1).map(Arc::clone);
    let server = match only {
        Some(only) => only,
        None => {
            let templates = super::collect::all(caller, servers, Kind::Templates).await;
            match found(&templates, |template| template == shown) {
                Some(server) => server,
                None => owner(caller, servers, &shown).await?,
            }
        }
    };
    Ok(Target { server, replaced: Vec::new(), named: None, own: Some(shown.into_owned()) })
}

/// A request on its way.
struct Call<'a> {
    caller: &'a Caller,
    target: &'a Target,
    request: &'a Request,
    before: &'a Sender<Spliced>,
}

impl Call<'_> {
    /// Returns the server's answer. A server that misses a repeated parameter has not begun, and is asked for its tools.
    async fn answer(&self, attempt: u32) -> Result<(crate::budget::Charged, jsonrpc::Message), Refused> {
        let Call { caller, target, request, .. } = self;
        let mut edits = Edits::new();
        for (span, text) in &target.replaced {
            edits.replace(span, Value::from(text.as_str()).to_string().as_bytes());
        }
        let body = splice(&request.frame, &request.message.object, edits).flatten()?;
        let message = jsonrpc::scan(&body).map_err(|fault| Refused::params(fault.reason))?;
        let params = message.params.as_ref();
        let segment = &target.server.about.segment;
        let is_call = request.method == "tools/call";
        let repeated = target.named.as_deref().filter(|_| is_call).map(|tool| {
            let arguments = params.and_then(|params| member(&body, &params.span, "arguments"));
            caller.state.headers.of(segment, tool, &body, arguments.as_ref())
        });
        let ask = Ask {
            caller,
            server: &target.server,
            method: &request.method,
            named: target.named.as_deref().filter(|_| named_by(&request.method).is_some()),
            params: repeated.unwrap_or_default(),
            key: self.key(&body, &message),
            body,
            longest: LONGEST,
            legacy: None,
        };
        let mut reply = ask.send().await?;
        let (frame, message) = loop {
            match reply.next().await? {
                Said::Answer(frame, message) => break (frame, message),
                Said::Before(frame, message) => self.tell(frame, &message).await,
            }
        };
        let is_missed = is_call && matches!(error_of(&frame, &message), Some((codes::HEADER_MISMATCH, _)));
        if is_missed && attempt == 0 && self.learn_headers().await {
            return Box::pin(self.answer(1)).await;
        }
        Ok((frame, message))
    }

    /// Passes a message that comes before the answer, if it is about this request.
    async fn tell(&self, frame: crate::budget::Charged, message: &jsonrpc::Message) {
        let method = message.method.as_ref().map(|method| text(&frame, method));
        let token = message.params.as_ref().and_then(|params| params.progress_token.clone());
        let passes = match method.as_deref() {
            // Another token would be that of another client's request.
            Some("notifications/progress") => {
                token.is_some() && token.map(|token| &frame[token]) == self.request.progress_token()
            }
            Some("notifications/message") => {
                let meta = self.request.message.params.as_ref().and_then(|params| params.meta.as_ref());
                meta.is_some_and(|meta| meta.log_level.is_some())
            }
            _ => false,
        };
        if passes {
            // The receiver is gone only with the whole relay.
            let _ = self.before.send(Spliced::from(frame)).await;
        }
    }

    /// Returns the key of a call in which the client may be asked something: the retry has the same one.
    fn key(&self, body: &[u8], message: &jsonrpc::Message) -> Option<Aim> {
        let params = message.params.as_ref()?;
        let declared = params.meta.as_ref().and_then(|meta| meta.client_capabilities.as_ref());
        let asks = declared.is_some_and(|span| Capabilities::read(body, span).asks());
        let is_asking = asks && ASKING.contains(&&*self.request.method);
        let is_retry = params.request_state.is_some() || params.input_responses.is_some();
        let key = || Purpose::of(&self.caller.identity.principal, body, message).digest();
        match is_retry {
            true => Some(Aim::Retry(key())),
            false => is_asking.then(|| Aim::Key(key())),
        }
    }

    /// Reads the server's tools; returns whether something may have been learned.
    async fn learn_headers(&self) -> bool {
        let server = &self.target.server;
        let servers = self.caller.state.servers();
        let read = read(self.caller, &servers, server, Kind::Tools);
        timeout(PATIENCE, read).await.is_ok_and(|read| read.is_ok())
    }
}
