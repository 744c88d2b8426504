//! What /proc knows of processes, and the limits of this one.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use std::collections::HashMap;

/// Allows as many open files as this process may have. Processes that it starts inherit that.
pub fn raise_file_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Returns the process and its descendants, without children that this program serves as and what runs below them.
pub fn family(root: u32) -> Vec<u32> {
    below(root, |pid| !is_child_server(pid))
}

/// Returns the process and all of its descendants.
pub fn descendants(root: u32) -> Vec<u32> {
    below(root, |_| true)
}

fn below(root: u32, belongs: impl Fn(u32) -> bool) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let below = children.remove(&found[next]).unwrap_or_default();
        found.extend(below.into_iter().filter(|pid| belongs(*pid)));
        next += 1;
    }
    found
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

fn is_child_server(pid: u32) -> bool {
    let own = std::env::current_exe().expect("this program");
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.split(|byte| *byte == 0).next() == Some(own.as_os_str().as_encoded_bytes())
}

/// Returns the seconds of CPU time that the processes have used.
pub fn cpu(processes: &[u32]) -> f64 {
    let seconds = processes.iter().map(|pid| {
        let clock = clock_getcpuclockid(Pid::from_raw(*pid as i32));
        let time = clock.and_then(clock_gettime).map_or(std::time::Duration::ZERO, Into::into);
        time.as_secs_f64()
    });
    seconds.sum()
}

/// Returns the sum of a field of /proc/PID/status in KiB, such as `VmRSS:`.
pub fn memory(processes: &[u32], field: &str) -> f64 {
    processes.iter().filter_map(|pid| kib(&format!("/proc/{pid}/status"), field)).sum()
}

/// Returns the proportional set size in KiB. Shared pages count in part. `None` if /proc does not tell this user.
pub fn proportional(pid: u32) -> Option<f64> {
    kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

fn kib(file: &str, field: &str) -> Option<f64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
