//! A control group that limits CPU time, of version 1 or 2.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Length of the periods in which the quota is granted, in microseconds.
const PERIOD: u64 = 100_000;

/// A control group. It is removed when all processes in it have ended.
pub struct Quota(PathBuf);

impl Quota {
    /// Makes a group that may use so many CPUs.
    ///
    /// # Errors
    /// When this process may not make one.
    pub fn new(cpus: f64) -> Result<Quota, String> {
        let microseconds = (cpus * PERIOD as f64) as u64;
        let (v1, v2) = (Path::new("/sys/fs/cgroup/cpu"), Path::new("/sys/fs/cgroup"));
        let parent = if v1.is_dir() { v1 } else { v2 };
        let quota = Quota(parent.join(format!("compare-{}", std::process::id())));
        std::fs::create_dir_all(&quota.0).map_err(|error| format!("no control group: {error}"))?;
        if v1.is_dir() {
            quota.set("cpu.cfs_period_us", &PERIOD.to_string())?;
            quota.set("cpu.cfs_quota_us", &microseconds.to_string())?;
        } else {
            quota.set("cpu.max", &format!("{microseconds} {PERIOD}"))?;
        }
        Ok(quota)
    }

    fn set(&self, name: &str, value: &str) -> Result<(), String> {
        std::fs::write(self.0.join(name), value).map_err(|error| format!("no control group: {name}: {error}"))
    }

    /// Returns a command that runs `command` within the group.
    pub fn within(&self, command: &Command) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.0.join("cgroup.procs"));
        shell.arg(command.get_program()).args(command.get_args());
        shell
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // Processes that were killed leave the group a little later.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}
