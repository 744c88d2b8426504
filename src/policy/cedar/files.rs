//! The files of `--policy`: one file, or those of a directory, such as a mounted ConfigMap.

use super::fault::Fault;
use crate::mounted::{Mounted, MountedFile, Unreadable};
use std::path::{Path, PathBuf};

/// The ends of the names of files that are read in a directory.
const KINDS: [&str; 4] = ["cedar", "json", "yaml", "yml"];

/// A file, and its text.
#[derive(Debug)]
pub(super) struct File {
    pub path: PathBuf,
    pub text: String,
}

/// Reads the files at a path, and returns what tells their changes.
///
/// # Errors
/// When a file cannot be read, is not text, or is too large; or when there is none.
pub(super) fn read(path: &Path) -> Result<(Mounted, Vec<File>), Fault> {
    let mut mounted = Mounted::new([path]);
    let files = mounted.read().map_err(|unreadable| of_unreadable(&unreadable))?;
    Ok((mounted, texts(path, files)?))
}

/// Returns the texts of files that may contain policies or entities.
///
/// # Errors
/// When a file is not text, or there is none.
pub(super) fn texts(path: &Path, files: Vec<MountedFile>) -> Result<Vec<File>, Fault> {
    let is_meant = |file: &MountedFile| {
        // A file that was named itself may have any name.
        let is_hidden = file.path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_known = file.path.extension().is_some_and(|kind| KINDS.iter().any(|known| kind == *known));
        file.path == path || (is_known && !is_hidden)
    };
    let mut texts = Vec::new();
    for MountedFile { path, bytes } in files.into_iter().filter(is_meant) {
        match String::from_utf8(bytes) {
            Ok(text) => texts.push(File { path, text }),
            Err(_) => return Err(Fault::of(&path, "the file is not UTF-8")),
        }
    }
    if texts.is_empty() {
        return Err(Fault::of(path, "the directory contains no .cedar, .json, .yaml or .yml file"));
    }
    Ok(texts)
}

/// Returns the fault of a file that cannot be read.
pub(super) fn of_unreadable(unreadable: &Unreadable) -> Fault {
    Fault::of(&unreadable.path, format!("cannot be read: {}", unreadable.reason))
}
