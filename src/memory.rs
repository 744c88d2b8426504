//! The memory limit of the system, and the allocator's settings.
//!
//! Freed memory is returned to the system. Otherwise a burst would stay resident as long as the process lives, and
//! memory in use would say little about resident memory.

/// Allocations of at least this size are returned to the system as soon as they are freed, in bytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED: nix::libc::c_int = 256 * 1024;

/// Free memory that the allocator may always keep, in bytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT: usize = 2 * 1024 * 1024;

/// Configures the allocator. Must be called once, before threads are started.
pub fn set_up() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use nix::libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, mallopt};
        // The default threshold grows with freed allocations, up to 32 MiB, so that large messages would be placed
        // among small ones. Each arena keeps its own free memory, so there are only two.
        // SAFETY: mallopt(3) only sets parameters of the allocator.
        unsafe {
            mallopt(M_MMAP_THRESHOLD, MAPPED);
            mallopt(M_TRIM_THRESHOLD, 4 * MAPPED);
            mallopt(M_ARENA_MAX, 2);
        }
    }
}

/// Returns whether the allocator keeps much free memory; if `is_short`, even if it is little beside the memory in use.
/// Requests that come and go need as much again at once.
pub fn is_kept(is_short: bool) -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: a thread-safe function of the allocator without preconditions.
        let memory = unsafe { nix::libc::mallinfo2() };
        let used = memory.uordblks + memory.hblkhd;
        // Free memory that was returned before is free, but no longer resident.
        let kept = anonymous().map_or(memory.fordblks, |resident| resident.saturating_sub(used + data()));
        kept > if is_short { KEPT } else { KEPT.max(used / 2) }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    return false;
}

/// Returns the resident bytes that are not of a file; `None` without `/proc`.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn anonymous() -> Option<usize> {
    // Total, resident and shared pages (proc_pid_statm(5)).
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = pages.split(' ').skip(1).map_while(|pages| pages.parse::<usize>().ok());
    Some(pages.next()?.saturating_sub(pages.next()?) * page())
}

/// Returns the size of the program's writable data, which is resident and no free memory, in bytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn data() -> usize {
    static DATA: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *DATA.get_or_init(|| {
        let mut size = 0_usize;
        // SAFETY: the callback fits the interface, and `size` outlives the call.
        unsafe { nix::libc::dl_iterate_phdr(Some(data_of), (&raw mut size).cast()) };
        size
    })
}

/// Adds the sizes of an object's writable segments, and ends the iteration: the first object is the program.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
unsafe extern "C" fn data_of(
    object: *mut nix::libc::dl_phdr_info,
    _: usize,
    sum: *mut nix::libc::c_void,
) -> nix::libc::c_int {
    use nix::libc::{PF_W, PT_LOAD};
    // SAFETY: dl_iterate_phdr(3) passes a valid object with as many headers as it says, and `data` its own sum.
    let (headers, sum) = unsafe {
        let object = &*object;
        (std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()), &mut *sum.cast::<usize>())
    };
    let writable = headers.iter().filter(|header| header.p_type == PT_LOAD && header.p_flags & PF_W != 0);
    *sum += writable.map(|header| header.p_memsz as usize).sum::<usize>();
    1
}

/// Returns the size of a page in bytes.
#[cfg(target_os = "linux")]
fn page() -> usize {
    // SAFETY: a function without preconditions.
    unsafe { nix::libc::sysconf(nix::libc::_SC_PAGESIZE) }.max(1) as usize
}

/// Returns free memory to the system. Takes a few milliseconds.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: a thread-safe function of the allocator without preconditions.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// Unmaps the program's code and constants until they are used again: most of them were used only to start. They stay
/// in the page cache, and take a few microseconds to map again.
pub fn unmap_code() {
    #[cfg(target_os = "linux")]
    // SAFETY: the callback fits the interface, and needs no data.
    unsafe {
        nix::libc::dl_iterate_phdr(Some(unmap_code_of), std::ptr::null_mut());
    }
}

