//! Client capabilities: reading a declaration, checking a question against it, and declaring it again to a modern
//! child.

use super::keys;
use crate::budget::Charged;
use crate::jsonrpc::{Amendment, Edits, Span, amend, member, members, splice, string_member, text};
use crate::session::Version;
use serde_json::{Map, Value, json};

/// The kinds of questions that a client answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Capabilities {
    /// `elicitation.form`, which `elicitation: {}` implies (client/elicitation §Capabilities).
    pub form: bool,
    /// `elicitation.url`
    pub url: bool,
    /// `sampling`
    pub sampling: bool,
    /// `sampling.tools`
    pub sampling_tools: bool,
    /// `roots`
    pub roots: bool,
}

impl Capabilities {
    /// Reads a `ClientCapabilities` object of any revision.
    pub fn read(raw: &[u8], span: &Span) -> Self {
        // The usual case.
        if &raw[span.clone()] == b"{}" {
            return Capabilities::default();
        }
        let part = |name| member(raw, span, name).filter(|value| raw[value.start] == b'{');
        let elicitation = part("elicitation");
        let sub = |object: &Option<Span>, name| {
            object.as_ref().is_some_and(|object| {
                member(raw, object, name).is_some_and(|value| !matches!(raw[value.start], b'n' | b'f'))
            })
        };
        let sampling = part("sampling");
        let url = sub(&elicitation, "url");
        Capabilities {
            form: sub(&elicitation, "form") || (elicitation.is_some() && !url),
            url,
            sampling: sampling.is_some(),
            sampling_tools: sub(&sampling, "tools"),
            roots: part("roots").is_some(),
        }
    }

    /// Returns the capabilities that a question requires (client/elicitation, client/sampling, client/roots). `None`
    /// if the method is not a question to clients.
    pub fn required(method: &str, raw: &[u8], params: Option<&Span>) -> Option<Self> {
        let has = |name| params.is_some_and(|params| member(raw, params, name).is_some());
        let none = Capabilities::default();
        Some(match method {
            "elicitation/create" => {
                let mode = params.and_then(|params| string_member(raw, params, "mode"));
                let url = mode.as_deref() == Some("url");
                Capabilities { form: !url, url, ..none }
            }
            "sampling/createMessage" => {
                Capabilities { sampling: true, sampling_tools: has("tools") || has("toolChoice"), ..none }
            }
            "roots/list" => Capabilities { roots: true, ..none },
            _ => return None,
        })
    }

    /// Returns whether a legacy child may ask such a client while it works, so that the child must be exclusive
    /// (`docs/architecture.md#isolation`).
    pub fn asks(self) -> bool {
        self.form || self.url || self.sampling
    }

    /// Returns the capabilities in both: a question is checked against its request and its child.
    pub fn and(self, other: Self) -> Self {
        Capabilities {
            form: self.form && other.form,
            url: self.url && other.url,
            sampling: self.sampling && other.sampling,
            sampling_tools: self.sampling_tools && other.sampling_tools,
            roots: self.roots && other.roots,
        }
    }

    /// Returns the capabilities in `required` but not in `self`, as -32021's `requiredCapabilities`; `None` if
    /// nothing is missing.
    pub fn missing(self, required: Self) -> Option<Value> {
        let missing = Capabilities {
            form: required.form && !self.form,
            url: required.url && !self.url,
            sampling: required.sampling && !self.sampling,
            sampling_tools: required.sampling_tools && !self.sampling_tools,
            roots: required.roots && !self.roots,
        };
        (missing != Capabilities::default()).then(|| missing.declaration())
    }

    /// Returns a `ClientCapabilities` object as in 2025-11-25 and later.
    pub fn declaration(self) -> Value {
        let mut all = Map::new();
        let object = |parts: &[(&str, bool)]| {
            Value::Object(
                parts.iter().filter(|(_, on)| *on).map(|(key, _)| ((*key).into(), json!({}))).collect(),
            )
        };
        if self.form || self.url {
            all.insert("elicitation".into(), object(&[("form", self.form), ("url", self.url)]));
        }
        if self.sampling || self.sampling_tools {
            all.insert("sampling".into(), object(&[("tools", self.sampling_tools)]));
        }
        if self.roots {
            all.insert("roots".into(), json!({}));
        }
        Value::Object(all)
    }
}

/// Translates a legacy client's capabilities for a modern child. Removes `tasks` in both forms, `roots.listChanged`
/// (or `roots` unless the operator forwards it), and everything that the client's revision does not define. Other
/// members, including `experimental` and foreign `extensions`, stay unchanged. Any value that is not an object
/// becomes `{}`.
pub fn for_modern_child(bytes: &Charged, version: &Version, forward_roots: bool) -> Charged {
    let whole = 0..bytes.len();
    if bytes.first() != Some(&b'{') {
        return Charged::fixed(b"{}");
    }
    let mut drop = vec!["tasks"];
    if !forward_roots {
        drop.push("roots");
    }
    // 2025-06-18 added elicitation; 2025-11-25 added its two modes and the options of sampling.
    if version.as_str() < "2025-06-18" {
        drop.push("elicitation");
    }
    let plain = version.as_str() < "2025-11-25";
    let mut edits = Edits::new();
    for (key, value) in members(bytes, whole.clone()) {
        let name = text(bytes, &key);
        if drop.contains(&&*name) || bytes[value.start] != b'{' {
            continue;
        }
        match &*name {
            "roots" => drop_from(bytes, &value, "listChanged", &mut edits),
            "extensions" => drop_from(bytes, &value, keys::TASKS, &mut edits),
            "elicitation" | "sampling" if plain => edits.replace(&value, b"{}"),
            _ => {}
        }
    }
    amend(bytes, &whole, Amendment { drop: &drop, add: b"" }, &mut edits);
    bytes.derive(splice(bytes, &whole, edits).to_vec())
}

