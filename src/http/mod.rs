//! The listening side. A request goes listener → [`endpoint`] → [`guard`] → [`legacy`] → [`call`] → JSON or
//! [`sse`]; one of a client of 2026-07-28 from [`legacy`], which reads it, to [`modern`] → JSON or [`live`]. How it is
//! seen from outside is in [`visit`] and [`origin`].

mod batch;
mod body;
mod call;
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
mod peers;
mod public_url;
mod reject;
mod response;
mod scrape;
mod site;
pub mod sse;
mod unread;
mod visit;

pub use health::levels;
pub use listener::{HEAD_PATIENCE, Listener, Role, raise_file_limit};
pub use peers::{Connections, SPARE};
pub use public_url::PublicUrl;
pub use scrape::Scrapes;

use crate::budget::{Account, Budget};
use crate::phase::Phase;
use crate::pulse::Pulse;
use crate::session::Directory;
use crate::shutdown::Shutdown;
use crate::telemetry::counters;
use crate::trace_context::AllowedBaggage;
use crate::upstream::Upstream;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How far a reader must lag behind to be cut because `--max-buffered` is used up.
const READER_PATIENCE: Duration = Duration::from_secs(2);

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
    /// The latest metrics.
    pub scrapes: Scrapes,
    /// Whether the child has completed its handshake.
    pub phase: watch::Receiver<Phase>,
    /// Whether the event loop turns.
    pub pulse: Pulse,
    /// The connections, and which of them stall.
    pub connections: Arc<Connections>,
}

impl Server {
    /// Makes room when messages in transit take more than `--max-buffered`, or a body waits for it: first what is kept for
    /// replay or from memory, then what clients that left may come back for, the oldest first and only as much as is
    /// needed; then the client that holds most gives way to the others; last, and only for what is too much, the slowest
    /// reader. False when bytes are about to be given back, so that it is worth to look again soon.
    pub fn relieve(&self) -> bool {
        if self.make_room() {
            return true;
        }
        if self.fullest_gives_way() {
            return false;
        }
        self.budget.excess() == 0 || !self.cut_slowest()
    }

    /// Looks again, every now and then, whether room is to be made: those that were not slow enough before may be now.
    /// For a body that has waited since the last look the slowest reader goes too.
    pub fn relieve_bodies(&self, waited_before: bool) -> bool {
        self.connections.look();
        if self.budget.excess() > 0 || self.budget.is_awaited() {
            self.budget.remind();
        }
        if !self.budget.is_awaited() {
            return false;
        }
        if !self.make_room() && waited_before {
            self.cut_slowest();
        }
        true
    }

    /// Takes what nobody reads now; whether that is enough.
    fn make_room(&self) -> bool {
        let enough = || self.budget.lack() == 0;
        if enough() {
            return true;
        }
        self.upstream.forget_lists();
        for session in self.directory.all() {
            session.forget_delivered();
        }
        self.directory.forget_owed(enough);
        enough()
    }

    fn fullest_gives_way(&self) -> bool {
        let gives_way = |account: &Account| account.give_way() || self.upstream.give_way(account);
        let Some(fullest) = self.budget.fullest().into_iter().find(gives_way) else { return false };
        counters::GAVE_WAY.increment();
        tracing::warn!(
            bytes = fullest.used(),
            client_bytes = fullest.client_used(),
            "--max-buffered is used up: the client that holds most gives way to others"
        );
        true
    }

    fn cut_slowest(&self) -> bool {
        // A peer that pauses for a moment is none that stalls; but memory is finite.
        let patience = if self.budget.is_far_exceeded() { Duration::ZERO } else { READER_PATIENCE };
        let cut = self.connections.cut_slowest(patience);
        if cut {
            counters::CUT_STREAMS.increment();
            tracing::warn!("--max-buffered is used up: the slowest reader is cut");
        }
        cut
    }
}
