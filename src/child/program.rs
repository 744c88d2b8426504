//! Finds the program of a server.

use super::Settings;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Returns the program's path, looked up in proxyrunner's own PATH: the child may have another one, or none.
pub(super) fn find(settings: &Settings) -> PathBuf {
    let name = Path::new(&settings.program);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_executable =
        |path: &PathBuf| path.metadata().is_ok_and(|file| file.is_file() && file.mode() & 0o111 != 0);
    let found = || std::env::split_paths(&path).map(|folder| folder.join(name)).find(is_executable);
    if name.components().count() == 1 { found() } else { None }.unwrap_or_else(|| name.to_path_buf())
}
