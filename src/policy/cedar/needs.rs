//! What the decisions of a set of policies can depend on: the arguments of a request, and a tool's annotations. It is
//! read from the syntax trees, so that everything else need not be computed.

use super::super::hints::NAMES;
use crate::jsonrpc::folded;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// What decisions depend on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// The attributes of arguments that policies name, such as `arg_path`.
    arguments: BTreeSet<String>,
    /// The names of these arguments, without differences of case.
    folded: BTreeSet<String>,
    /// Whether a policy uses the context as a whole.
    whole_context: bool,
    /// Whether policies name an annotation.
    pub hints: bool,
    /// The ids of the actions that policies name.
    pub actions: BTreeSet<String>,
    /// The types of all other entities that policies name.
    pub types: BTreeSet<String>,
}

impl Needs {
    /// Adds a policy, in Cedar's JSON format.
    pub fn add(&mut self, policy: &Value) {
        self.walk(policy);
    }

    /// Returns whether a decision can depend on arguments at all.
    pub fn arguments(&self) -> bool {
        self.whole_context || !self.arguments.is_empty()
    }

    /// Returns whether a decision can depend on the argument with this attribute.
    pub fn names(&self, attribute: &str) -> bool {
        self.whole_context || self.arguments.contains(attribute)
    }

    /// Returns whether a decision can depend on the argument of this name.
    pub fn depends_on(&self, argument: &str) -> bool {
        self.names(&format!("arg_{argument}")) || self.names(&format!("arg_{argument}_present"))
    }

    /// Returns whether a parser that ignores case could take an argument for one that a decision depends on. The name
    /// is given without differences of case.
    pub fn may_mean(&self, folded: &str) -> bool {
        self.whole_context || self.folded.contains(folded)
    }

    fn walk(&mut self, node: &Value) {
        match node {
            Value::Array(items) => items.iter().for_each(|item| self.walk(item)),
            Value::Object(map) => self.walk_object(map),
            _ => {}
        }
    }

    fn walk_object(&mut self, map: &Map<String, Value>) {
        self.note_entity(map);
        for (key, value) in map {
            match (key.as_str(), value) {
                (operator @ ("." | "has"), Value::Object(access)) if access.contains_key("attr") => {
                    self.note_attributes(operator, &access["attr"]);
                    match access.get("left") {
                        // The members of the context are asked for one by one.
                        Some(left) if left["Var"] == "context" => {}
                        Some(left) => self.walk(left),
                        None => {}
                    }
                }
                // The keys of a record are not operators.
                ("Record", Value::Object(record)) => record.values().for_each(|value| self.walk(value)),
                ("Var", Value::String(variable)) => self.whole_context |= variable == "context",
                (_, value) => self.walk(value),
            }
        }
    }

    fn note_attributes(&mut self, operator: &str, attributes: &Value) {
        let names: Vec<_> = match attributes {
            Value::String(name) => vec![name.as_str()],
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if names.is_empty() {
            // A form of access that is not known yet.
            debug_assert!(false, "{operator}: {attributes}");
            self.whole_context = true;
            self.hints = true;
        }
        for name in names {
            self.hints |= NAMES.contains(&name);
            if let Some(argument) = name.strip_prefix("arg_") {
                self.arguments.insert(name.to_owned());
                for argument in [Some(argument), argument.strip_suffix("_present")].into_iter().flatten() {
                    self.folded.insert(folded(argument).into_owned());
                }
            }
        }
    }

    fn note_entity(&mut self, map: &Map<String, Value>) {
        let text = |name: &str| map.get(name).and_then(Value::as_str).map(str::to_owned);
        match (text("type"), text("id"), text("entity_type")) {
            (Some(kind), Some(id), _) if kind == "Action" => drop(self.actions.insert(id)),
            (Some(kind), Some(_), _) | (_, _, Some(kind)) => drop(self.types.insert(kind)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cedar_policy::Policy;

    fn needs(policy: &str) -> Needs {
        let mut needs = Needs::default();
        needs.add(&Policy::parse(None, policy).expect("a policy").to_json().expect("JSON"));
        needs
    }

    fn when(condition: &str) -> Needs {
        needs(&format!("permit(principal, action, resource) when {{ {condition} }};"))
    }

    #[test]
    fn arguments_that_policies_name_are_needed() {
        for (condition, name) in [
            ("context.arg_a == \"x\"", "arg_a"),
            ("resource.arg_a == \"x\"", "arg_a"),
            ("context has arg_a", "arg_a"),
            ("resource[\"arg_a\"] like \"x*\"", "arg_a"),
            ("(if context.claim_x == \"y\" then resource else principal).arg_a == 1", "arg_a"),
            ("context has arg_b_present || {\".\": context.arg_a}.x", "arg_a"),
            ("!(resource has arg_a.b.c)", "arg_a"),
        ] {
            let needs = when(condition);
            assert!(needs.arguments() && needs.names(name), "{condition}: {needs:?}");
            assert!(!needs.names("arg_z"), "{condition}");
        }
    }

    #[test]
    fn a_context_that_is_used_as_a_whole_needs_all_arguments() {
        for condition in [
            "context == {\"a\": 1}",
            "[context].contains({\"a\": 1})",
            "(if true then context else context).x == 1",
            "{a: context}.a.arg_x == 1",
        ] {
            assert!(when(condition).names("arg_whatever"), "{condition}");
        }
    }

    #[test]
    fn other_policies_need_no_arguments() {
        for condition in [
            "principal.claim_role == \"admin\" && context.claim_x == context[\"claim_y\"]",
            "principal in THVGroup::\"arg_a\" && resource == Tool::\"arg_b\"",
            "resource.name like \"arg_*\"",
            "[\"arg_x\", \"context\"].contains(resource.name)",
            "context has claim_a && context.claim_a has b.c",
        ] {
            assert!(!when(condition).arguments(), "{condition}: {:?}", when(condition));
        }
    }

    #[test]
    fn annotations_and_actions_are_noted() {
        assert!(when("resource has readOnlyHint && resource.readOnlyHint").hints);
        assert!(when("resource[\"destructiveHint\"]").hints);
        assert!(!when("resource.name == \"readOnlyHint\"").hints);
        let needs = needs(
            "forbid(principal, action in [Action::\"a\", Action::\"b\"], resource) when { action == Action::\"c\" };",
        );
        assert_eq!(Vec::from_iter(needs.actions), ["a", "b", "c"]);
    }
}
