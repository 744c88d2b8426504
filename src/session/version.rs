//! The legacy revisions of the protocol, and what differs between them here.

use crate::telemetry::metrics::labels::Revision;
use std::sync::Arc;

/// A revision of the protocol, as negotiated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    name: Arc<str>,
    revision: Revision,
}

/// The legacy revisions, newest first.
pub const LEGACY_VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

impl Version {
    /// Any text; revisions are dates, so they compare as text.
    pub fn new(version: &str) -> Self {
        Version { name: version.into(), revision: Revision::of(version) }
    }

    /// As written on the wire.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// As it is counted.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether proxyrunner knows it.
    pub fn is_known(&self) -> bool {
        LEGACY_VERSIONS.contains(&self.as_str())
    }

    /// Whether streams open with a priming event and may be closed early (2025-11-25, transports §Sending
    /// Messages 6).
    pub fn primes(&self) -> bool {
        self.as_str() >= "2025-11-25"
    }

    /// Whether a body may be a batch (2025-03-26, basic §Batching; removed in 2025-06-18).
    pub fn batches(&self) -> bool {
        self.as_str() <= "2025-03-26"
    }
}
