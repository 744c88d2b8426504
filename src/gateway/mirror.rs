//! The servers of another registry, mirrored (`--register` at a gateway). Reads all entries each hour or, in between,
//! those that have changed. A registry that is down, or whose answer is unusable, changes nothing.
//!
//! Its entries are somebody else's words: servers of a public registry are reached at public addresses only, those of any
//! other one never at addresses that tell a machine its secrets, and no mirrored server gets a token that names the caller.

use super::catalog::time;
use super::directory::{Description, Directory};
use super::replica::Endpoint;
use super::servers::segment;
use crate::backoff::{self, Backoff};
use crate::identity::is_visible;
use crate::outbound::{BadTls, Fetcher, Limits, Reach, Tls, is_private, peer, percent_encoded};
use crate::telemetry::counters::{MIRROR_POLLS, MIRRORED, Mirrored};
use bytes::Bytes;
use hyper::header::ACCEPT;
use hyper::{HeaderMap, Request, StatusCode};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, sleep_until, timeout};

/// Interval between polls.
const PERIOD: Duration = Duration::from_secs(3600);
/// One in so many polls reads everything, since not every registry tells what was deleted.
const FULL: u32 = 24;
/// Delays after a failed poll.
const LEAST_PAUSE: Duration = Duration::from_secs(10);
const MOST_PAUSE: Duration = Duration::from_secs(600);
/// Time by which the clocks of the registry and of the gateway may differ.
const SKEW: u64 = 300;
/// Limits of one page, and of all.
const LIMITS: Limits = Limits { time: Duration::from_secs(30), size: 4 << 20 };
const LONGEST_POLL: Duration = Duration::from_secs(600);
const MOST_PAGES: usize = 200;
/// Maximum number of servers.
const MOST: usize = 1_000;
/// Maximum lengths.
const LONGEST_URL: usize = 2_048;
const LONGEST_CURSOR: usize = 2_048;
const LONGEST_DESCRIPTION: usize = 100;
/// The key of what the API says of an entry.
const OFFICIAL: &str = "io.modelcontextprotocol.registry/official";

/// The mirrored servers by name.
type Servers = BTreeMap<String, Entry>;

/// One server.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    url: String,
    endpoint: Endpoint,
    description: Option<String>,
}

/// A mirror of one registry.
#[derive(Debug)]
pub(super) struct Mirror {
    /// The URL of the registry, before `/v0.1`.
    registry: String,
    fetcher: Fetcher,
}

impl Mirror {
    /// Creates a mirror that is still empty.
    ///
    /// # Errors
    /// When the authorities are unusable.
    pub(super) fn new(registry: &str, tls: &Tls) -> Result<Self, BadTls> {
        let fetcher = Fetcher::new(tls, Reach::Anywhere, LIMITS)?;
        Ok(Mirror { registry: registry.to_owned(), fetcher })
    }

    /// Keeps the servers in the directory for as long as the process runs.
    pub(super) async fn follow(self, directory: Arc<Directory>) {
        let (mut known, mut since, mut count) = (Servers::new(), None, 0_u32);
        let mut changed = directory.changed();
        let (mut failure, mut pauses) = (None, Backoff::new(LEAST_PAUSE, MOST_PAUSE));
        loop {
            let begun = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
            let from = since.filter(|_| !count.is_multiple_of(FULL));
            let polled = timeout(LONGEST_POLL, self.poll(&known, from)).await;
            let pause = match polled.unwrap_or_else(|_| Err("it takes too long".to_owned())) {
                Ok(found) => {
                    MIRROR_POLLS.increment(Mirrored::Ok as usize);
                    if found != known || failure.is_some() || since.is_none() {
                        tracing::info!(
                            servers = found.len(),
                            "the servers of the registry were read (--register)"
                        );
                    }
                    (known, since, failure) = (found, Some(begun), None);
                    count = count.wrapping_add(1);
                    pauses.reset();
                    backoff::jittered(PERIOD, backoff::chance())
                }
                Err(why) => {
                    MIRROR_POLLS.increment(Mirrored::Failed as usize);
                    if failure.as_ref() != Some(&why) {
                        tracing::warn!(
                            "cannot read the registry; its servers stay as they were: {why} (--register)"
                        );
                    }
                    failure = Some(why);
                    backoff::jittered(pauses.advance(), backoff::chance())
                }
            };
            let until = Instant::now() + pause;
            loop {
                publish(&known, &directory);
                // Servers return whose path the file or a registration has had meanwhile.
                tokio::select! {
                    () = sleep_until(until) => break,
                    _ = changed.changed() => {}
                }
            }
        }
    }

