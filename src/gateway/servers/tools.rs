//! What a file says of a server among all servers: which tools are shown, and what its failure means for lists.

use super::super::combined::Tools;
use super::problem::shortened;
use super::values::{Refusal, list, map, refused, text};
use crate::yaml::{Node, Value};
use std::collections::{BTreeMap, HashSet};

/// Maximum length of a name.
const LONGEST: usize = 1_024;

const TOOLS: &str = r#"give e.g. {"allow": ["search"], "rename": {"search": "find"}}"#;
const NAMES: &str = "give a list of names of tools";
const RENAMES: &str = "give an object of the server's names and other names, each once";

/// Reads `tools`.
pub(super) fn tools(node: Node) -> Result<Tools, Refusal> {
    let Value::Map(entries) = node.value else { return Err(refused("is not an object", TOOLS)) };
    let mut tools = Tools::default();
    for entry in entries {
        let line = Some(entry.line);
        let at = |refusal: Refusal| Refusal { line: refusal.line.or(line), ..refusal };
        match (entry.key.as_str(), entry.node.value) {
            (_, Value::Null) => {}
            ("allow", value) => tools.allow = Some(names(Node { line: entry.line, value }).map_err(at)?),
            ("deny", value) => tools.deny = names(Node { line: entry.line, value }).map_err(at)?,
            ("rename", value) => tools.rename = renames(Node { line: entry.line, value }).map_err(at)?,
            (other, _) => {
                let reason = format!("has the unknown member {}", shortened(other));
                return Err(Refusal { line, ..refused(reason, "its members are allow, deny, rename") });
            }
        }
    }
    Ok(tools)
}

fn names(node: Node) -> Result<Vec<String>, Refusal> {
    let names = list(node)?.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
    if names.iter().all(|name| is_name(name)) {
        Ok(names)
    } else {
        Err(refused("has an unusable name", NAMES))
    }
}

fn renames(node: Node) -> Result<BTreeMap<String, String>, Refusal> {
    let (mut renames, mut taken) = (BTreeMap::new(), HashSet::new());
    for (line, own, other) in map(node)? {
        let is_new = taken.insert(other.clone());
        if !is_name(&own) || !is_name(&other) || !is_new {
            return Err(Refusal { line: Some(line), ..refused("has an unusable rename", RENAMES) });
        }
        renames.insert(own, other);
    }
    Ok(renames)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST && !name.chars().any(char::is_control)
}

/// Reads `failure`; returns whether lists fail without the server.
pub(super) fn failure(node: Node) -> Result<bool, Refusal> {
    match text(node)?.as_str() {
        "open" => Ok(false),
        "closed" => Ok(true),
        _ => Err(refused(
            "is neither open nor closed",
            "give open, or closed if lists fail without the server",
        )),
    }
}
