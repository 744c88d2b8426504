//! Entries for fuzz targets: what this room makes of bytes from outside.

use super::algorithm::Algorithm;
use super::api_keys::ApiKeys;
use super::claims::Rules;
use super::introspection::verdict;
use super::keys::KeySet;
use super::settings::ClaimNames;
use super::{json, token};
use crate::identity::{Identity, Means};

/// The time of all examinations, in seconds since the epoch.
const NOW: u64 = 1_000_000;

fn rules(asked: bool) -> Rules {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Rules {
        means: Means::Token,
        issuer: "https://a.example".into(),
        audience_claim: "aud".to_owned(),
        audiences: names(&["mcp"]),
        asked,
        audience_optional: false,
        claims: ClaimNames {
            scope: names(&["scope", "scp"]),
            groups: "groups".to_owned(),
            roles: "a.b".to_owned(),
        },
        implies: vec![("a".to_owned(), names(&["b", "a"])), ("b".to_owned(), names(&["a"]))],
    }
}

/// Returns the identity that a token claims, as if its signature were right.
pub fn token_in(token: &str) -> Option<Identity> {
    let parsed = token::parse(token).ok()?;
    assert!(token::is_jwt(token), "a token that can be read is a JWT");
    rules(false).identity(parsed.claims, NOW).ok()
}

/// Returns the numbers of usable keys and of others in a key set.
pub fn key_set_in(document: &[u8]) -> Option<(usize, usize)> {
    let read = KeySet::read(document).ok()?;
    for algorithm in Algorithm::ALL {
        if let Ok(keys) = read.set.find(None, algorithm) {
            assert!(keys.len() <= 10, "few keys are tried");
            for key in &keys {
                assert!(!super::provider::is_signed("a.b", "c2ln", key, algorithm), "nobody has signed this");
            }
        }
    }
    Some((read.set.len(), read.skipped.len()))
}

/// Returns the identity that an answer about a token states.
pub fn introspection_in(answer: &[u8]) -> Option<Identity> {
    verdict(&json::object(answer)?, &rules(true), NOW).ok()
}

/// Returns whether a content is a file of API keys, in which an unknown key is not found.
pub fn api_keys_in(content: &[u8]) -> bool {
    ApiKeys::read(content).is_ok_and(|keys| keys.find(&[0; 32], NOW).is_none())
}
