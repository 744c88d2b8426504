//! Reads the documents in which ToolHive configures authorization: the `authz` file in JSON or YAML, and its Kubernetes
//! resources.

use super::fault::Fault;
use crate::yaml::{Entry, Node, Unusable, Value, parse};
use std::path::Path;

/// What a document says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Document {
    /// The policies: each a text, and the line on which it stands.
    pub policies: Vec<(u64, String)>,
    /// The entities, as JSON, and the line.
    pub entities: Option<(u64, String)>,
    /// The claim with groups.
    pub group_claim: Option<String>,
    /// The claim with roles.
    pub role_claim: Option<String>,
    /// The type of the entities of groups, and the line.
    pub group_type: Option<(u64, String)>,
    /// Claims that may have several values.
    pub multi_valued: Vec<String>,
    /// Remarks on members that have no effect.
    pub warnings: Vec<String>,
}

/// Maximum number of documents within each other: a ConfigMap contains the text of one.
const DEEPEST: usize = 2;

/// The names of one member in JSON and in Kubernetes resources.
type Names = [&'static str; 2];

const POLICIES: Names = ["policies", "policies"];
const ENTITIES: Names = ["entities_json", "entitiesJson"];
const GROUP_CLAIM: Names = ["group_claim_name", "groupClaimName"];
const ROLE_CLAIM: Names = ["role_claim_name", "roleClaimName"];
const GROUP_TYPE: Names = ["group_entity_type", "groupEntityType"];
const MULTI_VALUED: Names = ["multi_valued_claims", "multiValuedClaims"];
const PROVIDER: Names = ["primary_upstream_provider", "primaryUpstreamProvider"];

/// Reads a document.
///
/// # Errors
/// The first fault.
pub(super) fn read(file: &Path, text: &str) -> Result<Document, Fault> {
    let mut reader = Reader { file, document: Document::default() };
    reader.text(text, DEEPEST)?;
    if reader.document.policies.is_empty() {
        return Err(Fault::of(file, "the document has no policies; give at least one"));
    }
    Ok(reader.document)
}

/// Returns whether a text is a list, as only files of entities are.
pub(super) fn is_list(text: &str) -> bool {
    text.trim_start_matches('\u{feff}').trim_start().starts_with('[')
}

struct Reader<'a> {
    file: &'a Path,
    document: Document,
}

