//! The values of raw JSON scalars: strings without escapes, small integers.

use std::borrow::Cow;

use super::message::{LONGEST_NAME, Span};
use crate::budget::Charged;

/// Maximum length of a text that is unescaped completely, in bytes. No longer text has a meaning for proxyrunner.
const LONGEST_TEXT: usize = 64 * 1024;
/// Maximum length of the quoted part of a foreign text, in bytes.
const LONGEST_QUOTE: usize = 1024;

/// Returns the beginning of the JSON string at `span`, for quoting.
pub fn quoted(bytes: &[u8], span: &Span) -> String {
    let (text, cut) = beginning(&bytes[span.clone()], LONGEST_QUOTE);
    if cut { text.trim_end_matches('\u{fffd}').to_owned() } else { text.into_owned() }
}

/// Returns the value of the first `most` bytes of a JSON string, and whether there are more. Escapes are not cut.
fn beginning(raw: &[u8], most: usize) -> (Cow<'_, str>, bool) {
    if raw.len() <= most {
        return (said(raw), false);
    }
    let inner = raw.strip_prefix(b"\"").unwrap_or(raw);
    let mut end = 0;
    loop {
        let length = match &inner[end..] {
            [b'\\', b'u', ..] => 6,
            [b'\\', ..] => 2,
            _ => 1,
        };
        if end + length > most || end + length > inner.len() {
            break;
        }
        end += length;
    }
    (said(&inner[..end]), true)
}

/// Returns the value of the JSON string at `span`, without quotes and escapes; of a very long one with escapes only
/// the beginning. Lone surrogates, which a `str` cannot contain, become U+FFFD. Borrows if there is nothing to
/// unescape.
pub fn text<'a>(bytes: &'a [u8], span: &Span) -> Cow<'a, str> {
    let raw = &bytes[span.clone()];
    let is_long = raw.len() > LONGEST_TEXT && memchr::memchr(b'\\', raw).is_some();
    if is_long { beginning(raw, LONGEST_TEXT).0 } else { said(raw) }
}

fn said(raw: &[u8]) -> Cow<'_, str> {
    match unescaped(raw) {
        // The usual case. `from_utf8_lossy` is slower.
        Cow::Borrowed(plain) if let Ok(plain) = std::str::from_utf8(plain) => Cow::Borrowed(plain),
        Cow::Borrowed(plain) => String::from_utf8_lossy(plain),
        Cow::Owned(plain) => Cow::Owned(String::from_utf8_lossy(&plain).into_owned()),
    }
}

/// Length from which texts are searched with memchr; for shorter ones its setup costs more than a search in words of
/// eight bytes.
const SHORT: usize = 32;

/// Maximum length of a key that is unescaped. No known name is longer, in any spelling.
pub(super) const LONGEST_KEY: usize = 1024;

/// Returns the raw value at `span`, to outlive its message: a short value is copied; a slice of a long one keeps the
/// whole message.
pub fn kept(frame: &Charged, span: &Span) -> Charged {
    if span.len() > LONGEST_NAME { frame.slice(span.clone()) } else { Charged::own(&frame[span.clone()]) }
}

/// Returns the value of an object's key. A very long key is returned unchanged, without being copied.
#[inline]
pub fn key_of(raw: &[u8]) -> Cow<'_, [u8]> {
    if raw.len() > LONGEST_KEY { Cow::Borrowed(raw) } else { unescaped(raw) }
}

/// Returns the value of a raw JSON number that is a plain integer of at most 2^53 - 1, as wire ids are. `None` for
/// strings, and for every other spelling (`-0`, `1.0`, `1e3`).
pub fn integer(raw: &[u8]) -> Option<u64> {
    const LARGEST: u64 = (1 << 53) - 1;
    if raw.is_empty() || raw.len() > 16 || (raw[0] == b'0' && raw.len() > 1) {
        return None;
    }
    raw.iter()
        .try_fold(0, |value: u64, byte| byte.is_ascii_digit().then(|| value * 10 + u64::from(byte - b'0')))
        .filter(|value| *value <= LARGEST)
}

