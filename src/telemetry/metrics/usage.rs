//! Resource usage of proxyrunner and of each child with all its descendants, from `/proc`.

use crate::proc::{self, Families};
use crate::telemetry::clock;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// The resource usage of one or several processes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Total CPU time.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub memory: u64,
    /// Open file descriptors.
    pub files: u64,
    /// Number of processes.
    pub processes: u64,
}

/// The running children.
#[derive(Debug, Default)]
struct TrackedChildren {
    running: HashMap<u64, TrackedChild>,
    /// CPU time of children that exited.
    ended: Duration,
    read: Option<(Instant, Usage)>,
}

#[derive(Debug)]
struct TrackedChild {
    pid: i32,
    started: f64,
    /// CPU time at the last reading.
    cpu: Duration,
}

static CHILDREN: LazyLock<Mutex<TrackedChildren>> = LazyLock::new(Mutex::default);

/// Time for which a reading is reused, so that several scrapers cause no more work than one.
const FRESH: Duration = Duration::from_secs(1);

/// Starts tracking a child.
pub fn track_child(number: u64, pid: i32) {
    let started = clock::unix_nanos() as f64 / 1e9;
    children().running.insert(number, TrackedChild { pid, started, cpu: Duration::ZERO });
}

/// Stops tracking a child whose process and descendants have exited.
pub fn forget_child(number: u64) {
    let mut children = children();
    if let Some(child) = children.running.remove(&number) {
        children.ended += child.cpu;
    }
}

/// Returns the start of the longest-running child in seconds since the Unix epoch; `None` if no child is running.
pub fn oldest_child_start() -> Option<f64> {
    children().running.values().map(|child| child.started).reduce(f64::min)
}

/// Returns the usage of all children, including the last known CPU time of children that exited.
pub fn of_children() -> Usage {
    let mut children = children();
    if let Some((at, usage)) = children.read
        && at.elapsed() < FRESH
    {
        return usage;
    }
    let families = Families::read();
    let mut all = Usage::default();
    for child in children.running.values_mut() {
        let mut own = Usage::default();
        for pid in families.below(child.pid).into_iter().chain([child.pid]) {
            own.add(of(pid));
        }
        // The CPU time of an exited descendant is lost unless its parent waited for it.
        child.cpu = child.cpu.max(own.cpu);
        all.add(Usage { cpu: child.cpu, ..own });
    }
    all.cpu += children.ended;
    children.read = Some((Instant::now(), all));
    all
}

/// Returns the usage of proxyrunner itself.
pub fn of_proxyrunner() -> Usage {
    i32::try_from(std::process::id()).map(of).unwrap_or_default()
}

fn children() -> MutexGuard<'static, TrackedChildren> {
    CHILDREN.lock()
}

impl Usage {
    fn add(&mut self, other: Usage) {
        self.cpu += other.cpu;
        self.memory += other.memory;
        self.files += other.files;
        self.processes += other.processes;
    }
}

/// Returns the usage of one process; zero if it has exited.
fn of(pid: i32) -> Usage {
    let Some(proc::Stat { cpu, memory, .. }) = proc::stat(pid) else { return Usage::default() };
    Usage { cpu, memory, files: proc::open_files(pid), processes: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_time_of_ended_servers_still_counts() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        let mut spins = 0u64;
        while of_proxyrunner().cpu.is_zero() {
            spins = std::hint::black_box(spins + 1);
        }
        track_child(u64::MAX, own);
        // Another test may have read them just before.
        children().read = None;
        assert!(oldest_child_start().is_some());
        let running = of_children();
        assert!(running.cpu > Duration::ZERO && running.memory > 0 && running.files > 0, "{running:?}");
        forget_child(u64::MAX);
        children().read = None;
        let ended = of_children();
        assert!(ended.cpu >= running.cpu);
        assert_eq!((ended.memory, ended.processes), (0, 0));
    }
}
