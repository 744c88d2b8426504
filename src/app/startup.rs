//! Start-up: creates and connects the parts of the process, and binds the listeners.

use crate::auth::Verifier;
use crate::budget::Budget;
use crate::child::Spawner;
use crate::config::Config;
use crate::export::Exporter;
#[cfg(feature = "gateway")]
use crate::gateway::{self, Gateway, Siblings};
use crate::http::{self, Listener, Server};
use crate::limits::Limits;
use crate::phase::{self, Phase};
use crate::policy::Policies;
use crate::pulse::Pulse;
#[cfg(feature = "gateway")]
use crate::redis::Redis;
use crate::registration::Registration;
use crate::session::Directory;
use crate::shutdown::Shutdown;
use crate::signals::Signals;
use crate::supervisor::Supervisor;
use crate::tls::Gate;
use crate::upstream::{Seal, Upstream, Want};
use anyhow::Context;
use std::io;
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
    /// Starts the servers of a gateway.
    #[cfg(feature = "gateway")]
    pub spawner: Spawner,
    /// What this process shares with others.
    #[cfg(feature = "gateway")]
    pub redis: Option<Arc<Redis>>,
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
    #[cfg(feature = "gateway")]
    let (spawner, plugged) = plug(spawner, config);
    spawner.clone().reap_on_sigchld().context("cannot listen for SIGCHLD")?;
    let max_connections = max_connections(config, http::raise_file_limit());
    let budget = Budget::within(config.max_buffered);
    let pulse = Pulse::new(Instant::now());
    let directory = Arc::new(Directory::new(config.session.clone()));
    let (phase, phase_watched) = phase::channel();
    let listener = match config.http.handed {
        Some(handed) => Listener::take(handed).context("cannot use the inherited socket (--listen)")?,
        None => bind(config.http.listen, "--listen")?,
    };
    let listen = listener.address()?;
    let own = config.forwarding.as_ref().map(|forwarding| SocketAddr::new(forwarding.address, listen.port()));
    let seal = Seal::new(config.state_keys.as_ref()).context("cannot get random bytes")?.at(own);
    let (upstream, wanted) = Upstream::new(
        config.upstream.clone(),
        config.child.start_timeout,
        Arc::clone(&directory),
        phase,
        seal,
        &budget,
    );
    #[cfg(feature = "gateway")]
    let spawner_of_gateway = spawner.clone();
    let supervisor =
        Supervisor::new(config.child.clone(), config.upstream.cancel_grace, budget.clone(), spawner);
    let gate = config.http.tls.clone().map(Gate::open).transpose()?;
    let admin = config.http.admin_listen.map(bind_admin).transpose()?;
    let verifier = config.auth.is_used().then(|| Verifier::start(config.auth.clone())).transpose()?;
    let policies = config.policy.as_ref().map(Policies::new).transpose();
    let policies = policies.map_err(anyhow::Error::msg).context("cannot use --policy-url")?;
    #[cfg(feature = "gateway")]
    let gateway = config.gateway.as_ref();
    #[cfg(feature = "gateway")]
    let gateway = gateway.map(|gateway| open_gateway(gateway, config, policies.clone())).transpose()?;
    #[cfg(feature = "gateway")]
    if let (Some(gateway), Some(plugged)) = (&gateway, plugged) {
        gateway.combine(plugged, &budget);
    }
    let limits = Limits::new(config.limits.clone());
    #[cfg(feature = "gateway")]
    let redis = config.redis.clone().map(Redis::start).transpose().context("cannot use --redis-ca")?;
    #[cfg(feature = "gateway")]
    if let (Some(limits), Some(redis)) = (&limits, &redis) {
        limits.share(Arc::clone(redis));
    }
    #[cfg(feature = "gateway")]
    let siblings = open_siblings(config, own, redis.as_ref())?;
    let server = Arc::new(Server {
        policies,
        #[cfg(feature = "gateway")]
        gateway,
        #[cfg(feature = "gateway")]
        siblings,
        identifies: verifier.is_some()
            || config.http.auth.principal_header.is_some()
            || config.http.auth.certificates,
        verifier,
        connections: Arc::default(),
        limits,
        gate,
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
    Ok(Parts {
        server,
        supervisor,
        #[cfg(feature = "gateway")]
        spawner: spawner_of_gateway,
        #[cfg(feature = "gateway")]
        redis,
        wanted,
        listener,
        admin,
        pulse,
        exporter,
        signals,
    })
}

/// Makes the children of a gateway, which stand for all of its servers, parts of this process.
#[cfg(feature = "gateway")]
fn plug(spawner: Spawner, config: &Config) -> (Spawner, Option<gateway::Plugged>) {
    if config.gateway.is_none() {
        return (spawner, None);
    }
    let (plug, plugged) = mpsc::unbounded_channel();
    (spawner.plugged(plug), Some(plugged))
}

#[cfg(feature = "gateway")]
fn open_gateway(
    gateway: &crate::config::Gateway,
    config: &Config,
    policies: Option<Arc<Policies>>,
) -> anyhow::Result<Arc<Gateway>> {
    let settings = gateway::Settings {
        tls: gateway.tls.clone(),
        registry: gateway.registry.clone(),
        searches: gateway.searches,
        most: config.upstream.max_in_flight,
        patience: config.upstream.request_timeout,
    };
    // Keys that several gateways share make the session ids of each known to all.
    let seal = Seal::new(config.state_keys.as_ref()).context("cannot get random bytes")?;
    Gateway::new(settings, seal, policies).context("cannot use --servers-ca")
}

#[cfg(feature = "gateway")]
fn open_siblings(
    config: &Config,
    own: Option<SocketAddr>,
    redis: Option<&Arc<Redis>>,
) -> anyhow::Result<Option<Arc<Siblings>>> {
    let Some((forwarding, own)) = config.forwarding.as_ref().zip(own) else { return Ok(None) };
    let tls = forwarding.tls.as_ref().map(|files| {
        let contents = files.paths().map(std::fs::read).collect::<Result<Vec<_>, _>>()?;
        files.read(contents.iter().map(Vec::as_slice)).map_err(anyhow::Error::msg)
    });
    let tls = tls.transpose().context("cannot use --tls-cert or --servers-ca for --forward-sessions")?;
    let settings = gateway::SiblingSettings {
        own,
        path: config.http.path.clone(),
        tls,
        most: config.upstream.max_in_flight,
        patience: config.upstream.request_timeout,
    };
    let seal = Seal::new(config.state_keys.as_ref()).context("cannot get random bytes")?;
    let mut siblings = Siblings::new(settings, seal).context("cannot use --servers-ca")?;
    if let Some(redis) = redis.filter(|_| config.upstream.resume_sessions) {
        let has_id = siblings.record(Arc::clone(redis), config.session.idle);
        has_id.then_some(()).context("cannot get random bytes")?;
    }
    Ok(Some(Arc::new(siblings)))
}

/// Starts what the gateway's files name. The URL is that by which servers know the gateway.
#[cfg(feature = "gateway")]
pub(super) fn start_gateway(
    gateway: &Gateway,
    settings: &crate::config::Gateway,
    config: &Config,
    http: &http::Settings,
    (spawner, redis): (Spawner, Option<Arc<Redis>>),
) -> anyhow::Result<()> {
    let url = match &http.auth.resource {
        Some(resource) => resource.sibling(&http.path, "").url(),
        None => format!("{}://{}", if http.tls.is_some() { "https" } else { "http" }, http.listen),
    };
    let level = config.telemetry.level.to_string();
    let start = gateway::Start {
        servers: settings.servers.as_deref(),
        key: settings.key.as_deref(),
        url: &url,
        spawner,
        log_level: &level,
        redis,
    };
    gateway
        .start(start)
        .map_err(|problems| anyhow::anyhow!("cannot start the gateway: {}", problems.join("\n")))
}

/// Creates the registration at a gateway, if there is one.
pub(super) fn registration(config: &Config) -> anyhow::Result<Option<Arc<Registration>>> {
    let registration = config.registration.clone().map(Registration::new).transpose();
    Ok(registration.context("cannot use --register-ca")?.map(Arc::new))
}

/// Announces the server to the gateway once it has started.
pub(super) async fn announce(registration: Arc<Registration>, server: Arc<Server>) {
    if server.phase.clone().wait_for(|phase| *phase == Phase::Ready).await.is_err() {
        return;
    }
    let own = server.settings.own_url();
    let url = registration.url().unwrap_or(&own);
    registration.announce(&http::card(&server, url), url);
}

fn bind(address: SocketAddr, option: &str) -> anyhow::Result<Listener> {
    Listener::bind(address).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another process listens on it; end that process, or give another port".into()
            }
            io::ErrorKind::AddrNotAvailable => {
                "this machine does not have the address; give one of its own".into()
            }
            io::ErrorKind::PermissionDenied => "permission denied; give a port above 1023".into(),
            _ => error.to_string(),
        };
        anyhow::anyhow!("cannot listen on {address} ({option}): {why}")
    })
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
    let free = files.saturating_sub(reserved);
    // Each client of a gateway, or of another replica's session, may need a connection to a replica.
    let passes_on = config.gateway.is_some() || config.forwarding.is_some();
    let most = if passes_on { free / 2 } else { free }.max(1);
    if most < config.http.max_connections {
        tracing::warn!(
            "the limit of {files} open files leaves room for {most} connections, fewer than --max-connections"
        );
    }
    config.http.max_connections.min(most)
}