/// Returns the value of a raw JSON string in WTF-8: UTF-8 in which lone surrogates stay distinct from each other and
/// from U+FFFD. Two strings are equal if and only if these values are.
#[inline]
pub fn unescaped(raw: &[u8]) -> Cow<'_, [u8]> {
    let inner = raw.strip_prefix(b"\"").and_then(|raw| raw.strip_suffix(b"\"")).unwrap_or(raw);
    // Most keys and names are short, and have no escapes.
    match has_escape(inner) {
        false => Cow::Borrowed(inner),
        true => Cow::Owned(without_escapes(inner)),
    }
}

#[cold]
fn without_escapes(inner: &[u8]) -> Vec<u8> {
    let first = memchr::memchr(b'\\', inner).unwrap_or(inner.len());
    let mut value = Vec::with_capacity(inner.len());
    value.extend_from_slice(&inner[..first]);
    let mut rest = &inner[first..];
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'\\' {
            rest = unescape(after, &mut value);
        } else {
            let plain = memchr::memchr(b'\\', rest).unwrap_or(rest.len());
            value.extend_from_slice(&rest[..plain]);
            rest = &rest[plain..];
        }
    }
    value
}

/// Returns whether the text contains a backslash.
#[inline]
fn has_escape(text: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 0xff;
    // A zero byte in the difference from backslashes sets its high bit.
    let differs = |word: &[u8; 8]| u64::from_ne_bytes(*word) ^ (ONES * u64::from(b'\\'));
    let has_zero = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7) != 0;
    // The last word may overlap the previous one; in a short text, its two halves overlap.
    match (text.len(), text.last_chunk(), text.first_chunk::<4>(), text.last_chunk::<4>()) {
        (..=SHORT, Some(last), ..) => {
            text.as_chunks().0.iter().chain([last]).any(|word| has_zero(differs(word)))
        }
        (..=SHORT, None, Some(first), Some(last)) => {
            let (first, last) = (u32::from_ne_bytes(*first), u32::from_ne_bytes(*last));
            has_zero(differs(&(u64::from(first) << 32 | u64::from(last)).to_ne_bytes()))
        }
        (..=SHORT, ..) => text.contains(&b'\\'),
        _ => memchr::memchr(b'\\', text).is_some(),
    }
}

/// Appends the value of the escape after a backslash, and returns the rest of the text.
fn unescape<'a>(escape: &'a [u8], value: &mut Vec<u8>) -> &'a [u8] {
    let Some((&letter, after)) = escape.split_first() else { return escape };
    let byte = match letter {
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => return unescape_unit(after, value),
        other => other,
    };
    value.push(byte);
    after
}

fn unescape_unit<'a>(digits: &'a [u8], value: &mut Vec<u8>) -> &'a [u8] {
    let Some((unit, after)) = code_unit(digits) else { return digits };
    if (0xd800..0xdc00).contains(&unit)
        && let Some((low @ 0xdc00..0xe000, after)) = after.strip_prefix(b"\\u").and_then(code_unit)
    {
        push(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00), value);
        return after;
    }
    push(unit, value);
    after
}

pub(super) fn code_unit(digits: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, after) = digits.split_first_chunk::<4>()?;
    let unit = digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))?;
    Some((unit, after))
}

