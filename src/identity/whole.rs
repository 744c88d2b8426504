//! A caller's identity as JSON, for the part of a gateway that calls servers in the caller's name, and for other replicas.

use super::{Identity, Means, Principal};
use serde_json::{Value, json};

const MEANS: [Means; 6] =
    [Means::None, Means::Token, Means::Introspection, Means::ApiKey, Means::Certificate, Means::Proxy];

/// Writes everything that a token for a server depends on. An anonymous caller is an empty object.
pub(super) fn write(identity: &Identity) -> Value {
    if identity.principal.is_anonymous() {
        return json!({});
    }
    json!({
        "principal": identity.principal.name(),
        "means": identity.means.name(),
        "issuer": identity.issuer,
        "subject": identity.subject,
        "client_id": identity.client_id,
        "scopes": identity.scopes,
        "groups": identity.groups,
        "roles": identity.roles,
        "expires": identity.expires,
    })
}

impl Identity {
    /// Returns everything that is known of the caller but what only its connection proves, with all claims.
    pub fn with_claims(&self) -> Value {
        let mut whole = write(self);
        if !self.claims.is_empty() {
            whole["claims"] = Value::Object(self.claims.clone());
        }
        whole
    }

    /// Reads the raw JSON that [`Disclosure::whole`](super::Disclosure::whole) or [`Identity::with_claims`] writes; `None` if
    /// it is something else.
    pub fn of_whole(raw: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(raw).ok()?;
        if value.as_object()?.is_empty() {
            return Some(Identity::clone(&Identity::anonymous()));
        }
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let texts = |name: &str| -> Option<Vec<String>> {
            value[name].as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
        };
        let means = MEANS.into_iter().find(|means| Some(means.name()) == value["means"].as_str())?;
        let mut identity =
            Identity::of(Principal::named(value["principal"].as_str()?)?, means, text("subject")?);
        identity.issuer = text("issuer").map(Into::into);
        identity.client_id = text("client_id");
        (identity.scopes, identity.groups, identity.roles) =
            (texts("scopes")?, texts("groups")?, texts("roles")?);
        identity.expires = value["expires"].as_u64();
        if let Some(claims) = value["claims"].as_object() {
            identity.claims.clone_from(claims);
        }
        Some(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(identity: &Identity) -> Option<Identity> {
        Identity::of_whole(write(identity).to_string().as_bytes())
    }

    #[test]
    fn an_identity_is_read_as_it_was_written() {
        let mut ann = Identity::issued(&"https://idp.example".into(), "ann \"é\"", Means::Token);
        ann.client_id = Some("app".to_owned());
        (ann.scopes, ann.groups) = (vec!["a".to_owned(), "b".to_owned()], vec!["g".to_owned()]);
        ann.expires = Some(1_900_000_000);
        assert_eq!(read(&ann), Some(ann.clone()));
        let bob = Identity::named(Principal::named("bob").expect("a name"), Means::Proxy);
        let expected = Identity { claims: serde_json::Map::new(), ..bob.clone() };
        assert_eq!(read(&bob), Some(expected));
        assert_eq!(
            Identity::of_whole(bob.with_claims().to_string().as_bytes()),
            Some(bob),
            "with its claims"
        );
        assert_eq!(read(&Identity::anonymous()), Some(Identity::clone(&Identity::anonymous())));
        for bad in ["", "7", r#"{"principal":"ann"}"#, r#"{"principal":"anonymous","means":"token"}"#] {
            assert_eq!(Identity::of_whole(bad.as_bytes()), None, "{bad}");
        }
    }
}
