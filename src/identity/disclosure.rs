//! What the child learns about its caller: the claims that the operator allows (`--child-identity-claims`).

use super::Identity;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The prefix of the keys in `params._meta` that only proxyrunner writes.
pub const META_PREFIX: &str = "proxyrunner/";
/// The key in `params._meta` that holds the caller's identity.
pub const META_KEY: &str = "proxyrunner/identity";
/// The prefix of the variables that hold the caller's identity.
pub const VARIABLE_PREFIX: &str = "MCP_IDENTITY_";

/// Maximum length of one claim's value, in bytes.
const LONGEST: usize = 4096;

/// Variables for one child.
pub type Variables = Arc<[(String, String)]>;

/// The claims that a child may learn. `iss` is always one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disclosure {
    claims: Arc<[String]>,
    /// Whether the child is the gateway's own, which learns everything.
    #[cfg_attr(not(feature = "gateway"), allow(dead_code, reason = "only a gateway has such a child"))]
    is_whole: bool,
}

impl Disclosure {
    /// Allows these claims. A name is the claim's own, or a path to a nested claim, with dots.
    pub fn of(claims: impl IntoIterator<Item = String>) -> Self {
        let mut all = vec!["iss".to_owned()];
        for claim in claims {
            if !all.contains(&claim) {
                all.push(claim);
            }
        }
        Disclosure { claims: all.into(), is_whole: false }
    }

    /// The key in `params._meta` that holds the caller's identity.
    #[cfg(feature = "gateway")]
    pub const KEY: &str = META_KEY;

    /// Discloses the whole identity, also of anonymous callers: to a part of proxyrunner itself.
    #[cfg(feature = "gateway")]
    pub fn whole() -> Self {
        Disclosure { claims: Arc::default(), is_whole: true }
    }

    /// Returns two claims whose variables have the same name, if there are any.
    pub fn collision(&self) -> Option<(&str, &str)> {
        let mut pairs = self.claims.iter().enumerate().flat_map(|(at, one)| {
            let others = self.claims.iter().skip(at + 1);
            others.map(move |other| (one.as_str(), other.as_str()))
        });
        pairs.find(|(one, other)| variable(one) == variable(other))
    }

    /// Returns the member of `params._meta` for a caller, in raw JSON; empty for an anonymous caller.
    pub fn member(&self, identity: &Identity) -> String {
        #[cfg(feature = "gateway")]
        if self.is_whole {
            return format!("\"{META_KEY}\":{}", super::whole::write(identity));
        }
        if identity.principal.is_anonymous() {
            return String::new();
        }
        let mut object = Map::new();
        for name in self.claims.iter() {
            let Some(value) = identity.claim(name) else { continue };
            if is_long(&value) {
                left_out(name, "it is longer than 4 KiB");
            } else {
                object.insert(name.clone(), value);
            }
        }
        format!("\"{META_KEY}\":{}", Value::Object(object))
    }

    /// Returns the variables for the child of one caller; `None` for an anonymous caller.
    ///
    /// Texts are written as they are, other values as JSON. Variables that cannot hold a claim are left out.
    pub fn variables(&self, identity: &Identity) -> Option<Variables> {
        if identity.principal.is_anonymous() {
            return None;
        }
        let mut variables = Vec::new();
        for name in self.claims.iter() {
            let text = match identity.claim(name) {
                None | Some(Value::Null) => continue,
                Some(Value::String(text)) => text,
                Some(other) => other.to_string(),
            };
            if text.len() > LONGEST {
                left_out(name, "it is longer than 4 KiB");
            } else if text.contains(['\0', '\n', '\r']) {
                left_out(name, "it contains a line break or a NUL byte");
            } else {
                variables.push((variable(name), text));
            }
        }
        Some(variables.into())
    }
}

/// Returns whether a value is longer than [`LONGEST`] as JSON.
fn is_long(value: &Value) -> bool {
    match value {
        Value::String(text) if text.len() > LONGEST => true,
        Value::String(_) | Value::Array(_) | Value::Object(_) => value.to_string().len() > LONGEST,
        _ => false,
    }
}

/// Warns once for each claim; their names are the operator's.
fn left_out(claim: &str, why: &str) {
    static WARNED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if WARNED.lock().insert(claim.to_owned()) {
        tracing::warn!(
            claim,
            "a claim of a caller is not passed to the server: {why} (--child-identity-claims)"
        );
    }
}

