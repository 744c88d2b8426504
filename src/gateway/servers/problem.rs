//! Problems of a file, as lines for its author.

use std::path::Path;

/// Maximum number of lines; a file with more is of another kind.
const MOST: usize = 50;
/// Maximum number of shown characters of a name.
const SHOWN: usize = 80;

/// The problems of one file.
pub(super) struct Problems {
    file: String,
    lines: Vec<String>,
    /// Problems beyond the maximum.
    more: usize,
}

impl Problems {
    pub(super) fn of(file: &Path) -> Self {
        Problems { file: file.to_string_lossy().escape_debug().to_string(), lines: Vec::new(), more: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Adds a problem at a line.
    pub(super) fn add(&mut self, line: Option<u64>, what: &str, remedy: &str) {
        if self.lines.len() == MOST {
            self.more += 1;
            return;
        }
        let place = line.map(|line| format!(", line {line}")).unwrap_or_default();
        self.lines.push(format!("{}{place}: {what}; {remedy}", self.file));
    }

    /// Returns the problems of one server.
    pub(super) fn server(&mut self, name: &str) -> OfServer<'_> {
        OfServer { name: shortened(name), all: self }
    }

    pub(super) fn lines(mut self) -> Vec<String> {
        if self.more > 0 {
            self.lines.push(format!("{}: {} more problems", self.file, self.more));
        }
        self.lines
    }
}

/// The problems of one server.
pub(super) struct OfServer<'a> {
    name: String,
    all: &'a mut Problems,
}

impl OfServer<'_> {
    /// Adds a problem of a member.
    pub(super) fn add(&mut self, line: u64, member: &str, reason: &str, remedy: &str) {
        self.all.add(Some(line), &format!("server {}: {member} {reason}", self.name), remedy);
    }
}

/// Returns a name as it is shown: on one line, and not too long.
pub(super) fn shortened(name: &str) -> String {
    let mut shown: String = name.chars().take(SHOWN).collect();
    if shown.len() < name.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}
