//! The fields of a certificate that rustls verifies but does not show: its period, its names (RFC 5280 §4.1).

use super::der::{BOOLEAN, Der, Element, OCTETS, OID, SEQUENCE, SET};
use std::fmt::Write as _;

/// The subject alternative name extension: 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const EMAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// String types that hold UTF-8 or a part of it: UTF8String, PrintableString, IA5String.
const STRINGS: [u8; 3] = [0x0c, 0x13, 0x16];

/// Object identifiers of attributes and their short names (RFC 4514 §3).
const ATTRIBUTES: [(&[u8], &str); 9] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
];

/// The fields of one certificate.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    /// The period in which it is valid, in seconds since the Unix epoch.
    pub not_before: i64,
    pub not_after: i64,
    /// The subject as RFC 4514 writes it; empty if there is none, or it cannot be written without doubt.
    pub subject: String,
    pub emails: Vec<String>,
    pub dns: Vec<String>,
    pub uris: Vec<String>,
}

/// Returns the fields of a certificate; `None` if it is malformed.
pub(super) fn read(certificate: &[u8]) -> Option<Fields> {
    let mut fields = Fields::default();
    let mut tbs = Der::new(certificate).take(SEQUENCE)?.take(SEQUENCE)?;
    let _version = tbs.optional(0xa0);
    let (_serial, _algorithm, _issuer) = (tbs.next()?, tbs.take(SEQUENCE)?, tbs.take(SEQUENCE)?);
    let mut validity = tbs.take(SEQUENCE)?;
    fields.not_before = time(validity.next()?)?;
    fields.not_after = time(validity.next()?)?;
    fields.subject = subject(tbs.take(SEQUENCE)?).unwrap_or_default();
    let _key = tbs.take(SEQUENCE)?;
    let (_issuer_id, _subject_id) = (tbs.optional(0x81), tbs.optional(0x82));
    if let Some(mut extensions) = tbs.optional(0xa3) {
        let mut extensions = extensions.take(SEQUENCE)?;
        while !extensions.is_empty() {
            let mut extension = extensions.take(SEQUENCE)?;
            let id = extension.take(OID)?;
            let _critical = extension.optional(BOOLEAN);
            let mut value = extension.take(OCTETS)?;
            if id.bytes() == SUBJECT_ALT_NAME {
                alternative_names(value.take(SEQUENCE)?, &mut fields)?;
            }
        }
    }
    Some(fields)
}

fn alternative_names(mut names: Der<'_>, fields: &mut Fields) -> Option<()> {
    while !names.is_empty() {
        let Element { tag, contents, .. } = names.next()?;
        let list = match tag {
            EMAIL => &mut fields.emails,
            DNS => &mut fields.dns,
            URI => &mut fields.uris,
            _ => continue,
        };
        // IA5String is ASCII.
        list.push(std::str::from_utf8(contents).ok().filter(|name| name.is_ascii())?.to_owned());
    }
    Some(())
}

/// Returns a distinguished name as RFC 4514 writes it: the last part first.
fn subject(mut names: Der<'_>) -> Option<String> {
    let mut parts = Vec::new();
    while !names.is_empty() {
        let mut set = names.take(SET)?;
        if set.is_empty() {
            return None;
        }
        let mut part = String::new();
        while !set.is_empty() {
            let mut attribute = set.take(SEQUENCE)?;
            let (id, value) = (attribute.take(OID)?.bytes(), attribute.next()?);
            if !part.is_empty() {
                part.push('+');
            }
            match ATTRIBUTES.iter().find(|(known, _)| *known == id) {
                Some((_, name)) if STRINGS.contains(&value.tag) => {
                    let text = std::str::from_utf8(value.contents).ok()?;
                    let _ = write!(part, "{name}=");
                    escape(text, &mut part)?;
                }
                _ => {
                    let _ = write!(part, "{}=#", dotted(id)?);
                    for byte in value.whole {
                        let _ = write!(part, "{byte:02x}");
                    }
                }
            }
        }
        parts.push(part);
    }
    parts.reverse();
    Some(parts.join(","))
}

/// Appends a value, escaped by RFC 4514 §2.4; `None` for control characters, which no identity should have.
fn escape(text: &str, out: &mut String) -> Option<()> {
    for (at, c) in text.char_indices() {
        let is_edge = at == 0 || at + c.len_utf8() == text.len();
        let is_special = matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\')
            || (c == ' ' && is_edge)
            || (c == '#' && at == 0);
        if c.is_control() {
            return None;
        }
        if is_special {
            out.push('\\');
        }
        out.push(c);
    }
    Some(())
}