fn push(scalar: u32, value: &mut Vec<u8>) {
    match char::from_u32(scalar) {
        Some(scalar) => value.extend_from_slice(scalar.encode_utf8(&mut [0; 4]).as_bytes()),
        // A surrogate, as the three bytes of generalized UTF-8.
        None => value.extend([
            0xe0 | (scalar >> 12) as u8,
            0x80 | (scalar >> 6 & 0x3f) as u8,
            0x80 | (scalar & 0x3f) as u8,
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_borrows_plain_strings_and_unescapes_others() {
        let whole = |raw: &'static str| text(raw.as_bytes(), &(0..raw.len()));
        assert!(matches!(whole("\"tools/call\""), Cow::Borrowed("tools/call")));
        assert_eq!(whole(r#""\u0069\u0064""#), "id");
        assert_eq!(whole(r#""a\"\\\/\b\f\n\r\tz""#), "a\"\\/\u{8}\u{c}\n\r\tz");
        assert_eq!(whole(r#""\ud83d\ude00\u00E9\u3000""#), "\u{1f600}\u{e9}\u{3000}");
        assert!(whole(r#""x\ud800""#).starts_with("x\u{fffd}"));
    }

    #[test]
    fn a_quote_ends_at_a_character_boundary() {
        for unit in [r"\u00e9", "é", r"\ud83d\ude00", "\\\"", "a"] {
            for before in 0..12 {
                let raw = format!("\"{}{}\"", "x".repeat(before), unit.repeat(2_000));
                let quote = quoted(raw.as_bytes(), &(0..raw.len()));
                let unit = text(format!("\"{unit}\"").as_bytes(), &(0..unit.len() + 2)).into_owned();
                let units = quote.trim_start_matches('x');
                assert!(!units.is_empty() && units.replace(&*unit, "").is_empty(), "{units}");
            }
        }
    }

    #[test]
    fn an_escape_is_found_at_any_position() {
        for len in 0..=2 * SHORT {
            let plain = vec![b'['; len];
            assert!(matches!(unescaped(&plain), Cow::Borrowed(_)), "{len}");
            for at in 0..len.saturating_sub(1) {
                let mut raw = plain.clone();
                raw[at] = b'\\';
                raw[at + 1] = b'n';
                let mut value = plain[1..].to_vec();
                value[at] = b'\n';
                assert_eq!(*unescaped(&raw), *value, "at {at} of {len}");
            }
        }
    }

    #[test]
    fn lone_surrogates_stay_distinct() {
        let raws = [r#""\ud800""#, r#""\ud801""#, r#""\udc00""#, "\"\u{fffd}\"", r#""\ud800x""#];
        for (index, one) in raws.iter().enumerate() {
            for other in &raws[index + 1..] {
                assert_ne!(unescaped(one.as_bytes()), unescaped(other.as_bytes()), "{one} {other}");
            }
        }
    }

    #[test]
    fn a_surrogate_is_encoded_like_other_code_points() {
        assert_eq!(*unescaped(br#""\ud800""#), [0xed, 0xa0, 0x80]);
        assert_eq!(*unescaped(br#""\uDFFF""#), [0xed, 0xbf, 0xbf]);
        assert_eq!(*unescaped(br#""\udb7f\ud9d5""#), [0xed, 0xad, 0xbf, 0xed, 0xa7, 0x95]);
    }

    #[test]
    fn a_kept_value_is_a_copy_unless_it_is_long() {
        let frame = Charged::own(vec![b'7'; LONGEST_NAME + 2]);
        for (len, shares) in [(1, false), (LONGEST_NAME, false), (LONGEST_NAME + 1, true)] {
            let kept = kept(&frame, &(1..len + 1));
            assert_eq!(kept, frame[1..len + 1]);
            assert_eq!(kept.as_ptr() == frame[1..].as_ptr(), shares, "{len}");
        }
    }

    #[test]
    fn integer_takes_canonical_digits_below_2_to_the_53() {
        assert_eq!(integer(b"0"), Some(0));
        assert_eq!(integer(b"9007199254740991"), Some((1 << 53) - 1));
        for raw in
            ["", "9007199254740992", "12345678901234567890", "-1", "-0", "00", "01", "1.0", "1e3", "\"1\""]
        {
            assert_eq!(integer(raw.as_bytes()), None, "{raw}");
        }
    }
}
