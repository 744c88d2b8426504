//! Wires everything together; starts in order, and ends in order.

use crate::budget::Budget;
use crate::child::Spawner;
use crate::config::Config;
use crate::exchange::Failure;
use crate::export::Exporter;
use crate::http::{self, Listener, Role, Server};
use crate::pulse::Pulse;
use crate::session::Directory;
use crate::shutdown::{CLOSING, FLUSHING, Shutdown};
use crate::signals::{Meaning, Signals};
use crate::supervisor::Supervisor;
use crate::upstream::{Seal, Upstream};
use crate::{child, memory, phase, telemetry};
use anyhow::Context;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::signal::unix::SignalKind;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// How often what has become old is looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// How often free memory is looked for, and how often while messages take a quarter of `--max-buffered`.
const GIVE_BACK: Duration = Duration::from_millis(250);
const GIVE_BACK_MUCH: Duration = Duration::from_millis(50);
/// Time after which an idle connection gives its buffers back.
const REST: Duration = Duration::from_secs(1);
/// How long a connection that was cut may take to give its bytes back before another is.
const RELIEF: Duration = Duration::from_millis(20);
/// The most time to export the last of the telemetry.
const FLUSHING_MOST: Duration = Duration::from_secs(3);
/// Time for requests that were failed at the end of the drain to be told, before their children are ended.
const TELLING: Duration = Duration::from_secs(1);
/// Interval between looks at requests that are waited for.
const LOOK: Duration = Duration::from_millis(10);
/// Pipes, a pidfd, and what starting one takes.
const FILES_PER_CHILD: usize = 8;
/// Exit codes of a process that a signal ended, as shells report them.
const BY_SIGNAL: i32 = 128;

/// Runs until a signal or the child ends it; the exit code.
///
/// # Errors
/// When proxyrunner can't start.
pub fn run(config: Config) -> anyhow::Result<i32> {
    memory::set_up();
    let _log = telemetry::start(&config.telemetry);
    let runtime = {
        let _exits = ExitOnPanic::arm();
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?
    };
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let code = runtime.block_on(serve(config));
    // What is left are tasks of clients that went away.
    runtime.shutdown_timeout(Duration::from_millis(100));
    telemetry::count_lost_lines();
    code
}

/// Where the system gives fewer threads than the runtime wants, that panics, and then waits for ever for those that it
/// has. While this is there, a panic ends the process.
struct ExitOnPanic(());

impl ExitOnPanic {
    fn arm() -> Self {
        std::panic::set_hook(Box::new(|panic| {
            eprintln!("proxyrunner: cannot start threads: {panic}");
            std::process::exit(1);
        }));
        ExitOnPanic(())
    }
}

impl Drop for ExitOnPanic {
    fn drop(&mut self) {
        drop(std::panic::take_hook());
    }
}

