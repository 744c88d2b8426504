//! Where files are: all below `target/`, which git ignores.

use std::path::{Path, PathBuf};

/// Returns the root of the project.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the path of this program, which is also the child and the floor.
pub fn own() -> String {
    std::env::current_exe().expect("this program").to_str().expect("a path in UTF-8").to_owned()
}

/// Returns the path of proxyrunner's binary: `PROXYRUNNER_BIN`, or the one built with this program.
pub fn proxyrunner() -> PathBuf {
    std::env::var_os("PROXYRUNNER_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_proxyrunner").into(), PathBuf::from)
}

/// Returns the file that a subject writes to while it runs.
pub fn log(subject: &str) -> PathBuf {
    let folder = root().join("target/compare");
    std::fs::create_dir_all(&folder).expect("a folder");
    folder.join(format!("{}.log", subject.replace([' ', '/'], "-")))
}

/// Returns the folder into which the peers are installed.
pub fn tools() -> PathBuf {
    root().join("target/tools")
}

/// Returns the file with the results.
pub fn results() -> PathBuf {
    root().join("target/performance.json")
}