impl Reader<'_> {
    fn text(&mut self, text: &str, depth: usize) -> Result<(), Fault> {
        let depth =
            depth.checked_sub(1).ok_or_else(|| Fault::of(self.file, "the document is nested too deeply"))?;
        let node = match parse(text) {
            Ok(Some(node)) => node,
            Ok(None) => return Err(Fault::of(self.file, "the file is empty")),
            Err(Unusable::DuplicateKey(line)) => {
                return Err(self.fault(line, "a key occurs twice; remove one"));
            }
            Err(Unusable::Malformed(line)) => {
                return Err(self.fault(line, "this is neither valid YAML nor valid JSON"));
            }
        };
        let root = self.map(&node)?;
        match string(root, "kind") {
            Some("ConfigMap") => self.config_map(root, depth),
            Some("MCPServer") => self.kubernetes(self.child(root, "spec", node.line)?),
            Some("MCPAuthzConfig") => self.authz_config(self.child(root, "spec", node.line)?),
            Some(kind) => Err(self.fault(
                node.line,
                format!(
                    "the kind {kind:?} has no policies; give an MCPAuthzConfig, an MCPServer or a ConfigMap"
                ),
            )),
            None if get(root, "authzConfig").is_some() => self.kubernetes(&node),
            None => self.authz(root, &node),
        }
    }

    /// Reads the only text of a ConfigMap, or the one that ToolHive names so.
    fn config_map(&mut self, root: &[Entry], depth: usize) -> Result<(), Fault> {
        let data = self.map(self.child(root, "data", 1)?)?;
        let named = data.iter().find(|entry| entry.key == "authz.json" || entry.key == "authz.yaml");
        let entry = match (named, data) {
            (Some(entry), _) => entry,
            (None, [only]) => only,
            _ => return Err(self.fault(1, "the ConfigMap has no key authz.json")),
        };
        match &entry.node.value {
            Value::Text(text) => {
                let text = text.clone();
                self.text(&text, depth)
            }
            _ => Err(self.fault(entry.line, "the value is not a text")),
        }
    }

    /// Reads ToolHive's own document.
    fn authz(&mut self, root: &[Entry], node: &Node) -> Result<(), Fault> {
        let version = string(root, "version");
        if version != Some("1.0") && version != Some("1") {
            let given = version.unwrap_or_default();
            return Err(self.fault(node.line, format!("version is {given:?}; it must be \"1.0\"")));
        }
        self.kind(root, node.line)?;
        self.unknown(root, &["version", "type", "cedar"], "");
        self.options(self.child(root, "cedar", node.line)?)
    }

    fn authz_config(&mut self, spec: &Node) -> Result<(), Fault> {
        let members = self.map(spec)?;
        self.kind(members, spec.line)?;
        let config = self.child(members, "config", spec.line)?;
        let inner = get(self.map(config)?, "cedar").unwrap_or(config);
        self.options(inner)
    }

    /// Reads `authzConfig` of an MCPServer.
    fn kubernetes(&mut self, spec: &Node) -> Result<(), Fault> {
        let authz = self.child(self.map(spec)?, "authzConfig", spec.line)?;
        let members = self.map(authz)?;
        match string(members, "type") {
            Some("inline") => {}
            Some("configMap") => {
                return Err(
                    self.fault(authz.line, "authzConfig refers to a ConfigMap; mount it, and give its file")
                );
            }
            _ => return Err(self.fault(authz.line, "authzConfig.type must be inline")),
        }
        self.options(self.child(members, "inline", authz.line)?)?;
        self.shared(members)
    }

    fn kind(&self, members: &[Entry], line: u64) -> Result<(), Fault> {
        match string(members, "type") {
            Some("cedarv1") => Ok(()),
            Some("httpv1") => Err(self.fault(line, "type is httpv1; give its URL with --policy-url instead")),
            given => {
                let given = given.unwrap_or_default();
                Err(self.fault(line, format!("type is {given:?}; it must be \"cedarv1\"")))
            }
        }
    }

    /// Reads the options of Cedar.
    fn options(&mut self, node: &Node) -> Result<(), Fault> {
        let members = self.map(node)?;
        let policies = POLICIES.iter().find_map(|name| get(members, name));
        let policies =
            policies.ok_or_else(|| self.fault(node.line, "policies are missing; give at least one"))?;
        let Value::List(items) = &policies.value else {
            return Err(self.fault(policies.line, "policies is not a list of texts"));
        };
        for item in items {
            let Value::Text(text) = &item.value else {
                return Err(self.fault(item.line, "a policy is not a text"));
            };
            self.document.policies.push((item.line, text.clone()));
        }
        self.document.entities = self.text_of(members, ENTITIES)?;
        self.shared(members)?;
        let known = [POLICIES, ENTITIES, GROUP_CLAIM, ROLE_CLAIM, GROUP_TYPE, MULTI_VALUED, PROVIDER];
        self.unknown(members, known.as_flattened(), "cedar.");
        Ok(())
    }

    /// Reads the options that Kubernetes resources have in either of two places.
    fn shared(&mut self, members: &[Entry]) -> Result<(), Fault> {
        if let Some((line, provider)) = self.text_of(members, PROVIDER)?.filter(|(_, name)| !name.is_empty())
        {
            let why =
                "proxyrunner issues no tokens, so there are no claims of an upstream provider; remove it";
            return Err(self.fault(line, format!("primary_upstream_provider is {provider:?}: {why}")));
        }
        let present = |text: Option<(u64, String)>| text.filter(|(_, text)| !text.is_empty());
        if let Some((_, name)) = present(self.text_of(members, GROUP_CLAIM)?) {
            self.document.group_claim = Some(name);
        }
        if let Some((_, name)) = present(self.text_of(members, ROLE_CLAIM)?) {
            self.document.role_claim = Some(name);
        }
        if let Some(named) = present(self.text_of(members, GROUP_TYPE)?) {
            self.document.group_type = Some(named);
        }
        match MULTI_VALUED.iter().find_map(|name| get(members, name)) {
            None | Some(Node { value: Value::Null, .. }) => {}
            Some(Node { value: Value::List(items), .. }) => {
                for item in items {
                    let Value::Text(name) = &item.value else {
                        return Err(self.fault(item.line, "the name of a claim is not a text"));
                    };
                    self.document.multi_valued.push(name.clone());
                }
            }
            Some(node) => return Err(self.fault(node.line, "multi_valued_claims is not a list of names")),
        }
        Ok(())
    }

    fn unknown(&mut self, members: &[Entry], known: &[&str], prefix: &str) {
        for entry in members.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let line = usize::try_from(entry.line).unwrap_or_default();
            let remark =
                Fault::at(self.file, line, format!("{prefix}{} is unknown, and has no effect", entry.key));
            self.document.warnings.push(remark.to_string());
        }
    }

    fn text_of(&self, members: &[Entry], names: Names) -> Result<Option<(u64, String)>, Fault> {
        let Some(node) = names.iter().find_map(|name| get(members, name)) else { return Ok(None) };
        match &node.value {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some((node.line, text.clone()))),
            _ => Err(self.fault(node.line, format!("{} is not a text", names[0]))),
        }
    }

    fn map<'a>(&self, node: &'a Node) -> Result<&'a [Entry], Fault> {
        match &node.value {
            Value::Map(entries) => Ok(entries),
            _ => Err(self.fault(node.line, "this is not a map")),
        }
    }

    fn child<'a>(&self, members: &'a [Entry], name: &str, line: u64) -> Result<&'a Node, Fault> {
        get(members, name).ok_or_else(|| self.fault(line, format!("{name} is missing")))
    }

    fn fault(&self, line: u64, message: impl Into<String>) -> Fault {
        Fault::at(self.file, usize::try_from(line).unwrap_or_default(), message)
    }
}

