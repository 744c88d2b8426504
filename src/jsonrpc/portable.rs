//! What common parsers accept of JSON, which is less than JSON allows. Text that only some of them read must not become a
//! part of messages that concern others, too.

use super::text::code_unit;
use memchr::memchr2;

/// Maximum nesting. Of the parsers in MCP's SDKs, .NET's has the lowest limit: 64, with the message around the value.
const DEEPEST: usize = 60;
/// Maximum length of a number, as in Jackson.
const LONGEST_NUMBER: usize = 1_000;
/// Digits of a number that is finite in any case, if it has no exponent.
const FEW_DIGITS: usize = 300;

/// Returns why a common parser refuses validated JSON; `None` if all accept it.
pub(crate) fn unportable(json: &[u8]) -> Option<&'static str> {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => match string(&json[at + 1..]) {
                Some(length) => at += length + 1,
                None => return Some("has a text with half of a surrogate pair"),
            },
            b'-' | b'0'..=b'9' => {
                let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let length = json[at..].iter().take_while(|byte| is_part(byte)).count();
                if !is_usual(&json[at..at + length]) {
                    return Some("has a number that is too long or too large");
                }
                at += length;
            }
            b'{' | b'[' if depth == DEEPEST => return Some("is nested too deeply"),
            b'{' | b'[' => (at, depth) = (at + 1, depth + 1),
            b'}' | b']' => (at, depth) = (at + 1, depth.saturating_sub(1)),
            _ => at += 1,
        }
    }
    None
}

/// Returns the length of a string behind its first quote; `None` if there is a lone surrogate in it.
fn string(rest: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = memchr2(b'"', b'\\', &rest[at..]) {
        at += found;
        match &rest[at..] {
            [b'\\', b'u', digits @ ..] => {
                at += match code_unit(digits)? {
                    (0xd800..0xdc00, after) => match code_unit(after.strip_prefix(b"\\u")?)? {
                        (0xdc00..0xe000, _) => 12,
                        _ => return None,
                    },
                    (0xdc00..0xe000, _) => return None,
                    _ => 6,
                }
            }
            [b'\\', _, ..] => at += 2,
            _ => return Some(at + 1),
        }
    }
    Some(rest.len())
}

fn is_usual(number: &[u8]) -> bool {
    let has_exponent = || number.iter().any(|byte| matches!(byte, b'e' | b'E'));
    let is_finite = || {
        let value = std::str::from_utf8(number).ok().and_then(|number| number.parse::<f64>().ok());
        value.is_some_and(f64::is_finite)
    };
    number.len() <= LONGEST_NUMBER && (number.len() <= FEW_DIGITS && !has_exponent() || is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_some_parser_refuses_is_found_anywhere() {
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        for (json, is_portable) in [
            (r#"{"a":[1,-2.5e3,"x\n\"\\",true,null,{}]}"#.to_owned(), true),
            (r#""\ud83d\ude00\u00e9\\ud800""#.into(), true),
            (r#""\ud800""#.into(), false),
            (r#""\ud800\n""#.into(), false),
            (r#""\ud800\ud800""#.into(), false),
            (r#""\ud83d\ude00\udc00""#.into(), false),
            (r#"{"a":[{"\uDFFF":1}]}"#.into(), false),
            ("1e308".into(), true),
            ("[1e309]".into(), false),
            ("-1E999".into(), false),
            ("9".repeat(308), true),
            ("9".repeat(310), false),
            (format!("0.{}", "1".repeat(900)), true),
            (format!("0.{}", "1".repeat(1_000)), false),
            (deep(DEEPEST), true),
            (deep(DEEPEST + 1), false),
            (format!("[{},{}]", deep(DEEPEST - 1), deep(DEEPEST - 1)), true),
            (format!("\"{}\"", deep(DEEPEST + 1)), true),
        ] {
            assert_eq!(unportable(json.as_bytes()).is_none(), is_portable, "{json}");
        }
    }
}
