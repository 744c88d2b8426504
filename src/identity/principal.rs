//! The principal that a session belongs to.

use crate::client::Client;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

const ANONYMOUS: &str = "anonymous";
/// Stands between issuer and subject.
const SEPARATOR: char = '\u{1f}';

/// The caller as the operator's proxy names it (`--principal-header`), else `anonymous`.
///
/// See `docs/architecture.md#principal`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Principal(Option<Arc<str>>);

impl Principal {
    /// Returns the principal of this name; `None` for an empty name and for `anonymous` in any case.
    pub fn named(name: &str) -> Option<Self> {
        let means_nobody = name.is_empty() || name.eq_ignore_ascii_case(ANONYMOUS);
        (!means_nobody).then(|| Principal(Some(name.into())))
    }

    /// Returns the principal of a subject, which is unique only within its issuer. No header value and no URL contains the
    /// character between them, so no two pairs have the same name.
    pub fn issued(issuer: &str, subject: &str) -> Self {
        Principal(Some(format!("{issuer}{SEPARATOR}{subject}").into()))
    }

    /// Returns the name as the operator's proxy wrote it.
    pub fn name(&self) -> &str {
        self.0.as_deref().unwrap_or(ANONYMOUS)
    }

    /// Returns the name for people and for logs: a blank stands between issuer and subject.
    pub fn shown(&self) -> Cow<'_, str> {
        let name = self.name();
        if name.contains(SEPARATOR) { name.replace(SEPARATOR, " ").into() } else { name.into() }
    }

    /// Returns whether no principal was named.
    pub fn is_anonymous(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the client with this principal; `otherwise` tells anonymous clients apart.
    pub fn client_or(&self, otherwise: impl FnOnce() -> Client) -> Client {
        self.0.as_deref().map_or_else(otherwise, Client::named)
    }

    /// Returns the principal of a request that names none.
    pub fn anonymous() -> Self {
        Principal(None)
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Principal(…)")
    }
}