fn get<'a>(members: &'a [Entry], name: &str) -> Option<&'a Node> {
    members.iter().find(|entry| entry.key == name).map(|entry| &entry.node)
}

fn string<'a>(members: &'a [Entry], name: &str) -> Option<&'a str> {
    match &get(members, name)?.value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Result<Document, String> {
        read(Path::new("f"), text).map_err(|fault| fault.to_string())
    }

    #[test]
    fn every_spelling_means_the_same() {
        let expected = Document {
            policies: Vec::new(),
            entities: None,
            group_claim: Some("g".into()),
            role_claim: Some("r".into()),
            group_type: None,
            multi_valued: vec!["scp".into()],
            warnings: Vec::new(),
        };
        let options = r#"{"policies":["permit(principal,action,resource);"],"entities_json":"[]","group_claim_name":"g","role_claim_name":"r","group_entity_type":"G","multi_valued_claims":["scp"],"primary_upstream_provider":""}"#;
        let kubernetes = "policies: ['permit(principal,action,resource);']\n      entitiesJson: '[]'\n";
        let names =
            "groupClaimName: g\n    roleClaimName: r\n    groupEntityType: G\n    multiValuedClaims: [scp]\n";
        let own = format!(r#"{{"version":"1.0","type":"cedarv1","cedar":{options}}}"#);
        for text in [
            own.clone(),
            format!("version: \"1.0\"\ntype: cedarv1\ncedar: {options}\n"),
            format!("version: 1.0\ntype: cedarv1\ncedar: {options}\n"),
            format!("kind: MCPAuthzConfig\nspec:\n  type: cedarv1\n  config: {options}\n"),
            format!("kind: MCPAuthzConfig\nspec: {{type: cedarv1, config: {{cedar: {options}}}}}\n"),
            format!(
                "kind: MCPServer\nspec:\n  authzConfig:\n    type: inline\n    inline:\n      {kubernetes}    {names}"
            ),
            format!("authzConfig:\n    type: inline\n    inline:\n      {kubernetes}    {names}"),
            format!("kind: ConfigMap\ndata:\n  authz.json: '{}'\n", own.replace('\'', "''")),
        ] {
            let mut found = document(&text).expect(&text);
            assert_eq!(
                found.policies.drain(..).map(|(_, text)| text).collect::<Vec<_>>(),
                ["permit(principal,action,resource);"]
            );
            assert_eq!(found.entities.take().map(|(_, text)| text).as_deref(), Some("[]"), "{text}");
            assert_eq!(found.group_type.take().map(|(_, text)| text).as_deref(), Some("G"), "{text}");
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn faults_have_a_line_and_a_reason() {
        for (text, expected) in [
            ("", "f: the file is empty"),
            ("version: [", "neither valid YAML nor valid JSON"),
            ("- a\n", "f:1: this is not a map"),
            ("version: '2.0'\ntype: cedarv1\n", "version is \"2.0\""),
            ("type: cedarv1\n", "version is \"\""),
            ("version: '1.0'\ntype: opa\n", "type is \"opa\""),
            ("version: '1.0'\ntype: httpv1\n", "--policy-url"),
            ("version: '1.0'\ntype: cedarv1\n", "cedar is missing"),
            ("version: '1.0'\ntype: cedarv1\ncedar: {}\n", "policies are missing"),
            ("version: '1.0'\ntype: cedarv1\ncedar:\n  policies: []\n", "no policies"),
            ("version: '1.0'\ntype: cedarv1\ncedar:\n  policies:\n  - a: b\n", "f:5: a policy is not a text"),
            (
                "version: '1.0'\ntype: cedarv1\ncedar:\n  policies: [x]\n  primary_upstream_provider: github\n",
                "f:5: primary_upstream_provider",
            ),
            (
                "version: '1.0'\ntype: cedarv1\ncedar:\n  policies: [x]\n  policies: [y]\n",
                "a key occurs twice",
            ),
            ("kind: Pod\n", "the kind \"Pod\""),
            ("authzConfig: {type: configMap}\n", "refers to a ConfigMap"),
            ("kind: ConfigMap\ndata: {a: x, b: y}\n", "no key authz.json"),
            (
                "kind: ConfigMap\ndata:\n  a: |\n    kind: ConfigMap\n    data:\n      a: x\n",
                "nested too deeply",
            ),
        ] {
            let fault = document(text).expect_err(text);
            assert!(fault.contains(expected), "{text}: {fault}");
        }
    }

    #[test]
    fn unknown_members_are_remarked_on() {
        let found = document("version: '1.0'\ntype: cedarv1\nnew: 1\ncedar:\n  policies: [x]\n  policy: y\n")
            .unwrap();
        assert_eq!(
            found.warnings,
            ["f:3: new is unknown, and has no effect", "f:6: cedar.policy is unknown, and has no effect"]
        );
    }
}
