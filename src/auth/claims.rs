//! Checks the claims of a token whose signature is verified, or of an introspection's answer (RFC 9068 §4, RFC 7662).

use super::denied::Reason;
use super::settings::ClaimNames;
use crate::identity::{self, Identity, Means, is_name};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Difference between the issuer's clock and ours that is tolerated, in seconds.
pub(super) const LEEWAY: f64 = identity::LEEWAY as f64;
/// Claims with the OAuth client, of which the first that is present counts: RFC 9068, OpenID Connect, Okta, Entra ID 1.
const CLIENT_CLAIMS: [&str; 4] = ["client_id", "azp", "cid", "appid"];
/// The beginning of subjects that only proxyrunner makes.
const RESERVED: &str = "urn:proxyrunner:";
/// The beginning of the subject of a client that acts for itself.
const CLIENT: &str = "urn:proxyrunner:client:";

/// The rules for the claims of one issuer.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub means: Means,
    /// The only `iss` that is accepted.
    pub issuer: Arc<str>,
    /// The claim that names the audience.
    pub audience_claim: String,
    /// One of them must be the audience.
    pub audiences: Vec<String>,
    /// Whether the claims may lack an audience, an expiry and an issuer: the issuer itself was asked about the token.
    pub asked: bool,
    /// With `asked`: whether the claims may lack an audience.
    pub audience_optional: bool,
    /// The claims with scopes, groups and roles.
    pub claims: ClaimNames,
    /// Scopes that cover others.
    pub implies: Vec<(String, Vec<String>)>,
}

impl Rules {
    /// Returns the identity that the claims state.
    pub(super) fn identity(&self, mut claims: Map<String, Value>, now: u64) -> Result<Identity, Reason> {
        match claims.get("iss") {
            Some(Value::String(issuer)) if **issuer == *self.issuer => {}
            None if self.asked => {}
            _ => return Err(Reason::Issuer),
        }
        let expires = self.time(&claims, now)?;
        self.audience(&claims)?;
        let client = CLIENT_CLAIMS.iter().find_map(|name| claims.get(*name)?.as_str());
        if client.is_some_and(|client| !is_name(client)) {
            return Err(Reason::Client);
        }
        let client_id = client.map(str::to_owned);
        let subject = self.subject(&claims)?;
        claims.insert("sub".to_owned(), subject.as_str().into());
        Ok(Identity {
            client_id,
            scopes: self.scopes(&claims),
            groups: lookup(&claims, &self.claims.groups).map(items).unwrap_or_default(),
            roles: lookup(&claims, &self.claims.roles).map(items).unwrap_or_default(),
            expires,
            bound_to: bound_to(&claims)?,
            claims,
            ..Identity::issued(&self.issuer, &subject, self.means)
        })
    }

    /// Returns the subject. If the issuer was asked about the token and names neither a subject nor a user (RFC 7662
    /// §2.2), that is the client itself, in a form that no token can claim: else a client that is registered under the
    /// name of a user would become that user (RFC 9068 §5).
    fn subject(&self, claims: &Map<String, Value>) -> Result<String, Reason> {
        match (claims.get("sub"), claims.get("client_id")) {
            (Some(Value::String(subject)), _) if is_name(subject) && !subject.starts_with(RESERVED) => {
                Ok(subject.clone())
            }
            (None, Some(Value::String(client))) if self.asked && !claims.contains_key("username") => {
                Ok(format!("{CLIENT}{client}"))
            }
            _ => Err(Reason::Subject),
        }
    }

    /// Checks `exp`, `nbf` and `iat`. Returns the expiry.
    fn time(&self, claims: &Map<String, Value>, now: u64) -> Result<Option<u64>, Reason> {
        // Seconds since the epoch are exact in a float until the year 285,428,751.
        let now = now as f64;
        let number = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => {
                number.as_f64().filter(|n| *n >= 0.0).map(Some).ok_or(Reason::Claims)
            }
            Some(_) => Err(Reason::Claims),
        };
        let expires = number("exp")?;
        match expires {
            None if self.asked => {}
            None => return Err(Reason::Claims),
            Some(expires) if expires + LEEWAY <= now => return Err(Reason::Expired),
            Some(_) => {}
        }
        if number("nbf")?.is_some_and(|begins| begins > now + LEEWAY) {
            return Err(Reason::NotYetValid);
        }
        if number("iat")?.is_some_and(|issued| issued > now + LEEWAY) {
            return Err(Reason::IssuedInFuture);
        }
        // A float that is too large becomes the largest integer.
        Ok(expires.map(|expires| expires as u64))
    }

    fn audience(&self, claims: &Map<String, Value>) -> Result<(), Reason> {
        let is_ours = |audience: &Value| {
            audience.as_str().is_some_and(|audience| self.audiences.iter().any(|ours| ours == audience))
        };
        let accepted = match claims.get(&self.audience_claim) {
            Some(Value::Array(all)) => all.iter().all(Value::is_string) && all.iter().any(is_ours),
            Some(one) => is_ours(one),
            None => self.asked && self.audience_optional,
        };
        if accepted { Ok(()) } else { Err(Reason::Audience) }
    }

    /// Returns the scopes and those that they imply.
    fn scopes(&self, claims: &Map<String, Value>) -> Vec<String> {
        let mut scopes =
            self.claims.scope.iter().find_map(|name| lookup(claims, name)).map(words).unwrap_or_default();
        // Each round adds what the last ones imply; the list of implications is finite.
        let mut at = 0;
        while let Some(scope) = scopes.get(at).cloned() {
            let implied =
                self.implies.iter().filter(|(broad, _)| *broad == scope).flat_map(|(_, narrow)| narrow);
            for narrow in implied {
                if !scopes.contains(narrow) {
                    scopes.push(narrow.clone());
                }
            }
            at += 1;
        }
        scopes
    }
}

