//! What the policies have decided on a request before it comes to the server of all servers: members of its `_meta`. By
//! them that server passes only what was decided on, even if servers have come or gone since, and filters lists.

use crate::identity::Identity;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// A request's decision.
pub(crate) struct Decided;

impl Decided {
    /// The key of the digest of what was decided on.
    pub(super) const KEY: &str = "proxyrunner/decided";
    /// The key of the caller's claims.
    pub(super) const CLAIMS: &str = "proxyrunner/claims";

    /// Returns the member for things that were decided on: the server of each, and its name there.
    pub(crate) fn member<'a>(things: impl Iterator<Item = (&'a str, &'a str)>) -> String {
        format!("\"{}\":\"{}\"", Self::KEY, Self::digest(things))
    }

    /// Returns the member for a list, which is filtered by the claims.
    pub(crate) fn claims(identity: &Identity) -> String {
        let claims = serde_json::to_string(&identity.claims).unwrap_or_else(|_| "{}".to_owned());
        format!("\"{}\":{claims}", Self::CLAIMS)
    }

    /// Returns the digest of things, in any order.
    pub(super) fn digest<'a>(things: impl Iterator<Item = (&'a str, &'a str)>) -> String {
        let mut digest = Sha256::new();
        for (server, name) in things.collect::<BTreeSet<_>>() {
            for part in [server, name] {
                digest.update((part.len() as u64).to_le_bytes());
                digest.update(part);
            }
        }
        digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_stands_for_its_things_only() {
        let digest = |things: &[(&str, &str)]| Decided::digest(things.iter().copied());
        let one = digest(&[("a", "bc"), ("d", "e")]);
        assert_eq!(one, digest(&[("d", "e"), ("a", "bc"), ("a", "bc")]));
        for other in [&[("ab", "c"), ("d", "e")][..], &[("a", "bc")], &[("a", "bcd"), ("", "e")], &[]] {
            assert_ne!(one, digest(other), "{other:?}");
        }
    }
}
