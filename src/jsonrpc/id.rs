//! A client's request id, kept as received so that it can be returned byte for byte.

use std::fmt;
use std::hash::{Hash, Hasher};

use super::text::unescaped;
use crate::budget::Charged;

/// A request id as its client wrote it. Ids are equal if they have the same JSON type and value, in any spelling:
/// `"1"` is not `1`, but `"\u0031"` is `"1"`.
#[derive(Clone)]
pub struct ClientId(Raw);

/// Maximum length of an id that takes no allocation, in bytes: a UUID in quotes.
const SHORT: usize = 38;

#[derive(Clone)]
enum Raw {
    Short { bytes: [u8; SHORT], length: u8 },
    Long(Charged),
}

impl ClientId {
    /// Copies the raw JSON of a valid id. The scan limits it to 1 KiB.
    pub fn new(raw: &[u8]) -> Self {
        let mut bytes = [0; SHORT];
        match bytes.get_mut(..raw.len()) {
            Some(short) => {
                short.copy_from_slice(raw);
                Self(Raw::Short { bytes, length: raw.len() as u8 })
            }
            None => Self(Raw::Long(Charged::own(raw))),
        }
    }

    /// Returns the id in JSON, as received: a string with its quotes, or an integer.
    pub fn raw(&self) -> &[u8] {
        match &self.0 {
            Raw::Short { bytes, length } => &bytes[..usize::from(*length)],
            Raw::Long(raw) => raw,
        }
    }

    fn is_string(&self) -> bool {
        self.raw().first() == Some(&b'"')
    }

    fn value(&self) -> std::borrow::Cow<'_, [u8]> {
        // JSON has no leading zeros, so zero is the only integer with two spellings.
        if self.raw() == b"-0" { (&b"0"[..]).into() } else { unescaped(self.raw()) }
    }
}

impl PartialEq for ClientId {
    fn eq(&self, other: &Self) -> bool {
        self.is_string() == other.is_string() && self.value() == other.value()
    }
}

impl Eq for ClientId {}

impl Hash for ClientId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.is_string().hash(state);
        self.value().hash(state);
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ClientId({})", String::from_utf8_lossy(self.raw()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn equality_is_by_type_and_value() {
        let id = |raw: &str| ClientId::new(raw.as_bytes());
        assert_eq!(id("\"1\""), id(r#""\u0031""#));
        assert_eq!(id("0"), id("-0"));
        assert_ne!(id("1"), id("\"1\""));
        assert_ne!(id("12345678901234567890"), id("12345678901234567891"));
        assert_ne!(id(r#""\ud800""#), id("\"\u{fffd}\""));
        let set: HashSet<_> = [id("1"), id("\"1\""), id(r#""\u0031""#)].into();
        assert_eq!(set.len(), 2);
    }

    #[test]
    fn ids_that_differ_are_spread() {
        use std::hash::{BuildHasher, RandomState};
        let state = RandomState::new();
        let hash = |raw: &str| state.hash_one(ClientId::new(raw.as_bytes()));
        assert_eq!(hash("0"), hash("-0"));
        let hashes: HashSet<_> = (0..100).map(|id| hash(&id.to_string())).collect();
        assert!(hashes.len() > 90, "{}", hashes.len());
    }

    #[test]
    fn raw_is_the_id_as_received() {
        let id = ClientId::new(br#""\u0031""#);
        assert_eq!(id.raw(), br#""\u0031""#);
        assert_eq!(format!("{id:?}"), r#"ClientId("\u0031")"#);
        for length in [SHORT - 1, SHORT, SHORT + 1, 1024] {
            let raw = vec![b'7'; length];
            assert_eq!(ClientId::new(&raw).raw(), raw, "{length}");
        }
    }
}
