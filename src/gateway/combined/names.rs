//! The names of tools and prompts among those of all servers: `server__tool`, unless there is one server only.

use super::super::directory::{Server, Snapshot};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// Stands between the server and its tool.
const BETWEEN: &str = "__";
/// Maximum length of a name (2026-07-28 server/tools §Tool Names).
const LONGEST: usize = 128;
/// Number of digits that tell shortened names apart.
const DIGITS: usize = 10;
/// Maximum number of remembered shortened names. They are found again by listing.
const MOST: usize = 16_384;

/// What shortened names stand for.
#[derive(Debug, Default)]
pub(super) struct Shortened(Mutex<HashMap<String, (Box<str>, String)>>);

/// What a name among those of all servers stands for.
#[derive(Debug)]
pub(super) struct Found {
    /// The server.
    pub server: Arc<Server>,
    /// The name at the server, before renames.
    pub name: String,
    /// Whether it may be a shortened name that is not remembered.
    pub is_doubtful: bool,
}

impl Shortened {
    /// Returns the name of a server's tool or prompt among those of all `servers`.
    pub fn shown<'a>(&self, servers: &Snapshot, server: &Server, name: &'a str) -> Cow<'a, str> {
        if servers.len() == 1 {
            return name.into();
        }
        let segment = &server.about.segment;
        let whole = format!("{segment}{BETWEEN}{name}");
        // A name that ends as if it were shortened could be that of another server's tool.
        let is_own = |found: &Found| found.server.about.segment == *segment && found.name == name;
        let is_found = |found: Found| is_own(&found) && !found.is_doubtful;
        if whole.len() <= LONGEST && self.find(servers, &whole).is_some_and(is_found) {
            return whole.into();
        }
        let digest = Sha256::digest([segment.as_bytes(), b"\0", name.as_bytes()].concat());
        let digits = digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let room = LONGEST - DIGITS - 1;
        let head = &whole[..whole.floor_char_boundary(room)];
        let short = format!("{head}_{}", &digits[..DIGITS]);
        let mut known = self.0.lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(short.clone(), (segment.clone(), name.to_owned()));
        short.into()
    }

    /// Returns what a name stands for.
    pub fn find(&self, servers: &Snapshot, shown: &str) -> Option<Found> {
        if servers.len() == 1 {
            let server = servers.values().next().map(Arc::clone)?;
            return Some(Found { server, name: shown.to_owned(), is_doubtful: false });
        }
        if let Some((segment, name)) = self.0.lock().get(shown) {
            let server = servers.get(segment).map(Arc::clone)?;
            return Some(Found { server, name: name.clone(), is_doubtful: false });
        }
        // The name of a server may end with an underscore, and that of a tool begin with one.
        let mut cuts = shown.match_indices('_').filter(|(at, _)| shown[*at..].starts_with(BETWEEN));
        let (server, name) = cuts.find_map(|(at, _)| {
            let server = servers.get(&shown[..at]).map(Arc::clone)?;
            Some((server, &shown[at + BETWEEN.len()..]))
        })?;
        let digits = name.rsplit_once('_').map_or("", |(_, digits)| digits);
        let is_doubtful = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        Some(Found { server, name: name.to_owned(), is_doubtful })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::directory::{Directory, about};
    use super::*;

    fn servers(names: &[&str]) -> Arc<Snapshot> {
        let directory = Directory::default();
        directory.replace(names.iter().map(|name| (about(name), None)).collect());
        directory.snapshot()
    }

    #[test]
    fn every_name_leads_back_to_its_tool() {
        let long = "x".repeat(200);
        let names = ["echo", "_echo", "__echo", "a__b", "é", "", &long, &format!("{long}y")];
        for fleet in [&["a"][..], &["a", "a_", "b"], &["a", "a_", "a.b"]] {
            let (servers, shortened) = (servers(fleet), Shortened::default());
            let mut seen = std::collections::BTreeSet::new();
            for server in servers.values() {
                for name in names {
                    let shown = shortened.shown(&servers, server, name).into_owned();
                    assert!(fleet.len() == 1 || shown.len() <= LONGEST, "{shown}");
                    let found = shortened.find(&servers, &shown).expect("a server");
                    assert_eq!((&*found.server.about.segment, &*found.name), (&*server.about.segment, name));
                    assert_eq!(shown, shortened.shown(&servers, server, name), "it is stable");
                    assert!(seen.insert(shown), "it is unique");
                }
            }
        }
    }

    #[test]
    fn no_name_can_be_chosen_to_be_that_of_another_servers_tool() {
        let servers = servers(&["a", "a_"]);
        let victim = Shortened::default().shown(&servers, &servers["a_"], "x").into_owned();
        let forged = victim.strip_prefix("a__").expect("the other server's name");
        for is_first in [true, false] {
            let shortened = Shortened::default();
            if is_first {
                assert_ne!(shortened.shown(&servers, &servers["a"], forged), victim);
            }
            assert_eq!(shortened.shown(&servers, &servers["a_"], "x"), victim);
            let shown = shortened.shown(&servers, &servers["a"], forged).into_owned();
            assert_ne!(shown, victim);
            let found = shortened.find(&servers, &shown).expect("a server");
            assert_eq!((&*found.server.about.segment, &*found.name), ("a", forged));
            assert_eq!(&*shortened.find(&servers, &victim).expect("a server").server.about.segment, "a_");
        }
    }

    #[test]
    fn a_shortened_name_is_the_same_in_every_process_and_doubtful_until_it_is_known() {
        let servers = servers(&["a", "b"]);
        let name = "x".repeat(200);
        let shown = Shortened::default().shown(&servers, &servers["a"], &name).into_owned();
        let other = Shortened::default();
        assert!(other.find(&servers, &shown).expect("a server").is_doubtful);
        assert_eq!(other.shown(&servers, &servers["a"], &name), shown);
        assert_eq!(other.find(&servers, &shown).expect("a server").name, name);
        assert!(!other.find(&servers, "a__echo").expect("a server").is_doubtful);
        for unknown in ["echo", "c__echo", "", "a_echo", "A__echo"] {
            assert!(other.find(&servers, unknown).is_none(), "{unknown}");
        }
    }
}
