//! Compiles files to a set of policies.

use super::fault::Fault;
use super::files::File;
use super::needs::Needs;
use super::{Options, Set, cache, document, entities};
use crate::sorted::sorted_by_key;
use cedar_policy::{Authorizer, Entities, EntityTypeName, ParseErrors, Policy, PolicyId, PolicySet};
use miette::Diagnostic;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The type of the entities of groups, unless a document says otherwise.
const GROUP_TYPE: &str = "THVGroup";
/// The actions that requests are decided by.
const ACTIONS: [&str; 3] = ["call_tool", "get_prompt", "read_resource"];
/// The types of the entities of a request, besides those of groups and of the files.
const TYPES: [&str; 5] = ["Client", "Tool", "Prompt", "Resource", "MCP"];
/// The actions of ToolHive that it never asks for, because lists are filtered by item.
const NEVER_ASKED: [&str; 3] = ["list_tools", "list_prompts", "list_resources"];

/// A set of policies, and remarks on it.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub set: Set,
    pub warnings: Vec<String>,
}

/// Compiles files.
///
/// # Errors
/// Every fault in them.
pub(crate) fn compile(files: &[File], server: Option<&str>) -> Result<Compiled, Vec<Fault>> {
    let mut compiler = Compiler::default();
    for file in files {
        compiler.add(file);
    }
    compiler.finish(files, server)
}

#[derive(Default)]
struct Compiler {
    faults: Vec<Fault>,
    warnings: Vec<String>,
    policies: Vec<Policy>,
    /// By type and id; of several with the same, the last.
    entities: BTreeMap<(String, String), Value>,
    options: Option<Options>,
}

impl Compiler {
    fn add(&mut self, file: &File) {
        let is_cedar = file.path.extension().is_some_and(|kind| kind == "cedar");
        let added = if is_cedar {
            self.add_cedar(file)
        } else if document::is_list(&file.text) {
            self.add_entities(&file.path, 1, &file.text)
        } else {
            self.add_document(file)
        };
        if let Err(fault) = added {
            self.faults.push(fault);
        }
    }

    fn add_cedar(&mut self, file: &File) -> Result<(), Fault> {
        let set: PolicySet = match file.text.parse() {
            Ok(set) => set,
            Err(errors) => {
                self.faults.extend(faults_in(&file.path, &file.text, &errors));
                return Ok(());
            }
        };
        if set.templates().next().is_some() {
            return Err(Fault::of(&file.path, "templates are not supported; write policies without slots"));
        }
        let policies: Vec<_> = set.policies().cloned().collect();
        // As in the moment in which a program writes the file anew.
        if policies.is_empty() {
            return Err(Fault::of(&file.path, "the file has no policy; remove it, or write one"));
        }
        // Cedar numbers them in the order of the file.
        let policies = sorted_by_key(policies, |policy| number(policy.id().as_ref()));
        let stem = file.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for (at, policy) in policies.iter().enumerate() {
            let id = match policy.annotation("id").filter(|id| !id.is_empty()) {
                Some(id) => id.to_owned(),
                None => format!("{stem}.{at}"),
            };
            self.policies.push(policy.new_id(PolicyId::new(id)));
        }
        Ok(())
    }

    fn add_document(&mut self, file: &File) -> Result<(), Fault> {
        let path = &file.path;
        let document = document::read(path, &file.text)?;
        self.warnings.extend(document.warnings);
        for (at, (line, text)) in document.policies.iter().enumerate() {
            let id = format!("policy{at}");
            match Policy::parse(Some(PolicyId::new(&id)), text) {
                Ok(policy) => self.policies.push(policy),
                Err(errors) => self.faults.extend(errors.iter().map(|error| {
                    let (row, column) = super::fault::position(text, offset(error).unwrap_or(0));
                    let place = if row == 1 {
                        format!("at column {column}")
                    } else {
                        format!("in its line {row}, column {column}")
                    };
                    Fault::at(path, line_number(*line), format!("{id} {place}: {error}"))
                })),
            }
        }
        if let Some((line, entities)) = document.entities.filter(|(_, text)| !text.trim().is_empty()) {
            self.add_entities(path, line_number(line), &entities)?;
        }
        let group_type = match document.group_type {
            Some((line, name)) => group_type(&name).ok_or_else(|| {
                Fault::at(
                    path,
                    line_number(line),
                    format!("group_entity_type {name:?} is not the name of a type"),
                )
            })?,
            None => group_type(GROUP_TYPE).expect("a name"),
        };
        let options = Options {
            group_claim: document.group_claim,
            role_claim: document.role_claim,
            group_type,
            multi_valued: document.multi_valued.into_iter().collect(),
        };
        if self.options.replace(options).is_some() {
            return Err(Fault::of(path, "there are two documents with options; keep one"));
        }
        Ok(())
    }

