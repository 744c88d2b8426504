//! The catalogue: what the reads of the registry's API answer (version 0.1, `docs/gateway.md#the-registry`). Pure: the
//! servers, the request and the time are arguments.

pub(super) mod time;

use super::directory::{Description, Server, Snapshot};
use super::replica::State;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::Uri;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::net::IpAddr;

/// The only version of each server: the file names none.
pub(super) const VERSION: &str = "1.0.0";
/// The schema of a server's members.
const SCHEMA: &str = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json";
/// The key of what the API says of an entry.
const OFFICIAL: &str = "io.modelcontextprotocol.registry/official";
/// The key of what the gateway adds.
const OWN: &str = "io.proxyrunner/gateway";
/// Number of servers in an answer: by default, and at most.
const USUAL: usize = 30;
const MOST: usize = 100;
/// Maximum length of a name (the registry's schema).
const LONGEST_NAME: usize = 200;

/// The catalogue.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    /// What was last told of each server, and since when.
    told: Mutex<HashMap<Box<str>, Told>>,
}

/// When an entry was first told, and when it last changed.
#[derive(Clone, Debug)]
struct Told {
    about: Description,
    first: u64,
    changed: u64,
}

/// A request, as far as the catalogue needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// The path behind `/registry/v0.1`.
    pub path: &'a str,
    /// The query; empty without one.
    pub query: &'a str,
    /// The gateway's URL, without a slash at its end.
    pub base: &'a str,
    /// The time, in seconds since 1970.
    pub now: u64,
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nothing is here.
    NotFound(String),
    /// A parameter is unusable.
    Invalid(&'static str),
}

impl Catalog {
    /// Answers a read.
    ///
    /// # Errors
    /// When nothing is at the path, or a parameter is unusable.
    pub(crate) fn answer(&self, servers: &Snapshot, asked: Asked<'_>) -> Result<Value, Refusal> {
        let query = Query::parse(asked.query)?;
        let nothing = || {
            Refusal::NotFound("nothing is served here; GET /registry/v0.1/servers lists servers".to_owned())
        };
        let path = asked.path.trim_end_matches('/');
        let rest = path.strip_prefix("/servers").ok_or_else(nothing)?;
        let entries = self.entries(servers, asked);
        if rest.is_empty() {
            return query.page(entries.into_iter().filter(|entry| entry.is_served).collect());
        }
        let rest = decoded(rest.strip_prefix('/').ok_or_else(nothing)?).ok_or_else(nothing)?;
        let (name, version) = match rest.rsplit_once("/versions") {
            Some((name, "")) => (name, None),
            Some((name, version)) => (name, Some(version.strip_prefix('/').ok_or_else(nothing)?)),
            None => return Err(nothing()),
        };
        let unknown = || Refusal::NotFound("Server not found".to_owned());
        let entry = entries.into_iter().find(|entry| entry.name == name).ok_or_else(unknown)?;
        match version {
            None => Ok(list(vec![entry.value], None)),
            Some("latest" | VERSION) => Ok(entry.value),
            Some(_) => Err(unknown()),
        }
    }

    /// Returns all entries, in the order of their segments.
    fn entries(&self, servers: &Snapshot, asked: Asked<'_>) -> Vec<Entry> {
        let mut told = self.told.lock();
        told.retain(|segment, _| servers.contains_key(segment));
        let entries = servers.values().map(|server| {
            let told =
                told.entry(server.about.segment.clone()).or_insert_with(|| Told::new(server, asked.now));
            if told.about != server.about {
                *told = Told { first: told.first, ..Told::new(server, asked.now) };
            }
            Entry::new(server, told, asked.base)
        });
        entries.collect()
    }
}

impl Told {
    fn new(server: &Server, now: u64) -> Self {
        Told { about: server.about.clone(), first: now, changed: now }
    }
}

/// One server in the catalogue.
struct Entry {
    segment: String,
    name: String,
    changed: u64,
    /// Whether a replica takes requests.
    is_served: bool,
    value: Value,
}

