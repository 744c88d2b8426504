//! Credentials that are taken back before they expire.

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Tells the streams of a caller that its credentials were taken back. It says nothing about who the caller is, so all are
/// equal.
#[derive(Clone, Debug, Default)]
pub struct Revocation(CancellationToken);

impl PartialEq for Revocation {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Revocation {}

impl Revocation {
    /// Takes the credentials back.
    pub fn revoke(&self) {
        self.0.cancel();
    }

    /// Returns whether they were taken back.
    pub fn is_revoked(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until they are taken back.
    pub fn comes(&self) -> WaitForCancellationFutureOwned {
        self.0.clone().cancelled_owned()
    }
}
