//! What one session watches: bounded in number and in bytes, since it is remembered as long as the session lasts, and no
//! part of `--max-buffered`.

use std::collections::BTreeSet;

/// Resources that one session may watch.
const MOST: usize = 64;
/// The bytes of their URIs together.
const MOST_BYTES: usize = 8 * 1024;

/// How much one session watches.
#[derive(Clone, Debug, Default)]
pub(super) struct Load {
    count: usize,
    bytes: usize,
}

impl Load {
    /// One more, if there is room for it.
    pub(super) fn add(&mut self, uri: &str) -> bool {
        let has_room = self.count < MOST && self.bytes + uri.len() <= MOST_BYTES;
        if has_room {
            self.count += 1;
            self.bytes += uri.len();
        }
        has_room
    }

    /// One that was added is watched no longer.
    pub(super) fn remove(&mut self, uri: &str) {
        self.count -= 1;
        self.bytes -= uri.len();
    }
}

/// The resources that one session watches.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    uris: BTreeSet<String>,
    load: Load,
}

impl Watched {
    /// One more, or one that is watched already; false if there is no room for it.
    #[must_use]
    pub fn insert(&mut self, uri: &str) -> bool {
        if self.uris.contains(uri) {
            return true;
        }
        let added = self.load.add(uri);
        if added {
            self.uris.insert(uri.to_owned());
        }
        added
    }

    /// One is watched no longer.
    pub fn remove(&mut self, uri: &str) {
        if self.uris.remove(uri) {
            self.load.remove(uri);
        }
    }

    /// All of them.
    pub fn uris(&self) -> impl Iterator<Item = &str> {
        self.uris.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_and_so_many_bytes() {
        let mut watched = Watched::default();
        assert!((0..64).all(|n| watched.insert(&n.to_string())));
        assert!(watched.insert("7"), "that one is there");
        assert!(!watched.insert("64"));
        watched.remove("never");
        watched.remove("7");
        assert!(watched.insert("64"));

        let mut watched = Watched::default();
        let long = |n: usize| format!("{n}{}", "x".repeat(2 * 1024 - 1));
        assert!((0..4).all(|n| watched.insert(&long(n))));
        assert!(!watched.insert("4"));
        watched.remove(&long(2));
        assert!(watched.insert(&long(5)));
        assert_eq!(watched.uris().count(), 4);
    }
}
