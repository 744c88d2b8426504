//! Escapes control characters, and characters that reorder or hide text, so that a log line shows what it contains.

use std::borrow::Cow;
use std::fmt::{self, Write};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};

/// Formats the fields of text lines and escapes them: they include the child's stderr and text from clients.
#[derive(Debug, Default)]
pub(super) struct EscapedFields(DefaultFields);

impl<'writer> FormatFields<'writer> for EscapedFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut text = String::with_capacity(256);
        self.0.format_fields(Writer::new(&mut text), fields)?;
        writer.write_str(&escaped(&text))
    }
}

/// Escapes control characters other than tabs, and characters that reorder or hide text.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    replaced(text, |c, out| match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\0'..='\u{7f}' => drop(write!(out, "\\x{:02x}", u32::from(c))),
        c => out.extend(c.escape_unicode()),
    })
}

/// Escapes the same characters in serialized JSON, which contains them only within strings, except for line ends.
pub(crate) fn escaped_json(json: &str) -> Cow<'_, str> {
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

/// Returns whether a character controls a terminal, reorders text, or is invisible (UAX #9, UTR #36).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn active_characters_are_escaped_and_all_others_stay() {
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
    fn escaped_json_has_the_same_value() {
        let value = serde_json::json!({"m": "a\r\u{202e}\u{9b}\u{7f}\u{e0041}b", "n": 1});
        let json = value.to_string();
        let shown = escaped_json(&json);
        assert!(shown.is_ascii(), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), value);
    }
}
