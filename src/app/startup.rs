//! Start-up: creates and connects the parts of the process, and binds the listeners.

use crate::budget::Budget;
use crate::child::Spawner;
use crate::config::Config;
use crate::export::Exporter;
use crate::http::{self, Listener, Server};
use crate::phase;
use crate::pulse::Pulse;
use crate::session::Directory;
use crate::shutdown::Shutdown;
use crate::signals::Signals;
use crate::supervisor::Supervisor;
use crate::upstream::{Seal, Upstream, Want};
use anyhow::Context;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// Files of one child: its pipes, a pidfd, and those open only during its start.
const FILES_PER_CHILD: usize = 8;
/// Files for logs, telemetry and the runtime.
const OTHER_FILES: usize = 64;

/// The parts of the process.
pub(super) struct Parts {
    /// The HTTP server.
    pub server: Arc<Server>,
    /// Starts and ends the children.
    pub supervisor: Supervisor,
    /// Receives the upstream's requests for children.
    pub wanted: mpsc::Receiver<Want>,
    /// The listener of `--listen`.
    pub listener: Listener,
    /// The listener of `--admin-listen`.
    pub admin: Option<Listener>,
    /// The pulse that the liveness probe checks.
    pub pulse: Pulse,
    /// Exports telemetry.
    pub exporter: Exporter,
    /// The signals of the process.
    pub signals: Signals,
}

/// Creates the parts. No child runs and no request is accepted yet.
pub(super) fn assemble(config: &Config) -> anyhow::Result<Parts> {
    let signals = Signals::listen().context("cannot listen for signals")?;
    let spawner = Spawner::start(config.child.clone()).context("cannot start threads")?;
    spawner.clone().reap_on_sigchld().context("cannot listen for SIGCHLD")?;
    let max_connections = max_connections(config, http::raise_file_limit());
    let budget = Budget::within(config.max_buffered);
    let pulse = Pulse::new(Instant::now());
    let directory = Arc::new(Directory::new(config.session.clone()));
    let (phase, phase_watched) = phase::channel();
    let seal = Seal::new(config.state_key.as_ref()).context("cannot get random bytes")?;
    let (upstream, wanted) = Upstream::new(
        config.upstream.clone(),
        config.child.start_timeout,
        Arc::clone(&directory),
        phase,
        seal,
        &budget,
    );
    let supervisor =
        Supervisor::new(config.child.clone(), config.upstream.cancel_grace, budget.clone(), spawner);
    let listener = bind(config.http.listen, "--listen")?;
    let listen = listener.address()?;
    let admin = config.http.admin_listen.map(bind_admin).transpose()?;
    let server = Arc::new(Server {
        connections: Arc::default(),
        settings: http::Settings { listen, max_connections, ..config.http.clone() },
        upstream,
        directory,
        shutdown: Shutdown::default(),
        budget,
        scrapes: http::Scrapes::default(),
        phase: phase_watched,
        pulse: pulse.clone(),
    });
    let exporter = start_exporter(config, &server)?;
    Ok(Parts { server, supervisor, wanted, listener, admin, pulse, exporter, signals })
}

fn bind(address: SocketAddr, option: &str) -> anyhow::Result<Listener> {
    Listener::bind(address).with_context(|| format!("cannot listen on {address} ({option})"))
}

fn bind_admin(address: SocketAddr) -> anyhow::Result<Listener> {
    let listener = bind(address, "--admin-listen")?;
    tracing::info!(address = %listener.address()?, "serving probes and metrics");
    Ok(listener)
}

fn start_exporter(config: &Config, server: &Arc<Server>) -> anyhow::Result<Exporter> {
    let server = Arc::downgrade(server);
    let levels = move || server.upgrade().map(|server| http::levels(&server)).unwrap_or_default();
    Exporter::start(config.export.clone(), levels).context("cannot export telemetry")
}

/// Returns `--max-connections`, lowered to the number that the limit on open files allows. Children and logs reserve
/// at most half of that limit, since few children run at once.
fn max_connections(config: &Config, files: usize) -> usize {
    let children = FILES_PER_CHILD * config.upstream.max_children;
    let reserved = (OTHER_FILES + http::SPARE + children).min(files / 2);
    let most = files.saturating_sub(reserved).max(1);
    if most < config.http.max_connections {
        tracing::warn!(
            "the limit of {files} open files leaves room for {most} connections, fewer than --max-connections"
        );
    }
    config.http.max_connections.min(most)
}
