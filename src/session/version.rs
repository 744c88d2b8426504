//! The legacy revisions of the protocol, and the relevant differences between them.

use crate::telemetry::metrics::labels::Revision;
use std::sync::Arc;

/// A negotiated revision of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    name: Arc<str>,
    revision: Revision,
}

/// The legacy revisions, newest first.
pub const LEGACY_VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

impl Version {
    /// Returns the revision of this name. Revisions are dates, so they compare as text.
    pub fn new(version: &str) -> Self {
        Version { name: version.into(), revision: Revision::of(version) }
    }

    /// Returns the name as written on the wire.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Returns the revision as a label of metrics.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Returns whether proxyrunner knows it.
    pub fn is_known(&self) -> bool {
        LEGACY_VERSIONS.contains(&self.as_str())
    }

    /// Returns whether streams open with a priming event and may be closed early (2025-11-25, transports §Sending
    /// Messages 6).
    pub fn has_priming_events(&self) -> bool {
        self.as_str() >= "2025-11-25"
    }

    /// Returns whether a body may be a batch (2025-03-26, basic §Batching; removed in 2025-06-18).
    pub fn has_batches(&self) -> bool {
        self.as_str() <= "2025-03-26"
    }
}
