//! Reads invalid JSON-RPC of servers whose meaning is unambiguous: ids in another spelling, and null members written
//! by serializers that write every field of a type.

use super::message::{Fault, Message, Span};
use super::object::members;
use super::text::{integer, unescaped};
use super::{codes, scan};

/// Maximum length of a number that is read, in bytes.
const LONGEST_NUMBER: usize = 32;

/// The maximum number of corrected members.
const MOST_CHANGES: usize = 16;

/// The members that decide the kind of a message.
const DECISIVE: [&[u8]; 5] = [b"id", b"method", b"params", b"result", b"error"];

/// A peer's spelling of an integer that it received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// The integer as the peer received it.
    Integer,
    /// A string of its digits: `"8192"`.
    String,
    /// A number with a fraction or an exponent: `8192.0`, `8.192e3`.
    Float,
}

/// Returns the integer below 2^53 that a raw id or token stands for, and its spelling. Accepts a string of plain
/// digits, and an integral float.
pub fn echoed(raw: &[u8]) -> Option<(u64, Spelling)> {
    if let Some(value) = integer(raw) {
        return Some((value, Spelling::Integer));
    }
    if raw.first() == Some(&b'"') {
        return integer(&unescaped(raw)).map(|value| (value, Spelling::String));
    }
    let is_float = raw.len() <= LONGEST_NUMBER && raw.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
    let text = std::str::from_utf8(raw).ok().filter(|_| is_float)?;
    let value: f64 = text.parse().ok()?;
    let exact = value.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&value);
    exact.then_some((value as u64, Spelling::Float))
}

/// The defect of a frame whose meaning is unambiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// Its id is an integral float.
    FloatId,
    /// It has null members without a meaning.
    Nulls,
    /// It follows escape sequences for a terminal.
    Escapes,
}

/// Corrects a frame that is not a message: removes escape sequences before it and null members without a meaning, and
/// writes an integral float in `id` as an integer. `fault` is the scan's. Returns `None` if that does not help; the
/// frame may be changed then.
///
/// The frame is changed in place, since a copy could be as long as `--max-frame`.
pub fn mended(frame: &mut Vec<u8>, fault: &Fault) -> Option<(Message, Defect)> {
    let (changes, defect) = if fault.code == codes::INVALID_REQUEST {
        changes(frame)?
    } else {
        (vec![(0..escapes(frame)?, None)], Defect::Escapes)
    };
    // In reverse order, so that the spans of earlier changes stay valid.
    for (part, number) in changes.into_iter().rev() {
        let number = number.map(|number: u64| number.to_string()).unwrap_or_default();
        frame.splice(part, number.into_bytes());
    }
    Some((scan(frame).ok()?, defect))
}

/// A part to be removed, or replaced by a number.
type Change = (Span, Option<u64>);

/// Returns the changes, in the order of their spans.
fn changes(frame: &[u8]) -> Option<(Vec<Change>, Defect)> {
    let object = object(frame)?;
    let has = |name: &str| {
        let mut all = members(frame, object.clone());
        all.any(|(key, value)| *unescaped(&frame[key]) == *name.as_bytes() && &frame[value] != b"null")
    };
    let (method, error) = (has("method"), has("error"));
    let answered =
        error || members(frame, object.clone()).any(|(key, _)| *unescaped(&frame[key]) == *b"result");
    let keep = |name: &[u8], value: &Span| match name {
        _ if &frame[value.clone()] != b"null" => true,
        b"method" | b"params" => false,
        b"error" => !method && !answered,
        b"result" => !method && !error,
        b"id" => !method,
        _ => true,
    };
    let mut defect = Defect::Nulls;
    let mut changes: Vec<Change> = Vec::new();
    // The start of removed members that no kept member precedes, and the end of the last member.
    let (mut leading, mut kept_before, mut last_end) = (None, false, 0);
    let mut seen = [false; DECISIVE.len()];
    for (key, value) in members(frame, object) {
        let name = unescaped(&frame[key.clone()]);
        if let Some(at) = DECISIVE.iter().position(|decisive| *name == **decisive)
            && std::mem::replace(&mut seen[at], true)
        {
            // Parsers differ in which of two members they take.
            return None;
        }
        if keep(&name, &value) {
            if let Some(start) = leading.take() {
                changes.push((start..key.start, None));
            }
            if let (b"id", Some((number, Spelling::Float))) = (&*name, echoed(&frame[value.clone()])) {
                defect = Defect::FloatId;
                changes.push((value.clone(), Some(number)));
            }
            kept_before = true;
        } else if kept_before {
            // The comma before the member is removed, too.
            changes.push((last_end..value.end, None));
        } else {
            leading.get_or_insert(key.start);
        }
        last_end = value.end;
        if changes.len() > MOST_CHANGES {
            return None;
        }
    }
    if let Some(start) = leading {
        changes.push((start..last_end, None));
    }
    Some((changes, defect))
}

