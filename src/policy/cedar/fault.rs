//! A fault in a file of policies.

use std::fmt;
use std::path::{Path, PathBuf};

/// A fault, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    file: PathBuf,
    /// Line and column, from 1.
    place: Option<(usize, Option<usize>)>,
    message: String,
}

impl Fault {
    /// Creates a fault that concerns a whole file.
    pub(crate) fn of(file: &Path, message: impl Into<String>) -> Self {
        Fault { file: file.to_owned(), place: None, message: message.into() }
    }

    /// Creates a fault in a line.
    pub(crate) fn at(file: &Path, line: usize, message: impl Into<String>) -> Self {
        Fault { place: Some((line, None)), ..Fault::of(file, message) }
    }

    /// Creates a fault at an offset in a file's text.
    pub(crate) fn within(file: &Path, text: &str, offset: usize, message: impl Into<String>) -> Self {
        let (line, column) = position(text, offset);
        Fault { place: Some((line, Some(column))), ..Fault::of(file, message) }
    }
}

/// Returns the line and the column of an offset, from 1.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    (line, String::from_utf8_lossy(&before[start..]).chars().count() + 1)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}")?;
            if let Some(column) = column {
                write!(f, ":{column}")?;
            }
        }
        write!(f, ": {}", self.message)
    }
}
