//! Remembers the stdout lines of a child that are not messages, to explain a failed start.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Maximum length of the quoted part of a line, in bytes.
const QUOTED: usize = 120;

/// The stdout lines of one child that were not messages. Written by its router.
#[derive(Debug, Default)]
pub struct Noise {
    lines: AtomicU64,
    first: OnceLock<String>,
    headers: AtomicBool,
    utf16: AtomicBool,
    echoes: AtomicBool,
}

/// The likely reason why a child does not answer, derived from its output on stdout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// It wrote no complete line.
    Silent,
    /// It wrote only messages.
    Quiet,
    /// It writes its input back.
    Echoes,
    /// It frames messages as the Language Server Protocol does.
    Headers,
    /// It spreads messages over several lines.
    Lines,
    /// It writes in UTF-16.
    Utf16,
    /// It wrote this many other lines, the first of them quoted.
    Other(u64, String),
}

impl Noise {
    /// Records a line that is not a message.
    pub fn note(&self, line: &[u8]) {
        self.lines.fetch_add(1, Ordering::Relaxed);
        self.first.get_or_init(|| quoted(line));
        if line.get(..15).is_some_and(|start| start.eq_ignore_ascii_case(b"content-length:")) {
            self.headers.store(true, Ordering::Relaxed);
        }
        if line.windows(2).take(4).any(|pair| matches!(pair, [b'{', 0] | [0, b'{'])) {
            self.utf16.store(true, Ordering::Relaxed);
        }
    }

    /// Records that the child wrote a request back.
    pub fn note_echo(&self) {
        self.echoes.store(true, Ordering::Relaxed);
    }

    /// Returns whether the child writes its input back.
    pub fn is_echo(&self) -> bool {
        self.echoes.load(Ordering::Relaxed)
    }

    /// Returns the mistake in all of the child's output, if its first lines show one.
    pub fn mistake(&self) -> Option<Hint> {
        let is_header = self.headers.load(Ordering::Relaxed);
        let is_part = matches!(self.first.get().map(String::as_str), Some("{" | "["));
        match () {
            () if is_header => Some(Hint::Headers),
            () if is_part => Some(Hint::Lines),
            () => self.utf16.load(Ordering::Relaxed).then_some(Hint::Utf16),
        }
    }

    /// Returns the likely reason for a missing answer; `heard` counts lines of any kind.
    pub fn hint(&self, heard: u64) -> Hint {
        let (lines, first) = (self.lines.load(Ordering::Relaxed), self.first.get());
        match (self.mistake(), first) {
            _ if self.is_echo() => Hint::Echoes,
            (Some(mistake), _) => mistake,
            (None, Some(first)) => Hint::Other(lines, first.clone()),
            (None, None) if heard == 0 => Hint::Silent,
            (None, None) => Hint::Quiet,
        }
    }
}

/// Returns the beginning of a line, for a log line or an error.
pub fn quoted(line: &[u8]) -> String {
    let head = &line[..line.len().min(QUOTED)];
    let more = if line.len() > QUOTED { "…" } else { "" };
    format!("{}{more}", head.escape_ascii())
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hint::Silent => f.write_str(
                "it wrote no whole line to stdout; check that the command is an MCP server on stdio, that it ends each \
                 message with a newline and flushes stdout (Python: PYTHONUNBUFFERED=1), that it needs neither a \
                 terminal nor Content-Length headers, and try --child-era legacy",
            ),
            Hint::Quiet => Ok(()),
            Hint::Echoes => f.write_str("it writes its input back; check that the command is an MCP server"),
            Hint::Headers => f.write_str(
                "it writes Content-Length headers; MCP on stdio is one JSON message per line, without headers",
            ),
            Hint::Utf16 => f.write_str("it writes in UTF-16; MCP on stdio is UTF-8"),
            Hint::Lines => f.write_str("it spreads a message over several lines; MCP is one JSON message per line"),
            Hint::Other(1, first) => write!(f, "it wrote a line to stdout that is not a message: {first}"),
            Hint::Other(lines, first) => {
                write!(f, "it wrote {lines} lines to stdout that are not messages, the first: {first}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_names_the_mistake() {
        let hint = |lines: &[&str]| {
            let noise = Noise::default();
            lines.iter().for_each(|line| noise.note(line.as_bytes()));
            noise.hint(lines.len() as u64)
        };
        assert_eq!(hint(&[]), Hint::Silent);
        assert_eq!(Noise::default().hint(1), Hint::Quiet);
        assert_eq!(hint(&["Welcome", "Content-length: 5"]), Hint::Headers);
        assert_eq!(hint(&["{", "  \"jsonrpc\": \"2.0\""]), Hint::Lines);
        for utf16 in ["{\0\"\0i\0d\0", "\0{\0\"\0i\0d", "\u{feff}\0{\0\"\0"] {
            assert_eq!(hint(&[utf16]), Hint::Utf16);
        }
        assert_eq!(hint(&["Welcome\u{1b}", "x"]), Hint::Other(2, "Welcome\\x1b".into()));
        let noise = Noise::default();
        noise.note_echo();
        assert_eq!(noise.hint(1), Hint::Echoes);
        assert_eq!(quoted(&[b'x'; 121]).chars().count(), QUOTED + 1);
    }
}
