//! Remembers the owners of sessions whose ids were opened, because to open one takes longer than to find it here.

use super::forward::Owner;
use crate::identity::Principal;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Maximum number of remembered ids. All others are opened again.
const MOST: usize = 4_096;

/// The owners of sessions by their sealed ids.
#[derive(Debug, Default)]
pub(super) struct Opened(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<Box<str>, Session>,
    /// The number of times that all were forgotten.
    forgotten: u64,
}

#[derive(Debug)]
struct Session {
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
        if let Some(session) = known.by_id.get(id) {
            let is_own = *session.segment == *segment && session.principal == *principal;
            return is_own.then(|| Arc::clone(&session.owner));
        }
        let forgotten = known.forgotten;
        drop(known);
        let owner = Arc::new(open()?);
        let session =
            Session { segment: segment.into(), principal: principal.clone(), owner: Arc::clone(&owner) };
        let mut known = self.0.lock();
        // The key that has opened it may not be valid any more.
        if known.forgotten == forgotten {
            if known.by_id.len() >= MOST {
                known.by_id.clear();
            }
            known.by_id.insert(id.into(), session);
        }
        Some(owner)
    }

    /// Forgets all, since keys were replaced.
    pub(super) fn forget(&self) {
        let mut known = self.0.lock();
        known.by_id.clear();
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
            let owner = || Owner { address: "h:1".into(), inner: HeaderValue::from_static("x") };
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
        opened.forget();
        assert_eq!(open("id", "a", &ann, false), (false, 3));
        let racing = opened.owner("id", "a", &ann, || {
            opened.forget();
            Some(Owner { address: "h:1".into(), inner: HeaderValue::from_static("x") })
        });
        assert!(racing.is_some() && opened.owner("id", "a", &ann, || None).is_none());
    }
}
