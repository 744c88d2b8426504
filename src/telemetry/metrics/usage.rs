//! What processes take of the machine, as `/proc` says: proxyrunner itself, and each server with all that it started.

use crate::proc::{self, Families};
use crate::telemetry::clock;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// What one process, or several together, take.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time so far.
    pub cpu: Duration,
    /// Resident memory, in bytes.
    pub memory: u64,
    /// Open files.
    pub files: u64,
    /// Processes.
    pub processes: u64,
}

/// The servers that run.
#[derive(Debug, Default)]
struct Servers {
    running: HashMap<u64, Server>,
    /// CPU time of those that have ended.
    ended: Duration,
    read: Option<(Instant, Usage)>,
}

#[derive(Debug)]
struct Server {
    pid: i32,
    started: f64,
    /// What it had taken when it was looked at last.
    cpu: Duration,
}

static SERVERS: LazyLock<Mutex<Servers>> = LazyLock::new(Mutex::default);

/// How old what is known may be: several scrapers make no more work than one.
const FRESH: Duration = Duration::from_secs(1);

/// A server has started.
pub fn server_started(number: u64, pid: i32) {
    let started = clock::unix_nanos() as f64 / 1e9;
    servers().running.insert(number, Server { pid, started, cpu: Duration::ZERO });
}

/// A server has ended, with all that it started.
pub fn server_ended(number: u64) {
    let mut servers = servers();
    if let Some(server) = servers.running.remove(&number) {
        servers.ended += server.cpu;
    }
}

/// When the server that runs longest was started, in seconds since 1970; `None` if none runs.
pub fn servers_started() -> Option<f64> {
    servers().running.values().map(|server| server.started).reduce(f64::min)
}

/// What all servers take together; their CPU time with that of those that have ended, as far as it was seen.
pub fn of_servers() -> Usage {
    let mut servers = servers();
    if let Some((at, usage)) = servers.read
        && at.elapsed() < FRESH
    {
        return usage;
    }
    let families = Families::read();
    let mut all = Usage::default();
    for server in servers.running.values_mut() {
        let mut own = Usage::default();
        for pid in families.below(server.pid).into_iter().chain([server.pid]) {
            own.add(of(pid));
        }
        // Processes that have ended take theirs with them, unless somebody waited for them.
        server.cpu = server.cpu.max(own.cpu);
        all.add(Usage { cpu: server.cpu, ..own });
    }
    all.cpu += servers.ended;
    servers.read = Some((Instant::now(), all));
    all
}

/// What proxyrunner itself takes.
pub fn of_proxyrunner() -> Usage {
    i32::try_from(std::process::id()).map(of).unwrap_or_default()
}

fn servers() -> MutexGuard<'static, Servers> {
    SERVERS.lock()
}

impl Usage {
    fn add(&mut self, other: Usage) {
        self.cpu += other.cpu;
        self.memory += other.memory;
        self.files += other.files;
        self.processes += other.processes;
    }
}

/// One process; nothing, if it is gone.
fn of(pid: i32) -> Usage {
    let Some(proc::Stat { cpu, memory, .. }) = proc::stat(pid) else { return Usage::default() };
    Usage { cpu, memory, files: proc::open_files(pid), processes: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_servers_took_is_not_forgotten() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        let mut spins = 0u64;
        while of_proxyrunner().cpu.is_zero() {
            spins = std::hint::black_box(spins + 1);
        }
        server_started(u64::MAX, own);
        // Another test may have read them just before.
        servers().read = None;
        assert!(servers_started().is_some());
        let running = of_servers();
        assert!(running.cpu > Duration::ZERO && running.memory > 0 && running.files > 0, "{running:?}");
        server_ended(u64::MAX);
        servers().read = None;
        let ended = of_servers();
        assert!(ended.cpu >= running.cpu);
        assert_eq!((ended.memory, ended.processes), (0, 0));
    }
}
