//! The architecture, as a table of layers: a room imports from the rooms below it, never from one beside or above.

use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom up; rooms of one layer are siblings that never meet.
const LAYERS: &[&[&str]] = &[
    &["client", "clock", "memory", "proc", "sync", "trace_context"],
    &["budget"],
    &["jsonrpc", "framing", "phase", "pulse", "shutdown", "signals", "telemetry"],
    &["mux", "lifecycle", "admission", "export"],
    &["exchange"],
    &["session"],
    &["era"],
    &["child", "router"],
    &["ingress", "inquiry"],
    &["catalogue"],
    &["children"],
    &["calls"],
    &["upstream"],
    &["http", "supervisor"],
    &["config"],
    &["app"],
    &["main"],
];

fn sources() -> Vec<PathBuf> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found.sort();
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The room that a file belongs to: the first part of its path. A room's unit tests are bound as it is.
fn room(path: &Path) -> String {
    let first = path.strip_prefix(root()).expect("a source").components().next().expect("a name");
    let name = first.as_os_str().to_string_lossy();
    name.trim_end_matches(".rs").trim_end_matches("_tests").to_owned()
}

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.contains(&room))
}

/// The rooms that a source names by `crate::` or `proxyrunner::`, without what stands in comments.
fn imports(source: &str) -> Vec<String> {
    let code: String =
        source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for prefix in ["crate::", "proxyrunner::"] {
        for (at, _) in code.match_indices(prefix) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            found.extend(names(&code[at + prefix.len()..]));
        }
    }
    found
}

/// The name a path begins with, or all that stand in its braces.
fn names(path: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![word(path)] };
    let mut depth = 0;
    let mut names = vec![String::new()];
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(String::new()),
            c => names.last_mut().expect("one at least").push(c),
        }
    }
    names.iter().map(|name| word(name.trim())).filter(|name| !name.is_empty()).collect()
}

#[test]
fn rooms_import_only_from_below() {
    let mut wrong = Vec::new();
    for path in sources() {
        let own = room(&path);
        if own == "lib" {
            continue;
        }
        let from = layer(&own).unwrap_or_else(|| panic!("{own} has no place in the table"));
        for import in imports(&fs::read_to_string(&path).expect("a source")) {
            let to = layer(&import);
            if import != own && to.is_some_and(|to| to >= from) {
                wrong.push(format!("{}: {own} imports {import}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_room_has_its_place_and_every_place_its_room() {
    let rooms: Vec<String> = sources().iter().map(|path| room(path)).filter(|room| room != "lib").collect();
    for known in LAYERS.iter().copied().flatten() {
        assert!(rooms.iter().any(|room| room == known), "{known} is in the table only");
    }
    let unknown: Vec<_> = rooms.iter().filter(|room| layer(room).is_none()).collect();
    assert!(unknown.is_empty(), "{unknown:?} are in no layer");
}

#[test]
fn every_file_says_what_it_owns() {
    for path in sources() {
        let source = fs::read_to_string(&path).expect("a source");
        assert!(source.starts_with("//! "), "{} does not begin with //!", path.display());
    }
}

#[test]
fn imports_are_found_however_they_are_written() {
    let source = "use crate::mux::{self, Mux};\nuse crate::{phase, http::{self, Server}, telemetry};\n// crate::app\n\
                  fn f() { crate::session::x(); my_crate::config::y(); } use proxyrunner::upstream;";
    assert_eq!(imports(source), ["mux", "phase", "http", "telemetry", "session", "upstream"]);
}

/// The page for operators names the test of each fault; one that is renamed would leave it telling of nothing.
#[test]
fn the_tests_that_the_reliability_page_names_are_there() {
    let root = env!("CARGO_MANIFEST_DIR");
    let page = std::fs::read_to_string(format!("{root}/docs/reliability.md")).expect("the page");
    let words = page.split('`').filter_map(|word| word.split_once("::"));
    let named: Vec<_> =
        words.filter(|(_, name)| name.chars().all(|c| c == '_' || c.is_alphanumeric())).collect();
    assert!(named.len() > 20, "{named:?}");
    for (file, name) in named {
        let tests = std::fs::read_to_string(format!("{root}/tests/integration/{file}.rs"));
        let is_there = match &tests {
            Ok(tests) => tests.contains(&format!("fn {name}(")),
            // A module of unit tests.
            Err(_) => std::path::Path::new(&format!("{root}/src/{file}/{name}.rs")).exists(),
        };
        assert!(is_there, "{file}::{name} is no test");
    }
}
