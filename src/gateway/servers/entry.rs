//! One entry of `mcpServers`: its members, and which of them fit together.

use super::super::directory::Description;
use super::listed::{Command, Entry, Source};
use super::problem::{OfServer, shortened};
use super::{tools, values};
use crate::yaml::{Entry as Member, Node, Value};
use std::path::PathBuf;

/// The members of a server, in the order of the documentation.
const MEMBERS: &[&str] = &[
    "url",
    "urls",
    "dns",
    "command",
    "args",
    "env",
    "cwd",
    "type",
    "headers",
    "audience",
    "description",
    "labels",
    "tools",
    "failure",
    "disabled",
];
/// Members that say where the server is, of which it has one.
const SOURCES: &[&str] = &["url", "urls", "dns", "command"];
/// Members that only a command has.
const OF_COMMANDS: &[&str] = &["args", "env", "cwd"];
/// Members that only a server behind a URL has.
const OF_URLS: &[&str] = &["headers", "audience"];

/// Reads a server; `None` if it is disabled, or has a problem, which is noted.
pub(super) fn server(
    name: String,
    segment: &str,
    line: u64,
    members: Vec<Member>,
    problems: &mut OfServer<'_>,
) -> Option<Entry> {
    let mut members = Members { line, members, problems, failed: false };
    members.refuse_unknown();
    members.drop_nulls();
    let (source, urls) = members.source().unzip();
    let about = Description {
        name,
        segment: segment.into(),
        headers: members.read("headers", values::headers).unwrap_or_default(),
        audiences: members.read("audience", values::audience).or(urls).unwrap_or_default(),
        description: members.read("description", values::description),
        labels: members.read("labels", values::labels).unwrap_or_default(),
        tools: members.read("tools", tools::tools).unwrap_or_default(),
        is_required: members.read("failure", tools::failure).unwrap_or_default(),
    };
    let is_disabled = members.read("disabled", values::flag).unwrap_or_default();
    if members.failed || is_disabled { None } else { Some(Entry { about, source: source? }) }
}

/// The members of a server, as they are being read.
struct Members<'a, 'b> {
    /// The line of the server.
    line: u64,
    members: Vec<Member>,
    problems: &'a mut OfServer<'b>,
    failed: bool,
}

impl Members<'_, '_> {
    fn fail(&mut self, line: u64, member: &str, reason: &str, remedy: &str) {
        self.failed = true;
        self.problems.add(line, member, reason, remedy);
    }

    fn refuse_unknown(&mut self) {
        let unknown = self.members.iter().filter(|member| !MEMBERS.contains(&member.key.as_str()));
        let unknown: Vec<_> = unknown.map(|member| (member.line, shortened(&member.key))).collect();
        for (line, name) in unknown {
            self.fail(line, &name, "is unknown", &format!("the members are {}", MEMBERS.join(", ")));
        }
    }

    /// A member without a value is the same as none.
    fn drop_nulls(&mut self) {
        self.members.retain(|member| member.node.value != Value::Null);
    }

    fn line_of(&self, name: &str) -> Option<u64> {
        self.members.iter().find(|member| member.key == name).map(|member| member.line)
    }

    /// Reads a member, if there is one.
    fn read<T>(&mut self, name: &str, read: fn(Node) -> Result<T, values::Refusal>) -> Option<T> {
        let at = self.members.iter().position(|member| member.key == name)?;
        let Member { line, node, .. } = self.members.swap_remove(at);
        match read(node) {
            Ok(value) => Some(value),
            Err(refusal) => {
                self.fail(refusal.line.unwrap_or(line), name, &refusal.reason, refusal.remedy);
                None
            }
        }
    }

    /// Reads where the server is. Also returns its URLs as they are written, without a port that is not.
    fn source(&mut self) -> Option<(Source, Vec<String>)> {
        let given: Vec<_> = SOURCES.iter().filter(|name| self.line_of(name).is_some()).copied().collect();
        let [only] = given[..] else {
            let reason = if given.is_empty() { "has no" } else { "has more than one of" };
            let reason = format!("{reason} url, urls, dns or command");
            self.fail(self.line, "it", &reason, "give one of them");
            return None;
        };
        let is_command = only == "command";
        let foreign = if is_command { OF_URLS } else { OF_COMMANDS };
        let misplaced = foreign.iter().find_map(|name| Some((*name, self.line_of(name)?)));
        if let Some((name, line)) = misplaced {
            self.fail(line, name, &format!("does not go with {only}"), "remove it");
        }
        self.kind(is_command);
        match only {
            "url" => self.read("url", values::url).map(|(url, text)| (Source::Urls(vec![url]), vec![text])),
            "urls" => self.read("urls", values::urls).map(|(urls, texts)| (Source::Urls(urls), texts)),
            "dns" => self.read("dns", values::dns).map(|(url, text)| (Source::Dns(url), vec![text])),
            _ => self.command().map(|command| (Source::Command(command), Vec::new())),
        }
    }

    /// Checks `type`, which other programs need.
    fn kind(&mut self, is_command: bool) {
        let Some(line) = self.line_of("type") else { return };
        let Some(kind) = self.read("type", values::text) else { return };
        let (fits, remedy) = match &*kind {
            "stdio" => (is_command, "give command, or remove type"),
            "http" | "streamable-http" | "streamableHttp" | "streamable_http" => {
                (!is_command, "give url, or remove type")
            }
            "sse" => {
                (false, "the HTTP+SSE transport of 2024 is not supported; give the URL of /mcp and type http")
            }
            _ => (false, "give http or stdio, or remove it"),
        };
        if !fits {
            self.fail(line, "type", "is not the kind of this server", remedy);
        }
    }

    fn command(&mut self) -> Option<Command> {
        let program = self.read("command", values::word);
        let args = self.read("args", values::words).unwrap_or_default();
        let env = self.read("env", values::variables).unwrap_or_default();
        let cwd = self.read("cwd", values::word).map(PathBuf::from);
        Some(Command { program: program?, args, env, cwd })
    }
}
