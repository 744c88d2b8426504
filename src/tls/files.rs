//! The files of certificates and keys.

use super::Settings;
use crate::mounted::{Mounted, MountedFile, Unreadable};
use std::fmt;
use std::path::PathBuf;

/// A file of TLS that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// The option that names the file.
    pub option: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it. Never a part of it.
    pub reason: String,
    /// What to do.
    pub remedy: &'static str,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?} {}; {}", self.option, self.path, self.reason, self.remedy)
    }
}

impl std::error::Error for Unusable {}

/// One file, and the option that names it.
#[derive(Debug)]
pub(super) struct Content {
    option: &'static str,
    file: MountedFile,
}

impl Content {
    pub fn bytes(&self) -> &[u8] {
        &self.file.bytes
    }

    /// Returns the refusal of this file.
    pub fn unusable(&self, reason: impl Into<String>, remedy: &'static str) -> Unusable {
        Unusable { option: self.option, path: self.file.path.clone(), reason: reason.into(), remedy }
    }
}

/// All files, of the same moment.
#[derive(Debug)]
pub(super) struct Contents {
    pub certificate: Content,
    pub key: Content,
    pub client_ca: Option<Content>,
}

const OPTIONS: [&str; 3] = ["--tls-cert", "--tls-key", "--tls-client-ca"];

/// Returns the files to read.
pub(super) fn mounted(settings: &Settings) -> Mounted {
    Mounted::new(paths(settings))
}

fn paths(settings: &Settings) -> impl Iterator<Item = &PathBuf> {
    [&settings.certificate, &settings.key].into_iter().chain(&settings.client_ca)
}

impl Contents {
    /// Takes what was read.
    ///
    /// # Errors
    /// When a file could not be read.
    pub fn of(settings: &Settings, read: Result<Vec<MountedFile>, Unreadable>) -> Result<Self, Unusable> {
        let refusal = |at: usize, path: PathBuf, reason: String| {
            let option = OPTIONS.get(at).copied().unwrap_or(OPTIONS[0]);
            Unusable { option, path, reason, remedy: "name a file in PEM format" }
        };
        let files = read.map_err(|Unreadable { path, reason }| {
            let at = paths(settings).position(|own| *own == path).unwrap_or(0);
            refusal(at, path, format!("cannot be read: {reason}"))
        })?;
        let mut contents = files.into_iter().zip(OPTIONS).map(|(file, option)| Content { option, file });
        let mut next = |at: usize| {
            // A path that became a folder was read as the files in it.
            let path = paths(settings).nth(at).cloned().unwrap_or_default();
            let content = contents.next().filter(|content| content.file.path == path);
            content.ok_or_else(|| refusal(at, path, "is not a file".to_owned()))
        };
        let (certificate, key) = (next(0)?, next(1)?);
        let client_ca = settings.client_ca.is_some().then(|| next(2)).transpose()?;
        Ok(Contents { certificate, key, client_ca })
    }
}