/// Unmaps the read-only segments of an object, and ends the iteration: the first object is the program.
#[cfg(target_os = "linux")]
unsafe extern "C" fn unmap_code_of(
    object: *mut nix::libc::dl_phdr_info,
    _: usize,
    _: *mut nix::libc::c_void,
) -> nix::libc::c_int {
    use nix::libc::{MADV_DONTNEED, PF_W, PT_LOAD, madvise};
    // SAFETY: dl_iterate_phdr(3) passes a valid object with as many headers as it says.
    let (start, headers) = unsafe {
        let object = &*object;
        (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()))
    };
    let page = page();
    for header in headers.iter().filter(|header| header.p_type == PT_LOAD && header.p_flags & PF_W == 0) {
        let begin = (start + header.p_vaddr) as usize;
        let length = begin % page + header.p_memsz as usize;
        let begin = std::ptr::with_exposed_provenance_mut(begin - begin % page);
        // SAFETY: nothing writes to these pages, so the kernel reads the same from the file (madvise(2)).
        unsafe { madvise(begin, length, MADV_DONTNEED) };
    }
    1
}

/// The mount points of control groups, and the file with a group's limit.
const HIERARCHIES: [(&str, &str); 2] =
    [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")];

/// Returns the memory limit of this process's control groups, in bytes; `None` if they set none.
///
/// Reads control groups v2 and v1: the limits of the process's own group and of all groups above it. Without `/proc`
/// only the mounted root is read, which in a container is its own group.
pub fn limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit_of(&groups, |path| std::fs::read_to_string(path).ok())
}

/// Returns the limit for a given text of `/proc/self/cgroup` and a function that reads files.
fn limit_of(groups: &str, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    // hierarchy:controllers:path
    let paths = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        (controllers.is_empty() || controllers.split(',').any(|name| name == "memory")).then_some(path)
    });
    let mut files = Vec::new();
    for path in paths.chain(["/"]) {
        let mut path = path.trim_end_matches('/');
        loop {
            files.extend(HIERARCHIES.map(|(mount, name)| format!("{mount}{path}/{name}")));
            let Some((above, _)) = path.rsplit_once('/') else { break };
            path = above;
        }
    }
    // "max", or v1's largest number of pages, means no limit.
    let limits = files.iter().filter_map(|file| read(file)?.trim().parse().ok());
    limits.min().filter(|&limit: &u64| limit < 1 << 62)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        limit_of(groups, |path| {
            files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn memory_is_kept_until_it_is_given_back() {
        let blocks: Vec<_> = (0..4096).map(|_| vec![1_u8; 4096]).collect();
        assert!(!is_kept(true), "it is in use");
        let few: Vec<_> = blocks.into_iter().step_by(64).collect();
        assert!(is_kept(true) && is_kept(false));
        give_back();
        assert!(!is_kept(true), "it is free, but not resident");
        drop(few);
    }

    #[test]
    fn the_lowest_limit_of_all_groups_above_applies() {
        let files = [
            ("/sys/fs/cgroup/pods/memory.max", "104857600\n"),
            ("/sys/fs/cgroup/pods/one/memory.max", "max\n"),
        ];
        assert_eq!(limited("0::/pods/one\n", &files), Some(100 << 20));
        assert_eq!(limited("0::/other\n", &files), None);
        assert_eq!(limited("0::/\n", &[("/sys/fs/cgroup/memory.max", "5\n")]), Some(5), "in a container");
    }

    #[test]
    fn version_1_of_control_groups_is_also_read() {
        let groups = "11:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n1:name=systemd:/docker/a\n";
        let own = ("/sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes", "7\n");
        assert_eq!(limited(groups, &[own]), Some(7));
        // A container sees its own group as the root, though the path is the host's.
        assert_eq!(limited(groups, &[("/sys/fs/cgroup/memory/memory.limit_in_bytes", "8\n")]), Some(8));
        let none = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limited(groups, &[none]), None);
        assert_eq!(limited("", &[]), None, "no control groups at all");
    }
}
