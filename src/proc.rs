//! Reads processes from `/proc` (proc(5)): their parents, and their use of resources.

use std::collections::HashMap;
use std::time::Duration;

/// The state of one process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stat {
    /// Its parent's process id.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its CPU time, including that of children that it has waited for.
    pub cpu: Duration,
    /// Its resident memory, in bytes.
    pub memory: u64,
}

/// Reads the state of a process; `None` if it is gone.
pub fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The fields follow the name, which may contain any bytes, including blanks and brackets.
    let after = text.iter().rposition(|&byte| byte == b')')? + 1;
    let fields: Vec<&str> = std::str::from_utf8(&text[after..]).ok()?.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks: u64 = (14..=17).filter_map(field).sum();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        cpu: Duration::from_secs_f64(ticks as f64 / ticks_per_second()),
        memory: field(24)? * page_size(),
    })
}

/// Reads a variable from a process's initial environment; `None` if it is absent or not accessible.
pub fn variable(pid: i32, name: &str) -> Option<Vec<u8>> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut variables = environment.split(|&byte| byte == 0);
    variables
        .find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        .map(<[u8]>::to_vec)
}

/// Returns the number of open files of a process, as far as accessible.
pub fn open_files(pid: i32) -> u64 {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |files| files.count() as u64)
}

/// Prevents other processes of the same user from reading this process's environment and memory, and from tracing it.
/// Disables its core dumps, too. Executed programs are not affected.
pub fn forbid_inspection() {
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_dumpable(false);
}

/// All processes, by their parents.
#[derive(Debug)]
pub struct Families(HashMap<i32, Vec<i32>>);

impl Families {
    /// Reads the current processes; none without `/proc`.
    pub fn read() -> Self {
        let mut families: HashMap<i32, Vec<i32>> = HashMap::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some((pid, stat)) = pid.and_then(|pid| Some((pid, stat(pid)?))) {
                families.entry(stat.parent).or_default().push(pid);
            }
        }
        Families(families)
    }

    /// Returns the children of a process.
    pub fn children(&self, parent: i32) -> &[i32] {
        self.0.get(&parent).map_or(&[], Vec::as_slice)
    }

    /// Returns the descendants of a process, nearest first.
    pub fn below(&self, root: i32) -> Vec<i32> {
        let mut found = self.children(root).to_vec();
        let mut at = 0;
        while at < found.len() {
            found.extend(self.children(found[at]));
            at += 1;
        }
        found
    }
}

fn ticks_per_second() -> f64 {
    sysconf(nix::unistd::SysconfVar::CLK_TCK).unwrap_or(100) as f64
}

fn page_size() -> u64 {
    sysconf(nix::unistd::SysconfVar::PAGE_SIZE).unwrap_or(4096)
}

fn sysconf(variable: nix::unistd::SysconfVar) -> Option<u64> {
    nix::unistd::sysconf(variable).ok().flatten().and_then(|value| u64::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_found_below_their_parents() {
        let mut shell =
            std::process::Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().expect("a shell");
        let pid = i32::try_from(shell.id()).expect("a pid");
        while Families::read().below(pid).is_empty() {
            std::thread::yield_now();
        }
        let families = Families::read();
        let below = families.below(pid);
        assert_eq!(below.len(), 1);
        assert_eq!(stat(below[0]).map(|stat| stat.parent), Some(pid));
        assert!(families.children(i32::try_from(std::process::id()).expect("a pid")).contains(&pid));
        let own = stat(pid).expect("it lives");
        assert!(own.memory > 0 && open_files(pid) >= 3, "{own:?}");
        let below = nix::unistd::Pid::from_raw(below[0]);
        nix::sys::signal::kill(below, nix::sys::signal::Signal::SIGKILL).expect("it lives");
        shell.wait().expect("it ends");
        assert_eq!(stat(pid), None);
    }
}
