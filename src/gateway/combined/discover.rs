//! What all servers are together (`server/discover`).

use super::super::directory::Server;
use super::super::directory::Snapshot;
use super::ask::{Ask, Fault, fault};
use super::collect::{LONGEST_TTL, PATIENCE};
use super::lists::server_info;
use super::request::{Caller, Request};
use crate::era::MODERN_VERSION;
use crate::jsonrpc::{Spliced, rewrite};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

/// Maximum length of an answer of a server.
const LONGEST: usize = 1 << 20;
/// Maximum length of the instructions of a server, and of all together.
const LONGEST_PART: usize = 4 << 10;
const LONGEST_WHOLE: usize = 64 << 10;
/// Number of servers that are asked at the same time.
const SIDE_BY_SIDE: usize = 16;

/// Returns the answer for whoever asks before anything is known of the servers.
pub(super) fn usual(id: &[u8]) -> Spliced {
    let capabilities = json!({
        "tools": {"listChanged": true},
        "prompts": {"listChanged": true},
        "resources": {"subscribe": true, "listChanged": true},
        "completions": {},
    });
    written(id, &capabilities, "", 0)
}

fn written(id: &[u8], capabilities: &Value, instructions: &str, ttl: u64) -> Spliced {
    let mut result = format!(
        "{{\"resultType\":\"complete\",\"supportedVersions\":[\"{MODERN_VERSION}\"],\"capabilities\":{capabilities},\
         \"ttlMs\":{ttl},\"cacheScope\":\"private\",\"_meta\":{{{}}}",
        server_info()
    );
    if !instructions.is_empty() {
        result += &format!(",\"instructions\":{}", Value::from(instructions));
    }
    result.push('}');
    Spliced::from(rewrite::result(id, result.as_bytes()))
}

/// Answers with what the servers offer together.
///
/// # Errors
/// When a server with `failure: closed` has failed.
pub(super) async fn answer(caller: &Caller, servers: &Snapshot, request: &Request) -> Result<Spliced, Fault> {
    let until = Instant::now() + PATIENCE;
    let mut left = servers.values().map(Arc::clone);
    let mut asking = JoinSet::new();
    let mut told: Vec<(Arc<Server>, Result<Value, Fault>)> = Vec::new();
    loop {
        while asking.len() < SIDE_BY_SIDE
            && let Some(server) = left.next()
        {
            let caller = caller.clone();
            asking.spawn(crate::tasks::boxed(async move {
                let patience = caller.state.patience(&server, until);
                let asked = timeout_at(patience.into(), ask(&caller, &server)).await;
                let told = asked.unwrap_or_else(|_| Err(fault(&server, "has not described itself in time")));
                (server, told)
            }));
        }
        match asking.join_next().await {
            Some(Ok(one)) => told.push(one),
            Some(Err(_)) => {}
            None => break,
        }
    }
    told.sort_by(|(one, _), (other, _)| one.about.segment.cmp(&other.about.segment));
    let mut merged = Merged { capabilities: Map::new(), instructions: String::new(), ttl: u64::MAX };
    for (server, told) in told {
        match told {
            Ok(described) => merged.add(&server, &described),
            Err(fault) if fault.is_own || server.about.is_required => return Err(fault),
            Err(_) => merged.ttl = 0,
        }
    }
    let ttl = if merged.ttl == u64::MAX { 0 } else { merged.ttl };
    Ok(written(request.id(), &merged.capabilities.into(), &merged.instructions, ttl))
}

async fn ask(caller: &Caller, server: &Arc<Server>) -> Result<Value, Fault> {
    let meta = caller.meta.as_ref().map_or("{}".into(), |meta| String::from_utf8_lossy(meta));
    let params = format!("{{\"_meta\":{meta}}}");
    let ask = Ask {
        caller,
        server,
        method: "server/discover",
        named: None,
        params: Vec::new(),
        body: rewrite::request(b"1", "server/discover", Some(params.as_bytes())),
        key: None,
        longest: LONGEST,
        legacy: None,
    };
    let (frame, message) = ask.send().await?.answer().await?;
    let result = message.result.and_then(|result| serde_json::from_slice(&frame[result]).ok());
    result.ok_or_else(|| fault(server, "does not describe itself (server/discover)"))
}

struct Merged {
    capabilities: Map<String, Value>,
    instructions: String,
    ttl: u64,
}

impl Merged {
    fn add(&mut self, server: &Server, described: &Value) {
        let offered = &described["capabilities"];
        for (name, own) in [
            ("tools", json!({"listChanged": true})),
            ("prompts", json!({"listChanged": true})),
            ("resources", json!({"listChanged": true})),
            ("completions", json!({})),
            ("logging", json!({})),
        ] {
            if offered[name].is_object() && !self.capabilities.contains_key(name) {
                self.capabilities.insert(name.to_owned(), own);
            }
        }
        if offered["resources"]["subscribe"] == true
            && let Some(resources) = self.capabilities.get_mut("resources")
        {
            resources["subscribe"] = true.into();
        }
        self.ttl = self.ttl.min(described["ttlMs"].as_u64().unwrap_or_default()).min(LONGEST_TTL);
        let said = described["instructions"].as_str().unwrap_or_default().trim();
        if !said.is_empty() && self.instructions.len() < LONGEST_WHOLE {
            let said = &said[..said.floor_char_boundary(LONGEST_PART)];
            let gap = if self.instructions.is_empty() { "" } else { "\n\n" };
            self.instructions += &format!("{gap}{}: {said}", server.about.segment);
        }
    }
}
