//! Reaps what falls to proxyrunner when it is PID 1: the zombies of others, such as those of `docker exec`.
//!
//! None of them is a server: a server's parent is its guardian, which says how it ended, so that no status is lost here.

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use std::io;
use tokio::signal::unix::{SignalKind, signal};

/// Reaps for as long as proxyrunner runs. Without effect unless it is PID 1.
///
/// # Errors
/// When SIGCHLD can't be listened for.
pub fn start() -> io::Result<()> {
    if std::process::id() != 1 || !super::spawn::can_guard() {
        return Ok(());
    }
    let mut ended = signal(SignalKind::child())?;
    tokio::spawn(async move {
        while ended.recv().await.is_some() {
            while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                match status {
                    WaitStatus::StillAlive => break,
                    status => tracing::debug!(?status, "reaped"),
                }
            }
        }
    });
    Ok(())
}