/// Returns the claim of this exact name, else the one at a dotted path: `realm_access.roles`. The names on the way may
/// have dots, too: `kubernetes.io.pod.name`.
pub(super) fn lookup<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let mut dots = name.match_indices('.');
    dots.find_map(|(at, _)| lookup(claims.get(&name[..at])?.as_object()?, &name[at + 1..]))
}

/// Returns the words of a text (RFC 8693 §4.2), or the texts of a list.
fn words(value: &Value) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut add = |word: &str| {
        if !word.is_empty() && !words.iter().any(|other| other == word) {
            words.push(word.to_owned());
        }
    };
    match value {
        Value::String(text) => text.split(' ').for_each(add),
        Value::Array(items) => items.iter().filter_map(Value::as_str).for_each(&mut add),
        _ => {}
    }
    words
}

/// Returns the texts of a list, or the only one. Names of groups may have blanks.
fn items(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

/// Returns the digest of the certificate that a token is bound to (RFC 8705 §3.1). A token that is bound to anything else,
/// such as a DPoP key (RFC 9449 §6), is refused: without that proof it would be as good as stolen.
fn bound_to(claims: &Map<String, Value>) -> Result<Option<[u8; 32]>, Reason> {
    let Some(confirmation) = claims.get("cnf") else { return Ok(None) };
    let members = confirmation.as_object().ok_or(Reason::Claims)?;
    let bound = members.get("x5t#S256").filter(|_| members.len() == 1).ok_or(Reason::Binding)?;
    let digest = bound.as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok());
    digest.and_then(|digest| digest.try_into().ok()).map(Some).ok_or(Reason::Claims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Principal;
    use serde_json::json;

    const NOW: u64 = 1_000_000;

    fn rules() -> Rules {
        Rules {
            means: Means::Token,
            issuer: "https://a.example".into(),
            audience_claim: "aud".to_owned(),
            audiences: vec!["https://mcp.example/mcp".to_owned(), "mcp".to_owned()],
            asked: false,
            audience_optional: false,
            claims: ClaimNames {
                scope: vec!["scope".to_owned(), "scp".to_owned()],
                groups: "groups".to_owned(),
                roles: "realm_access.roles".to_owned(),
            },
            implies: vec![
                ("admin".to_owned(), vec!["write".to_owned()]),
                ("write".to_owned(), vec!["read".to_owned(), "admin".to_owned()]),
            ],
        }
    }

    fn claims(more: Value) -> Map<String, Value> {
        let mut claims = json!({"iss": "https://a.example", "aud": "mcp", "sub": "ann", "exp": NOW + 300});
        for (name, value) in more.as_object().expect("an object") {
            match value {
                Value::Null => drop(claims.as_object_mut().expect("an object").remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        claims.as_object().expect("an object").clone()
    }

    fn verdict(more: Value) -> Result<Identity, Reason> {
        rules().identity(claims(more), NOW)
    }

    #[test]
    fn claims_become_an_identity() {
        let digest = URL_SAFE_NO_PAD.encode([7; 32]);
        let more = json!({"client_id": "https://c.example/id", "azp": "b", "scope": "x  y x", "cnf": {"x5t#S256": digest}});
        let ann = verdict(more).expect("an identity");
        assert_eq!((ann.subject.as_str(), ann.issuer.as_deref()), ("ann", Some("https://a.example")));
        assert_eq!(ann.principal, Principal::issued("https://a.example", "ann"));
        assert_eq!((ann.client_id.as_deref(), ann.means), (Some("https://c.example/id"), Means::Token));
        assert_eq!(
            (ann.scopes, ann.expires, ann.bound_to),
            (vec!["x".to_owned(), "y".to_owned()], Some(NOW + 300), Some([7; 32]))
        );
        assert_eq!(ann.claims["azp"], "b");
        assert_eq!(verdict(json!({"azp": "b"})).expect("an identity").client_id.as_deref(), Some("b"));
    }

    #[test]
    fn times_have_a_leeway_of_a_minute() {
        for (more, expected) in [
            (json!({"exp": NOW}), None),
            (json!({"exp": NOW - 59}), None),
            (json!({"exp": NOW - 60}), Some(Reason::Expired)),
            (json!({"exp": 0}), Some(Reason::Expired)),
            (json!({"exp": null}), Some(Reason::Claims)),
            (json!({"exp": "1000300"}), Some(Reason::Claims)),
            (json!({"exp": -1}), Some(Reason::Claims)),
            (json!({"exp": [NOW]}), Some(Reason::Claims)),
            (json!({"exp": 1000300.5}), None),
            (json!({"exp": 1e300}), None),
            (json!({"nbf": NOW + 60}), None),
            (json!({"nbf": NOW + 61}), Some(Reason::NotYetValid)),
            (json!({"nbf": "now"}), Some(Reason::Claims)),
            (json!({"iat": NOW + 60}), None),
            (json!({"iat": NOW + 61}), Some(Reason::IssuedInFuture)),
            (json!({"iat": true}), Some(Reason::Claims)),
        ] {
            assert_eq!(verdict(more.clone()).err(), expected, "{more}");
        }
    }

    #[test]
    fn the_issuer_and_one_audience_must_be_ours_exactly() {
        for (more, expected) in [
            (json!({"iss": "https://a.example/"}), Some(Reason::Issuer)),
            (json!({"iss": "HTTPS://a.example"}), Some(Reason::Issuer)),
            (json!({"iss": ["https://a.example"]}), Some(Reason::Issuer)),
            (json!({"iss": null}), Some(Reason::Issuer)),
            (json!({"aud": ["other", "mcp"]}), None),
            (json!({"aud": "https://mcp.example/mcp"}), None),
            (json!({"aud": "https://mcp.example/mcp/"}), Some(Reason::Audience)),
            (json!({"aud": "other"}), Some(Reason::Audience)),
            (json!({"aud": "mc"}), Some(Reason::Audience)),
            (json!({"aud": []}), Some(Reason::Audience)),
            (json!({"aud": 7}), Some(Reason::Audience)),
            (json!({"aud": ["mcp", 7]}), Some(Reason::Audience)),
            (json!({"aud": {"mcp": true}}), Some(Reason::Audience)),
            (json!({"aud": null}), Some(Reason::Audience)),
        ] {
            assert_eq!(verdict(more.clone()).err(), expected, "{more}");
        }
        let cognito = Rules { audience_claim: "client_id".to_owned(), ..rules() };
        assert!(cognito.identity(claims(json!({"aud": null, "client_id": "mcp"})), NOW).is_ok());
        let refused = cognito.identity(claims(json!({"aud": "mcp", "client_id": "other"})), NOW);
        assert_eq!(refused.err(), Some(Reason::Audience));
    }

    #[test]
    fn subjects_and_clients_are_names() {
        let long = "x".repeat(1025);
        for bad in ["", "  ", "a\nb", "a\u{0}", "\u{85}", "a\u{200b}b", "\u{202e}nna", &long] {
            assert_eq!(verdict(json!({"sub": bad})).err(), Some(Reason::Subject), "{bad:?}");
            for client in CLIENT_CLAIMS {
                assert_eq!(verdict(json!({client: bad})).err(), Some(Reason::Client), "{client} {bad:?}");
            }
        }
        assert!(verdict(json!({"sub": long[1..], "client_id": long[1..]})).is_ok());
        for bad in [json!(7), json!(["a"]), json!("urn:proxyrunner:"), json!("urn:proxyrunner:client:c")] {
            assert_eq!(verdict(json!({"sub": bad.clone()})).err(), Some(Reason::Subject), "{bad}");
        }
        assert_eq!(verdict(json!({"sub": null, "client_id": "c"})).err(), Some(Reason::Subject));
        assert!(
            verdict(json!({"sub": "anonymous"})).is_ok_and(|identity| !identity.principal.is_anonymous())
        );
    }

    #[test]
    fn an_answer_about_a_token_may_be_shorter() {
        let asked = Rules { asked: true, ..rules() };
        let verdict = |rules: &Rules, more| rules.identity(claims(more), NOW).err();
        assert_eq!(verdict(&asked, json!({"iss": null, "exp": null})), None);
        assert_eq!(verdict(&asked, json!({"iss": "https://b.example"})), Some(Reason::Issuer));
        assert_eq!(verdict(&asked, json!({"aud": null})), Some(Reason::Audience));
        let optional = Rules { audience_optional: true, ..asked };
        assert_eq!(verdict(&optional, json!({"aud": null})), None);
        assert_eq!(verdict(&optional, json!({"aud": "other"})), Some(Reason::Audience));
        assert_eq!(verdict(&optional, json!({"exp": NOW - 100})), Some(Reason::Expired));
    }

    #[test]
    fn a_client_that_acts_for_itself_is_no_user() {
        let asked = Rules { asked: true, ..rules() };
        let verdict = |more| asked.identity(claims(more), NOW);
        let client = verdict(json!({"sub": null, "client_id": "ann", "azp": "b"})).expect("an identity");
        assert_eq!(client.subject, "urn:proxyrunner:client:ann");
        assert_eq!(client.claims["sub"], "urn:proxyrunner:client:ann", "policies see it, too");
        assert_eq!(client.client_id.as_deref(), Some("ann"));
        for user in ["ann", "client:ann", "urn:Proxyrunner:client:ann"] {
            let user = verdict(json!({"sub": user, "client_id": "ann"})).expect("an identity");
            assert_ne!(user.principal, client.principal, "{}", user.subject);
        }
        for (more, expected) in [
            (json!({"sub": "urn:proxyrunner:client:ann"}), Reason::Subject),
            (json!({"sub": null}), Reason::Subject),
            (json!({"sub": null, "azp": "b"}), Reason::Subject),
            (json!({"sub": null, "client_id": 7}), Reason::Subject),
            (json!({"sub": null, "client_id": ""}), Reason::Client),
            (json!({"sub": "", "client_id": "ann"}), Reason::Subject),
            (json!({"sub": 7, "client_id": "ann"}), Reason::Subject),
            (json!({"sub": null, "client_id": "ann", "username": "Bob"}), Reason::Subject),
        ] {
            assert_eq!(verdict(more.clone()).err(), Some(expected), "{more}");
        }
    }

    #[test]
    fn scopes_are_words_or_a_list_and_imply_others() {
        let scopes = |more| verdict(more).expect("an identity").scopes;
        assert_eq!(scopes(json!({"scp": ["a b", "c", 7, "c"]})), ["a b", "c"]);
        assert_eq!(scopes(json!({"scope": "", "scp": "a"})), [""; 0]);
        assert_eq!(scopes(json!({"scope": "admin"})), ["admin", "write", "read"]);
        assert_eq!(scopes(json!({"scope": {"a": 1}})), [""; 0]);
    }

    #[test]
    fn groups_and_roles_are_lists() {
        let more = json!({"groups": ["a b", 7, "c"], "realm_access": {"roles": "admin"}});
        let ann = verdict(more).expect("an identity");
        assert_eq!(
            (ann.groups, ann.roles),
            (vec!["a b".to_owned(), "c".to_owned()], vec!["admin".to_owned()])
        );
        let ann = verdict(json!({"groups": {"a": 1}})).expect("an identity");
        assert!(ann.groups.is_empty() && ann.roles.is_empty());
    }

    #[test]
    fn exact_names_precede_paths() {
        let claims = json!({
            "a.b": 1, "a": {"b": 2, "c": {"d": 3}}, "https://x.example/roles": 4, "k8s.io": {"pod": {"x.y": 5}},
        });
        let claims = claims.as_object().expect("an object");
        let found = |name| lookup(claims, name).and_then(Value::as_u64);
        assert_eq!(found("a.b"), Some(1));
        assert_eq!(found("a.c.d"), Some(3));
        assert_eq!(found("https://x.example/roles"), Some(4));
        assert_eq!(found("k8s.io.pod.x.y"), Some(5));
        for absent in ["", "b", "a.c.d.e", "a..b", ".a"] {
            assert_eq!(found(absent), None, "{absent}");
        }
    }

    #[test]
    fn a_malformed_binding_is_not_ignored() {
        for bad in [json!("x"), json!(7), json!("AQAB")] {
            assert_eq!(verdict(json!({"cnf": {"x5t#S256": bad}})).err(), Some(Reason::Claims));
        }
        let both = json!({"x5t#S256": URL_SAFE_NO_PAD.encode([1; 32]), "jkt": "x"});
        for unsupported in [json!({"jkt": "x"}), json!({"jwk": {}}), json!({}), both] {
            assert_eq!(verdict(json!({"cnf": unsupported})).err(), Some(Reason::Binding));
        }
        assert_eq!(verdict(json!({"cnf": "x"})).err(), Some(Reason::Claims));
    }
}
