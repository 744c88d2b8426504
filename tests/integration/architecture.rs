//! The architecture as a table of layers: a room imports only from rooms in lower layers, and the files of a room do
//! not import each other in cycles.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

/// The layers from the bottom up. Rooms of the same layer do not import each other.
const LAYERS: &[&[&str]] = &[
    &["sorted", "tasks"],
    &["aside", "backoff", "client", "clock", "memory", "mounted", "proc", "sync", "trace_context", "yaml"],
    &["budget", "identity", "outbound"],
    &["jsonrpc", "framing", "phase", "pulse", "shutdown", "signals", "telemetry"],
    &["audit", "redis"],
    &["mux", "lifecycle", "admission", "auth", "export", "policy", "registration", "tls"],
    &["exchange", "limits"],
    &["audience"],
    &["session"],
    &["era"],
    &["child", "remote", "router"],
    &["ingress", "inquiry"],
    &["catalogue"],
    &["children"],
    &["calls"],
    &["gateway", "upstream"],
    &["http", "supervisor"],
    &["config", "inject"],
    &["app", "commands"],
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

/// Returns the room of a file: the first part of its path. Unit tests obey the same rules as their room.
fn room(path: &Path) -> String {
    let first = path.strip_prefix(root()).expect("a source").components().next().expect("a name");
    let name = first.as_os_str().to_string_lossy();
    name.trim_end_matches(".rs").trim_end_matches("_tests").to_owned()
}

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.contains(&room))
}

/// Returns the rooms that a source names by `crate::` or `proxyrunner::` outside comments.
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

/// Returns the first name of a path, or all names in its braces.
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

/// Known cycles between files, by room. This list may only shrink, and must never contain `http` or `app`.
const KNOWN_CYCLES: &[&str] =
    &["calls: legacy legacy::asking legacy::translation", "calls: modern modern::task"];

/// The files of `src` by module path, for finding the imports within each room.
struct Files {
    sources: BTreeMap<String, String>,
    /// Names that a module re-exports by `pub use`, with the paths that they stand for. A re-export is not a dependency
    /// of its module: a file that imports the name depends on the file that defines it.
    passed_on: BTreeMap<String, (String, String)>,
}

impl Files {
    fn read() -> Self {
        let mut files = Files { sources: BTreeMap::new(), passed_on: BTreeMap::new() };
        for path in sources().iter().filter(|path| !is_test(path)) {
            let source = fs::read_to_string(path).expect("a source");
            files.add(&module(path), &source);
        }
        files
    }

    fn add(&mut self, module: &str, source: &str) {
        let code: Vec<_> = source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
        let code = code.join("\n");
        let own_tests = ["#[cfg(test)]\nmod tests", "#[cfg(test)]\npub(super) mod tests"];
        let code = own_tests.iter().fold(&*code, |code, tests| code.split(tests).next().unwrap_or_default());
        // A visibility is not a dependency.
        let code = code.replace("pub(in crate::", "pub(in ");
        let mut kept = String::new();
        for (at, part) in code.split(';').enumerate() {
            let statement = part.trim_start();
            let passes_on = statement.starts_with("pub") && statement.contains(" use ");
            if !passes_on {
                kept.push_str(if at == 0 { "" } else { ";" });
                kept.push_str(part);
                continue;
            }
            let tree = statement.split_once(" use ").expect("found above").1;
            for path in expand(tree) {
                let name = path.rsplit("::").next().unwrap_or_default();
                self.passed_on.insert(format!("{module}::{name}"), (module.to_owned(), path));
            }
        }
        self.sources.insert(module.to_owned(), kept);
    }

