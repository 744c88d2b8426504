//! The id of a session, by which a child's audience tells its members apart.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// `Mcp-Session-Id`: 128 bits from the operating system's random source, in hexadecimal; with `--forward-sessions` they
/// are sealed together with this replica's address.
///
/// Anyone who knows the id can use the session, so `Debug` and `Display` show only its first characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// Mints a random id.
    ///
    /// # Errors
    /// Returns the operating system's error when it provides no randomness.
    pub fn mint() -> Result<Self, getrandom::Error> {
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random)?;
        Ok(SessionId(format!("{:032x}", u128::from_be_bytes(random)).into()))
    }

    /// Wraps an id that was made elsewhere, and that nobody can guess.
    #[cfg(feature = "gateway")]
    pub fn sealed(id: &str) -> Self {
        SessionId(id.into())
    }

    /// Returns the whole id, which only its client may see.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

/// Allows a lookup of ids by the text of the header that a client sent.
impl Borrow<str> for SessionId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.get(..6).unwrap_or_default())?;
        f.write_str("…")
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_long_and_unique_and_never_shown_in_full() {
        let (a, b) = (SessionId::mint().unwrap(), SessionId::mint().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.secret().len(), 32);
        assert!(!format!("{a} {a:?}").contains(a.secret()));
    }
}