async fn serve(config: Config) -> anyhow::Result<i32> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let spawner = Spawner::start(config.child.clone()).context("cannot start threads")?;
    child::reaper::start(spawner.clone()).context("cannot listen for SIGCHLD")?;
    let connections = max_connections(&config, http::raise_file_limit());
    let budget = Budget::within(config.max_buffered);
    let shutdown = Shutdown::default();
    let pulse = Pulse::new(Instant::now());
    let directory = Arc::new(Directory::new(config.session.clone()));
    let (phase, phase_watched) = phase::channel();
    let seal = Seal::new(config.state_key.as_ref()).context("the system has no randomness to give")?;
    let cancel_grace = config.upstream.cancel_grace;
    let (upstream, wanted) = Upstream::new(
        config.upstream.clone(),
        config.child.start_timeout,
        Arc::clone(&directory),
        phase,
        seal,
        &budget,
    );
    let supervisor = Supervisor::new(config.child.clone(), cancel_grace, budget.clone(), spawner);
    let listener = Listener::bind(config.http.listen)
        .with_context(|| format!("cannot listen on {} (--listen)", config.http.listen))?;
    let address = listener.address()?;
    let admin = config.http.admin_listen.map(bind_admin).transpose()?;
    let server = Arc::new(Server {
        connections: Arc::default(),
        settings: http::Settings { listen: address, max_connections: connections, ..config.http.clone() },
        upstream: Arc::clone(&upstream),
        directory: Arc::clone(&directory),
        shutdown: shutdown.clone(),
        budget: budget.clone(),
        phase: phase_watched,
        pulse: pulse.clone(),
    });
    let exporter = {
        let server = Arc::downgrade(&server);
        let levels = move || server.upgrade().map(|server| http::levels(&server)).unwrap_or_default();
        Exporter::start(config.export.clone(), levels).context("cannot export telemetry")?
    };
    tokio::spawn(pulse.clone().beat());
    std::thread::Builder::new()
        .name("watchdog".into())
        .spawn(|| pulse.watch())
        .context("cannot start threads")?;
    tokio::spawn(supervisor.clone().serve(wanted));
    tokio::spawn(give_back(budget));
    tokio::spawn(sweep(Arc::clone(&server)));
    tokio::spawn(forget_orphans(upstream.clone()));
    tokio::spawn(relieve(Arc::clone(&server)));
    let drained_by = Arc::new(OnceLock::new());
    let closed = || {
        let (over, drained_by) = (shutdown.clone(), Arc::clone(&drained_by));
        // A large answer on a slow link has what is left of the drain.
        async move {
            over.over().await;
            let left =
                drained_by.get().map(|until: &Instant| until.saturating_duration_since(Instant::now()));
            left.unwrap_or_default().max(CLOSING)
        }
    };
    if let Some(admin) = admin {
        tokio::spawn(admin.serve(Arc::clone(&server), Role::Admin, closed()));
    }
    let serving = tokio::spawn(listener.serve(Arc::clone(&server), Role::Clients, closed()));
    announce(&config, address);
    let mut children = pin!(child_ends(&upstream));
    let ended = tokio::select! {
        ended = &mut children => ended,
        signal = end(&mut signals, &supervisor) => {
            tracing::info!(signal, "shutting down");
            Ended::BySignal(signal)
        }
    };
    let stop_by = Instant::now() + config.stop_within;
    let delay = ended.drain_delay(&config);
    let drain = drain(&server, delay, config.drain_timeout, &drained_by);
    // A child that is still starting goes on: there may be clients who wait for it.
    let starting = async {
        if matches!(ended, Ended::BySignal(_)) {
            children.await;
        }
        std::future::pending::<()>().await;
    };
    let mut insisted = pin!(insist(&ended, &mut signals, &supervisor));
    tokio::select! {
        () = drain => {}
        () = starting => {}
        signal = &mut insisted => {
            supervisor.kill();
            return Ok(BY_SIGNAL + signal);
        }
    }
    let stop = async {
        // Together, since each may take its time: answers on slow connections, and stubborn children.
        let children = async {
            let _ = timeout(TELLING, idle(&server)).await;
            upstream.close();
            supervisor.stop().await;
        };
        let _ = tokio::join!(serving, children);
        let left = stop_by.saturating_duration_since(Instant::now());
        exporter.flush(left.clamp(FLUSHING, FLUSHING_MOST)).await;
    };
    tokio::select! {
        () = stop => Ok(ended.code()),
        signal = insisted => {
            supervisor.kill();
            Ok(BY_SIGNAL + signal)
        }
    }
}

/// Binds `--admin-listen`.
fn bind_admin(address: SocketAddr) -> anyhow::Result<Listener> {
    let listener =
        Listener::bind(address).with_context(|| format!("cannot listen on {address} (--admin-listen)"))?;
    tracing::info!(address = %listener.address()?, "serving probes and metrics");
    Ok(listener)
}

/// `--max-connections`, as far as the limit on open files goes beside what children and logs need: half of them at most,
/// since few children run at once.
fn max_connections(config: &Config, files: usize) -> usize {
    let reserved = (64 + http::SPARE + FILES_PER_CHILD * config.upstream.max_children).min(files / 2);
    let most = files.saturating_sub(reserved).max(1);
    if most < config.http.max_connections {
        tracing::warn!(
            "the limit of {files} open files leaves room for {most} connections, fewer than --max-connections"
        );
    }
    config.http.max_connections.min(most)
}

/// Resolves with the next signal that ends proxyrunner; the others are the server's.
async fn end(signals: &mut Signals, supervisor: &Supervisor) -> i32 {
    loop {
        match signals.next().await {
            Meaning::End(signal) => return signal,
            Meaning::Forward(signal) => {
                tracing::info!(%signal, "passed on to the server");
                supervisor.forward(signal);
            }
        }
    }
}

/// Resolves with the signal after the one that asks for the end; where the child brought that about, nobody has asked yet.
async fn insist(ended: &Ended, signals: &mut Signals, supervisor: &Supervisor) -> i32 {
    if !matches!(ended, Ended::BySignal(_)) {
        let signal = end(signals, supervisor).await;
        tracing::info!(signal, "shutting down already, since the server ended; once more ends it at once");
    }
    end(signals, supervisor).await
}

/// Why it is over.
enum Ended {
    BySignal(i32),
    ByChild(i32),
    NotStarted,
}

impl Ended {
    /// Endpoints are removed late, so serving goes on for a while; not for someone who pressed Ctrl-C, nor once the
    /// child is gone.
    fn drain_delay(&self, config: &Config) -> Duration {
        match self {
            Ended::BySignal(signal)
                if *signal == SignalKind::interrupt().as_raw_value() && io::stdin().is_terminal() =>
            {
                Duration::ZERO
            }
            Ended::BySignal(_) => config.drain_delay,
            Ended::ByChild(_) | Ended::NotStarted => Duration::ZERO,
        }
    }

