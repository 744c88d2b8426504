//! Checks that the names in a client's certificate are read or refused, and that no name can be mistaken for another: in
//! whole certificates, and in the parts of one that is otherwise sound.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyrunner::internals::tls::names_in;

const SEQUENCE: u8 = 0x30;
const PERIOD: &[u8] = b"\x17\x0d250101000000Z\x17\x0d490101000000Z";

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let names = match kind % 4 {
        0 => names_in(data),
        1 => names_in(&certificate(PERIOD, data, &[])),
        2 => names_in(&certificate(PERIOD, &[], data)),
        _ => {
            let names = names_in(&certificate(data, &[], &[]));
            assert!(names.is_none_or(|names| names.iter().all(Option::is_none)), "there is no name");
            None
        }
    };
    let Some([spiffe, dns, email, subject]) = names else { return };
    for name in [&spiffe, &dns, &email, &subject].into_iter().flatten() {
        assert!((1..=2048).contains(&name.len()));
        assert!(!name.contains(char::is_control) && !name.contains(['\u{200b}', '\u{202e}', '\u{2066}']), "{name:?}");
    }
    for name in [&spiffe, &dns, &email].into_iter().flatten() {
        assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name:?}");
    }
    assert!(spiffe.is_none_or(|id| id.starts_with("spiffe://") && !id.contains(['?', '#', '%', '@'])));
    assert!(dns.is_none_or(|name| !name.contains('*') && name == name.to_ascii_lowercase()));
    if let Some(subject) = subject {
        for part in parts(&subject) {
            assert!(part.split_once('=').is_some_and(|(name, _)| !name.is_empty()), "{subject:?}");
        }
    }
});

/// Splits a distinguished name at the separators that are not escaped (RFC 4514 §2.1, §2.2).
fn parts(subject: &str) -> Vec<&str> {
    let (mut parts, mut from, mut is_escaped) = (Vec::new(), 0, false);
    for (at, c) in subject.char_indices() {
        if !is_escaped && matches!(c, ',' | '+') {
            parts.push(&subject[from..at]);
            from = at + 1;
        }
        is_escaped = !is_escaped && c == '\\';
    }
    assert!(!is_escaped, "{subject:?}");
    parts.push(&subject[from..]);
    parts
}

/// Returns a certificate with these contents of its period, its subject and its alternative names.
fn certificate(period: &[u8], subject: &[u8], names: &[u8]) -> Vec<u8> {
    let algorithm = element(SEQUENCE, &element(0x06, &[0x2b, 0x65, 0x70]));
    let mut extensions = Vec::new();
    if !names.is_empty() {
        let value = element(0x04, &element(SEQUENCE, names));
        let extension = element(SEQUENCE, &[element(0x06, &[0x55, 0x1d, 0x11]), value].concat());
        extensions = element(0xa3, &element(SEQUENCE, &extension));
    }
    let tbs = [
        element(0xa0, &element(0x02, &[2])),
        element(0x02, &[1]),
        algorithm.clone(),
        element(SEQUENCE, &[]),
        element(SEQUENCE, period),
        element(SEQUENCE, subject),
        element(SEQUENCE, &[algorithm.clone(), element(0x03, &[0; 33])].concat()),
        extensions,
    ];
    let signed = [element(SEQUENCE, &tbs.concat()), algorithm, element(0x03, &[0; 65])];
    element(SEQUENCE, &signed.concat())
}

fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let digits = length.to_be_bytes();
    let short = &digits[digits.iter().position(|digit| *digit != 0).unwrap_or(digits.len() - 1)..];
    let mut element = vec![tag];
    if length > 0x7f {
        element.push(0x80 | short.len() as u8);
    }
    element.extend(short);
    element.extend(contents);
    element
}
