//! `proxyrunner inject`: rewrites Kubernetes manifests so that proxyrunner runs in front of a stdio MCP server.
//!
//! A stream of documents is split (`read`), each document is rewritten on its own (`workload`, `pod`, `toolhive`), and
//! only rewritten documents are written anew (`write`); all others are printed from their source.

mod defaults;
mod options;
mod pod;
mod read;
mod toolhive;
mod tree;
mod workload;
mod write;

pub use options::Options;
pub(crate) use options::command;
pub use read::documents;
pub use tree::Value;
pub use write::document as written;

use options::Usage;
use pod::Outcome;
use read::{Document, Malformed};
use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write as _};
use std::process::ExitCode;
use tree::Map;

/// `EX_USAGE` of sysexits.h: bad options, or a file that cannot be read.
const USAGE: u8 = 64;
/// `EX_DATAERR`: manifests that are refused.
const REFUSED: u8 = 65;
/// Maximum size of the manifests, in bytes.
const LIMIT: u64 = 32 << 20;

/// The reason why nothing is printed as manifests.
#[derive(Debug)]
struct Exit {
    code: u8,
    lines: Vec<String>,
}

/// Runs the command with the words after `inject`: prints the manifests to stdout, or problems to stderr.
pub fn run(words: Vec<OsString>) -> ExitCode {
    let text = match manifests(words.into_iter(), std::io::stdin()) {
        Ok(text) => text,
        Err(Exit { code: 0, lines }) => lines.join("\n"),
        Err(Exit { code, lines }) => {
            lines.iter().for_each(|line| eprintln!("proxyrunner: {}", line.trim_end()));
            return ExitCode::from(code);
        }
    };
    let mut stdout = std::io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // A closed pipe has no reader.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("proxyrunner: inject: cannot write to stdout: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Reads the options and the manifests, and returns the injected manifests.
fn manifests(words: impl Iterator<Item = OsString>, stdin: impl Read) -> Result<String, Exit> {
    let (file, options) = options::parse(words).map_err(|Usage { text, is_error }| {
        let text = if is_error { format!("inject: {text}") } else { text };
        Exit { code: if is_error { USAGE } else { 0 }, lines: vec![text] }
    })?;
    let (name, bytes) = match &file {
        Some(path) => {
            let opened = std::fs::File::open(path);
            (path.display().to_string().escape_debug().to_string(), opened.and_then(read_all))
        }
        None => ("stdin".to_owned(), read_all(stdin)),
    };
    let unreadable = |reason: String| Exit { code: USAGE, lines: vec![format!("inject: {name}: {reason}")] };
    let bytes = bytes.map_err(|error| unreadable(format!("cannot be read: {error}; give a file by -f")))?;
    if bytes.len() as u64 > LIMIT {
        return Err(unreadable(format!("is larger than {LIMIT} bytes; split it")));
    }
    let text = String::from_utf8(bytes).map_err(|_| unreadable("is not UTF-8; convert it".to_owned()))?;
    rewrite(&text, &options).map_err(|problems| Exit {
        code: REFUSED,
        lines: problems.iter().map(|problem| format!("inject: {name}: {problem}")).collect(),
    })
}

fn read_all(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(LIMIT + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns a stream of manifests with proxyrunner injected.
///
/// # Errors
/// The problems of all documents, each with its line, its reason and what to do.
pub fn rewrite(text: &str, options: &Options) -> Result<String, Vec<String>> {
    let found = documents(text).map_err(|Malformed { line }| {
        vec![format!("line {line}: is not valid YAML or JSON; check this line and the lines before it")]
    })?;
    let (mut out, mut problems, mut others) = (String::new(), Vec::new(), Vec::new());
    let mut is_of_use = false;
    for document in &found {
        match step(document, options) {
            Ok(Step::Injected(text)) => {
                is_of_use = true;
                out.push_str(&text);
            }
            Ok(Step::AlreadyInjected) => {
                is_of_use = true;
                out.push_str(document.source);
            }
            Ok(Step::Other(kind)) => {
                others.extend(kind);
                out.push_str(document.source);
            }
            Err(reasons) => {
                let name = title(document);
                problems
                    .extend(reasons.iter().map(|reason| format!("line {}: {name} {reason}", document.line)));
            }
        }
    }
    if problems.is_empty() && !is_of_use {
        problems.push(nothing(&others));
    }
    if problems.is_empty() { Ok(out) } else { Err(problems) }
}

/// The result for one document.
enum Step {
    Injected(String),
    AlreadyInjected,
    /// A document that is none of the server's; its kind, if it has one.
    Other(Option<String>),
}

fn step(document: &Document, options: &Options) -> Result<Step, Vec<String>> {
    let Some(Value::Map(root)) = &document.content else { return Ok(Step::Other(None)) };
    let (version, kind) =
        (root.text("apiVersion").unwrap_or_default(), root.text("kind").unwrap_or_default());
    let place = workload::place(version, kind);
    let is_toolhive = toolhive::is_meant(version);
    if place.is_none() && !is_toolhive {
        let kind = if kind.is_empty() {
            "a document without kind".to_owned()
        } else {
            format!("{kind} ({version})")
        };
        return Ok(Step::Other(Some(kind.escape_debug().to_string())));
    }
    let rewritten = match place {
        Some(place) => workload_step(root, place, options),
        None => toolhive::convert(root, options),
    };
    if let Ok(None) = rewritten {
        return Ok(Step::AlreadyInjected);
    }
    if let Some(unkept) = document.unkept {
        return Err(vec![format!(
            "contains {} in line {}, which would be lost; write the document without it",
            unkept.what, unkept.line
        )]);
    }
    let values = rewritten?.unwrap_or_default();
    let texts: Vec<_> = values.iter().map(written).collect();
    Ok(Step::Injected(format!("{}{}", document.header, texts.join("---\n"))))
}

/// Returns the injected document; `None` if it was injected already.
fn workload_step(
    root: &Map,
    place: workload::Place,
    options: &Options,
) -> Result<Option<Vec<Value>>, Vec<String>> {
    let mut root = root.clone();
    match workload::inject(&mut root, place, options) {
        Ok(Outcome::Injected) => Ok(Some(vec![Value::Map(root)])),
        Ok(Outcome::AlreadyInjected) => Ok(None),
        Err(reason) => Err(vec![reason]),
    }
}

/// Returns the kind and the name of a document, for messages.
fn title(document: &Document) -> String {
    let Some(Value::Map(root)) = &document.content else { return "the document".to_owned() };
    let kind = root.text("kind").unwrap_or("the document").escape_debug();
    match root.map("metadata").and_then(|metadata| metadata.text("name")) {
        Some(name) => format!("{kind} {name:?}"),
        None => format!("{kind} without a name"),
    }
}

/// Returns the problem of manifests in which there is nothing to inject.
fn nothing(kinds: &[String]) -> String {
    let mut kinds = kinds.to_vec();
    kinds.sort();
    kinds.dedup();
    let found = if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") };
    let hint = match kinds.iter().any(|kind| kind.starts_with("List ")) {
        true => "give the items of the List as documents of their own",
        false => "give a manifest of one of these kinds",
    };
    format!(
        "contains no Pod (v1), Deployment or StatefulSet (apps/v1) and no MCPServer of ToolHive, but {found}; {hint}"
    )
}

#[cfg(test)]
mod tests;