    /// The child's own code where the child decides.
    fn code(&self) -> i32 {
        match self {
            Ended::BySignal(_) => 0,
            Ended::ByChild(code) => *code,
            Ended::NotStarted => 1,
        }
    }
}

/// Starts the children that are there from the start, and again; resolves when that was too often.
async fn child_ends(upstream: &Arc<Upstream>) -> Ended {
    match upstream.start().await {
        Ok(()) => {
            tracing::info!("ready");
            let failure = upstream.keep_filled().await;
            tracing::error!("{}", failure.for_log());
            match failure {
                Failure::Ended(end) => Ended::ByChild(end.code),
                _ => Ended::NotStarted,
            }
        }
        Err(failure) => {
            match &failure {
                // It is logged where the program is started.
                Failure::NoProgram(_) => {}
                // There was no request that could have been lost.
                failure => tracing::error!("{}", failure.for_log()),
            }
            match failure {
                Failure::Ended(end) if end.code != 0 => Ended::ByChild(end.code),
                _ => Ended::NotStarted,
            }
        }
    }
}

/// Serves on for `delay`, then takes nothing new and waits for what is in flight; at the end of `patience` the rest
/// gets its error.
async fn drain(server: &Server, delay: Duration, patience: Duration, drained_by: &OnceLock<Instant>) {
    server.shutdown.begin();
    sleep(delay).await;
    server.shutdown.refuse();
    let _ = drained_by.set(Instant::now() + patience);
    let quiet = async {
        while server.directory.expects_anybody(Instant::now()) || server.upstream.underway() > 0 {
            sleep(LOOK).await;
        }
    };
    if timeout(patience, quiet).await.is_err() {
        tracing::warn!(requests = server.upstream.underway(), "--drain-timeout is over: the rest is failed");
    }
    for session in server.directory.all() {
        server.directory.end(&session, &Failure::ShuttingDown);
    }
    server.upstream.end_parked();
    server.upstream.end_listens();
    server.shutdown.finish();
}

/// Resolves once no request is under way.
async fn idle(server: &Server) {
    while server.upstream.underway() > 0 {
        sleep(LOOK).await;
    }
}

/// Gives free memory back to the system soon: the next burst takes as much again.
async fn give_back(budget: Budget) {
    loop {
        let is_much = budget.used() > budget.limit() / 4;
        sleep(if is_much { GIVE_BACK_MUCH } else { GIVE_BACK }).await;
        if memory::is_kept() {
            let _ = tokio::task::spawn_blocking(memory::give_back).await;
        }
    }
}

/// Ends what has become old, and cuts who takes nothing.
async fn sweep(server: Arc<Server>) {
    let mut tick = interval(SWEEP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut bodies_wait = false;
    loop {
        tick.tick().await;
        telemetry::count_lost_lines();
        server.directory.expire(Instant::now());
        server.upstream.expire(Instant::now());
        bodies_wait = server.relieve_bodies(bodies_wait);
        server.connections.shrink_idle(REST);
        server.connections.cut_slow_heads(http::HEAD_PATIENCE);
        let cut = server.connections.cut_stalled(server.settings.write_timeout);
        if cut > 0 {
            tracing::info!(connections = cut, "cut: their peers took nothing for --write-timeout");
        }
    }
}

/// Tells shared children what nobody watches any more. Apart from the sweep, since a child may be slow to answer.
async fn forget_orphans(upstream: Arc<Upstream>) {
    let mut tick = interval(SWEEP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        upstream.forget_orphaned_subscriptions().await;
    }
}

/// Makes room whenever messages in transit take more than `--max-buffered`.
async fn relieve(server: Arc<Server>) {
    loop {
        server.budget.overdrawn().await;
        while !server.relieve() {
            // What was cut gives its bytes back when its connection ends, a moment later.
            sleep(RELIEF).await;
        }
    }
}

/// Says where it listens: a line for machines, and on a terminal a banner for people.
fn announce(config: &Config, address: SocketAddr) {
    tracing::info!(%address, path = config.http.path, "listening");
    if !config.http.listen.ip().is_loopback() && config.http.allow_host.is_empty() {
        tracing::warn!(
            "only requests to an IP address or localhost are served; name the hosts that clients use with --allow-host"
        );
    }
    if io::stderr().is_terminal() {
        let host =
            if address.ip().is_unspecified() { "localhost".to_owned() } else { address.ip().to_string() };
        let host = if address.is_ipv6() && host != "localhost" { format!("[{host}]") } else { host };
        let url = format!("http://{host}:{}{}", address.port(), config.http.path);
        eprintln!(
            "\n  proxyrunner {}  {url}\n  add it:  claude mcp add --transport http my-server {url}\n",
            env!("CARGO_PKG_VERSION")
        );
    }
}