    /// Returns the modules of the same room that a module depends on.
    fn imports(&self, module: &str) -> BTreeSet<String> {
        let code = &self.sources[module];
        let mut paths = Vec::new();
        let mut rest = String::new();
        for (at, part) in code.split("use ").enumerate() {
            let is_import = at > 0 && part.contains(';');
            if is_import {
                let (tree, after) = part.split_once(';').expect("found above");
                paths.extend(expand(tree));
                rest.push_str(after);
            } else {
                rest.push_str(part);
            }
        }
        let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        paths.extend(rest.split(|c| !is_word(c)).filter(|word| word.contains("::")).map(str::to_owned));
        let room = module.split("::").next().unwrap_or_default();
        let found = paths.iter().filter_map(|path| self.resolve(module, path));
        found.filter(|found| found != module && found.split("::").next() == Some(room)).collect()
    }

    /// Returns the module that defines the item at a path, as seen from `module`.
    fn resolve(&self, module: &str, path: &str) -> Option<String> {
        let mut names: VecDeque<_> = path.split("::").collect();
        let mut base: Vec<_> = module.split("::").collect();
        match *names.front()? {
            "crate" => {
                names.pop_front();
                base.clear();
            }
            "self" | "super" => {
                while let Some(&name @ ("self" | "super")) = names.front() {
                    names.pop_front();
                    if name == "super" {
                        base.pop();
                    }
                }
            }
            first if self.sources.contains_key(&format!("{module}::{first}")) => {}
            _ => return None,
        }
        base.extend(names);
        (1..=base.len()).rev().find_map(|length| {
            let name = base[..length].join("::");
            if self.sources.contains_key(&name) {
                return Some(name);
            }
            let (by, path) = self.passed_on.get(&name)?;
            self.resolve(by, path)
        })
    }

    /// Returns the groups of modules in which each module reaches every other.
    fn cycles(&self) -> BTreeSet<String> {
        let imports: BTreeMap<_, _> =
            self.sources.keys().map(|module| (module.as_str(), self.imports(module))).collect();
        let reached = |from: &str| {
            let (mut reached, mut ahead) = (BTreeSet::new(), vec![from.to_owned()]);
            while let Some(next) = ahead.pop() {
                ahead.extend(
                    imports[next.as_str()].iter().filter(|to| reached.insert((*to).clone())).cloned(),
                );
            }
            reached
        };
        let reached: BTreeMap<_, _> = imports.keys().map(|module| (*module, reached(module))).collect();
        let group = |module: &str| {
            let others = reached[module].iter().filter(|other| reached[other.as_str()].contains(module));
            let room = module.split("::").next().unwrap_or_default();
            let name =
                |other: &String| match other.strip_prefix(room).map(|name| name.trim_start_matches("::")) {
                    Some("") | None => "mod".to_owned(),
                    Some(name) => name.to_owned(),
                };
            let names: BTreeSet<_> = others.map(name).collect();
            (!names.is_empty()).then(|| format!("{room}: {}", Vec::from_iter(names).join(" ")))
        };
        self.sources.keys().filter_map(|module| group(module)).collect()
    }
}

fn is_test(path: &Path) -> bool {
    let name = path.file_stem().expect("a name").to_string_lossy();
    name == "lib" || name == "tests" || name.ends_with("_tests") || name == "fixtures"
}

/// Returns the path of a file's module, without `crate`.
fn module(path: &Path) -> String {
    let path = path.strip_prefix(root()).expect("a source").with_extension("");
    let names: Vec<_> = path.iter().map(|name| name.to_string_lossy()).filter(|name| name != "mod").collect();
    names.join("::")
}

/// Returns the paths in a `use` tree.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((prefix, group)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().trim().to_owned()];
    };
    let mut depth = 0;
    let mut parts = vec![String::new()];
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        parts.last_mut().expect("one at least").push(c);
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| expand(part)).map(|path| format!("{}{path}", prefix.trim())).collect()
}

/// Returns whether all files of a cycle belong to one known cycle.
fn is_part(cycle: &str, known: &str) -> bool {
    let (Some((room, files)), Some((known_room, known))) = (cycle.split_once(": "), known.split_once(": "))
    else {
        return false;
    };
    room == known_room && files.split(' ').all(|file| known.split(' ').any(|known| known == file))
}

