//! The servers of the gateway, as the `mcpServers` file names them (`--servers`). Reading is pure: no I/O, no clock.
//!
//! Every problem of a file is reported at once, as one line that names the file, the server and the member. Values are
//! never shown, because they may be secrets.

mod entry;
mod listed;
mod name;
mod problem;
mod rules;
mod tools;
mod values;

pub(crate) use listed::{Command, Content, Entry, Source};
pub(crate) use rules::Rule;

use crate::sorted::sorted_by_key;
use crate::yaml::{self, Entry as Member, Node, Unusable, Value};
use problem::{Problems, shortened};
use std::collections::HashMap;
use std::path::Path;

/// Maximum number of servers in a file.
const MOST: usize = 1_000;
/// The member with the servers.
const SERVERS: &str = "mcpServers";
/// The member with the rules of registration.
const REGISTER: &str = "register";
const EXAMPLE: &str = r#"give e.g. {"mcpServers": {"time": {"url": "http://time:8080/mcp"}}}"#;

/// Reads a file. Servers that are disabled are left out; the others come in the order of their segments.
///
/// # Errors
/// Every problem, one line each.
pub(crate) fn read(file: &Path, bytes: &[u8]) -> Result<Content, Vec<String>> {
    let mut problems = Problems::of(file);
    let mut content = Content::default();
    if let Some((members, rules)) = table(bytes, &mut problems) {
        content.servers = servers(members, &mut problems);
        content.rules = rules;
    }
    if problems.is_empty() { Ok(content) } else { Err(problems.lines()) }
}

/// Returns the segment of a name, if a server may have it.
pub(crate) fn segment(name: &str) -> Option<&str> {
    name::segment(name).ok()
}

/// Returns the segments of the servers in a file, or its problems, for the fuzz target.
pub fn servers_in(bytes: &[u8]) -> Result<Vec<String>, Vec<String>> {
    let content = read(Path::new("servers.json"), bytes)?;
    Ok(content.servers.into_iter().map(|server| server.about.segment.into()).collect())
}

/// What a document has: the entries of `mcpServers`, and the rules of `register`.
type Table = (Vec<Member>, Vec<Rule>);

fn table(bytes: &[u8], problems: &mut Problems) -> Option<Table> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        problems.add(None, "the file is not UTF-8", EXAMPLE);
        return None;
    };
    let (line, what) = match yaml::parse(text) {
        Ok(Some(Node { value: Value::Map(members), .. })) => return of_document(members, problems),
        Ok(Some(Node { line, .. })) => (Some(line), "the file is not an object"),
        Ok(None) => (None, "the file is empty"),
        Err(Unusable::Malformed(line)) => {
            (Some(line), "the file is neither JSON nor YAML, or is nested too deeply")
        }
        Err(Unusable::DuplicateKey(line)) => (Some(line), "a key occurs twice"),
    };
    problems.add(line, what, EXAMPLE);
    None
}

fn of_document(members: Vec<Member>, problems: &mut Problems) -> Option<Table> {
    let (mut found, mut rules) = (None, Vec::new());
    for member in members {
        match (member.key.as_str(), member.node.value) {
            (SERVERS, Value::Map(servers)) => found = Some(servers),
            (SERVERS, Value::Null) => found = Some(Vec::new()),
            (SERVERS, _) => {
                problems.add(Some(member.line), "mcpServers is not an object", EXAMPLE);
                return None;
            }
            (REGISTER, value) => rules = rules::read(member.line, value, problems),
            (other, _) => {
                let what = format!("the member {} is unknown", shortened(other));
                problems.add(Some(member.line), &what, "only mcpServers and register may stand here");
            }
        }
    }
    match found {
        None => problems.add(None, "the member mcpServers is missing", EXAMPLE),
        Some(servers) if servers.len() > MOST => {
            problems.add(None, "mcpServers has more than 1000 servers", "use several gateways");
        }
        Some(servers) => return Some((servers, rules)),
    }
    None
}

fn servers(members: Vec<Member>, problems: &mut Problems) -> Vec<Entry> {
    let mut taken: HashMap<String, String> = HashMap::new();
    let mut servers = Vec::with_capacity(members.len());
    for Member { line, key, node } in members {
        let mut problems = problems.server(&key);
        let segment = match name::segment(&key) {
            Ok(segment) => segment.to_owned(),
            Err((reason, remedy)) => {
                problems.add(line, "its name", reason, remedy);
                continue;
            }
        };
        if let Some(other) = taken.insert(segment.clone(), key.clone()) {
            let reason = format!("leads to the same path as {}", shortened(&other));
            problems.add(line, "its name", &reason, "the part behind the last slash must be unique");
        }
        let Value::Map(members) = node.value else {
            problems.add(line, "it", "is not an object", "give e.g. {\"url\": \"http://time:8080/mcp\"}");
            continue;
        };
        servers.extend(entry::server(key, &segment, line, members, &mut problems));
    }
    sorted_by_key(servers, |server| server.about.segment.clone())
}

#[cfg(test)]
#[path = "servers/tests.rs"]
mod tests;
