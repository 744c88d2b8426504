//! The principal that a session belongs to.

use crate::client::Client;
use std::fmt;
use std::sync::Arc;

const ANONYMOUS: &str = "anonymous";

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

    /// Returns the name as the operator's proxy wrote it.
    pub fn name(&self) -> &str {
        self.0.as_deref().unwrap_or(ANONYMOUS)
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
