//! The span of an HTTP request, and its access log line if it carries no message.

use super::peers::Persistence;
use super::source::Source;
use super::{Settings, guard};
use crate::audit;
use crate::budget::Account;
use crate::identity::Identity;
use crate::telemetry::{Parent, Peer, Span, SpanKind, Visitor, access, cut, evidence, names, scope, tracer};
use crate::trace_context::Context;
use hyper::header::USER_AGENT;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The telemetry of a request, up to the end of its response.
#[derive(Debug)]
pub struct Visit {
    span: Option<Span>,
    logged: Option<Logged>,
}

/// The fields of its access log line.
#[derive(Debug)]
struct Logged {
    method: Method,
    path: String,
    peer: SocketAddr,
    begun: Instant,
    brought: Arc<AtomicBool>,
    status: u16,
    /// Its position in its trace.
    context: Option<Context>,
    /// What the audit log reports of it.
    visitor: Option<Arc<Visitor>>,
    identity: Arc<Identity>,
    reason: Option<&'static str>,
}

impl Visit {
    /// Begins the telemetry of a request, boxed since there is often none, and returns the origin of its messages.
    pub fn begin(
        settings: &Settings,
        head: &Parts,
        peer: Peer,
        account: Account,
    ) -> (Option<Box<Self>>, Source) {
        let trace = guard::trace(&head.headers, settings.propagates);
        let visitor = evidence::is_collected().then(|| visitor(head, &peer));
        let mut logged = (access::is_enabled() || visitor.is_some()).then(|| Logged {
            method: head.method.clone(),
            path: head.uri.path().to_owned(),
            peer: peer.socket,
            begun: Instant::now(),
            brought: Arc::default(),
            status: 0,
            context: None,
            visitor: visitor.clone(),
            identity: Identity::anonymous(),
            reason: None,
        });
        let parent =
            trace.context().map(|context| Parent { context, tracestate: trace.tracestate(), remote: true });
        let span = tracer().map(|tracer| {
            let mut span = tracer.begin(SpanKind::Server, parent);
            if span.is_recorded() {
                describe(&mut span, settings, head, &peer);
            }
            span
        });
        let context = span.as_ref().map(Span::context).or(parent.map(|parent| parent.context));
        let brought = logged.as_mut().map(|logged| {
            logged.context = context;
            Arc::clone(&logged.brought)
        });
        let source = Source {
            span: context,
            trace,
            identity: Identity::anonymous(),
            gateways: Box::default(),
            #[cfg(feature = "gateway")]
            ticket: None,
            visitor,
            peer,
            account,
            brought,
            persistence: Persistence::default(),
        };
        let span = span.filter(Span::is_recorded);
        let is_seen = span.is_some() || logged.is_some();
        (is_seen.then(|| Box::new(Visit { span, logged })), source)
    }

    /// Records the caller.
    pub fn set_identity(&mut self, identity: &Arc<Identity>) {
        if let Some(logged) = self.logged.as_mut().filter(|logged| logged.visitor.is_some()) {
            logged.identity = Arc::clone(identity);
        }
    }

    /// Records why the caller was refused.
    pub fn set_reason(&mut self, reason: Option<&'static str>) {
        if let Some(logged) = &mut self.logged {
            logged.reason = reason;
        }
    }

    /// Records the response's status.
    pub fn set_status(&mut self, status: StatusCode) {
        if let Some(logged) = &mut self.logged {
            logged.status = status.as_u16();
        }
        if let Some(span) = &mut self.span {
            span.describe(|attributes| attributes.number(names::HTTP_STATUS, status.as_u16().into()));
            // An error of the client is not a failure of the server (http/http-spans.md §Status).
            if status.is_server_error() {
                span.describe(|attributes| attributes.text(names::ERROR, status.as_str()));
                span.fail("");
            }
        }
    }
}

/// Maximum length in bytes of a header's value, and of the path, in the audit log.
const SHOWN: usize = 256;

fn visitor(head: &Parts, peer: &Peer) -> Arc<Visitor> {
    let header = |name: &str| {
        let value = head.headers.get(name)?.to_str().ok()?;
        Some(cut(value, SHOWN).into())
    };
    Arc::new(Visitor {
        peer: peer.clone(),
        path: cut(head.uri.path(), SHOWN).into(),
        agent: header("user-agent"),
        request_id: header("x-request-id"),
    })
}

fn describe(span: &mut Span, settings: &Settings, head: &Parts, peer: &Peer) {
    let path = head.uri.path();
    // Unknown methods are not part of a span name (http/http-spans.md §Name).
    let method = match head.method {
        Method::GET | Method::POST | Method::DELETE | Method::OPTIONS | Method::HEAD | Method::PUT => {
            head.method.as_str()
        }
        _ => "_OTHER",
    };
    let verb = if method == "_OTHER" { "HTTP" } else { method };
    let route = super::paths::route_of(settings, path);
    #[cfg(feature = "gateway")]
    let route = route.or_else(|| super::paths::server_of(path).map(|_| "/servers/{name}/mcp"));
    span.name(match route {
        Some(route) => names::two_words(verb, route),
        None => verb.to_owned(),
    });
    span.describe(|attributes| {
        attributes.text(names::HTTP_METHOD, method);
        attributes.text(names::URL_PATH, path);
        attributes.text(names::URL_SCHEME, if settings.tls.is_some() { "https" } else { "http" });
        if let Some(route) = route {
            attributes.text(names::HTTP_ROUTE, route);
        }
        attributes.text(names::NETWORK_VERSION, if head.version == Version::HTTP_2 { "2" } else { "1.1" });
        attributes.text(names::CLIENT, peer.ip());
        attributes.number(names::CLIENT_PORT, peer.socket.port().into());
        if let Some(agent) = head.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()) {
            attributes.text(names::USER_AGENT, agent);
        }
    });
}

/// Ends the telemetry: the response is complete, or the peer has disconnected.
impl Drop for Visit {
    fn drop(&mut self) {
        let Some(logged) = self.logged.take() else { return };
        if !logged.brought.load(Ordering::Relaxed) {
            let Logged { method, path, peer, begun, status, context, visitor, identity, reason, .. } = logged;
            let took = begun.elapsed();
            scope::within(context, || access::log_request(method.as_str(), &path, status, peer, took));
            if let Some(visitor) = visitor {
                let (visitor, identity, method) = (&visitor, &identity, method.as_str());
                audit::visited(&audit::Visited { visitor, identity, method, status, reason, context, took });
            }
        }
    }
}