#[test]
fn files_of_a_room_do_not_import_each_other_in_cycles() {
    let cycles = Files::read().cycles();
    let is_known = |cycle: &&String| KNOWN_CYCLES.iter().any(|known| is_part(cycle, known));
    let new: Vec<_> = cycles.iter().filter(|cycle| !is_known(cycle)).collect();
    assert!(new.is_empty(), "{new:#?}");
    let cut: Vec<_> =
        KNOWN_CYCLES.iter().filter(|known| !cycles.iter().any(|cycle| is_part(cycle, known))).collect();
    assert!(cut.is_empty(), "these cycles no longer exist; remove them from the list: {cut:#?}");
}

#[test]
fn cycles_are_found_through_reexports() {
    let mut files = Files { sources: BTreeMap::new(), passed_on: BTreeMap::new() };
    files.add("room", "mod a; mod b; mod c;\npub use a::A;\npub(crate) use c::{C, c as d};\npub struct Own;");
    files.add(
        "room::a",
        "use super::b::{self, B};\nstruct A;\n#[cfg(test)]\nmod tests { use super::super::c; }",
    );
    files.add("room::b", "use super::{A, Own};\n// use super::c;");
    files.add("room::c", "fn c() { crate::room::b::B::new(); other::room::Own; }");
    assert_eq!(Vec::from_iter(files.imports("room::a")), ["room::b"]);
    assert_eq!(Vec::from_iter(files.imports("room::b")), ["room", "room::a"]);
    assert_eq!(Vec::from_iter(files.imports("room::c")), ["room::b"]);
    assert_eq!(Vec::from_iter(files.cycles()), ["room: a b"]);
}

#[test]
fn rooms_import_only_from_lower_layers() {
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
fn the_table_lists_exactly_the_existing_rooms() {
    let rooms: Vec<String> = sources().iter().map(|path| room(path)).filter(|room| room != "lib").collect();
    for known in LAYERS.iter().copied().flatten() {
        assert!(rooms.iter().any(|room| room == known), "{known} is in the table but not in src");
    }
    let unknown: Vec<_> = rooms.iter().filter(|room| layer(room).is_none()).collect();
    assert!(unknown.is_empty(), "{unknown:?} are not in the table");
}

#[test]
fn every_file_has_a_module_comment() {
    for path in sources() {
        let source = fs::read_to_string(&path).expect("a source");
        assert!(source.starts_with("//! "), "{} does not begin with //!", path.display());
    }
}

#[test]
fn imports_are_found_in_every_syntax() {
    let source = "use crate::mux::{self, Mux};\nuse crate::{phase, http::{self, Server}, telemetry};\n// crate::app\n\
                  fn f() { crate::session::x(); my_crate::config::y(); } use proxyrunner::upstream;";
    assert_eq!(imports(source), ["mux", "phase", "http", "telemetry", "session", "upstream"]);
}

/// The page for operators cites the test of each fault; a renamed test must be renamed there, too.
#[test]
fn tests_cited_in_reliability_md_exist() {
    let root = env!("CARGO_MANIFEST_DIR");
    let page = std::fs::read_to_string(format!("{root}/docs/reliability.md")).expect("the page");
    let words = page.split('`').filter_map(|word| word.split_once("::"));
    let named: Vec<_> =
        words.filter(|(_, name)| name.chars().all(|c| c == '_' || c.is_alphanumeric())).collect();
    assert!(named.len() > 20, "{named:?}");
    for (file, name) in named {
        // The citation may follow a command.
        let file = file.rsplit(' ').next().unwrap_or(file);
        let tests = std::fs::read_to_string(format!("{root}/tests/integration/{file}.rs"));
        let is_there = match &tests {
            Ok(tests) => tests.contains(&format!("fn {name}(")),
            // The citation names a module of unit tests.
            Err(_) => std::path::Path::new(&format!("{root}/src/{file}/{name}.rs")).exists(),
        };
        assert!(is_there, "{file}::{name} is not a test");
    }
}
