//! The HTTP side: from an accepted connection to a JSON response or an event stream.
//!
//! The path of a request, file by file:
//!
//! 1. [`listener`] accepts the connection, to which [`peers`] gives a place;
//! 2. [`service`] parses its requests with hyper, charges them, and begins their span ([`visit`], [`source`]);
//! 3. [`routes`] checks framing, Host and Origin ([`guard`], [`site`]), and routes by path ([`paths`]) to [`health`],
//!    [`old_sse`] or
//! 4. [`endpoint`], which reads the body ([`body`]), determines the era of its message, and passes it to
//! 5. [`legacy`] or [`modern`]. Both send it to [`Upstream`], wait for its first message or its answer, and
//! 6. answer with JSON ([`response`]) or an event stream ([`stream`]), or refuse it ([`reject`], [`outcome`]).
//!
//! Besides these: [`sessions`] opens, finds and ends the sessions of legacy clients, and serves their GET streams;
//! [`batch`] and [`oneway`] handle the other messages of legacy clients. A stream's events come from a session's
//! replay buffer ([`replayed`]) or from a modern request ([`live`]), and [`sse`] encodes them. [`relief`] frees
//! memory.

mod again;
mod batch;
mod body;
mod deviation;
mod endpoint;
mod guard;
mod health;
mod legacy;
mod listener;
mod live;
mod marked;
mod modern;
mod old_sse;
mod oneway;
mod outcome;
mod paths;
mod peers;
mod public_url;
mod reject;
mod relief;
mod replayed;
mod response;
mod routes;
mod scrape;
mod service;
mod sessions;
mod site;
mod source;
pub mod sse;
mod stream;
mod unread;
mod visit;

pub use health::levels;
pub use listener::{Listener, raise_file_limit};
pub use peers::{Connections, SPARE};
pub use public_url::PublicUrl;
pub use scrape::Scrapes;
pub use service::{HEAD_PATIENCE, Role};

use crate::budget::Budget;
use crate::phase::Phase;
use crate::pulse::Pulse;
use crate::session::Directory;
use crate::shutdown::Shutdown;
use crate::trace_context::AllowedBaggage;
use crate::upstream::Upstream;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The settings of the HTTP side.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--listen`: the address to listen on.
    pub listen: SocketAddr,
    /// `--admin-listen`: the address of a separate listener for probes and metrics.
    pub admin_listen: Option<SocketAddr>,
    /// `--path`: the path of the MCP endpoint.
    pub path: String,
    /// `--public-url`: the external URL.
    pub public_url: Option<PublicUrl>,
    /// `--max-body`, in bytes.
    pub max_body: usize,
    /// `--max-connections`: maximum number of connections.
    pub max_connections: usize,
    /// `--sse-commit-after`: maximum delay of a response's head while the child is silent; `None`: 5 s, and 250 ms
    /// for 2025-11-25.
    pub sse_commit_after: Option<Duration>,
    /// `--sse-max-age`: the age at which a resumable stream is closed.
    pub sse_max_age: Duration,
    /// `--sse-keep-alive`: silence after which a stream sends a comment.
    pub keep_alive: Duration,
    /// `--write-timeout`: time after which a peer that reads nothing is disconnected.
    pub write_timeout: Duration,
    /// `--keep-alive-timeout`: idle time after which a connection is closed.
    pub keep_alive_timeout: Duration,
    /// `--principal-header`: the header in which a trusted proxy names the principal, in lower case.
    pub principal_header: Option<String>,
    /// `--allow-origin`: origins accepted besides loopback ones on a loopback address, in lower case; `*.` matches
    /// labels.
    pub allow_origin: Vec<String>,
    /// `--allow-host`: hosts accepted besides loopback names and, on other addresses, IP addresses and private names;
    /// in lower case; `*.` matches labels.
    pub allow_host: Vec<String>,
    /// `OTEL_PROPAGATORS`: whether trace context is extracted from clients and injected for the child.
    pub propagates: bool,
    /// `--allow-baggage`: the baggage of clients that reaches the child.
    pub allowed_baggage: AllowedBaggage,
    /// `--sse`: whether the HTTP+SSE transport of 2024-11-05 is served, too.
    pub old_sse: bool,
}

/// The state that all requests share.
#[derive(Debug)]
pub struct Server {
    /// The operator's settings.
    pub settings: Settings,
    /// The children.
    pub upstream: Arc<Upstream>,
    /// The sessions.
    pub directory: Arc<Directory>,
    /// The stages of the shutdown.
    pub shutdown: Shutdown,
    /// The bytes of all messages (`--max-buffered`).
    pub budget: Budget,
    /// The latest metrics.
    pub scrapes: Scrapes,
    /// The state of the children, for probes.
    pub phase: watch::Receiver<Phase>,
    /// Whether the event loop is responsive.
    pub pulse: Pulse,
    /// The open connections.
    pub connections: Arc<Connections>,
}
