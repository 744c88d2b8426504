//! Who calls: the principal that owns sessions and calls, and what is known of it.

mod disclosure;
mod name;
mod principal;
mod revocation;
#[cfg(feature = "gateway")]
mod whole;

pub use disclosure::{Disclosure, META_PREFIX, VARIABLE_PREFIX, Variables};
pub use name::{LONGEST_NAME, is_name, is_visible};
pub use principal::Principal;
pub use revocation::Revocation;

use serde_json::{Map, Value};
use std::sync::{Arc, LazyLock};

/// Seconds for which tokens are accepted after they expire, since clocks differ.
pub const LEEWAY: u64 = 60;

/// How a caller was identified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Means {
    /// Not at all.
    None,
    /// By a signed token (JWT).
    Token,
    /// By an opaque token that its issuer described (RFC 7662).
    Introspection,
    /// By an API key.
    ApiKey,
    /// By its client certificate.
    Certificate,
    /// By a trusted proxy (`--principal-header`).
    Proxy,
}

impl Means {
    /// Returns the name for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Means::None => "none",
            Means::Token => "token",
            Means::Introspection => "introspection",
            Means::ApiKey => "api_key",
            Means::Certificate => "certificate",
            Means::Proxy => "proxy",
        }
    }
}

/// An identified caller.
///
/// Everything except the principal is empty for an anonymous caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What sessions, calls and limits belong to: issuer and subject together.
    pub principal: Principal,
    /// How the caller was identified.
    pub means: Means,
    /// The issuer of the token.
    pub issuer: Option<Arc<str>>,
    /// The subject within the issuer.
    pub subject: String,
    /// The OAuth client that acts for the subject.
    pub client_id: Option<String>,
    /// The granted scopes, with those that they imply.
    pub scopes: Vec<String>,
    /// The groups, by the claim that the operator names.
    pub groups: Vec<String>,
    /// The roles, by the claim that the operator names.
    pub roles: Vec<String>,
    /// All claims of the token, for policies. `sub` is always present if the caller is identified.
    pub claims: Map<String, Value>,
    /// When the identity expires, in seconds since 1970.
    pub expires: Option<u64>,
    /// Comes when the operator takes the caller's credentials back before they expire.
    pub revoked: Option<Revocation>,
    /// SHA-256 of the client certificate that the token is bound to (RFC 8705 §3.1).
    pub bound_to: Option<[u8; 32]>,
}

impl Identity {
    /// Returns the identity of a caller that named none.
    pub fn anonymous() -> Arc<Self> {
        static ANONYMOUS: LazyLock<Arc<Identity>> =
            LazyLock::new(|| Arc::new(Identity::of(Principal::anonymous(), Means::None, String::new())));
        Arc::clone(&ANONYMOUS)
    }

    /// Returns the identity of a subject of an issuer; claims, scopes and the rest are empty.
    pub fn issued(issuer: &Arc<str>, subject: &str, means: Means) -> Self {
        let mut identity = Identity::of(Principal::issued(issuer, subject), means, subject.to_owned());
        identity.issuer = Some(Arc::clone(issuer));
        identity
    }

    /// Returns the identity of a caller of which only the name is known; its only claim is `sub`.
    pub fn named(principal: Principal, means: Means) -> Self {
        let subject = principal.name().to_owned();
        let mut identity = Identity::of(principal, means, subject.clone());
        identity.claims.insert("sub".to_owned(), Value::String(subject));
        identity
    }

    /// Returns the time from which the caller must identify itself anew, in seconds since 1970.
    pub fn ends(&self) -> Option<u64> {
        let leeway = match self.means {
            Means::Token | Means::Introspection => LEEWAY,
            Means::None | Means::ApiKey | Means::Certificate | Means::Proxy => 0,
        };
        self.expires.map(|expires| expires.saturating_add(leeway))
    }

    fn of(principal: Principal, means: Means, subject: String) -> Self {
        Identity {
            principal,
            means,
            issuer: None,
            subject,
            client_id: None,
            scopes: Vec::new(),
            groups: Vec::new(),
            roles: Vec::new(),
            claims: Map::new(),
            expires: None,
            revoked: None,
            bound_to: None,
        }
    }
}
