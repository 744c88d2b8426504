//! The resources that one session watches: bounded in number and bytes, since they are kept as long as the session
//! lasts and are not part of `--max-buffered`.

use std::collections::BTreeSet;

/// Limit on the resources that one session may watch.
const MAX_COUNT: usize = 64;
/// Limit on the bytes of their URIs.
const MAX_BYTES: usize = 8 * 1024;

/// The number and bytes of the URIs that one session watches.
#[derive(Clone, Debug, Default)]
pub(super) struct WatchLoad {
    count: usize,
    bytes: usize,
}

impl WatchLoad {
    /// Adds a URI; returns false if a limit is reached.
    pub(super) fn add(&mut self, uri: &str) -> bool {
        let has_room = self.count < MAX_COUNT && self.bytes + uri.len() <= MAX_BYTES;
        if has_room {
            self.count += 1;
            self.bytes += uri.len();
        }
        has_room
    }

    /// Removes a URI that was added before.
    pub(super) fn remove(&mut self, uri: &str) {
        self.count -= 1;
        self.bytes -= uri.len();
    }
}

/// The URIs of the resources that one session watches.
#[derive(Clone, Debug, Default)]
pub struct WatchedResources {
    uris: BTreeSet<String>,
    load: WatchLoad,
}

impl WatchedResources {
    /// Adds a resource; returns false if a limit is reached. A resource that is already watched needs no room.
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

    /// Removes a resource.
    pub fn remove(&mut self, uri: &str) {
        if self.uris.remove(uri) {
            self.load.remove(uri);
        }
    }

    /// Returns the URIs of all watched resources.
    pub fn uris(&self) -> impl Iterator<Item = &str> {
        self.uris.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_limited_in_number_and_in_bytes() {
        let mut watched = WatchedResources::default();
        assert!((0..64).all(|n| watched.insert(&n.to_string())));
        assert!(watched.insert("7"), "already watched");
        assert!(!watched.insert("64"));
        watched.remove("never");
        watched.remove("7");
        assert!(watched.insert("64"));

        let mut watched = WatchedResources::default();
        let long = |n: usize| format!("{n}{}", "x".repeat(2 * 1024 - 1));
        assert!((0..4).all(|n| watched.insert(&long(n))));
        assert!(!watched.insert("4"));
        watched.remove(&long(2));
        assert!(watched.insert(&long(5)));
        assert_eq!(watched.uris().count(), 4);
    }
}