/// Returns an object identifier in digits and dots; `None` if it is cut, or not in its shortest form.
fn dotted(id: &[u8]) -> Option<String> {
    const MORE: u8 = 0x80;
    let mut numbers = Vec::new();
    let mut number = 0_u64;
    if id.last().is_some_and(|last| last & MORE != 0) {
        return None;
    }
    for &byte in id {
        if byte == MORE && number == 0 {
            return None;
        }
        number = number.checked_mul(128)? + u64::from(byte & 0x7f);
        if byte & MORE == 0 {
            numbers.push(std::mem::take(&mut number));
        }
    }
    let (&first, rest) = numbers.split_first()?;
    let root = (first / 40).min(2);
    let mut text = format!("{root}.{}", first - root * 40);
    for number in rest {
        let _ = write!(text, ".{number}");
    }
    Some(text)
}

/// Returns seconds since the Unix epoch. Both types end in `Z` (RFC 5280 §4.1.2.5).
fn time(element: Element<'_>) -> Option<i64> {
    let digits = element.contents.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    let (year, rest) = match (element.tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year = number(&digits[..2]);
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let part = |at: usize| number(&rest[at..at + 2]);
    let (month, day, hour, minute, second) = (part(0), part(2), part(4), part(6), part(8));
    let is_sound =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    is_sound.then(|| days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Returns the days since 1970-01-01 in the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // The year begins in March, so that a leap day is its last day.
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let in_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + in_year - 719_468
}

/// Writes seconds since the Unix epoch as RFC 3339.
pub(super) fn shown(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400) + 719_468, seconds.rem_euclid(86_400));
    let era = days.div_euclid(146_097);
    let in_era = days.rem_euclid(146_097);
    let year_in_era = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_in_era + year_in_era / 4 - year_in_era / 100);
    let from_march = (5 * in_year + 2) / 153;
    let day = in_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_in_era + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(tag: u8, text: &str) -> Option<i64> {
        time(Element { tag, contents: text.as_bytes(), whole: &[] })
    }

    #[test]
    fn times_are_seconds_since_the_epoch() {
        assert_eq!(at(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(at(UTC_TIME, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(at(UTC_TIME, "500101000000Z"), Some(-631_152_000));
        assert_eq!(at(GENERALIZED_TIME, "20240229120000Z"), Some(1_709_208_000));
        assert_eq!(at(GENERALIZED_TIME, "99991231235959Z"), Some(253_402_300_799));
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_709_208_000, "2024-02-29T12:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
            (-631_152_000, "1950-01-01T00:00:00Z"),
        ] {
            assert_eq!(shown(seconds), text);
        }
        for bad in ["7001010000Z", "700101000000", "701301000000Z", "70010100000xZ", "700101240000Z", ""] {
            assert_eq!(at(UTC_TIME, bad), None, "{bad}");
        }
    }

    #[test]
    fn the_subject_is_written_last_part_first_and_escaped() {
        let attribute = |id: &[u8], tag: u8, text: &str| {
            let mut inner = vec![OID, id.len() as u8];
            inner.extend(id);
            inner.extend([tag, text.len() as u8]);
            inner.extend(text.as_bytes());
            [&[SET, inner.len() as u8 + 2, SEQUENCE, inner.len() as u8][..], &inner].concat()
        };
        let written = |parts: &[Vec<u8>]| subject(Der::new(&parts.concat()));
        let (organization, name) =
            (attribute(&[0x55, 4, 10], 0x0c, "A, B"), attribute(&[0x55, 4, 3], 0x13, "#x "));
        assert_eq!(written(&[organization, name]).as_deref(), Some("CN=\\#x\\ ,O=A\\, B"));
        let unknown = attribute(&[0x2a, 0x86, 0x48], 0x0c, "hi");
        assert_eq!(written(&[unknown]).as_deref(), Some("1.2.840=#0c026869"));
        assert_eq!(written(&[attribute(&[0x55, 4, 3], 0x0c, "a\nb")]), None);
        assert_eq!(written(&[]).as_deref(), Some(""));
        // These would be written as another subject is.
        let name = attribute(&[0x55, 4, 3], 0x0c, "x");
        assert_eq!(written(&[vec![SET, 0], name]), None, "an empty part");
        for id in [&[0x2a, 0x86, 0x48, 0x86][..], &[0x2a, 0x80, 0x86, 0x48], &[0x80, 0x2a]] {
            assert_eq!(written(&[attribute(id, 0x0c, "hi")]), None, "{id:?}");
        }
    }

    #[test]
    fn cut_or_changed_certificates_are_refused_without_a_panic() {
        let whole = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap().cert.der().to_vec();
        assert_eq!(read(&whole).unwrap().dns, ["a.example"]);
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), None);
        }
        for at in 0..whole.len() {
            for bits in [0x01, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] ^= bits;
                let _ = read(&changed);
            }
        }
    }
}
