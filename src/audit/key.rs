//! The key that signs checkpoints (`--audit-key-file`).

use super::stamp::put_hex;
use ring::{digest, hmac};
use std::fmt;
use std::path::Path;

/// Minimum length of a key in bytes.
const SHORTEST: usize = 32;
/// Maximum length of a key file in bytes.
const LONGEST: u64 = 64 * 1024;
/// Separates the key's id from other digests of the same secret.
const ID: &[u8] = b"proxyrunner audit key\0";

/// A key for HMAC-SHA256. Only its id is ever shown.
#[derive(Clone)]
pub struct Key {
    id: Box<str>,
    key: hmac::Key,
}

impl Key {
    /// Creates a key from a secret; `None` if it is shorter than 32 bytes.
    pub fn of(secret: &[u8]) -> Option<Self> {
        if secret.len() < SHORTEST {
            return None;
        }
        let mut digested = digest::Context::new(&digest::SHA256);
        digested.update(ID);
        digested.update(secret);
        let mut id = String::with_capacity(16);
        put_hex(&mut id, &digested.finish().as_ref()[..8]);
        Some(Key { id: id.into(), key: hmac::Key::new(hmac::HMAC_SHA256, secret) })
    }

    /// Reads a key file. Blanks around the secret are removed, as in other key files.
    ///
    /// # Errors
    /// The reason, in words.
    pub fn read(path: &Path) -> Result<Self, String> {
        let size = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?.len();
        if size > LONGEST {
            return Err("is longer than 64 KiB".to_owned());
        }
        let secret = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
        Self::of(secret.trim_ascii()).ok_or_else(|| "is shorter than 32 bytes".to_owned())
    }

    /// Returns the public name of the key: 16 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the signature of a text.
    pub(super) fn sign(&self, text: &[u8]) -> hmac::Tag {
        hmac::sign(&self.key, text)
    }

    /// Returns whether a signature is this key's, in constant time.
    pub(super) fn has_signed(&self, text: &[u8], signature: &[u8]) -> bool {
        hmac::verify(&self.key, text, signature).is_ok()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}
