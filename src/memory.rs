//! Keeps the allocator from holding on to memory that messages no longer need: else a burst would stay resident for as long
//! as the process lives, and memory in use would say little about memory taken.

/// Allocations of this size or more are given back to the system as soon as they are freed, in bytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED: nix::libc::c_int = 64 * 1024;

/// Free memory that the allocator may keep, in bytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT: usize = 4 * 1024 * 1024;

/// Sets the allocator up. To be called once, before threads are started.
pub fn set_up() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use nix::libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, mallopt};
        // A fixed threshold: by itself it grows with what is freed, up to 32 MiB, and large messages would stay among small
        // ones. Two arenas: each keeps free memory of its own.
        // SAFETY: mallopt(3) only sets parameters of the allocator.
        unsafe {
            mallopt(M_MMAP_THRESHOLD, MAPPED);
            mallopt(M_TRIM_THRESHOLD, 2 * MAPPED);
            mallopt(M_ARENA_MAX, 2);
        }
    }
}

/// Gives free memory back to the system, if there is much of it. Takes a few milliseconds then.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: both are thread-safe functions of the allocator without preconditions.
    unsafe {
        if nix::libc::mallinfo2().fordblks > KEPT {
            nix::libc::malloc_trim(0);
        }
    }
}
