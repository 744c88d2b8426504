//! Policies as read from files, and read again when the files change.

use super::fault::Fault;
use super::{Set, compile, files};
use crate::mounted::{Mounted, MountedFile, Unreadable};
use std::fmt;
use std::path::{Path, PathBuf};

/// Policies and their origin.
pub(crate) struct Loaded {
    path: PathBuf,
    server: Option<String>,
    /// Tells changes since the files were read.
    pub(crate) mounted: Mounted,
    /// Remarks on policies that are valid, but can never apply.
    pub(crate) warnings: Vec<String>,
    /// The policies.
    pub(crate) set: Set,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Loaded {
    /// Reads policies from a file, or from the files of a directory. `server` is the server's name for policies that
    /// name one.
    ///
    /// # Errors
    /// Every fault in the files.
    pub(crate) fn read(path: &Path, server: Option<&str>) -> Result<Self, Vec<Fault>> {
        let (mounted, files) = files::read(path).map_err(|fault| vec![fault])?;
        let compiled = compile::compile(&files, server)?;
        Ok(Loaded {
            path: path.to_owned(),
            server: server.map(str::to_owned),
            mounted,
            warnings: compiled.warnings,
            set: compiled.set,
        })
    }

    /// Returns the number of policies.
    pub(crate) fn count(&self) -> usize {
        self.set.len()
    }

    /// Compiles the changed files.
    ///
    /// # Errors
    /// Every fault in them.
    pub(crate) fn again(&self, changed: Result<Vec<MountedFile>, Unreadable>) -> Result<Self, Vec<Fault>> {
        let files = changed.map_err(|unreadable| vec![files::of_unreadable(&unreadable)])?;
        let files = files::texts(&self.path, files).map_err(|fault| vec![fault])?;
        let compiled = compile::compile(&files, self.server.as_deref())?;
        Ok(Loaded {
            path: self.path.clone(),
            server: self.server.clone(),
            mounted: self.mounted.clone(),
            warnings: compiled.warnings,
            set: compiled.set,
        })
    }
}
