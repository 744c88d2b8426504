//! The listening side: its settings.

use std::net::SocketAddr;
use std::time::Duration;

/// Where and how clients are served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// Where the MCP endpoint is.
    pub path: String,
    /// The largest request body, in bytes.
    pub max_body: usize,
    /// Connections served at once.
    pub max_connections: usize,
    /// How long a quiet child may delay the response head; unset: 5 s, and 250 ms for 2025-11-25.
    pub sse_commit_after: Option<Duration>,
    /// When a stream that can be resumed is closed.
    pub sse_max_age: Duration,
    /// How long a stream may be silent before a comment is sent.
    pub keep_alive: Duration,
    /// How long a peer may take nothing of what is written to it.
    pub write_timeout: Duration,
    /// The header in which a trusted proxy names the principal, in lower case.
    pub principal_header: Option<String>,
    /// Origins accepted besides the server's own, in lower case.
    pub allow_origin: Vec<String>,
    /// `Host` values accepted besides the address listened on, in lower case.
    pub allow_host: Vec<String>,
    /// Whether the HTTP+SSE transport of 2024-11-05 is served too.
    pub old_sse: bool,
}
