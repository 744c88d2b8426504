//! Log lines as people and terminals may see them: one line each, without characters that act instead of being shown; and
//! a count of those that were lost on their way.

use super::counters;
use std::borrow::Cow;
use std::fmt::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracing_appender::non_blocking::ErrorCounter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};

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
        '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}' => true,
        '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{e0000}'..='\u{e007f}' => true,
        _ => false,
    }
}

static WRITER: OnceLock<ErrorCounter> = OnceLock::new();
static COUNTED: AtomicUsize = AtomicUsize::new(0);

/// Lines that this writer drops are counted from now on. The first call counts.
pub(super) fn watch(writer: ErrorCounter) {
    let _ = WRITER.set(writer);
}

/// Counts the lines that were lost since the last call, and logs their number.
pub fn count_lost() {
    let Some(writer) = WRITER.get() else { return };
    let dropped = writer.dropped_lines();
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
}
