//! Mints the tokens by which servers learn who calls: short-lived, of one server each, signed by the gateway's own key. A
//! caller's own token never goes on.

use super::key::Keys;
use crate::identity::{Identity, LONGEST_NAME};
use parking_lot::{Mutex, RwLock};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Validity of a token, in seconds.
const LIFE: u64 = 5 * 60;
/// Rest of the validity at which a token is replaced.
const REST: u64 = 60;
/// Maximum number of kept tokens.
const MOST: usize = 4_096;
/// Maximum size of all kept tokens, with their claims.
const MOST_BYTES: usize = 8 << 20;
/// Maximum length of the claims. A token of them fits into the headers that servers accept.
const LONGEST: usize = 8 << 10;
/// The subject of callers that were not identified.
const ANONYMOUS: &str = "anonymous";

/// The claims of a caller are too long for a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the caller's scopes, groups and roles are longer than 8 KiB")
    }
}

impl std::error::Error for TooLong {}

/// Mints tokens.
pub(crate) struct Minter {
    /// The gateway's URL, without a slash at its end.
    issuer: String,
    keys: RwLock<Arc<Keys>>,
    /// The number of times that the keys were replaced.
    replaced: AtomicU64,
    kept: Mutex<Kept>,
}

/// A token, and how long it may be given out.
#[derive(Clone, Debug)]
pub(crate) struct Minted {
    /// The token.
    pub token: Arc<str>,
    /// When it expires, in seconds since 1970.
    until: u64,
    /// The number of times that the keys had been replaced before.
    replaced: u64,
}

impl fmt::Debug for Minter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Minter({:?})", self.issuer)
    }
}

/// Tokens by their claims, except for the times.
#[derive(Default)]
struct Kept {
    by_claims: HashMap<Arc<str>, (Arc<str>, u64)>,
    /// The claims in `by_claims`, oldest first.
    order: VecDeque<Arc<str>>,
    bytes: usize,
}

impl Minter {
    /// Creates a minter of this issuer.
    pub(crate) fn new(issuer: &str, keys: Keys) -> Self {
        let issuer = issuer.trim_end_matches('/').to_owned();
        Minter {
            issuer,
            keys: RwLock::new(Arc::new(keys)),
            replaced: AtomicU64::new(0),
            kept: Mutex::default(),
        }
    }

    /// Returns the issuer of the tokens.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Returns the audience of a server that trusts the gateway's own URL of it.
    pub(crate) fn audience(&self, segment: &str) -> String {
        format!("{}/servers/{segment}/mcp", self.issuer)
    }

    /// Replaces the keys. Tokens of the former ones are not given out any more.
    pub(crate) fn replace(&self, keys: Keys) {
        let mut current = self.keys.write();
        *current = Arc::new(keys);
        self.replaced.fetch_add(1, Ordering::SeqCst);
        // Under the same lock, so that no token of the former keys is kept afterwards.
        *self.kept.lock() = Kept::default();
    }

    /// Returns the public keys.
    pub(crate) fn key_set(&self) -> String {
        self.keys.read().set()
    }

    /// Returns the metadata of the issuer (OpenID Connect Discovery §3), which name the key set. The gateway issues no
    /// tokens to clients, so they name no other endpoint.
    pub(crate) fn metadata(&self) -> String {
        let metadata = json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{}/.well-known/jwks.json", self.issuer),
            "response_types_supported": [],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["EdDSA"],
        });
        metadata.to_string()
    }

    /// Returns a token that tells a server who calls. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// When the claims are too long.
    pub(crate) fn token(&self, caller: &Identity, audiences: &[String], now: u64) -> Result<Minted, TooLong> {
        let claims = self.claims(caller, audiences);
        if claims.len() > LONGEST || subject(caller).len() > LONGEST_NAME {
            return Err(TooLong);
        }
        // Held until the token is kept: see `replace`.
        let keys = self.keys.read();
        let replaced = self.replaced.load(Ordering::SeqCst);
        if let Some((token, until)) = self.kept.lock().by_claims.get(&*claims)
            && now + REST < *until
        {
            return Ok(Minted { token: Arc::clone(token), until: *until, replaced });
        }
        // The caller's own expiry is not exceeded, except for the minute by which clocks may differ.
        let until = caller.expires.map_or(now + LIFE, |expires| expires.clamp(now + REST, now + LIFE));
        let id = fastrand::u128(..);
        let open = claims.trim_end_matches('}');
        let token = keys.sign(&format!(r#"{open},"iat":{now},"exp":{until},"jti":"{id:032x}"}}"#));
        let token = Arc::<str>::from(token);
        self.kept.lock().keep(claims.into(), Arc::clone(&token), until);
        Ok(Minted { token, until, replaced })
    }

    /// Returns whether a token may still be given out.
    pub(crate) fn is_fresh(&self, minted: &Minted, now: u64) -> bool {
        now + REST < minted.until && minted.replaced == self.replaced.load(Ordering::SeqCst)
    }

    /// Returns the claims without times. Members come in a fixed order, so that equal callers have equal claims.
    fn claims(&self, caller: &Identity, audiences: &[String]) -> String {
        let mut claims = Map::new();
        let audience = match audiences {
            [only] => only.as_str().into(),
            several => several.into(),
        };
        claims.insert("iss".to_owned(), self.issuer.as_str().into());
        claims.insert("aud".to_owned(), audience);
        claims.insert("sub".to_owned(), subject(caller).into());
        // RFC 9068 §2.2 demands a client. Where none is known, the gateway is the client.
        let client = caller.client_id.as_deref().unwrap_or(&self.issuer);
        claims.insert("client_id".to_owned(), client.into());
        if !caller.scopes.is_empty() {
            claims.insert("scope".to_owned(), caller.scopes.join(" ").into());
        }
        for (name, values) in [("groups", &caller.groups), ("roles", &caller.roles)] {
            if !values.is_empty() {
                claims.insert(name.to_owned(), values.as_slice().into());
            }
        }
        Value::Object(claims).to_string()
    }
}

/// Begins the issuers that stand for proxyrunner's own means, such as API keys.
const OWN: &str = "urn:proxyrunner:";

/// Returns the subject: `https://idp.example#ann`. No issuer contains the character between issuer and subject, so no two
/// callers have the same one. A caller that a proxy, an API key or a certificate names has the means in place of the issuer: `proxy#ann`.
pub(super) fn subject(caller: &Identity) -> String {
    if caller.principal.is_anonymous() {
        return ANONYMOUS.to_owned();
    }
    // What proxyrunner itself issues is told by its means, too: servers accept no subject with a name of its own.
    let issuer = caller.issuer.as_deref().filter(|issuer| !issuer.starts_with(OWN));
    let issuer = issuer.unwrap_or(caller.means.name());
    format!("{issuer}#{}", caller.subject)
}

impl Kept {
    fn keep(&mut self, claims: Arc<str>, token: Arc<str>, until: u64) {
        self.bytes += claims.len() + token.len();
        match self.by_claims.insert(Arc::clone(&claims), (token, until)) {
            Some((former, _)) => self.bytes -= claims.len() + former.len(),
            None => self.order.push_back(claims),
        }
        while self.order.len() > MOST || self.bytes > MOST_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some((token, _)) = self.by_claims.remove(&oldest) {
                self.bytes -= oldest.len() + token.len();
            }
        }
    }
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
