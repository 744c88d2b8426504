//! The listening side. A request goes listener → [`endpoint`] → [`guard`] → [`legacy`] → [`call`] → JSON or
//! [`sse`]; one of a client of 2026-07-28 from [`legacy`], which reads it, to [`modern`] → JSON or [`live`]. How it is
//! seen from outside is in [`visit`] and [`origin`].

mod batch;
mod body;
mod call;
mod commit;
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
mod origin;
mod outcome;
mod paths;
mod peers;
mod public_url;
mod reject;
mod relief;
mod replayed;
mod response;
mod routes;
mod service;
mod sessions;
mod site;
pub mod sse;
mod stream;
mod unread;
mod visit;

pub use health::levels;
pub use listener::{Listener, raise_file_limit};
pub use peers::{Connections, SPARE};
pub use public_url::PublicUrl;
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

/// Where and how clients are served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--listen`
    pub listen: SocketAddr,
    /// `--admin-listen`: where probes and metrics are served on a listener of their own.
    pub admin_listen: Option<SocketAddr>,
    /// `--path`: where the MCP endpoint is.
    pub path: String,
    /// `--public-url`: the external URL.
    pub public_url: Option<PublicUrl>,
    /// `--max-body`, in bytes.
    pub max_body: usize,
    /// `--max-connections`, served at once.
    pub max_connections: usize,
    /// `--sse-commit-after`: how long a quiet child may delay the response head; unset: 5 s, and 250 ms for
    /// 2025-11-25.
    pub sse_commit_after: Option<Duration>,
    /// `--sse-max-age`: when a stream that can be resumed is closed.
    pub sse_max_age: Duration,
    /// `--sse-keep-alive`: how long a stream may be silent before a comment is sent.
    pub keep_alive: Duration,
    /// `--write-timeout`: how long a peer may take nothing of what is written to it.
    pub write_timeout: Duration,
    /// `--keep-alive-timeout`: idle time before a connection is closed.
    pub keep_alive_timeout: Duration,
    /// `--principal-header`: where a trusted proxy names the principal, in lower case.
    pub principal_header: Option<String>,
    /// `--allow-origin`: origins accepted besides loopback ones on a loopback address, in lower case; `*.` stands for
    /// labels.
    pub allow_origin: Vec<String>,
    /// `--allow-host`: hosts accepted besides loopback names and, on other addresses, IP addresses and private names; in
    /// lower case; `*.` stands for labels.
    pub allow_host: Vec<String>,
    /// `OTEL_PROPAGATORS`: whether clients' spans are taken on, and the child is given ours.
    pub propagates: bool,
    /// `--allow-baggage`: what of clients' baggage reaches the child.
    pub allowed_baggage: AllowedBaggage,
    /// `--sse`: whether the HTTP+SSE transport of 2024-11-05 is served too.
    pub old_sse: bool,
}

/// What every request needs.
#[derive(Debug)]
pub struct Server {
    /// The operator's choices.
    pub settings: Settings,
    /// The children.
    pub upstream: Arc<Upstream>,
    /// The sessions.
    pub directory: Arc<Directory>,
    /// How far the end has come.
    pub shutdown: Shutdown,
    /// The bytes in transit.
    pub budget: Budget,
    /// Whether the child has completed its handshake.
    pub phase: watch::Receiver<Phase>,
    /// Whether the event loop turns.
    pub pulse: Pulse,
    /// The connections, and which of them stall.
    pub connections: Arc<Connections>,
}
