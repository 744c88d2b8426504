//! Remembers which server a resource belongs to, for each caller, since servers show callers different ones.

use crate::identity::Principal;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// Maximum number of remembered resources. All others are found again by listing.
const MOST: usize = 65_536;

/// The owners of resources.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// By a keyed hash of the caller and the URI.
    known: Mutex<HashMap<u64, Box<str>>>,
    state: RandomState,
}

impl Owners {
    /// Remembers the owner.
    pub fn learn(&self, caller: &Principal, uri: &str, segment: &str) {
        let mut known = self.known.lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(self.state.hash_one((caller.name(), uri)), segment.into());
    }

    /// Returns the owner.
    pub fn of(&self, caller: &Principal, uri: &str) -> Option<Box<str>> {
        self.known.lock().get(&self.state.hash_one((caller.name(), uri))).cloned()
    }

    /// Forgets all owners, since servers have come or gone.
    pub fn forget(&self) {
        self.known.lock().clear();
    }
}

/// Returns whether a URI may be an expansion of a template (RFC 6570): the texts before, between and after its
/// expressions occur in this order.
pub(super) fn matches(template: &str, uri: &str) -> bool {
    let mut literals = Vec::new();
    let mut rest = template;
    while let Some((literal, behind)) = rest.split_once('{') {
        literals.push(literal);
        let Some((_, behind)) = behind.split_once('}') else { return false };
        rest = behind;
    }
    let Some((first, middle)) = literals.split_first() else { return template == uri };
    let Some(mut uri) = uri.strip_prefix(first) else { return false };
    for literal in middle {
        let Some(at) = uri.find(literal) else { return false };
        uri = &uri[at + literal.len()..];
    }
    uri.ends_with(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_of_a_caller() {
        let owners = Owners::default();
        let [ann, bob] = ["ann", "bob"].map(|name| Principal::named(name).expect("a name"));
        owners.learn(&ann, "a:1", "one");
        owners.learn(&bob, "a:1", "two");
        assert_eq!(owners.of(&ann, "a:1").as_deref(), Some("one"));
        assert_eq!(owners.of(&bob, "a:1").as_deref(), Some("two"));
        assert_eq!(owners.of(&ann, "a:2"), None);
        owners.forget();
        assert_eq!(owners.of(&ann, "a:1"), None);
    }

    #[test]
    fn a_template_matches_its_expansions() {
        for (template, uri, expected) in [
            ("file:///{path}", "file:///a/b", true),
            ("file:///{path}", "http:///a", false),
            ("a://{x}/b/{y}.txt", "a://1/b/2.txt", true),
            ("a://{x}/b/{y}.txt", "a://1/c/2.txt", false),
            ("a://{x}/b/{y}.txt", "a://1/b/2.md", false),
            ("a://x", "a://x", true),
            ("a://x", "a://x/y", false),
            ("a://{x", "a://1", false),
        ] {
            assert_eq!(matches(template, uri), expected, "{template} {uri}");
        }
    }
}
