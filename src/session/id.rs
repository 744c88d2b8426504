//! Who a session belongs to, and its name.

use crate::client::Client;
use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// `Mcp-Session-Id`: 128 bits from the operating system's random source, in hexadecimal.
///
/// Whoever knows it can use the session, so it is never logged whole: `Debug` and `Display` show its beginning.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// A new one.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn mint() -> Result<Self, getrandom::Error> {
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random)?;
        Ok(SessionId(format!("{:032x}", u128::from_be_bytes(random)).into()))
    }

    /// The whole id, for its client only.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

/// So that a table of ids is searched by what a client sent.
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

const ANONYMOUS: &str = "anonymous";

/// Who the operator says is calling (`--principal-header`), else `anonymous`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Principal(Arc<str>);

impl Principal {
    /// Returns the principal of this name; `None` for an empty name and for `anonymous` in any case.
    pub fn named(name: &str) -> Option<Self> {
        let means_nobody = name.is_empty() || name.eq_ignore_ascii_case(ANONYMOUS);
        (!means_nobody).then(|| Principal(name.into()))
    }

    /// As the operator's proxy wrote it.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Whether nobody in particular is calling.
    pub fn is_anonymous(&self) -> bool {
        &*self.0 == ANONYMOUS
    }

    /// The client with this principal; `otherwise` tells anonymous clients apart.
    pub fn client_or(&self, otherwise: impl FnOnce() -> Client) -> Client {
        if self.is_anonymous() { otherwise() } else { Client::named(&self.0) }
    }

    /// The one of a request that names none.
    pub fn anonymous() -> Self {
        Principal(ANONYMOUS.into())
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Principal(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_long_and_differ_and_are_not_shown_whole() {
        let (a, b) = (SessionId::mint().unwrap(), SessionId::mint().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.secret().len(), 32);
        assert!(!format!("{a} {a:?}").contains(a.secret()));
    }
}