    /// Returns the servers of the registry: all, or the known ones with what has changed since a time.
    ///
    /// # Errors
    /// In words, when the registry cannot be read to its end.
    async fn poll(&self, known: &Servers, since: Option<u64>) -> Result<Servers, String> {
        let mut servers = if since.is_some() { known.clone() } else { Servers::new() };
        let mut query = "version=latest&limit=100".to_owned();
        if let Some(since) = since {
            let since = percent_encoded(&time::shown(since.saturating_sub(SKEW)));
            query = format!("{query}&include_deleted=true&updated_since={since}");
        }
        let (mut seen, mut more) = (HashSet::new(), String::new());
        for _ in 0..MOST_PAGES {
            let (page, reach) = self.page(&format!("{query}{more}")).await?;
            let entries = page["servers"].as_array().filter(|entries| entries.iter().all(Value::is_object));
            let entries = entries.ok_or("its answer is no list of servers")?;
            entries.iter().for_each(|entry| apply(&mut servers, entry, reach));
            if servers.len() > MOST {
                return Err(format!("it has more than {MOST} servers with a URL"));
            }
            let next = &page["metadata"]["nextCursor"];
            if next.is_null() || next == "" {
                return Ok(servers);
            }
            let next = next.as_str().filter(|next| next.len() <= LONGEST_CURSOR);
            let next = next.filter(|next| seen.insert((*next).to_owned()));
            let next = next.ok_or("its cursors repeat, or are too long")?;
            more = format!("&cursor={}", percent_encoded(next));
        }
        Err(format!("it has more than {MOST_PAGES} pages"))
    }

    /// Returns a page, and where its servers may be.
    async fn page(&self, query: &str) -> Result<(Value, Reach), String> {
        let request = Request::get(format!("{}/v0.1/servers?{query}", self.registry))
            .header(ACCEPT, "application/json")
            .body(Bytes::new())
            .map_err(|error| error.to_string())?;
        let answer = self.fetcher.send(request).await.map_err(|error| error.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("it answers {}", answer.status()));
        }
        let page = serde_json::from_slice(answer.body()).map_err(|_| "its answer is no JSON")?;
        Ok((page, reach_from(peer(&answer))))
    }
}

/// Returns where the servers of a registry may be that has answered from this address.
fn reach_from(registry: Option<IpAddr>) -> Reach {
    match registry.map(|address| address.to_canonical()) {
        Some(address) if address.is_loopback() => Reach::Host,
        Some(address) if is_private(address) => Reach::Network,
        _ => Reach::Public,
    }
}

/// Applies one entry of a list.
fn apply(servers: &mut Servers, entry: &Value, reach: Reach) {
    let Some(name) = entry["server"]["name"].as_str() else { return };
    let official = &entry["_meta"][OFFICIAL];
    if official["isLatest"] == false {
        return;
    }
    match read(&entry["server"], reach).filter(|_| official["status"] != "deleted") {
        Some(entry) => drop(servers.insert(name.to_owned(), entry)),
        None => drop(servers.remove(name)),
    }
}

/// Reads a server; `None` if it has no URL that can be used without anything else.
fn read(server: &Value, reach: Reach) -> Option<Entry> {
    segment_of(server["name"].as_str()?)?;
    let remotes = server["remotes"].as_array()?;
    let usable = remotes.iter().find_map(|remote| {
        let needs = remote["headers"]
            .as_array()
            .is_some_and(|headers| headers.iter().any(|header| header["isRequired"] == true));
        let url = remote["url"].as_str().filter(|_| remote["type"] == "streamable-http" && !needs)?;
        let is_plain = url.len() <= LONGEST_URL && url.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain || url.contains(['{', '}', '"', '<', '>', '\\']) {
            return None;
        }
        let endpoint = Endpoint::parse(url)?.within(reach);
        let host = endpoint.url().host()?.trim_matches(['[', ']']).parse::<IpAddr>();
        host.map_or(true, |address| reach.includes(address)).then(|| (url.to_owned(), endpoint))
    });
    let (url, endpoint) = usable?;
    let text: String =
        server["description"].as_str().unwrap_or_default().chars().filter(|c| is_shown(*c)).collect();
    let text: String = text.trim().chars().take(LONGEST_DESCRIPTION).collect();
    Some(Entry { url, endpoint, description: (!text.is_empty()).then_some(text) })
}

/// Returns whether a character may stand in a description: one that turns or hides others may not.
fn is_shown(c: char) -> bool {
    !c.is_control() && (c.is_whitespace() || is_visible(c.encode_utf8(&mut [0; 4])))
}

/// Returns the segment of a name, whose capitals become small letters.
fn segment_of(name: &str) -> Option<String> {
    let (space, own) = name.rsplit_once('/')?;
    let own = own.to_ascii_lowercase();
    segment(&format!("{space}/{own}"))?;
    Some(own)
}

/// Shows the servers. Of two with the same segment, the first by name is shown.
fn publish(servers: &Servers, directory: &Directory) {
    let mut shown = BTreeMap::new();
    for (name, entry) in servers {
        let Some(segment) = segment_of(name) else { continue };
        shown.entry(segment).or_insert((name, entry));
    }
    MIRRORED.set(shown.len() as u64);
    let servers = shown.into_iter().map(|(segment, (name, entry))| {
        let about = Description {
            name: name.clone(),
            segment: segment.into(),
            description: entry.description.clone(),
            labels: BTreeMap::new(),
            headers: HeaderMap::new(),
            tools: Default::default(),
            is_required: false,
            audiences: vec![entry.url.clone()],
        };
        (about, Some(vec![entry.endpoint.clone()]))
    });
    directory.replace_mirrored(servers.collect());
}

#[cfg(test)]
#[path = "mirror/tests.rs"]
mod tests;
