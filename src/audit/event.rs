//! The events of the log, with the members and values of ToolHive's audit events, so that the same queries work.

use super::Visited;
use super::object::Line;
use super::stamp::{put_hex, put_time, put_uuid};
use crate::identity::Identity;
use crate::telemetry::{Details, Ended, Verdict, Visitor, unix_nanos};
use crate::trace_context::Context;
use serde_json::{Map, Value};
use std::time::Duration;

/// Maximum length of names, ids and addresses.
const NAME: usize = 256;
/// Maximum length of a method.
const METHOD: usize = 128;
/// Maximum length of a tool's name or a resource's URI.
const TARGET: usize = 512;
/// Maximum length of an error message.
const MESSAGE: usize = 256;
/// Maximum length of arguments and of a result (`--audit-content`).
const CONTENT: usize = 1_024;
/// Maximum number of actors in a chain of delegation.
const MOST_ACTORS: usize = 10;

/// An event of proxyrunner itself, rather than of a client.
#[derive(Debug)]
pub(super) struct Event {
    kind: &'static str,
    outcome: &'static str,
    user: Option<String>,
    extra: Line,
}

impl Event {
    /// Begins an event.
    pub fn own(kind: &'static str, outcome: &'static str) -> Self {
        Event { kind, outcome, user: None, extra: Line::begin() }
    }

    /// Sets the caller that it concerns.
    pub fn user(self, user: &str) -> Self {
        Event { user: Some(user.to_owned()), ..self }
    }

    /// Adds a text to `metadata.extra`.
    pub fn text(mut self, key: &'static str, value: &str) -> Self {
        self.extra.text(key, value, NAME);
        self
    }

    /// Adds a number to `metadata.extra`.
    pub fn number(mut self, key: &'static str, value: u64) -> Self {
        self.extra.value(key, value);
        self
    }

    /// Adds a boolean to `metadata.extra`.
    pub fn flag(mut self, key: &'static str, value: bool) -> Self {
        self.extra.value(key, value);
        self
    }

    /// Returns the line, an object without its last brace.
    pub fn finish(self, component: &str) -> String {
        let mut line = begin(self.kind, self.outcome, component);
        line.object("source", |source| {
            source.constant("type", "local");
            source.constant("value", "proxyrunner");
        });
        if let Some(user) = &self.user {
            line.object("subjects", |subjects| subjects.text("user", user, NAME));
        }
        line.0.push_str(",\"metadata\":{\"extra\":");
        line.0.push_str(&self.extra.0);
        line.0.push_str("}}");
        line.0
    }
}

/// Returns the line of a message that has ended.
pub(super) fn of_message(ended: &Ended<'_>, component: &str) -> String {
    let evidence = ended.evidence;
    let details = evidence.details.lock();
    let mut line = begin(kind_of(ended.method), outcome_of(ended.verdict), component);
    put_source(&mut line, &evidence.visitor, details.session.as_deref());
    put_subjects(&mut line, &evidence.identity, details.client.as_deref());
    line.object("target", |target| {
        target.text("endpoint", &evidence.visitor.path, NAME);
        target.text("method", ended.method, METHOD);
        let (kind, key) = match ended.method {
            "tools/call" => ("tool", "name"),
            "prompts/get" => ("prompt", "name"),
            method if method.starts_with("resources/") => ("resource", "uri"),
            _ => ("endpoint", "name"),
        };
        target.optional(key, ended.target, TARGET);
        target.constant("type", kind);
    });
    put_metadata(&mut line, ended.took, |extra| put_outcome(extra, ended.verdict, &details));
    if details.request.is_some() || details.response.is_some() {
        line.object("data", |data| {
            for (key, content) in [("request", &details.request), ("response", &details.response)] {
                if let Some(content) = content {
                    data.json(key, content, CONTENT);
                }
            }
        });
    }
    put_context(&mut line, ended.context);
    line.optional("policy_id", details.policy.as_deref(), NAME);
    line.optional("protocol_version", details.revision.as_deref(), METHOD);
    if let Some(digest) = &details.arguments {
        line.with("arguments_sha256", |text| put_hex(text, digest));
    }
    line.0
}

/// Returns the line of an HTTP request without a message.
pub(super) fn of_visit(visited: &Visited<'_>, component: &str) -> String {
    let Visited { visitor, identity, method, status, reason, context, took } = *visited;
    let is_stream = method == "GET" && status == 200;
    let kind = if is_stream { "sse_connection" } else { "http_request" };
    let mut line = begin(kind, outcome_of_status(status), component);
    put_source(&mut line, visitor, None);
    put_subjects(&mut line, identity, None);
    line.object("target", |target| {
        target.text("endpoint", &visitor.path, NAME);
        target.text("method", method, METHOD);
        target.constant("type", "endpoint");
    });
    put_metadata(&mut line, took, |extra| {
        extra.value("http_status", status);
        extra.optional("reason", reason, NAME);
    });
    put_context(&mut line, context);
    line.0
}

fn begin(kind: &str, outcome: &str, component: &str) -> Line {
    let mut line = Line::begin();
    let now = unix_nanos();
    line.with("time", |text| put_time(text, now));
    line.constant("level", "AUDIT");
    line.constant("msg", "audit_event");
    line.with("audit_id", put_uuid);
    line.constant("type", kind);
    line.with("logged_at", |text| put_time(text, now));
    line.constant("outcome", outcome);
    line.text("component", component, NAME);
    line
}

