//! Answers a list of all servers, in pages that end between two servers.

use super::super::directory::Snapshot;
use super::collect::{Asking, Part};
use super::kind::Kind;
use super::request::{Caller, Refused, Request};
use crate::era::{keys, results};
use crate::identity::Principal;
use crate::jsonrpc::{Spliced, member, text};
use crate::policy::Feature;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;

/// Maximum number of bytes and of items of a page. It ends between two servers.
const PAGE: usize = 4 << 20;
const MOST: usize = 10_000;
/// Distinguishes cursors from everything else that the same keys seal.
const KIND: &[u8] = b"proxyrunner gateway cursor\0";

fn purpose(principal: &Principal, kind: Kind) -> Vec<u8> {
    [KIND, kind.method().as_bytes(), b"\0", principal.name().as_bytes()].concat()
}

/// Answers a list.
///
/// # Errors
/// When the cursor is not one of this caller's and list's, or a server with `failure: closed` has failed.
pub(super) async fn answer(
    caller: &Caller,
    servers: &Snapshot,
    kind: Kind,
    request: &Request,
) -> Result<Spliced, Refused> {
    let from = begin(caller, kind, request)?;
    let mut asking = Asking::new(caller, servers, kind, &from);
    let mut page = Page { kind, items: Vec::new(), count: 0, seen: HashSet::new(), ttl: u64::MAX };
    let mut next = None;
    while let Some((server, part)) = asking.next().await {
        let segment = &server.about.segment;
        match part {
            Ok(mut part) => {
                let is_full =
                    page.items.len() + part.bytes.len() > PAGE || page.count + part.ends.len() > MOST;
                if is_full && page.count > 0 {
                    next = Some(segment.clone());
                    break;
                }
                let allowed = allowed(caller, segment, kind, &mut part).await;
                page.add(caller, segment, &part, allowed.as_deref());
            }
            Err(fault) if fault.is_own || server.about.is_required => return Err(fault.into()),
            Err(_) => page.ttl = 0,
        }
    }
    let next = next.map(|segment| {
        let sealed =
            caller.state.core.seal.seal_bytes(segment.as_bytes(), &purpose(&caller.identity.principal, kind));
        sealed.map_err(|_| Refused::failed("the system has no randomness to seal a cursor"))
    });
    let written = page.written(request.id(), next.transpose()?.as_deref());
    let full = || Refused::failed("--max-buffered is used up by messages in transit; try again");
    caller.account.try_hold(written).map(Spliced::from).ok_or_else(full)
}

/// Returns the server that a page begins with, or behind it.
fn begin(caller: &Caller, kind: Kind, request: &Request) -> Result<String, Refused> {
    let (frame, params) = (&request.frame, request.message.params.as_ref());
    let cursor = params.and_then(|params| member(frame, &params.span, "cursor"));
    let Some(cursor) = cursor.filter(|cursor| &frame[cursor.clone()] != b"null") else {
        return Ok(String::new());
    };
    let sealed = text(frame, &cursor);
    let opened = caller.state.core.seal.open_bytes(&sealed, &purpose(&caller.identity.principal, kind));
    let opened = opened.filter(|_| frame[cursor.start] == b'"');
    opened
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| Refused::params("the cursor is unknown; begin the list again without one"))
}

/// Decides on the items of a server; `None` if there are no policies.
pub(super) async fn allowed(
    caller: &Caller,
    segment: &str,
    kind: Kind,
    part: &mut Part,
) -> Option<Vec<bool>> {
    let policies = caller.guard.as_ref()?;
    // Policies may change at any time.
    part.ttl = 0;
    let feature = match kind {
        Kind::Tools => Feature::Tool,
        Kind::Prompts => Feature::Prompt,
        Kind::Resources | Kind::Templates => Feature::Resource,
    };
    let things = std::mem::take(&mut part.things);
    Some(policies.decide_all(&caller.identity, Some(&Arc::from(segment)), feature, things).await)
}

struct Page {
    kind: Kind,
    items: Vec<u8>,
    count: usize,
    seen: HashSet<String>,
    ttl: u64,
}

impl Page {
    /// Adds the items of a server that the caller may use. Of items with the same URI, the first server's is kept.
    fn add(&mut self, caller: &Caller, segment: &str, part: &Part, allowed: Option<&[bool]>) {
        self.ttl = self.ttl.min(part.ttl);
        let mut from = 0;
        for (at, end) in part.ends.iter().enumerate() {
            let item = &part.bytes[from..*end];
            from = *end;
            if allowed.is_some_and(|allowed| allowed.get(at) != Some(&true)) {
                continue;
            }
            if let Some(key) = part.keys.get(at) {
                if !self.seen.insert(key.clone()) {
                    continue;
                }
                if self.kind == Kind::Resources {
                    caller.state.owners.learn(&caller.identity.principal, key, segment);
                }
            }
            if !self.items.is_empty() {
                self.items.push(b',');
            }
            self.items.extend_from_slice(item);
            self.count += 1;
        }
    }

    fn written(self, id: &[u8], next: Option<&str>) -> Vec<u8> {
        let ttl_ms = if self.ttl == u64::MAX { 0 } else { self.ttl };
        let hint = results::Hint { ttl_ms, scope: results::Scope::Private };
        let mut tail = format!("],{},\"_meta\":{{{}}}", hint.members(), server_info());
        if let Some(next) = next {
            tail += &format!(",\"nextCursor\":{}", Value::from(next));
        }
        let head = format!("{{\"resultType\":\"complete\",\"{}\":[", self.kind.member());
        let mut whole = Vec::with_capacity(self.items.len() + head.len() + tail.len() + id.len() + 64);
        whole.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
        whole.extend_from_slice(id);
        whole.extend_from_slice(b",\"result\":");
        whole.extend_from_slice(head.as_bytes());
        whole.extend_from_slice(&self.items);
        whole.extend_from_slice(tail.as_bytes());
        whole.extend_from_slice(b"}}");
        whole
    }
}

/// Returns the member of `_meta` that says who answers.
pub(super) fn server_info() -> String {
    let info = json!({"name": "proxyrunner", "version": env!("CARGO_PKG_VERSION")});
    format!("\"{}\":{info}", keys::SERVER_INFO)
}
