//! Translates results for clients of the other era. Results of a legacy child lack members that the modern revision
//! requires; results of a modern child have members that strict legacy clients refuse. Every other byte stays.

use super::{downgrade, keys};
use crate::jsonrpc::{Amendment, Edits, Span, amend, items, member, members, quoted, retain, text};
use crate::session::Version;
use memchr::memmem::Finder;
use std::fmt;
use std::sync::LazyLock;

/// The methods whose results carry caching hints (server/utilities/caching §Cacheable Results).
pub const CACHEABLE: [&str; 6] = [
    "server/discover",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
];

/// The clients that may be given a cached result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// Only the client that requested it.
    #[default]
    Private,
    /// Any client.
    Public,
}

/// The caching hints of a result. The default disables caching.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hint {
    /// `ttlMs`
    pub ttl_ms: u64,
    /// `cacheScope`
    pub scope: Scope,
}

impl Hint {
    /// Returns the hints as raw members, `"key":value`, separated by a comma.
    pub fn members(self) -> String {
        format!("{},{}", self.ttl(), self.cache_scope())
    }

    fn ttl(self) -> String {
        format!("\"ttlMs\":{}", self.ttl_ms)
    }

    fn cache_scope(self) -> &'static str {
        match self.scope {
            Scope::Private => "\"cacheScope\":\"private\"",
            Scope::Public => "\"cacheScope\":\"public\"",
        }
    }
}

/// The type of a modern child's result. An absent `resultType` means complete (basic §ResultType).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResultType {
    /// The answer.
    Complete,
    /// Questions; see [`InputRequired`](super::input::InputRequired).
    InputRequired,
    /// A value of an extension, or not a string.
    Other(String),
}

/// Reads a result's `resultType`.
pub fn result_type(frame: &[u8], result: &Span) -> ResultType {
    // Most results of older servers have no type, and searching the text is cheaper than walking through it.
    if has_none_of(&frame[result.clone()], &[&TYPE]) {
        return ResultType::Complete;
    }
    match member(frame, result, "resultType") {
        None => ResultType::Complete,
        Some(value) => type_of(frame, &value),
    }
}

fn type_of(frame: &[u8], value: &Span) -> ResultType {
    if frame[value.start] != b'"' {
        return ResultType::Other(quoted(frame, value));
    }
    match text(frame, value).as_ref() {
        "complete" => ResultType::Complete,
        "input_required" => ResultType::InputRequired,
        _ => ResultType::Other(quoted(frame, value)),
    }
}

/// A result that has no translation for a legacy client. It is answered with -32603.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown(pub String);

impl Unknown {
    /// Returns whether the result contains questions.
    pub fn is_input_required(&self) -> bool {
        self.0 == "input_required"
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the server's answer is of the type {:?}, which the client's protocol revision does not have",
            self.0
        )
    }
}

impl std::error::Error for Unknown {}

/// The members that complete a server's results, composed once.
#[derive(Debug, Clone, Default)]
pub struct Signature {
    /// The server's identity: a raw member of `_meta`.
    sender: Option<String>,
    /// The raw members that most results lack.
    usual: String,
}

impl Signature {
    /// Creates the members for the server with this raw `serverInfo`.
    pub fn of(server_info: Option<&[u8]>) -> Self {
        let sender = server_info.map(|info| {
            let info = super::raw(info, &(0..info.len()));
            format!("\"{}\":{info}", keys::SERVER_INFO)
        });
        let meta = sender.as_ref().map(|sender| format!(",\"_meta\":{{{sender}}}")).unwrap_or_default();
        Signature { sender, usual: format!("{COMPLETE}{meta}") }
    }
}

static TYPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("resultType"));
static META: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("_meta"));
static STRUCTURED: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("structuredContent"));
// After a backslash, any letter of a name may be escaped.
static ESCAPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\\u"));

/// The type of an answer: a raw member.
const COMPLETE: &str = "\"resultType\":\"complete\"";

