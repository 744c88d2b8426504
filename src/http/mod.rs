//! The HTTP side: from an accepted connection to a JSON response or an event stream.
//!
//! The path of a request, file by file:
//!
//! 1. [`listener`] accepts the connection, to which [`peers`] gives a place, and [`opening`] finds out what its client
//!    speaks;
//! 2. [`service`] parses its requests with hyper, or [`http2`] does ([`flow`], [`resets`]); `service` charges them, and
//!    begins their span ([`visit`], [`source`]);
//! 3. [`routes`] checks framing, Host and Origin ([`guard`], [`site`]), [`auth`] identifies the caller, and [`routes`]
//!    routes by path ([`paths`]) to [`health`], [`old_sse`] or
//! 4. [`endpoint`], which reads the body ([`body`]), determines the era of its message, and passes it to
//! 5. [`legacy`] or [`modern`]. Both send it to [`Upstream`], wait for its first message or its answer, and
//! 6. answer with JSON ([`response`]) or an event stream ([`stream`]), or refuse it ([`reject`], [`outcome`]).
//!
//! Before a request is dispatched, it passes the [`clearance`], the policies ([`permit`]) and the opening of its
//! [`cursors`]; its answer is seen by its client's [`outlook`], and that of a gateway's server is `filtered`. A request of
//! another replica's session is passed on to it instead (`forwarding`, [`relay`]), and what it has passed on itself comes
//! with a ticket (`siblings`).
//!
//! Besides these: [`sessions`] opens, finds and ends the sessions of legacy clients, and serves their GET streams;
//! [`batch`] and [`oneway`] handle the other messages of legacy clients. A stream's events come from a session's
//! replay buffer ([`replayed`]) or from a modern request ([`live`]), and [`sse`] encodes them; [`expiry`] ends it with
//! its caller's credentials. [`relief`] frees memory.

mod again;
mod auth;
mod batch;
mod body;
#[cfg(feature = "gateway")]
mod called;
mod cards;
mod clearance;
mod cursors;
mod cut;
mod deviation;
mod ending;
mod endpoint;
mod expiry;
#[cfg(feature = "gateway")]
mod filtered;
mod flow;
#[cfg(feature = "gateway")]
mod forwarding;
mod guard;
mod health;
mod http2;
mod legacy;
mod listener;
mod live;
mod marked;
mod modern;
mod old_sse;
mod oneway;
mod opening;
mod outcome;
mod outlook;
mod paths;
mod peers;
mod permit;
mod public_url;
#[cfg(feature = "gateway")]
mod recorded;
#[cfg(feature = "gateway")]
mod registrations;
#[cfg(feature = "gateway")]
mod registry;
mod reject;
#[cfg(feature = "gateway")]
mod relay;
mod relief;
mod replayed;
mod resets;
mod response;
mod routes;
mod scrape;
#[cfg(feature = "gateway")]
mod servers;
mod service;
mod sessions;
#[cfg(feature = "gateway")]
mod siblings;
mod site;
mod source;
pub mod sse;
mod stream;
#[cfg(feature = "gateway")]
mod takeover;
mod unread;
mod visit;

pub use crate::outbound::Network;
pub use auth::resource::Resource;
pub use auth::settings::Settings as AuthSettings;
pub use cards::card;
#[cfg(feature = "gateway")]
pub use filtered::events_in;
pub use health::levels;
pub use listener::{Handed, Listener, raise_file_limit};
pub use peers::{Connections, SPARE};
pub use public_url::PublicUrl;
pub use scrape::Scrapes;
pub use service::{HEAD_PATIENCE, Role};

use crate::auth::Verifier;
use crate::budget::Budget;
#[cfg(feature = "gateway")]
use crate::gateway::{Gateway, Siblings};
use crate::identity::Disclosure;
use crate::limits::Limits;
use crate::phase::Phase;
use crate::policy::Policies;
use crate::pulse::Pulse;
use crate::session::Directory;
use crate::shutdown::Shutdown;
use crate::tls;
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
    /// `--listen fd:N`: the socket that listens on this address already.
    pub handed: Option<Handed>,
    /// `--admin-listen`: the address of a separate listener for probes and metrics.
    pub admin_listen: Option<SocketAddr>,
    /// `--path`: the path of the MCP endpoint.
    pub path: String,
    /// `--public-url`: the external URL.
    pub public_url: Option<PublicUrl>,
    /// `--server-name`: the server's name in the registry's form.
    pub server_name: Option<String>,
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
    /// `--max-streams`: maximum concurrent requests on a connection by HTTP/2; 0: only HTTP/1.1 is spoken.
    pub max_streams: usize,
    /// `--tls-cert`, `--tls-key`, `--tls-client-ca`: clients must speak TLS.
    pub tls: Option<tls::Settings>,
    /// `--keep-alive-timeout`: idle time after which a connection is closed.
    pub keep_alive_timeout: Duration,
    /// How callers are identified.
    pub auth: AuthSettings,
    /// `--allow-origin`: origins accepted besides loopback ones on a loopback address, in lower case; `*.` matches
    /// labels.
    pub allow_origin: Vec<String>,
    /// `--allow-host`: hosts accepted besides loopback names and, on other addresses, IP addresses and private names;
    /// in lower case; `*.` matches labels.
    pub allow_host: Vec<String>,
    /// `--child-identity meta`: what each message tells the child about its caller.
    pub disclosure: Option<Disclosure>,
    /// `--search-tools`: whether calls of `call_tool` stand for those of other tools.
    #[cfg(feature = "gateway")]
    pub searches: bool,
    /// `OTEL_PROPAGATORS`: whether trace context is extracted from clients and injected for the child.
    pub propagates: bool,
    /// `--allow-baggage`: the baggage of clients that reaches the child.
    pub allowed_baggage: AllowedBaggage,
    /// `--sse`: whether the HTTP+SSE transport of 2024-11-05 is served, too.
    pub old_sse: bool,
}

impl Settings {
    /// Returns the URL of the endpoint at the listener's own address.
    pub fn own_url(&self) -> String {
        format!("{}://{}{}", self.scheme(), self.listen, self.path)
    }

    /// Returns the scheme of the listener's URL.
    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

impl Server {
    /// Returns whether callers must present credentials to proxyrunner itself.
    fn authenticates(&self) -> bool {
        self.verifier.is_some() || self.settings.auth.certificates
    }
}

/// The state that all requests share.
#[derive(Debug)]
pub struct Server {
    /// The operator's settings.
    pub settings: Settings,
    /// Who may do what; `None`: everyone may do everything.
    pub policies: Option<Arc<Policies>>,
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
    /// The rate limits.
    pub limits: Option<Arc<Limits>>,
    /// The TLS side of `--listen`; `None` for clear text.
    pub gate: Option<Arc<tls::Gate>>,
    /// Whether callers are identified at all.
    pub identifies: bool,
    /// The servers of a gateway, which has no children.
    #[cfg(feature = "gateway")]
    pub gateway: Option<Arc<Gateway>>,
    /// The other replicas of this sidecar, which pass requests of each other's sessions on (`--forward-sessions`).
    #[cfg(feature = "gateway")]
    pub siblings: Option<Arc<Siblings>>,
    /// Verifies access tokens and API keys.
    pub verifier: Option<Verifier>,
}
