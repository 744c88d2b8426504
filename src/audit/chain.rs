//! The hash chain: each line names its number, the hash of the line before, and its own hash.
//!
//! A line ends with these members, in this order:
//!
//! ```text
//! …,"seq":7,"prev":"<hash>","hash":"<hash>"}
//! …,"seq":8,"prev":"<hash>","signature":"<HMAC>","hash":"<hash>"}     a signed checkpoint
//! ```
//!
//! The hash is the SHA-256 of the exact bytes of the line without the member `hash`; the signature is the HMAC-SHA256
//! of the line without `signature` and `hash`. Neither includes the newline.

use super::key::Key;
use super::stamp::put_hex;
use ring::digest::{SHA256, digest};
use std::fmt::Write;

/// The SHA-256 of a line.
pub(super) type Hash = [u8; 32];

/// The `prev` of the first line of a chain.
pub(super) const NOTHING: Hash = [0; 32];

/// Maximum length of what [`Head::seal`] appends to a line that is not signed, in bytes.
pub(super) const LONGEST_LINK: usize = 192;

/// The position at the end of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The number of the last line; 0 if there is none.
    pub seq: u64,
    /// The hash of the last line.
    pub hash: Hash,
}

impl Head {
    /// The head of an empty chain.
    pub const EMPTY: Head = Head { seq: 0, hash: NOTHING };

    /// Returns the hash in hexadecimal.
    pub fn hex(&self) -> String {
        let mut hex = String::with_capacity(64);
        put_hex(&mut hex, &self.hash);
        hex
    }

    /// Completes a line, which is an object without its last brace, and returns the head after it. Only `signer` signs
    /// it.
    pub fn seal(self, line: &mut String, signer: Option<&Key>) -> Head {
        let seq = self.seq + 1;
        let _ = write!(line, ",\"seq\":{seq}");
        put_member(line, "prev", &self.hash);
        if let Some(key) = signer {
            let signature = with_brace(line, |text| key.sign(text));
            put_member(line, "signature", signature.as_ref());
        }
        let hash = with_brace(line, |text| digest(&SHA256, text));
        put_member(line, "hash", hash.as_ref());
        line.push_str("}\n");
        Head { seq, hash: hash.as_ref().try_into().expect("32 bytes") }
    }
}

fn put_member(line: &mut String, name: &str, bytes: &[u8]) {
    line.push_str(",\"");
    line.push_str(name);
    line.push_str("\":\"");
    put_hex(line, bytes);
    line.push('"');
}

fn with_brace<T>(line: &mut String, work: impl FnOnce(&[u8]) -> T) -> T {
    line.push('}');
    let done = work(line.as_bytes());
    line.pop();
    done
}

/// The chain's members of one line, whose hash is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// The number of the line.
    pub seq: u64,
    /// The hash of the line before.
    pub prev: Hash,
    /// Its own hash.
    pub hash: Hash,
    /// Its signature, and the length of the text that is signed, without its brace.
    pub signature: Option<(Hash, usize)>,
}

/// The fault of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// It does not end with the members of a chain.
    NoLink,
    /// Its hash is not that of its bytes.
    WrongHash,
}

impl Link {
    /// Reads the link at the end of a line without its newline.
    pub fn of(line: &[u8]) -> Result<Link, Broken> {
        let inner = line.strip_suffix(b"}").ok_or(Broken::NoLink)?;
        let (rest, hash) = last_member(inner, b"hash").ok_or(Broken::NoLink)?;
        let signed = last_member(rest, b"signature");
        let chained = signed.map_or(rest, |(rest, _)| rest);
        let (numbered, prev) = last_member(chained, b"prev").ok_or(Broken::NoLink)?;
        let seq = seq(numbered).ok_or(Broken::NoLink)?;
        if with_closing(rest, |text| digest(&SHA256, text)).as_ref() != hash {
            return Err(Broken::WrongHash);
        }
        let signature = signed.map(|(rest, signature)| (signature, rest.len()));
        Ok(Link { seq, prev, hash, signature })
    }

    /// Returns whether a key has signed this link's line.
    pub fn is_signed(&self, line: &[u8], key: &Key) -> bool {
        self.signature.is_some_and(|(signature, length)| {
            with_closing(&line[..length], |text| key.has_signed(text, &signature))
        })
    }

    /// Returns the head of a chain that ends with this link's line.
    pub fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash }
    }
}

fn with_closing<T>(text: &[u8], work: impl FnOnce(&[u8]) -> T) -> T {
    let mut whole = Vec::with_capacity(text.len() + 1);
    whole.extend_from_slice(text);
    whole.push(b'}');
    work(&whole)
}

/// Splits the last member, whose value is a hash, off an object without its last brace.
fn last_member<'a>(text: &'a [u8], name: &[u8]) -> Option<(&'a [u8], Hash)> {
    let at = text.len().checked_sub(name.len() + 4 + 64 + 2)?;
    let (rest, member) = text.split_at(at);
    let member = member.strip_prefix(b",\"")?.strip_prefix(name)?.strip_prefix(b"\":\"")?;
    let digits = member.strip_suffix(b"\"")?;
    let mut hash = NOTHING;
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some((rest, hash))
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Returns the value of the member `seq` at the end of a text.
fn seq(text: &[u8]) -> Option<u64> {
    let digits = text.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (rest, digits) = text.split_at(text.len() - digits);
    if !rest.ends_with(b",\"seq\":") || digits.starts_with(b"0") {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_line_is_read_back_and_any_changed_byte_is_seen() {
        let key = Key::of(&[7; 32]).expect("long enough");
        for signer in [None, Some(&key)] {
            let mut line = r#"{"a":"b","n":1"#.to_owned();
            let head = Head { seq: 41, hash: [3; 32] }.seal(&mut line, signer);
            let line = line.trim_end().as_bytes().to_vec();
            let link = Link::of(&line).expect("a link");
            assert_eq!((link.seq, link.prev, link.head()), (42, [3; 32], head));
            assert_eq!(link.is_signed(&line, &key), signer.is_some());
            assert!(!link.is_signed(&line, &Key::of(&[8; 32]).expect("long enough")));
            serde_json::from_slice::<serde_json::Value>(&line).expect("JSON");
            for at in 0..line.len() {
                let mut changed = line.clone();
                changed[at] ^= 1;
                assert!(Link::of(&changed).is_err(), "{}", String::from_utf8_lossy(&changed));
            }
        }
    }

    #[test]
    fn texts_that_are_no_lines_have_no_link() {
        for text in ["", "}", "{}", r#"{"hash":""}"#, &"x".repeat(200)] {
            assert_eq!(Link::of(text.as_bytes()), Err(Broken::NoLink));
        }
    }
}
