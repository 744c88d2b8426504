//! Translation between the two eras of the protocol: 2026-07-28, stateless and without server-to-client
//! requests (*modern*), and all before it (*legacy*). Pure: messages in, edits or messages out; no I/O, no clock.
//!
//! | module | modern client, legacy child | legacy client, modern child |
//! | --- | --- | --- |
//! | [`envelope`] | takes it off a request | puts it on |
//! | [`capabilities`] | what a client may be asked | the same, in the child's words |
//! | [`discover`] | `InitializeResult` → `DiscoverResult` | `DiscoverResult` → `InitializeResult` |
//! | [`results`] | completes them | strips them; [`downgrade`] what a revision does not know |
//! | [`errors`] | codes that have no meaning there | codes that had none before |
//! | [`input`], [`question`] | a child's questions → `input_required` | `input_required` → questions to the client |
//! | [`notifications`] | stamps the subscription | takes the stamp off |
//!
//! [`probe`] finds out which era a child is of; [`headers`] checks what a modern client repeats of its request
//! in HTTP headers.

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

/// The modern revision that proxyrunner speaks.
pub const MODERN_VERSION: &str = "2026-07-28";

/// The two eras.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Era {
    /// 2026-07-28: every request says for itself who asks and what its client can do.
    Modern,
    /// 2024-11-05 to 2025-11-25: a handshake opens a session.
    Legacy,
}

impl Era {
    /// The one that this is not.
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

/// Raw JSON, for text that is put together; scanned text is UTF-8 already.
fn raw(bytes: &[u8], span: &crate::jsonrpc::Span) -> String {
    String::from_utf8_lossy(&bytes[span.clone()]).into_owned()
}

/// The `_meta` keys that the modern revision reserves (basic §`_meta`).
pub mod keys {
    /// The revision of a request.
    pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    /// Who sends a request.
    pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
    /// What a request's client can be asked.
    pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
    /// From which level on a request wants log messages.
    pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
    /// Who sent a result.
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
    fn an_era_is_called_by_its_name() {
        let named = [Era::Modern, Era::Legacy].map(|era| (era.to_string(), era.other().to_string()));
        assert_eq!(named, [("modern".into(), "legacy".into()), ("legacy".into(), "modern".into())]);
    }
}
