//! The annotations of servers' tools, on which policies may decide: read from the server itself, in the caller's name,
//! and remembered for a short time.

use super::super::directory::Server;
use super::super::forward::Aim;
use super::ask::{Ask, Fault, error_of, fault};
use super::request::Caller;
use crate::era::envelope::Envelope;
use crate::jsonrpc::{codes, items, member, rewrite, string_member, text};
use crate::policy::{Hints, hints_of};
use crate::telemetry::Seldom;
use hyper::HeaderMap;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const METHOD: &str = "tools/list";
/// Time for a server to list its tools.
const PATIENCE: Duration = Duration::from_secs(2);
/// Maximum number of pages that are read, and maximum length of each.
const MOST_PAGES: usize = 64;
const LONGEST_PAGE: usize = 8 << 20;
/// Maximum length of a cursor.
const LONGEST_CURSOR: usize = 16 << 10;
/// Maximum number of tools.
const MOST: usize = 65_536;

/// How a request of the legacy era is sent: its revision, and the replica of its session.
pub(super) type Legacy<'a> = Option<&'a (HeaderMap, Aim)>;

/// Returns the annotations of a tool; `None` if its server does not list it in time.
pub(super) async fn of(
    caller: &Caller,
    server: &Arc<Server>,
    tool: &str,
    legacy: Legacy<'_>,
) -> Option<Hints> {
    let known = &caller.state.annotations;
    let (segment, principal) = (&*server.about.segment, &caller.identity.principal);
    let key = |tool: Option<&str>| known.key(segment, principal, tool);
    if let Some(hints) = known.find(&key, tool) {
        return Some(hints);
    }
    let turn = known.turn(key(None));
    let _turn = turn.lock().await;
    if let Some(hints) = known.find(&key, tool) {
        return Some(hints);
    }
    let read = timeout(PATIENCE, read(caller, server, legacy)).await;
    match read.unwrap_or_else(|_| Err(fault(server, "has not listed its tools in time"))) {
        Ok((tools, is_whole)) => {
            let own = tools.get(tool).copied();
            known.learn(&key, tools, is_whole);
            own.or_else(|| is_whole.then(Hints::default))
        }
        Err(fault) => {
            static FAILED: Seldom = Seldom::new();
            if FAILED.is_due() {
                let server = &server.about.name;
                tracing::warn!(server, reason = %fault, "the annotations of a server's tools, which policies name, cannot be read, and its calls are refused; logged at most once a minute");
            }
            None
        }
    }
}

/// Reads the tools of a server with their annotations. Also returns whether there are no more.
async fn read(
    caller: &Caller,
    server: &Arc<Server>,
    legacy: Legacy<'_>,
) -> Result<(HashMap<String, Hints>, bool), Fault> {
    let (mut tools, mut cursor) = (HashMap::new(), None);
    for _ in 0..MOST_PAGES {
        let body = caller.account.hold(request(caller, legacy.is_some(), cursor.as_deref()));
        let (named, params, key) = (None, Vec::new(), None);
        let ask =
            Ask { caller, server, method: METHOD, named, params, body, key, longest: LONGEST_PAGE, legacy };
        let (frame, message) = ask.send().await?.answer().await?;
        match error_of(&frame, &message) {
            Some((codes::METHOD_NOT_FOUND, _)) => return Ok((tools, true)),
            Some((code, text)) => return Err(fault(server, &format!("answered the error {code}: {text}"))),
            None => {}
        }
        let result = message.result.clone().filter(|result| frame[result.start] == b'{');
        let result = result.ok_or_else(|| fault(server, "answered no list"))?;
        let list = member(&frame, &result, "tools").filter(|list| frame[list.start] == b'[');
        for tool in items(&frame, list.ok_or_else(|| fault(server, "answered no list"))?) {
            if let Some(name) = string_member(&frame, &tool, "name") {
                tools.insert(name.into_owned(), hints_of(&frame, &tool));
            }
        }
        if tools.len() >= MOST {
            return Ok((tools, false));
        }
        let next = member(&frame, &result, "nextCursor");
        let next =
            next.filter(|next| frame[next.start] == b'"' && (3..=LONGEST_CURSOR).contains(&next.len()));
        let next = next.map(|next| text(&frame, &next).into_owned());
        if next.is_none() || next == cursor {
            return Ok((tools, next.is_none()));
        }
        cursor = next;
    }
    Ok((tools, false))
}

fn request(caller: &Caller, is_legacy: bool, cursor: Option<&str>) -> Vec<u8> {
    let meta = match &caller.meta {
        _ if is_legacy => None,
        Some(meta) => Some(String::from_utf8_lossy(meta).into_owned()),
        None => Some(format!("{{{}}}", Envelope::own().members())),
    };
    let members = [
        meta.map(|meta| format!("\"_meta\":{meta}")),
        cursor.map(|cursor| format!("\"cursor\":{}", Value::from(cursor))),
    ];
    let params = format!("{{{}}}", members.into_iter().flatten().collect::<Vec<_>>().join(","));
    // A session may have a request of its client with a number as its id.
    rewrite::request(b"\"proxyrunner:annotations\"", METHOD, Some(params.as_bytes())).to_vec()
}