/// Returns the name of a claim's variable.
fn variable(claim: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    VARIABLE_PREFIX.chars().chain(claim.chars().map(letter)).collect()
}

impl Identity {
    /// Returns a claim by its name, or by a path with dots. The issuer, the subject, the client id, the scopes, the
    /// groups and the roles also have their usual names if the token has no such claim.
    fn claim(&self, name: &str) -> Option<Value> {
        let nested = || {
            let (first, rest) = name.split_once('.')?;
            rest.split('.').try_fold(self.claims.get(first)?, |value, part| value.get(part))
        };
        if let Some(value) = self.claims.get(name).or_else(nested) {
            return Some(value.clone());
        }
        let list = |values: &[String]| (!values.is_empty()).then(|| Value::from(values));
        match name {
            "iss" => self.issuer.as_deref().map(Value::from),
            "sub" => Some(Value::from(&*self.subject)).filter(|_| !self.subject.is_empty()),
            "client_id" => self.client_id.as_deref().map(Value::from),
            "scope" => (!self.scopes.is_empty()).then(|| self.scopes.join(" ").into()),
            "groups" => list(&self.groups),
            "roles" => list(&self.roles),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Means, Principal};
    use serde_json::json;

    fn ann() -> Identity {
        let mut ann = Identity::issued(&"https://idp.example".into(), "ann", Means::Token);
        let claims = json!({
            "sub": "ann", "email": "ann@example.com", "admin": true, "realm_access": {"roles": ["a", "b"]},
            "https://example.com/team": "x", "two": "a\nb", "nul": "a\0b", "long": "x".repeat(LONGEST + 1),
            "fits": "x".repeat(LONGEST), "none": null, "deep": {"a": {"b": 7}},
        });
        ann.claims = claims.as_object().expect("an object").clone();
        ann.groups = vec!["g".to_owned()];
        ann
    }

    fn disclosure(claims: &[&str]) -> Disclosure {
        Disclosure::of(claims.iter().map(|&claim| claim.to_owned()))
    }

    #[test]
    fn only_allowed_claims_are_told() {
        let told = |claims: &[&str]| -> Value {
            serde_json::from_str(&format!("{{{}}}", disclosure(claims).member(&ann()))).expect("JSON")
        };
        assert_eq!(told(&["sub"]), json!({META_KEY: {"iss": "https://idp.example", "sub": "ann"}}));
        let expected = json!({
            "iss": "https://idp.example", "realm_access.roles": ["a", "b"], "deep.a.b": 7, "groups": ["g"],
            "none": null,
        });
        let claims =
            ["realm_access.roles", "deep.a.b", "deep.a.c", "groups", "roles", "none", "long", "other"];
        assert_eq!(told(&claims), json!({META_KEY: expected}));
        assert_eq!(disclosure(&["sub"]).member(&Identity::anonymous()), "");
        let named = Identity::named(Principal::named("bob").expect("a name"), Means::Proxy);
        assert_eq!(disclosure(&["sub"]).member(&named), r#""proxyrunner/identity":{"sub":"bob"}"#);
    }

    #[test]
    fn variables_hold_what_an_environment_can_hold() {
        let claims = [
            "sub",
            "admin",
            "https://example.com/team",
            "realm_access.roles",
            "two",
            "nul",
            "long",
            "fits",
            "none",
        ];
        let variables = disclosure(&claims).variables(&ann()).expect("she is named");
        let long = "x".repeat(LONGEST);
        let expected = [
            ("MCP_IDENTITY_ISS", "https://idp.example"),
            ("MCP_IDENTITY_SUB", "ann"),
            ("MCP_IDENTITY_ADMIN", "true"),
            ("MCP_IDENTITY_HTTPS___EXAMPLE_COM_TEAM", "x"),
            ("MCP_IDENTITY_REALM_ACCESS_ROLES", r#"["a","b"]"#),
            ("MCP_IDENTITY_FITS", &long),
        ];
        let found: Vec<_> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(found, expected);
        assert_eq!(disclosure(&claims).variables(&Identity::anonymous()), None);
    }

    #[test]
    fn claims_with_the_same_variable_are_found() {
        assert_eq!(disclosure(&["a.b", "c", "a_b"]).collision(), Some(("a.b", "a_b")));
        assert_eq!(disclosure(&["sub", "sub", "iss"]).collision(), None);
    }
}
