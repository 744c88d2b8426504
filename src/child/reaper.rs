//! Reaps what falls to proxyrunner, keeps guardians running, and ends what must not outlive a guardian that was ended.
//!
//! Guardians fall to it, which end some time after their last report; where proxyrunner is PID 1 the zombies of others,
//! such as those of `docker exec`; and, since it is a subreaper too, what a guardian that was ended left behind. No server
//! is among them whose status matters: a server's parent is its guardian, which says how it ended.
//!
//! This must not happen while a process is being started: whoever starts one asks the system for the status of one that
//! could not be executed. So it is the spawning thread that does it. It is also the only one that sends signals to
//! guardians: until it has taken a guardian's status, nothing else can have its process id.

use crate::proc::{self, Families};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The time that the processes of an ended guardian have to be gone before the next server is started all the same.
const CLEARING: Duration = Duration::from_secs(1);

/// The variable that a server and whatever it starts have in their environment.
pub(super) const MARK: &str = "MCP_SERVER_GUARDIAN";

/// Tells the processes of one server from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The guardian's process id.
    pub(super) guardian: i32,
    /// The server's process id, and that of its group.
    pub(super) server: i32,
    /// The value of [`MARK`] in the server's environment, and in that of whatever it started.
    pub(super) mark: Arc<str>,
}

impl Lineage {
    /// Whether a process shows that it belongs to the server: by its environment or its group.
    fn includes(&self, pid: i32) -> bool {
        let has_mark = proc::variable(pid, MARK).is_some_and(|mark| mark == self.mark.as_bytes());
        has_mark || proc::stat(pid).is_some_and(|stat| stat.group == self.server)
    }
}

/// The guardians that run.
#[derive(Debug)]
pub(super) struct Guardians {
    /// Those with a server have its lineage.
    running: HashMap<i32, bool>,
    /// Whether processes can fall to proxyrunner that no server started: those of `docker exec` where it is PID 1, and
    /// those that the process started which became proxyrunner.
    has_others: bool,
}

impl Guardians {
    /// None yet. Must be called before the first is started.
    pub fn new() -> Self {
        let has_others = std::process::id() == 1 || !Families::read().children(own_pid()).is_empty();
        Guardians { running: HashMap::new(), has_others }
    }

    /// One was started; its process id.
    pub fn register(&mut self, guardian: &Child) -> i32 {
        let pid = i32::try_from(guardian.id()).unwrap_or_default();
        self.running.insert(pid, false);
        pid
    }

    /// Takes the status of everything that has ended, and continues guardians that were stopped: a server may stop its
    /// guardian, which then neither reports nor obeys.
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
            tracing::warn!(%guardian, "the server's guardian was stopped by a signal; it is continued");
        }
    }

    /// Ends a guardian that does not report, and everything below it.
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

    /// Ends whatever a server left behind whose guardian was ended.
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
                "processes that fell to proxyrunner are left alone: nothing shows that a server started them"
            );
        }
    }

    /// The processes of a server that fell to proxyrunner, and those below them.
    fn strays(&self, lineage: &Lineage) -> Vec<i32> {
        let families = Families::read();
        let known = self.fallen(&families).filter(|&pid| !self.has_others || lineage.includes(pid));
        known.flat_map(|pid| families.below(pid).into_iter().chain([pid])).collect()
    }

    /// The children of proxyrunner that are no guardians.
    fn fallen<'a>(&self, families: &'a Families) -> impl Iterator<Item = i32> + use<'a, '_> {
        families.children(own_pid()).iter().copied().filter(|pid| !self.running.contains_key(pid))
    }
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or_default()
}
