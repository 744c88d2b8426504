//! Upkeep: the periodic and memory-driven tasks that run as long as the process.

use crate::budget::Budget;
use crate::http::{self, Server};
use crate::pulse::Pulse;
use crate::tasks;
use crate::telemetry::counters;
use crate::upstream::Upstream;
use crate::{memory, telemetry};
use anyhow::Context;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

/// Interval between sweeps for expired sessions, children and connections.
const SWEEP: Duration = Duration::from_secs(1);
/// Interval at which free memory is returned to the system.
const GIVE_BACK: Duration = Duration::from_millis(250);
/// The same interval while messages take a quarter of `--max-buffered`.
const GIVE_BACK_SOON: Duration = Duration::from_millis(50);
/// Time without a request to a child after which proxyrunner is idle.
const IDLE: Duration = Duration::from_secs(2);
/// Idle time after which a connection releases its buffers.
const REST: Duration = Duration::from_secs(1);
/// Time for a disconnected client's bytes to be released before the next client is disconnected.
const RELIEF: Duration = Duration::from_millis(20);

/// Starts the tasks.
pub(super) fn start(server: &Arc<Server>, pulse: Pulse) -> anyhow::Result<()> {
    tasks::spawn(pulse.clone().beat());
    std::thread::Builder::new()
        .name("watchdog".into())
        .spawn(|| pulse.watch())
        .context("cannot start threads")?;
    tasks::spawn(give_back(server.budget.clone()));
    tasks::spawn(unmap_code());
    tasks::spawn(sweep(Arc::clone(server)));
    tasks::spawn(forget_orphans(Arc::clone(&server.upstream)));
    tasks::spawn(relieve(Arc::clone(server)));
    if let Some(policies) = &server.policies {
        tasks::spawn(Arc::clone(policies).follow());
    }
    #[cfg(feature = "gateway")]
    if let Some(shelf) = server.siblings.as_ref().and_then(|siblings| siblings.shelf()) {
        tasks::spawn(Arc::clone(shelf).follow(Arc::clone(&server.directory), server.shutdown.clone()));
    }
    if let Some(limits) = &server.limits {
        tasks::spawn(Arc::clone(limits).keep_reading());
    }
    if let Some(gate) = &server.gate {
        tasks::spawn(Arc::clone(gate).watch());
    }
    Ok(())
}

/// Returns free memory to the system, but not at once: the next burst needs as much again.
async fn give_back(budget: Budget) {
    loop {
        let is_much = budget.used() > budget.limit() / 4;
        sleep(if is_much { GIVE_BACK_SOON } else { GIVE_BACK }).await;
        if memory::is_kept(is_much) {
            let _ = crate::tasks::block(memory::give_back).await;
        }
    }
}

/// Gives back the memory of the start and of each burst, and unmaps the code, once proxyrunner is idle. A request maps
/// the code that it needs again, in about 0.2 ms.
async fn unmap_code() {
    let (mut seen, mut is_mapped) = (0, true);
    loop {
        sleep(IDLE).await;
        let sent = counters::EXCHANGES.value();
        let is_idle = sent == seen;
        if is_idle && is_mapped {
            memory::give_back();
            memory::unmap_code();
        }
        (seen, is_mapped) = (sent, !is_idle);
    }
}

/// Removes expired sessions and children, and closes stalled connections.
async fn sweep(server: Arc<Server>) {
    let mut tick = sweeps();
    let mut bodies_wait = false;
    loop {
        tick.tick().await;
        telemetry::count_lost_lines();
        server.directory.expire(Instant::now());
        #[cfg(feature = "gateway")]
        if let Some(siblings) = &server.siblings {
            siblings.close_idle(Instant::now());
        }
        server.upstream.expire(Instant::now());
        bodies_wait = server.relieve_bodies(bodies_wait);
        server.connections.shrink_idle(REST);
        server.connections.cut_slow_heads(http::HEAD_PATIENCE);
        server.connections.cut_idle(server.settings.keep_alive_timeout);
        let cut = server.connections.cut_stalled(server.settings.write_timeout);
        if cut > 0 {
            tracing::info!(
                connections = cut,
                "closed connections whose peers read nothing for --write-timeout"
            );
        }
    }
}

/// Cancels subscriptions without a subscriber at shared children. Runs as its own task, since a child may answer
/// slowly.
async fn forget_orphans(upstream: Arc<Upstream>) {
    let mut tick = sweeps();
    loop {
        tick.tick().await;
        upstream.forget_orphaned_subscriptions().await;
    }
}

fn sweeps() -> Interval {
    let mut tick = interval(SWEEP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

/// Frees memory whenever messages exceed `--max-buffered`.
async fn relieve(server: Arc<Server>) {
    loop {
        server.budget.overdrawn().await;
        while !server.relieve() {
            // A disconnected client's bytes are released when its connection ends, a moment later.
            sleep(RELIEF).await;
        }
    }
}
