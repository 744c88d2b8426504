//! The life of the process: [start](startup), serve with [upkeep], [shut down](shutdown).

mod announce;
mod reload;
mod shutdown;
mod startup;
mod upkeep;

use crate::config::Config;
use crate::exchange::Failure;
use crate::http::{Role, Server};
use crate::tasks;
use crate::upstream::Upstream;
use crate::{audit, memory, mounted, signals, telemetry};
use anyhow::Context;
use shutdown::{Drained, Ended};
use startup::Parts;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Added to the number of the signal that ended the process, to form the exit code, as shells do.
const BY_SIGNAL: i32 = 128;

/// The maximum number of threads that serve requests, unless `TOKIO_WORKER_THREADS` says otherwise.
const MOST_WORKERS: usize = 4;

/// Runs until a signal or the child's exit ends the process, and returns the exit code.
///
/// # Errors
/// When proxyrunner cannot start.
pub fn run(config: Config) -> anyhow::Result<i32> {
    memory::set_up();
    signals::survive_file_limits();
    let _log = telemetry::start(&config.telemetry);
    if let Some(settings) = &config.audit {
        audit::start(settings, &config.digest)
            .with_context(|| format!("cannot open the audit log {} (--audit)", settings.target))?;
    }
    let runtime = {
        let _exits = ExitOnPanic::arm();
        runtime(workers()).enable_all().build().context("cannot start threads")?
    };
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let code = runtime.block_on(tasks::boxed(serve(config)));
    // Only the tasks of disconnected clients remain.
    runtime.shutdown_timeout(Duration::from_millis(100));
    audit::stop();
    telemetry::count_lost_lines();
    code
}

/// Returns the number of threads that serve requests: `TOKIO_WORKER_THREADS`, else half of the CPUs that the process may
/// use, by its affinity and its control group's quota. The other half is left to the child and the rest of the pod; one
/// thread serves more requests than most children can. More threads than that wake each other up more than they help.
fn workers() -> usize {
    let set = std::env::var("TOKIO_WORKER_THREADS").ok().and_then(|number| number.parse().ok());
    let usable =
        || std::thread::available_parallelism().map_or(1, |usable| (usable.get() / 2).min(MOST_WORKERS));
    set.unwrap_or_else(usable).max(1)
}

/// Returns the runtime for this number of threads. The main thread serves alone if one is enough.
fn runtime(workers: usize) -> tokio::runtime::Builder {
    if workers == 1 {
        return tokio::runtime::Builder::new_current_thread();
    }
    let mut several = tokio::runtime::Builder::new_multi_thread();
    several.worker_threads(workers);
    several
}

/// Ends the process on a panic while it exists. The runtime panics when the system grants fewer threads than it
/// needs, and then waits forever for the threads it has.
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
    mounted::set_interval(config.mounts.interval);
    let Parts {
        server,
        supervisor,
        #[cfg(feature = "gateway")]
        spawner,
        #[cfg(feature = "gateway")]
        redis,
        wanted,
        listener,
        admin,
        pulse,
        exporter,
        mut signals,
    } = startup::assemble(&config)?;
    if let Some(verifier) = &server.verifier {
        verifier.keys_at_start().await?;
    }
    #[cfg(feature = "gateway")]
    if let (Some(gateway), Some(settings)) = (&server.gateway, &config.gateway) {
        startup::start_gateway(gateway, settings, &config, &server.settings, (spawner, redis))?;
    }
    tasks::spawn(supervisor.clone().serve(wanted));
    upkeep::start(&server, pulse)?;
    reload::start(&config, &server);
    let drained = Drained::new(&server);
    if let Some(admin) = admin {
        tasks::spawn(admin.serve(Arc::clone(&server), Role::Admin, drained.closing_time()));
    }
    let serving = tasks::spawn(listener.serve(Arc::clone(&server), Role::Clients, drained.closing_time()));
    announce::listening(&server.settings, config.gateway.is_some(), server.identifies);

    let registration = startup::registration(&config)?;
    if let Some(registration) = &registration {
        tasks::spawn(startup::announce(Arc::clone(registration), Arc::clone(&server)));
    }

    let mut children = pin!(run_servers(&server));
    let ended = tokio::select! {
        ended = &mut children => ended,
        signal = shutdown::next_signal(&mut signals, &supervisor) => {
            tracing::info!(signal, "shutting down");
            Ended::BySignal(signal)
        }
    };

    let flush_by = Instant::now() + config.stop_within;
    let stop = async {
        // First of all, so that the gateway sends nothing more.
        let begun = Instant::now();
        if let Some(registration) = &registration {
            registration.withdraw().await;
        }
        let delay = ended.drain_delay(&config).saturating_sub(begun.elapsed());
        tokio::select! {
            () = shutdown::drain(&server, delay, config.drain_timeout, &drained) => {}
            () = shutdown::keep_starting(&ended, children) => {}
        }
        shutdown::stop(&server, &supervisor, serving).await;
        if audit::is_exported(config.audit.as_ref()) {
            let _ = crate::tasks::block(audit::stop).await;
        }
        shutdown::flush(exporter, flush_by).await;
    };
    tokio::select! {
        () = stop => Ok(ended.code()),
        signal = shutdown::insist(&ended, &mut signals, &supervisor) => {
            supervisor.kill();
            Ok(BY_SIGNAL + signal)
        }
    }
}

/// Runs the children of a sidecar. A gateway runs until a signal ends it, since its only child stands for all servers at
/// `/mcp`, and is a part of itself.
async fn run_servers(server: &Server) -> Ended {
    #[cfg(feature = "gateway")]
    if server.gateway.is_some() {
        tracing::info!("ready");
        let failure = match server.upstream.start().await {
            Ok(()) => server.upstream.keep_filled().await,
            Err(failure) => failure,
        };
        if !server.shutdown.has_begun() {
            tracing::error!("nothing is served at /mcp any more: {}", failure.for_log());
        }
        return std::future::pending().await;
    }
    run_children(&server.upstream).await
}

/// Starts the initial children, and restarts them. Resolves when no restart follows.
async fn run_children(upstream: &Arc<Upstream>) -> Ended {
    match upstream.start().await {
        Ok(()) => {
            tracing::info!("ready");
            let failure = upstream.keep_filled().await;
            tracing::error!("{}", failure.for_log());
            match failure {
                Failure::Ended(end) => Ended::ByChild(end.code),
                Failure::NoProgram(_, code) => Ended::NotStarted(code),
                _ => Ended::NotStarted(1),
            }
        }
        Err(failure) => {
            // A missing program is logged where it is started.
            match (&failure, failure.for_log()) {
                (Failure::NoProgram(..), _) => {}
                // The server itself gives no reason.
                (Failure::Ended(end), text) if end.is_silent() => tracing::error!(
                    "{text} before it was ready, and wrote nothing to stderr; check that the command is an MCP server on \
                     stdio"
                ),
                (_, text) => tracing::error!("{text}"),
            }
            match failure {
                Failure::Ended(end) if end.code != 0 => Ended::ByChild(end.code),
                Failure::NoProgram(_, code) => Ended::NotStarted(code),
                _ => Ended::NotStarted(1),
            }
        }
    }
}