impl Entry {
    fn new(server: &Server, told: &Told, base: &str) -> Self {
        let about = &server.about;
        let name = name(about, base);
        let mut replicas: Map<String, Value> =
            State::NAMES.iter().map(|name| ((*name).to_owned(), 0.into())).collect();
        let (mut all, mut healthy) = (0_u64, 0_u64);
        for replica in &*server.replicas() {
            let state = replica.state();
            all += 1;
            healthy += u64::from(state == State::Healthy);
            let count = replicas[state.name()].as_u64().unwrap_or_default();
            replicas[state.name()] = (count + 1).into();
        }
        let health = match healthy {
            0 => "unavailable",
            some if some < all => "degraded",
            _ => "healthy",
        };
        let segment = about.segment.to_string();
        let value = json!({
            "server": {
                "$schema": SCHEMA,
                "name": name,
                "description": description(about),
                "version": VERSION,
                "remotes": [{"type": "streamable-http", "url": format!("{base}/servers/{segment}/mcp")}],
            },
            "_meta": {
                OFFICIAL: {
                    "status": "active",
                    "statusChangedAt": time::shown(told.first),
                    "publishedAt": time::shown(told.first),
                    "updatedAt": time::shown(told.changed),
                    "isLatest": true,
                },
                OWN: {"health": health, "replicas": replicas, "labels": about.labels},
            },
        });
        Entry { segment, name, changed: told.changed, is_served: healthy > 0, value }
    }
}

/// Returns the name in the registry's form. One without a namespace gets that of the gateway's host, such as
/// `com.example.tools/time` for `https://tools.example.com`.
pub(super) fn name(about: &Description, base: &str) -> String {
    if about.name.contains('/') {
        return about.name.clone();
    }
    let host = base.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_ascii_lowercase));
    let is_name = |host: &String| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        host.parse::<IpAddr>().is_err() && host.bytes().all(is_plain) && !host.trim_matches('.').is_empty()
    };
    let space = host.filter(is_name).map(|host| {
        let mut labels: Vec<_> = host.trim_matches('.').split('.').collect();
        labels.reverse();
        labels.join(".")
    });
    let space = space.filter(|space| space.len() + 1 + about.segment.len() <= LONGEST_NAME);
    format!("{}/{}", space.as_deref().unwrap_or("localhost"), about.segment)
}

/// Returns one sentence about a server.
pub(super) fn description(about: &Description) -> String {
    about.description.clone().unwrap_or_else(|| format!("The server {}", about.segment))
}

/// The parameters of a list. Unknown ones are ignored, as the API grows.
#[derive(Debug)]
struct Query {
    /// The segment behind which the page begins.
    after: Option<String>,
    limit: usize,
    search: String,
    since: Option<u64>,
    version: Option<String>,
}

impl Query {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let mut query =
            Query { after: None, limit: USUAL, search: String::new(), since: None, version: None };
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(&value.replace('+', " "))
                .ok_or(Refusal::Invalid("a parameter is not percent-encoded UTF-8"))?;
            match name {
                "cursor" if value.is_empty() => {}
                "cursor" => {
                    query.after =
                        Some(opened(&value).ok_or(Refusal::Invalid("cursor is not one of this list"))?)
                }
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                    query.limit = limit.ok_or(Refusal::Invalid("limit is not a number from 1 to 100"))?;
                }
                "search" => query.search = value.to_lowercase(),
                "updated_since" => {
                    let since = time::seconds(&value);
                    query.since =
                        Some(since.ok_or(Refusal::Invalid("updated_since is not a time of RFC 3339"))?);
                }
                "version" => query.version = Some(value),
                _ => {}
            }
        }
        Ok(query)
    }

    fn page(&self, entries: Vec<Entry>) -> Result<Value, Refusal> {
        let is_wanted = |entry: &Entry| {
            self.after.as_ref().is_none_or(|after| entry.segment > *after)
                && entry.name.to_lowercase().contains(&self.search)
                && self.since.is_none_or(|since| entry.changed >= since)
                && self.version.as_deref().is_none_or(|version| matches!(version, "latest" | VERSION))
        };
        let mut wanted: Vec<_> = entries.into_iter().filter(is_wanted).collect();
        let has_more = wanted.len() > self.limit;
        wanted.truncate(self.limit);
        let next = wanted.last().filter(|_| has_more).map(|last| sealed(&last.segment));
        Ok(list(wanted.into_iter().map(|entry| entry.value).collect(), next))
    }
}

/// Returns a cursor. It names a server that its reader has seen, so that it need not be secret.
fn sealed(segment: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("1:{segment}"))
}

fn opened(cursor: &str) -> Option<String> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    Some(text.strip_prefix("1:").filter(|segment| segment.len() < 64)?.to_owned())
}

fn list(servers: Vec<Value>, next: Option<String>) -> Value {
    let mut metadata = json!({"count": servers.len()});
    if let Some(next) = next {
        metadata["nextCursor"] = next.into();
    }
    json!({"servers": servers, "metadata": metadata})
}

/// Decodes `%2F` and the like (RFC 3986 §2.1).
pub(crate) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            bytes.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
#[path = "catalog/tests.rs"]
mod tests;
