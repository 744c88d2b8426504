//! Translates between the two eras of the protocol (`docs/architecture.md#eras`): 2026-07-28, stateless and without
//! requests from server to client (*modern*), and all earlier revisions (*legacy*). Pure: messages in, edits or
//! messages out.
//!
//! | module | modern client, legacy child | legacy client, modern child |
//! | --- | --- | --- |
//! | [`envelope`] | removed from requests | added to requests |
//! | [`capabilities`] | the questions that a client answers | the same, declared to the child |
//! | [`discover`] | `InitializeResult` → `DiscoverResult` | `DiscoverResult` → `InitializeResult` |
//! | [`results`] | completed | stripped; [`downgrade`] for older revisions |
//! | [`errors`] | legacy codes translated | modern codes translated |
//! | [`input`], [`question`] | a child's questions → `input_required` | `input_required` → questions to the client |
//! | [`notifications`] | stamped with the subscription | stamp removed |
//!
//! [`probe`] detects a child's era; [`headers`] checks the HTTP headers in which a modern client repeats parts of its
//! request.

pub mod capabilities;
pub(crate) mod discover;
pub(crate) mod downgrade;
pub mod envelope;
pub(crate) mod errors;
pub(crate) mod headers;
pub(crate) mod input;
pub(crate) mod notifications;
pub mod probe;
pub(crate) mod question;
pub(crate) mod results;

#[cfg(test)]
mod duplicates_tests;
#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod headers_tests;
#[cfg(test)]
mod input_tests;
#[cfg(test)]
mod probe_tests;

/// The modern revision that proxyrunner supports.
pub const MODERN_VERSION: &str = "2026-07-28";

/// An era of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Era {
    /// 2026-07-28: every request identifies its client and the client's capabilities.
    Modern,
    /// 2024-11-05 to 2025-11-25: a handshake opens a session.
    Legacy,
}

impl Era {
    /// Returns the opposite era.
    pub fn other(self) -> Self {
        match self {
            Era::Modern => Era::Legacy,
            Era::Legacy => Era::Modern,
        }
    }
}

impl std::fmt::Display for Era {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Era::Modern => "modern",
            Era::Legacy => "legacy",
        })
    }
}

/// Returns a part of a scanned message, which is UTF-8, as text.
fn raw(bytes: &[u8], span: &crate::jsonrpc::Span) -> String {
    String::from_utf8_lossy(&bytes[span.clone()]).into_owned()
}

/// The `_meta` keys that the modern revision reserves (basic §`_meta`).
pub mod keys {
    /// The revision of a request.
    pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    /// The sender of a request.
    pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
    /// The client's capabilities.
    pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
    /// The minimum level of log messages that a request wants.
    pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
    /// The sender of a result.
    pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
    /// The id of the `subscriptions/listen` that a notification belongs to.
    pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
    /// Legacy: the task that a message belongs to.
    pub const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";
    /// The tasks extension, in `capabilities.extensions` (SEP-2663).
    pub const TASKS: &str = "io.modelcontextprotocol/tasks";
}

#[cfg(test)]
mod tests {
    use super::Era;

    #[test]
    fn an_era_is_displayed_by_its_name() {
        let named = [Era::Modern, Era::Legacy].map(|era| (era.to_string(), era.other().to_string()));
        assert_eq!(named, [("modern".into(), "legacy".into()), ("legacy".into(), "modern".into())]);
    }
}