fn put_source(line: &mut Line, visitor: &Visitor, session: Option<&str>) {
    line.object("source", |source| {
        source.constant("type", "network");
        source.constant("value", visitor.peer.ip());
        let (agent, request) = (visitor.agent.as_deref(), visitor.request_id.as_deref());
        if agent.or(request).or(session).is_some() {
            source.object("extra", |extra| {
                extra.optional("user_agent", agent, NAME);
                extra.optional("request_id", request, NAME);
                extra.optional("session_id", session, NAME);
            });
        }
    });
}

fn put_subjects(line: &mut Line, identity: &Identity, client: Option<&(Box<str>, Box<str>)>) {
    line.object("subjects", |subjects| {
        let claim = |name: &str| identity.claims.get(name).and_then(Value::as_str);
        let name = ["name", "preferred_username", "email"].iter().find_map(|name| claim(name));
        let subject = || match &*identity.subject {
            "" => identity.principal.name(),
            subject => subject,
        };
        subjects.text("user", name.unwrap_or_else(subject), NAME);
        if !identity.subject.is_empty() {
            subjects.text("user_id", &identity.subject, NAME);
        }
        if let Some((name, version)) = client {
            subjects.text("client_name", name, NAME);
            subjects.text("client_version", version, METHOD);
        }
        subjects.optional("issuer", identity.issuer.as_deref(), NAME);
        subjects.optional("client_id", identity.client_id.as_deref(), NAME);
        subjects.constant("means", identity.means.name());
    });
    if let Some(actor) = identity.claims.get("act") {
        line.object("delegation", |delegation| put_delegation(delegation, actor));
    }
}

/// Writes the chain of actors of a token (RFC 8693 §4.1), the current one first.
fn put_delegation(delegation: &mut Line, actor: &Value) {
    let mut chain: Vec<&Map<String, Value>> = Vec::new();
    let (mut next, mut omitted, mut is_malformed) = (Some(actor), 0_u64, false);
    while let Some(actor) = next {
        let Some(members) = actor.as_object() else {
            is_malformed = true;
            break;
        };
        if chain.len() < MOST_ACTORS {
            chain.push(members)
        } else {
            omitted += 1
        }
        next = members.get("act");
    }
    delegation.objects("chain", chain, |line, members| {
        line.optional("iss", members.get("iss").and_then(Value::as_str), METHOD);
        line.optional("sub", members.get("sub").and_then(Value::as_str), METHOD);
    });
    if omitted > 0 {
        delegation.value("truncated", true);
        delegation.value("omitted", omitted);
    }
    if is_malformed {
        delegation.value("malformed", true);
    }
}

fn put_metadata(line: &mut Line, took: Duration, put: impl FnOnce(&mut Line)) {
    line.object("metadata", |metadata| {
        metadata.object("extra", |extra| {
            extra.value("duration_ms", took.as_micros() as f64 / 1e3);
            extra.constant("transport", "streamable-http");
            put(extra);
        });
    });
}

fn put_outcome(extra: &mut Line, verdict: &Verdict, details: &Details) {
    if let Some(size) = details.response_size {
        extra.value("response_size_bytes", size);
    }
    extra.optional("backend_name", details.server.as_deref(), NAME);
    if let Some(id) = &details.id {
        extra.raw("jsonrpc_id", id);
    }
    match verdict {
        Verdict::Success => {}
        Verdict::ToolError => extra.value("tool_error", true),
        Verdict::Cancelled => extra.value("cancelled", true),
        Verdict::Error { code, message } | Verdict::Refused { code, message, .. } => {
            extra.value("jsonrpc_error_code", code);
            extra.text("jsonrpc_error_message", message, MESSAGE);
        }
    }
    if let Verdict::Refused { status, .. } = verdict {
        extra.value("http_status", status);
    }
}

fn put_context(line: &mut Line, context: Option<Context>) {
    if let Some(context) = context {
        line.with("trace_id", |text| put_hex(text, &context.trace));
        line.with("span_id", |text| put_hex(text, &context.span));
    }
}

fn kind_of(method: &str) -> &'static str {
    match method {
        "initialize" => "mcp_initialize",
        "tools/call" => "mcp_tool_call",
        "tools/list" => "mcp_tools_list",
        "resources/read" => "mcp_resource_read",
        "resources/list" => "mcp_resources_list",
        "prompts/get" => "mcp_prompt_get",
        "prompts/list" => "mcp_prompts_list",
        "notifications/roots/list_changed" => "mcp_roots_list_changed",
        method if method.starts_with("notifications/") => "mcp_notification",
        "ping" => "mcp_ping",
        "logging/setLevel" => "mcp_logging",
        "completion/complete" => "mcp_completion",
        _ => "mcp_request",
    }
}

fn outcome_of(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Success => "success",
        Verdict::ToolError | Verdict::Error { .. } => "application_error",
        Verdict::Refused { status, .. } => outcome_of_status(*status),
        Verdict::Cancelled => "failure",
    }
}

fn outcome_of_status(status: u16) -> &'static str {
    match status {
        401 | 403 => "denied",
        400..500 => "failure",
        // Without a status, the client disconnected before there was a response.
        0 => "failure",
        500.. => "error",
        _ => "success",
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