fn drop_from(bytes: &[u8], object: &Span, name: &str, edits: &mut Edits) {
    amend(bytes, object, Amendment { drop: &[name], add: b"" }, edits);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::era::fixtures::string;

    fn read(text: &str) -> Capabilities {
        Capabilities::read(text.as_bytes(), &(0..text.len()))
    }

    fn required(method: &str, params: &str) -> Option<Capabilities> {
        Capabilities::required(method, params.as_bytes(), Some(&(0..params.len())))
    }

    #[test]
    fn an_empty_elicitation_means_forms_only() {
        assert_eq!(read("{}"), Capabilities::default());
        assert_eq!(read("[]"), Capabilities::default());
        let form = Capabilities { form: true, ..Capabilities::default() };
        assert_eq!(read(r#"{"elicitation":{}}"#), form);
        assert_eq!(read(r#"{"elicitation":{"form":{"x":1}}}"#), form);
        assert_eq!(
            read(r#"{"elicitation":{"url":{}}}"#),
            Capabilities { url: true, ..Capabilities::default() }
        );
        assert_eq!(read(r#"{"elicitation":null,"sampling":false}"#), Capabilities::default());
        assert_eq!(
            read(r#"{"elicitation":{"form":{},"url":{}},"sampling":{"tools":{}},"roots":{}}"#),
            Capabilities { form: true, url: true, sampling: true, sampling_tools: true, roots: true }
        );
        assert!(read(r#"{"sampling":{}}"#).asks() && !read(r#"{"roots":{}}"#).asks());
    }

    #[test]
    fn a_question_requires_its_capabilities() {
        let client = read(r#"{"elicitation":{},"sampling":{}}"#);
        let missing = |method, params| client.missing(required(method, params).unwrap());
        assert_eq!(missing("elicitation/create", r#"{"message":"m"}"#), None);
        assert_eq!(missing("elicitation/create", r#"{"mode":"form"}"#), None);
        assert_eq!(
            missing("elicitation/create", r#"{"mode":"url"}"#),
            Some(json!({"elicitation": {"url": {}}}))
        );
        assert_eq!(missing("sampling/createMessage", "{}"), None);
        assert_eq!(
            missing("sampling/createMessage", r#"{"tools":[]}"#),
            Some(json!({"sampling": {"tools": {}}}))
        );
        assert_eq!(missing("roots/list", "{}"), Some(json!({"roots": {}})));
        assert_eq!(
            read("{}").missing(required("sampling/createMessage", "{}").unwrap()),
            Some(json!({"sampling": {}}))
        );
        assert_eq!(required("ping", "{}"), None);
        assert_eq!(Capabilities::required("roots/list", b"", None).unwrap(), read(r#"{"roots":{}}"#));
    }

    #[test]
    fn an_elicitation_by_url_does_not_require_forms() {
        let needs = |params| required("elicitation/create", params).unwrap();
        let none = Capabilities::default();
        assert_eq!(needs(r#"{"mode":"url"}"#), Capabilities { url: true, ..none });
        assert_eq!(needs(r#"{"mode":"form"}"#), Capabilities { form: true, ..none });
    }

    #[test]
    fn the_intersection_contains_the_common_capabilities() {
        let of = |bits: u8| {
            let on = |bit: u8| bits >> bit & 1 == 1;
            Capabilities { form: on(0), url: on(1), sampling: on(2), sampling_tools: on(3), roots: on(4) }
        };
        for one in 0..32 {
            for other in 0..32 {
                assert_eq!(of(one).and(of(other)), of(one & other));
            }
            assert_eq!(of(one).asks(), one & 0b111 != 0, "{one:b}");
        }
    }

    #[test]
    fn a_declaration_is_read_back_unchanged() {
        for bits in 0..32_u8 {
            let on = |bit: u8| bits >> bit & 1 == 1;
            let some = Capabilities {
                form: on(0),
                url: on(1),
                sampling: on(2),
                sampling_tools: on(2) && on(3),
                roots: on(4),
            };
            assert_eq!(read(&some.declaration().to_string()), some);
            assert_eq!(some.and(some), some);
            assert_eq!(some.missing(some), None);
        }
    }

    #[test]
    fn a_modern_child_gets_only_capabilities_of_the_revision() {
        let full = r#"{ "tasks":{"list":{}}, "roots":{"listChanged":true,"x":1},"elicitation":{"form":{},"url":{}},"sampling":{"tools":{}},"extensions":{"io.modelcontextprotocol/tasks":{},"io.modelcontextprotocol/ui":{"a":[1]}},"experimental":{"e":{}}}"#;
        let said =
            |version, roots| string(&for_modern_child(&Charged::from(full), &Version::new(version), roots));
        let rest = r#""extensions":{"io.modelcontextprotocol/ui":{"a":[1]}},"experimental":{"e":{}}}"#;
        assert_eq!(
            said("2025-11-25", true),
            format!(
                r#"{{ "roots":{{"x":1}},"elicitation":{{"form":{{}},"url":{{}}}},"sampling":{{"tools":{{}}}},{rest}"#
            )
        );
        assert_eq!(said("2025-06-18", false), format!(r#"{{"elicitation":{{}},"sampling":{{}},{rest}"#));
        assert_eq!(said("2025-03-26", false), format!(r#"{{"sampling":{{}},{rest}"#));
        for nothing in ["null", "[]", "7"] {
            assert_eq!(for_modern_child(&Charged::from(nothing), &Version::new("2025-11-25"), true), "{}");
        }
    }
}
