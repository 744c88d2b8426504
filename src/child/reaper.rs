//! Reaps what falls to proxyrunner, and ends what must not outlive a guardian that was ended.
//!
//! Guardians fall to it, which end some time after their last report; where proxyrunner is PID 1 the zombies of others,
//! such as those of `docker exec`; and, since it is a subreaper too, what a guardian that was ended left behind. No server
//! is among them whose status matters: a server's parent is its guardian, which says how it ended.
//!
//! This must not happen while a process is being started: whoever starts one asks the system for the status of one that
//! could not be executed. So it is the spawning thread that does it.

use super::Spawner;
use crate::proc::Families;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::collections::HashSet;
use std::io;
use std::process::Child;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// How long what a guardian left behind may take to be gone before the next server is started all the same.
const CLEARING: Duration = Duration::from_secs(1);

/// Has the spawning thread reap whenever something ended, for as long as proxyrunner runs.
///
/// # Errors
/// When SIGCHLD can't be listened for.
pub fn start(spawner: Spawner) -> io::Result<()> {
    if !super::spawn::can_guard() {
        return Ok(());
    }
    // Without it, what a guardian leaves behind falls to the system's init, and goes on.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_child_subreaper(true);
    let mut ended = signal(SignalKind::child())?;
    tokio::spawn(async move {
        while ended.recv().await.is_some() {
            spawner.reap();
        }
    });
    Ok(())
}

/// The guardians that run.
#[derive(Debug, Default)]
pub(super) struct Guardians(HashSet<i32>);

impl Guardians {
    /// One was started.
    pub fn note(&mut self, guardian: &Child) {
        self.0.extend(i32::try_from(guardian.id()));
    }

    /// Takes the status of everything that has ended.
    pub fn reap(&mut self) {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            match status.pid() {
                None => break,
                Some(pid) => drop(self.0.remove(&pid.as_raw())),
            }
            tracing::debug!(?status, "reaped");
        }
    }

    /// Ends what a server left behind whose guardian was ended. As PID 1, only its process group is known to be its own.
    pub fn clear_after(&mut self, server: i32) {
        if std::process::id() == 1 {
            let _ = killpg(Pid::from_raw(server), Signal::SIGKILL);
            return;
        }
        let deadline = Instant::now() + CLEARING;
        loop {
            self.reap();
            let strays = self.strays();
            if strays.is_empty() || Instant::now() >= deadline {
                return;
            }
            for pid in strays {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What fell to proxyrunner, and what is below it: all but the guardians, which it started itself.
    fn strays(&self) -> Vec<i32> {
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let families = Families::read();
        let fallen = families.children(own).iter().copied().filter(|pid| !self.0.contains(pid));
        fallen.flat_map(|pid| families.below(pid).into_iter().chain([pid])).collect()
    }
}
