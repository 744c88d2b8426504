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

use crate::sorted::sorted;
use pod::Outcome;
use read::{Document, Malformed};
use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use tree::Map;

/// `EX_USAGE` of sysexits.h: a file that cannot be read.
const USAGE: u8 = 64;
/// `EX_DATAERR`: manifests that are refused.
const REFUSED: u8 = 65;
/// Maximum size of the manifests, in MiB.
const LIMIT_MIB: u64 = 32;
const LIMIT: u64 = LIMIT_MIB << 20;

/// The reason why nothing is printed as manifests.
#[derive(Debug)]
struct Exit {
    code: u8,
    lines: Vec<String>,
}

/// Runs the command with the words after `inject`: prints the manifests to stdout, or problems to stderr.
///
/// # Errors
/// Help, and wrong options.
pub fn run(words: Vec<OsString>) -> Result<ExitCode, clap::Error> {
    let (file, options) = options::parse(words.into_iter())?;
    let text = match manifests(file, &options, std::io::stdin()) {
        Ok(text) => text,
        Err(Exit { code, lines }) => {
            lines.iter().for_each(|line| eprintln!("proxyrunner: {}", line.trim_end()));
            return Ok(ExitCode::from(code));
        }
    };
    let mut stdout = std::io::stdout();
    Ok(match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // A closed pipe has no reader.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("proxyrunner: inject: cannot write to stdout: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    })
}

/// Reads the manifests, and returns them injected.
fn manifests(file: Option<PathBuf>, options: &Options, stdin: impl Read) -> Result<String, Exit> {
    let (name, bytes) = match &file {
        Some(path) => {
            let opened = std::fs::File::open(path);
            (path.display().to_string().escape_debug().to_string(), opened.and_then(read_all))
        }
        None => ("stdin".to_owned(), read_all(stdin)),
    };
    let exit = |code, problems: &[String]| Exit {
        code,
        lines: problems.iter().map(|problem| format!("inject: {name}: {problem}")).collect(),
    };
    let bytes = bytes
        .map_err(|error| exit(USAGE, &[format!("cannot be read: {error}; give a file that can be read")]))?;
    utf8(bytes)
        .map_err(|reason| vec![reason])
        .and_then(|text| rewrite(&text, options))
        .map_err(|problems| exit(REFUSED, &problems))
}

/// Returns the text of manifests.
fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    if bytes.len() as u64 > LIMIT {
        return Err(format!("is larger than {LIMIT_MIB} MiB; split it"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8; convert it".to_owned())
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
    let found = documents(text).map_err(|Malformed { line, is_too_deep }| {
        let reason = match is_too_deep {
            true => format!("is nested more than {} levels deep; remove the document", read::DEPTH),
            false => "is not valid YAML or JSON; check this line and the lines before it".to_owned(),
        };
        vec![format!("line {line}: {reason}")]
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
                // The reason of a field begins with a colon.
                let name = title(document);
                let told = |reason: &String| match reason.starts_with(':') {
                    true => format!("line {}: {name}{reason}", document.line),
                    false => format!("line {}: {name} {reason}", document.line),
                };
                problems.extend(reasons.iter().map(told));
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
    let item = root.list("items").and_then(|items| items.iter().find_map(meant));
    if let (None, Some(item)) = (place, item) {
        return Err(vec![format!("contains items of kind {item}; give them as documents of their own")]);
    }
    if place.is_none() && !is_toolhive {
        let kind = match (kind, version) {
            ("", _) => "a document without kind".to_owned(),
            (_, "") => format!("{kind} without apiVersion"),
            _ => format!("{kind} ({version})"),
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

/// Returns the kind of a list's item, if documents of this kind are rewritten.
fn meant(item: &Value) -> Option<String> {
    let Value::Map(item) = item else { return None };
    let (version, kind) = (item.text("apiVersion").unwrap_or_default(), item.text("kind")?);
    let is_meant = workload::place(version, kind).is_some() || toolhive::is_meant(version);
    is_meant.then(|| kind.escape_debug().to_string())
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
    let mut kinds = sorted(kinds.to_vec());
    kinds.dedup();
    const WANTED: &str = "a Pod (v1), a Deployment or StatefulSet (apps/v1), or an MCPServer of ToolHive";
    match kinds.is_empty() {
        true => format!("contains no manifest; give {WANTED}"),
        false => format!("contains nothing to inject, only {}; give {WANTED}", kinds.join(", ")),
    }
}

#[cfg(test)]
mod tests;
