//! Reads the end of a log of an earlier process, whose chain is continued.

use super::chain::{Head, Link};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Maximum length of the part that is read. A line is much shorter.
const LONGEST: u64 = 256 * 1024;

/// The end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// There are no lines.
    Empty,
    /// It ends with this line, and then with an incomplete one of this length.
    Ends {
        /// The head of the last complete line.
        head: Head,
        /// The length of the incomplete line in bytes; 0 if there is none.
        torn: u64,
        /// Whether a newline must be written first.
        is_open: bool,
    },
    /// Its last complete line is not one of a chain; an incomplete line of this length follows.
    Unreadable {
        /// The length of the incomplete line in bytes; 0 if there is none.
        torn: u64,
    },
}

/// Reads the end of the log at `path`; a missing file is empty.
pub(super) fn read(path: &Path) -> io::Result<Tail> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Tail::Empty),
        file => file?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(Tail::Empty);
    }
    let begin = metadata.len().saturating_sub(LONGEST);
    file.seek(SeekFrom::Start(begin))?;
    let mut end = Vec::new();
    file.take(LONGEST).read_to_end(&mut end)?;
    Ok(of(&end))
}

fn of(end: &[u8]) -> Tail {
    let complete = end.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let torn = (end.len() - complete) as u64;
    let Some(lines) = end[..complete].strip_suffix(b"\n") else {
        return if torn == 0 { Tail::Empty } else { Tail::Unreadable { torn } };
    };
    let last = lines.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    // Only the newline may be missing.
    if let Ok(link) = Link::of(&end[complete..]) {
        return Tail::Ends { head: link.head(), torn: 0, is_open: true };
    }
    match Link::of(last) {
        Ok(link) => Tail::Ends { head: link.head(), torn, is_open: torn > 0 },
        Err(_) => Tail::Unreadable { torn },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_told_apart() {
        let mut line = r#"{"a":1"#.to_owned();
        let head = Head::EMPTY.seal(&mut line, None);
        for (text, tail) in [
            (String::new(), Tail::Empty),
            (line.clone(), Tail::Ends { head, torn: 0, is_open: false }),
            (format!("garbage\n{line}"), Tail::Ends { head, torn: 0, is_open: false }),
            (format!("garbage\n{}", line.trim_end()), Tail::Ends { head, torn: 0, is_open: true }),
            (format!("{line}{{\"a"), Tail::Ends { head, torn: 3, is_open: true }),
            (format!("{line}garbage\n"), Tail::Unreadable { torn: 0 }),
            ("{\"a".to_owned(), Tail::Unreadable { torn: 3 }),
        ] {
            assert_eq!(of(text.as_bytes()), tail, "{text}");
        }
    }
}
