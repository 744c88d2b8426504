//! Reaps adopted processes, continues stopped guardians, and kills the processes that a killed guardian left behind.
//!
//! proxyrunner is a subreaper. It adopts guardians, which end some time after their last report; the processes that a
//! killed guardian left behind; and, as PID 1, the processes of `docker exec`. No server whose status matters is
//! among them: a server's parent is its guardian, which reports how it ended.
//!
//! Reaping must not happen while a process is being started, since [`Command::spawn`](std::process::Command::spawn)
//! waits for a process that could not be executed. Therefore the spawning thread reaps. It is also the only thread
//! that signals guardians: until it has taken a guardian's status, no other process can have that process id.

use crate::proc::{self, Families};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time for the processes of a killed guardian to exit before the next server is started anyway.
const CLEARING: Duration = Duration::from_secs(1);

/// The environment variable that marks a server and its descendants.
pub(super) const MARK: &str = "MCP_SERVER_GUARDIAN";

/// Identifies the processes of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The guardian's process id.
    pub(super) guardian: i32,
    /// The id of the server's process and process group.
    pub(super) server: i32,
    /// The value of [`MARK`] in the environment of the server and its descendants.
    pub(super) mark: Arc<str>,
}

impl Lineage {
    /// Returns whether a process belongs to the server, by its environment or its process group.
    fn includes(&self, pid: i32) -> bool {
        let has_mark = proc::variable(pid, MARK).is_some_and(|mark| mark == self.mark.as_bytes());
        has_mark || proc::stat(pid).is_some_and(|stat| stat.group == self.server)
    }
}

/// The running guardians.
#[derive(Debug)]
pub(super) struct Guardians {
    /// By process id: whether the guardian had to be continued before.
    running: HashMap<i32, bool>,
    /// Whether proxyrunner may adopt processes that no server started: those of `docker exec` if it is PID 1, and
    /// children of the process that became proxyrunner by exec(2).
    has_others: bool,
}

impl Guardians {
    /// Creates an empty set of guardians. Must be called before the first one is started.
    pub fn new() -> Self {
        let has_others = std::process::id() == 1 || !Families::read().children(own_pid()).is_empty();
        Guardians { running: HashMap::new(), has_others }
    }

    /// Adds a started guardian, and returns its process id.
    pub fn register(&mut self, guardian: &Child) -> i32 {
        let pid = i32::try_from(guardian.id()).unwrap_or_default();
        self.running.insert(pid, false);
        pid
    }

    /// Takes the status of every ended process, and continues stopped guardians: a server may stop its guardian,
    /// which then neither reports nor obeys.
    pub fn reap(&mut self) {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
            match status {
                WaitStatus::StillAlive => break,
                WaitStatus::Stopped(pid, _) => self.wake(pid),
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                    self.running.remove(&pid.as_raw());
                    tracing::debug!(?status, "reaped");
                }
                _ => {}
            }
        }
    }

    fn wake(&mut self, guardian: Pid) {
        let Some(was_woken) = self.running.get_mut(&guardian.as_raw()) else { return };
        let _ = kill(guardian, Signal::SIGCONT);
        if !std::mem::replace(was_woken, true) {
            tracing::warn!(%guardian, "the server's guardian was stopped by a signal; continuing it");
        }
    }

    /// Kills a guardian that does not report, and its descendants.
    pub fn end(&mut self, guardian: i32) {
        self.reap();
        if !self.running.contains_key(&guardian) {
            return;
        }
        let below = Families::read().below(guardian);
        for pid in std::iter::once(guardian).chain(below) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// Kills the processes of a server whose guardian was killed.
    pub fn clear_after(&mut self, lineage: &Lineage) {
        self.end(lineage.guardian);
        let deadline = Instant::now() + CLEARING;
        loop {
            self.reap();
            let strays = self.strays(lineage);
            let is_late = Instant::now() >= deadline;
            if strays.is_empty() && !self.running.contains_key(&lineage.guardian) || is_late {
                break;
            }
            for pid in strays {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let unknown = self.fallen(&Families::read()).count();
        if unknown > 0 {
            tracing::warn!(
                processes = unknown,
                "leaving adopted processes alone: no server is known to have started them"
            );
        }
    }

    /// Returns the adopted processes of a server, and their descendants.
    fn strays(&self, lineage: &Lineage) -> Vec<i32> {
        let families = Families::read();
        let known = self.fallen(&families).filter(|&pid| !self.has_others || lineage.includes(pid));
        known.flat_map(|pid| families.below(pid).into_iter().chain([pid])).collect()
    }

    /// Returns the children of proxyrunner that are not guardians.
    fn fallen<'a>(&self, families: &'a Families) -> impl Iterator<Item = i32> + use<'a, '_> {
        families.children(own_pid()).iter().copied().filter(|pid| !self.running.contains_key(pid))
    }
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or_default()
}