    /// Adds a list of entities, which begins on this line. Of entities with one id the last counts, as in ToolHive.
    fn add_entities(&mut self, path: &Path, line: usize, text: &str) -> Result<(), Fault> {
        let list: Value = serde_json::from_str(text).map_err(|error| {
            let line = line + error.line().max(1) - 1;
            Fault::at(path, line, format!("the entities are not JSON: {error}"))
        })?;
        let Value::Array(list) = list else {
            return Err(Fault::at(path, line, "the entities are not a list"));
        };
        for entity in list {
            let uid = &entity["uid"];
            let uid = if uid["__entity"].is_object() { &uid["__entity"] } else { uid };
            let (Some(kind), Some(id)) = (uid["type"].as_str(), uid["id"].as_str()) else {
                return Err(Fault::at(path, line, "an entity has no uid with type and id"));
            };
            // Each alone, so that the fault names one.
            if let Err(error) = Entities::from_json_value(Value::Array(vec![entity.clone()]), None) {
                return Err(Fault::at(
                    path,
                    line,
                    format!("the entity {kind}::{id:?} is invalid: {}", chain(&error)),
                ));
            }
            self.entities.insert((kind.to_owned(), id.to_owned()), entity);
        }
        Ok(())
    }

    fn finish(mut self, files: &[File], server: Option<&str>) -> Result<Compiled, Vec<Fault>> {
        let first = files.first().map(|file| file.path.clone()).unwrap_or_default();
        let mut set = PolicySet::new();
        let mut needs = Needs::default();
        let count = self.policies.len();
        for policy in std::mem::take(&mut self.policies) {
            match policy.to_json() {
                Ok(tree) => needs.add(&tree),
                Err(error) => self.faults.push(Fault::of(&first, format!("policy {}: {error}", policy.id()))),
            }
            let id = policy.id().clone();
            if set.add(policy).is_err() {
                self.faults.push(Fault::of(
                    &first,
                    format!("two policies have the id {:?}; rename one (@id)", id.to_string()),
                ));
            }
        }
        if count == 0 && self.faults.is_empty() {
            self.faults.push(Fault::of(&first, "there is no policy, so that every request would be refused"));
        }
        let group = self.options.as_ref().map(|options| options.group_type.to_string());
        let group = group.unwrap_or_else(|| GROUP_TYPE.to_owned());
        let is_known = |kind: &str| {
            let quoted = Value::from(kind).to_string();
            // Also as a parent.
            let in_files = || self.entities.values().any(|entity| entity.to_string().contains(&quoted));
            TYPES.contains(&kind) || kind == group || in_files()
        };
        for kind in needs.types.iter().filter(|kind| !is_known(kind)) {
            self.warnings.push(format!(
                "no entity has the type {kind}, so what names it never matches; requests have {}, and groups have {group}",
                TYPES.join(", ")
            ));
        }
        let entities = Entities::from_json_value(Value::Array(self.entities.into_values().collect()), None);
        let entities = entities
            .map_err(|error| Fault::of(&first, format!("the entities are invalid: {}", chain(&error))));
        for action in needs.actions.iter().filter(|id| !ACTIONS.contains(&id.as_str())) {
            self.warnings.push(if NEVER_ASKED.contains(&action.as_str()) {
                format!(
                    "Action::{action:?} is never asked for: lists are filtered by what their reader may use"
                )
            } else {
                format!("Action::{action:?} is unknown; requests are decided by {}", ACTIONS.join(", "))
            });
        }
        match entities {
            Err(fault) => self.faults.push(fault),
            Ok(entities) if self.faults.is_empty() => {
                let set = Set {
                    policies: set,
                    entities,
                    options: self.options.unwrap_or_else(|| Options {
                        group_claim: None,
                        role_claim: None,
                        group_type: group_type(GROUP_TYPE).expect("a name"),
                        multi_valued: Default::default(),
                    }),
                    server: server.map(entities::server),
                    needs,
                    authorizer: Authorizer::new(),
                    cache: cache::Cache::default(),
                };
                return Ok(Compiled { set, warnings: self.warnings });
            }
            Ok(_) => {}
        }
        Err(self.faults)
    }
}

/// Returns the faults of a file in Cedar's syntax.
fn faults_in(path: &Path, text: &str, errors: &ParseErrors) -> Vec<Fault> {
    let fault = |error: &cedar_policy::ParseError| {
        let help = error.help().map(|help| format!(" ({help})")).unwrap_or_default();
        match offset(error) {
            Some(at) => Fault::within(path, text, at, format!("{error}{help}")),
            None => Fault::of(path, format!("{error}{help}")),
        }
    };
    errors.iter().map(fault).collect()
}

/// Returns the position of an error in its text.
fn offset(error: &impl Diagnostic) -> Option<usize> {
    error.labels()?.next().map(|label| label.offset())
}

/// Returns an error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Returns the type of a name without namespace.
fn group_type(name: &str) -> Option<EntityTypeName> {
    if name.contains("::") { None } else { name.parse().ok() }
}

fn number(id: &str) -> usize {
    id.trim_start_matches("policy").parse().unwrap_or(usize::MAX)
}

fn line_number(line: u64) -> usize {
    usize::try_from(line).unwrap_or_default()
}
