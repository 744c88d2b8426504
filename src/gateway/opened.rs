//! Remembers the owners of sessions whose ids were opened, because to open one takes longer than to find it here.

use super::forward::Owner;
use crate::identity::Principal;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// Maximum number of remembered ids. All others are opened again.
const MOST: usize = 4_096;

/// Mixes a number. Only ids that have opened become keys, so nobody can choose them.
#[derive(Debug, Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Returns the end of an id, which is a part of its seal and differs from that of any other id.
fn end_of(id: &str) -> u64 {
    id.as_bytes().last_chunk().map_or(0, |end| u64::from_le_bytes(*end))
}

/// The owners of sessions by their sealed ids.
#[derive(Debug, Default)]
pub(super) struct Opened(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_end: HashMap<u64, Session, BuildHasherDefault<Mixed>>,
    /// The number of times that all were forgotten.
    forgotten: u64,
}

#[derive(Debug)]
struct Session {
    /// The sealed id.
    id: Box<str>,
    /// The server and the caller, for whom alone the id opens.
    segment: Box<str>,
    principal: Principal,
    owner: Arc<Owner>,
}

impl Opened {
    /// Returns the owner of a session. An id that is not remembered is opened, and `None` if it does not open.
    pub(super) fn owner(
        &self,
        id: &str,
        segment: &str,
        principal: &Principal,
        open: impl FnOnce() -> Option<Owner>,
    ) -> Option<Arc<Owner>> {
        let known = self.0.lock();
        if let Some(session) = known.by_end.get(&end_of(id)).filter(|session| *session.id == *id) {
            let is_own = *session.segment == *segment && session.principal == *principal;
            return is_own.then(|| Arc::clone(&session.owner));
        }
        let forgotten = known.forgotten;
        drop(known);
        let owner = Arc::new(open()?);
        let (segment, principal) = (segment.into(), principal.clone());
        let session = Session { id: id.into(), segment, principal, owner: Arc::clone(&owner) };
        let mut known = self.0.lock();
        // The key that has opened it may not be valid any more.
        if known.forgotten == forgotten {
            if known.by_end.len() >= MOST {
                known.by_end.clear();
            }
            known.by_end.insert(end_of(id), session);
        }
        Some(owner)
    }

    /// Forgets all, since keys were replaced.
    pub(super) fn forget(&self) {
        let mut known = self.0.lock();
        known.by_end.clear();
        known.forgotten += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn an_owner_is_remembered_for_its_server_and_its_caller_until_keys_change() {
        let (opened, mut times) = (Opened::default(), 0);
        let [ann, bob] = ["ann", "bob"].map(|name| Principal::named(name).expect("a name"));
        let mut open = |id: &str, segment: &str, principal: &Principal, opens: bool| {
            let owner =
                || Owner { address: "h:1".into(), inner: HeaderValue::from_static("x"), resumes: false };
            let open = || {
                times += 1;
                opens.then(owner)
            };
            (opened.owner(id, segment, principal, open).is_some(), times)
        };
        assert_eq!(open("id", "a", &ann, false), (false, 1));
        assert_eq!(open("id", "a", &ann, true), (true, 2));
        assert_eq!(open("id", "a", &ann, false), (true, 2));
        assert_eq!(open("id", "a", &bob, true), (false, 2));
        assert_eq!(open("id", "b", &ann, true), (false, 2));
        // Neither a shorter id nor one with the same end is the same.
        assert_eq!(open("i", "a", &ann, false), (false, 3));
        for (times, id) in [(4, "another-12345678"), (5, "one-12345678"), (5, "one-12345678")] {
            assert_eq!(open(id, "a", &ann, true), (true, times), "{id}");
        }
        assert_eq!(open("another-12345678", "a", &ann, false), (false, 6));
        assert_eq!(open("id", "a", &ann, false), (true, 6));
        opened.forget();
        assert_eq!(open("id", "a", &ann, false), (false, 7));
        let racing = opened.owner("id", "a", &ann, || {
            opened.forget();
            Some(Owner { address: "h:1".into(), inner: HeaderValue::from_static("x"), resumes: false })
        });
        assert!(racing.is_some() && opened.owner("id", "a", &ann, || None).is_none());
    }
}