/// Returns the length of the escape sequences before a frame, at least one. Libraries that mistake stdout for a
/// terminal write them (ECMA-48: control sequences, and operating system commands).
fn escapes(frame: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let [0x1b, kind, rest @ ..] = &frame[at..] {
        let is_end = |byte: &u8| match kind {
            b'[' => (0x40..=0x7e).contains(byte),
            _ => *byte == 0x07,
        };
        let end = rest.iter().position(is_end).filter(|_| matches!(kind, b'[' | b']'))?;
        at += 2 + end + 1;
    }
    (at > 0).then_some(at)
}

/// Returns the span of a frame's object.
fn object(frame: &[u8]) -> Option<Span> {
    let start = frame.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let end = frame.trim_ascii_end().len();
    (frame[start] == b'{').then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_recognized_in_unambiguous_spellings() {
        assert_eq!(echoed(b"8192"), Some((8192, Spelling::Integer)));
        assert_eq!(echoed(br#""8192""#), Some((8192, Spelling::String)));
        assert_eq!(echoed(br#""\u0038192""#), Some((8192, Spelling::String)));
        for float in ["8192.0", "8192.000", "8192e0", "8.192e3", "8.192E+3", "81920e-1"] {
            assert_eq!(echoed(float.as_bytes()), Some((8192, Spelling::Float)), "{float}");
        }
        for other in [
            "8192.5",
            "-8192.0",
            "1e16",
            "1e400",
            "\"08192\"",
            "\" 8192\"",
            "\"8192.0\"",
            "\"\"",
            "\"x\"",
            "null",
            "true",
            "",
            "9007199254740992.0",
            "9007199254740992",
            "-1",
        ] {
            assert_eq!(echoed(other.as_bytes()), None, "{other}");
        }
    }

    fn mend(text: &str) -> Option<String> {
        let fault = scan(text.as_bytes()).expect_err(text);
        let mut frame = text.as_bytes().to_vec();
        mended(&mut frame, &fault)?;
        Some(String::from_utf8(frame).expect("it was text"))
    }

    #[test]
    fn meaningless_null_members_are_removed() {
        for (written, read) in [
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{},"error":null}"#,
                r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            ),
            (
                r#" {"error":null,"jsonrpc":"2.0","id":1,"result":{}} "#,
                r#" {"jsonrpc":"2.0","id":1,"result":{}} "#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":null,"error":{}}"#,
                r#"{"jsonrpc":"2.0","id":1,"error":{}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":null,"error":null}"#,
                r#"{"jsonrpc":"2.0","id":1,"result":null}"#,
            ),
            (
                "\u{1b}[?1034h\u{1b}]0;a title\u{7} {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}",
                r#" {"jsonrpc":"2.0","id":1,"result":{}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":null,"params":null,"result":1,"error":null}"#,
                r#"{"jsonrpc":"2.0","id":1,"result":1}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":null,"method":"m","params":null,"result":null}"#,
                r#"{"jsonrpc":"2.0","method":"m"}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1.0,"result":null,"error":{}}"#,
                r#"{"jsonrpc":"2.0","id":1,"error":{}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":8.0,"result":{"id":8.0}}"#,
                r#"{"jsonrpc":"2.0","id":8,"result":{"id":8.0}}"#,
            ),
        ] {
            assert_eq!(mend(written).as_deref(), Some(read), "{written}");
        }
    }

    #[test]
    fn an_ambiguous_frame_is_not_corrected() {
        for text in [
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"result":null}"#,
            r#"{"jsonrpc":"2.0","id":1,"id":1.0,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":null,"params":{},"result":null}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":null,"param\u0073":null}"#,
            r#"{"jsonrpc":"2.0","id":null,"result":{}}"#,
            r#"{"jsonrpc":"1.0","id":1,"result":{},"error":null}"#,
            r#"{"id":1,"result":{},"error":null}"#,
            r#"{"jsonrpc":"2.0","id":1.5,"result":{}}"#,
            r#"{"level":30,"id":1,"error":null}"#,
            r#"[{"jsonrpc":"2.0","id":1,"result":{},"error":null}]"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":null"#,
            "null",
            "\u{1b}",
            "\u{1b}[",
            "\u{1b}[0m",
            "\u{1b}c{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}",
            "\u{1b}[31mred\u{1b}[0m {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}",
        ] {
            assert_eq!(mend(text), None, "{text}");
        }
    }
}
