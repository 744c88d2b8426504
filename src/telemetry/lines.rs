//! Log lines as people and terminals may see them: one line each, without characters that act instead of being shown; and
//! a count of those that were lost on their way.

use super::counters;
use std::borrow::Cow;
use std::fmt::{self, Write};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{FormatFields, MakeWriter};

/// Fields of lines for people, escaped: a server's stderr is among them, and clients' texts.
#[derive(Debug, Default)]
pub(super) struct EscapedFields(DefaultFields);

impl<'writer> FormatFields<'writer> for EscapedFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut text = String::with_capacity(256);
        self.0.format_fields(Writer::new(&mut text), fields)?;
        writer.write_str(&escaped(&text))
    }
}

/// A text without control characters other than tabs, and without those that reorder or hide others.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    replaced(text, |c, out| match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\0'..='\u{7f}' => drop(write!(out, "\\x{:02x}", u32::from(c))),
        c => out.extend(c.escape_unicode()),
    })
}

/// JSON that means the same, without those characters: outside of strings JSON has none of them but line ends.
pub(super) fn escaped_json(json: &str) -> Cow<'_, str> {
    replaced(json, |c, out| {
        let mut units = [0; 2];
        for unit in c.encode_utf16(&mut units) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    })
}

fn replaced(text: &str, write: impl Fn(char, &mut String)) -> Cow<'_, str> {
    let Some(first) = text.find(is_active) else { return text.into() };
    let (plain, rest) = text.split_at(first);
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(plain);
    for c in rest.chars() {
        if is_active(c) { write(c, &mut out) } else { out.push(c) }
    }
    out.into()
}

/// Whether a character acts on a terminal or on the order of others, or can't be seen (UAX #9, UTR #36).
fn is_active(c: char) -> bool {
    match c {
        '\t' => false,
        c if c.is_ascii() => c.is_ascii_control(),
        '\u{80}'..='\u{9f}' => true,
        '\u{ad}'
        | '\u{34f}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' => true,
        '\u{3164}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' => true,
        '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}' => true,
        '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{e0000}'..='\u{e007f}' => true,
        _ => false,
    }
}

/// Bytes of lines that may wait for a slow stderr; further lines are dropped rather than waited for.
const MOST_WAITING: usize = 4 * 1024 * 1024;
/// What a line takes at least, in bytes, so that there are never too many of them for the channel.
const LEAST: usize = 512;

static WAITING: AtomicUsize = AtomicUsize::new(0);
static DROPPED: AtomicUsize = AtomicUsize::new(0);
static COUNTED: AtomicUsize = AtomicUsize::new(0);

/// Writes lines by a thread of its own, which keeps a limited number of bytes: a blocked reader must never block a
/// request, nor take memory without bound.
#[derive(Clone, Debug)]
pub(super) struct Lines(NonBlocking);

impl Lines {
    /// Writes them there; dropping the guard writes what is still waiting.
    pub(super) fn to(out: impl io::Write + Send + 'static) -> (Lines, WorkerGuard) {
        let (writer, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(MOST_WAITING / LEAST + 1)
            .thread_name("log")
            .finish(Emptying(out));
        (Lines(writer), guard)
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Lines;

    fn make_writer(&self) -> Lines {
        self.clone()
    }
}

impl io::Write for Lines {
    /// Takes a whole line, or drops it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let bytes = cost(line);
        if WAITING.fetch_add(bytes, Ordering::Relaxed) + bytes > MOST_WAITING {
            WAITING.fetch_sub(bytes, Ordering::Relaxed);
            DROPPED.fetch_add(1, Ordering::Relaxed);
            return Ok(line.len());
        }
        self.0.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The other end, which makes room.
struct Emptying<W>(W);

impl<W: io::Write> io::Write for Emptying<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    /// A whole line, as the thread gives it.
    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        let written = self.0.write_all(line);
        WAITING.fetch_sub(cost(line), Ordering::Relaxed);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn cost(line: &[u8]) -> usize {
    line.len().max(LEAST)
}

/// Counts the lines that were lost since the last call, and logs their number.
pub fn count_lost() {
    let dropped = DROPPED.load(Ordering::Relaxed);
    let lost = dropped.saturating_sub(COUNTED.swap(dropped, Ordering::Relaxed));
    if lost > 0 {
        counters::LOST_LINES.add(lost as u64);
        // This one may be lost as well; the next one has the total.
        tracing::warn!(lines = lost, total = dropped, "log lines were lost: stderr is not read fast enough");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_act_are_escaped_and_all_others_stay() {
        for plain in ["", "a\tb", "Grüße 日本語 👍🏽", r#"{"a":"b"}"#, "\\r"] {
            assert!(matches!(escaped(plain), Cow::Borrowed(same) if same == plain), "{plain:?}");
        }
        for (text, shown) in [
            ("a\r\nb", r"a\r\nb"),
            ("\u{0}\u{1b}[31m\u{7f}", r"\x00\x1b[31m\x7f"),
            ("\u{9b}31m", r"\u{9b}31m"),
            ("x\u{202e}y\u{2066}\u{2028}", r"x\u{202e}y\u{2066}\u{2028}"),
            ("\u{200b}\u{feff}\u{e0041}", r"\u{200b}\u{feff}\u{e0041}"),
            ("\u{ad}\u{180e}\u{3164}\u{fffb}", r"\u{ad}\u{180e}\u{3164}\u{fffb}"),
        ] {
            assert_eq!(escaped(text), shown, "{text:?}");
        }
    }

    #[test]
    fn escaped_json_means_the_same() {
        let value = serde_json::json!({"m": "a\r\u{202e}\u{9b}\u{7f}\u{e0041}b", "n": 1});
        let json = value.to_string();
        let shown = escaped_json(&json);
        assert!(shown.is_ascii(), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), value);
    }

    #[test]
    fn a_reader_that_never_comes_takes_no_more_memory_than_allowed() {
        let (read, write) = std::io::pipe().expect("a pipe");
        let (mut lines, guard) = Lines::to(write);
        let line = vec![b'x'; 64 * 1024];
        let before = DROPPED.load(Ordering::Relaxed);
        for _ in 0..1_000 {
            io::Write::write_all(&mut lines, &line).expect("it is taken or dropped");
            assert!(WAITING.load(Ordering::Relaxed) <= MOST_WAITING);
        }
        let dropped = DROPPED.load(Ordering::Relaxed) - before;
        assert!((900..1_000).contains(&dropped), "{dropped}");
        drop(read);
        drop((lines, guard));
    }
}
