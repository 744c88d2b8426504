//! The error for an endpoint to which export is impossible.

use std::fmt;

/// An endpoint setting that makes export impossible.
#[derive(Debug)]
pub struct Unusable(pub(super) String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unusable {}