/// Adds the members that a modern result requires and a legacy child's lacks: `resultType`, the server's identity,
/// and caching hints if the method has them. The child's own members stay. A tool's `execution`, which belongs to the
/// legacy tasks, is removed. A result that is not an object is not changed.
pub fn complete(
    frame: &[u8],
    result: &Span,
    method: &str,
    signature: &Signature,
    hint: Hint,
    edits: &mut Edits,
) {
    if frame[result.start] != b'{' {
        return;
    }
    let cacheable = CACHEABLE.contains(&method);
    if !cacheable && has_none_of(&frame[result.clone()], &[&TYPE, &META]) {
        amend(frame, result, Amendment { drop: &[], add: signature.usual.as_bytes() }, edits);
        return;
    }
    let (mut typed, mut ttl, mut scope, mut meta, mut tools) = (false, false, false, None, None);
    for (key, value) in members(frame, result.clone()) {
        match text(frame, &key).as_ref() {
            "resultType" => typed = true,
            "ttlMs" => ttl = true,
            "cacheScope" => scope = true,
            "_meta" => meta = Some(value),
            "tools" => tools = Some(value),
            _ => {}
        }
    }
    let mut add = Vec::new();
    if !typed {
        add.push(COMPLETE.to_owned());
    }
    if cacheable && !ttl {
        add.push(hint.ttl());
    }
    if cacheable && !scope {
        add.push(hint.cache_scope().to_owned());
    }
    if let Some(sender) = &signature.sender {
        match meta {
            None => add.push(format!("\"_meta\":{{{sender}}}")),
            Some(meta) if frame[meta.start] == b'{' && member(frame, &meta, keys::SERVER_INFO).is_none() => {
                amend(frame, &meta, Amendment { drop: &[], add: sender.as_bytes() }, edits);
            }
            Some(_) => {}
        }
    }
    if let (Some(tools), "tools/list") = (tools, method) {
        without_execution(frame, tools, edits);
    }
    if !add.is_empty() {
        amend(frame, result, Amendment { drop: &[], add: add.join(",").as_bytes() }, edits);
    }
}

/// Returns whether a text contains none of the names, not even escaped. This search is cheaper than a walk.
fn has_none_of(text: &[u8], names: &[&LazyLock<Finder<'static>>]) -> bool {
    names.iter().chain(&[&ESCAPE]).all(|name| name.find(text).is_none())
}

fn without_execution(frame: &[u8], tools: Span, edits: &mut Edits) {
    // Most lists have none, and searching the text is cheaper than walking through every schema.
    if memchr::memmem::find(&frame[tools.clone()], b"execution").is_none() {
        return;
    }
    for tool in items(frame, tools).filter(|tool| frame[tool.start] == b'{') {
        amend(frame, &tool, Amendment { drop: &["execution"], add: b"" }, edits);
    }
}

/// Removes the members of a modern child's result that a legacy client of `version` does not know: `resultType`, the
/// server's identity, caching hints, and the features of later revisions (see [`downgrade`](super::downgrade)).
///
/// # Errors
/// If the result is not an answer: of an unknown type, or with questions, which
/// [`InputRequired`](super::input::InputRequired) reads.
pub fn strip(
    frame: &[u8],
    result: &Span,
    method: &str,
    version: &Version,
    edits: &mut Edits,
) -> Result<(), Unknown> {
    if frame[result.start] != b'{' {
        return Ok(());
    }
    let plain = method == "tools/call" && !downgrade::is_old(version);
    if plain && has_none_of(&frame[result.clone()], &[&TYPE, &META, &STRUCTURED]) {
        return Ok(());
    }
    let cacheable = CACHEABLE.contains(&method);
    let (mut kind, mut meta) = (None, None);
    retain(frame, result, edits, |name, value| match name {
        b"resultType" => {
            kind = Some(value.clone());
            false
        }
        b"ttlMs" | b"cacheScope" => !cacheable,
        b"structuredContent" => downgrade::keeps_structured(frame, value, method, version),
        b"_meta" => {
            let sender_only = sent_by_only(frame, value);
            meta = Some(value.clone()).filter(|_| !sender_only);
            !sender_only
        }
        _ => true,
    });
    match kind.map_or(ResultType::Complete, |kind| type_of(frame, &kind)) {
        ResultType::Complete => {}
        ResultType::InputRequired => return Err(Unknown("input_required".to_owned())),
        ResultType::Other(other) => return Err(Unknown(other)),
    }
    if let Some(meta) = meta.filter(|meta| frame[meta.start] == b'{') {
        amend(frame, &meta, Amendment { drop: &[keys::SERVER_INFO], add: b"" }, edits);
    }
    if !plain {
        downgrade::within(frame, result, method, version, edits);
    }
    Ok(())
}

/// Returns whether `_meta` contains only the server's identity.
fn sent_by_only(frame: &[u8], meta: &Span) -> bool {
    let mut names = members(frame, meta.clone()).map(|(key, _)| text(frame, &key) == keys::SERVER_INFO);
    frame[meta.start] == b'{' && names.next() == Some(true) && names.all(|ours| ours)
}

#[cfg(test)]
#[path = "results_tests.rs"]
mod tests;
