//! The guardian: a process between proxyrunner and a server. It is proxyrunner's own binary, executed under another
//! name. It adopts orphaned descendants of the server, so no process that the server started outlives the server or
//! proxyrunner, even after a SIGKILL (`docs/architecture.md#no-orphans`).
//!
//! The guardian has one thread, never touches the bytes between proxyrunner and the server, and reads no
//! configuration. Its first three files are the server's pipes; the fourth is a socket to proxyrunner. Files behind these
//! are handed on to the server.

use super::limits::Limits;
use super::report::{Instruction, Report};
use crate::proc::Families;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, killpg, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, setpgid};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, FromRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// The guardian's program name. It differs from proxyrunner's, so that `pkill proxyrunner` leaves the guardians to
/// clean up.
pub const NAME: &str = "mcp-server-guardian";
/// The file descriptor of the socket to proxyrunner.
pub const SOCKET: i32 = 3;
/// The descriptor of the first file that is handed on.
pub const HANDED: i32 = SOCKET + 1;
/// The running program.
pub const OWN_PROGRAM: &str = "/proc/self/exe";
/// Its name in lists of processes.
const OWN_NAME: &str = "proxyrunner";

/// Time for the server's descendants to exit before the server's end is reported. The next server may need resources
/// that they hold.
const CLEARING: Duration = Duration::from_secs(1);

/// Signals that the guardian ignores: they ask proxyrunner or the server to act, never the guardian.
const IGNORED: [Signal; 8] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGPIPE,
    Signal::SIGXFSZ,
];

/// Returns whether this process was executed as a guardian.
pub fn is_meant(name: Option<OsString>) -> bool {
    name.is_some_and(|name| name == NAME)
}

/// Starts the server that the arguments name, and ends every descendant of it.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    // SAFETY: the process that executes a guardian passes it this file, and nothing else here owns it.
    let socket = unsafe { UnixStream::from_raw_fd(SOCKET) };
    match guard(args, &socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            Report::Failed(error.raw_os_error().unwrap_or(libc::EIO)).send(&socket);
            ExitCode::FAILURE
        }
    }
}

fn guard(mut args: impl Iterator<Item = OsString>, socket: &UnixStream) -> io::Result<()> {
    close_on_exec(socket)?;
    let limits = Limits::parse(&args.next().unwrap_or_default()).ok_or(io::ErrorKind::InvalidInput)?;
    close_the_rest(limits.handed);
    // Otherwise process lists show the number of the executed file.
    nix::sys::prctl::set_name(c"guardian")?;
    // Leaves the terminal's foreground group, and adopts the server's orphans.
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    nix::sys::prctl::set_child_subreaper(true)?;
    // A guardian that was stopped must still clean up when proxyrunner dies.
    nix::sys::prctl::set_pdeathsig(Signal::SIGCONT)?;
    let inherited = ignore_signals()?;
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block()?;
    let ended = SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let program = args.next().unwrap_or_default();
    let mut command = Command::new(&program);
    command.args(args).process_group(0);
    if program == OWN_PROGRAM {
        command.arg0(OWN_NAME);
    }
    let guardian = nix::unistd::getpid();
    // SAFETY: this process has one thread, so anything may be done between fork and exec.
    unsafe {
        command.pre_exec(move || {
            for (signal, action) in &inherited {
                sigaction(*signal, action)?;
            }
            // The executed program inherits blocked signals.
            SigSet::empty().thread_set_mask()?;
            limits.apply()?;
            // Last, since a change of user clears it.
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // This process may have died between fork and prctl.
            if nix::unistd::getppid() != guardian {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        });
    }
    let server = command.spawn()?;
    // Only the server may hold the pipes, so that proxyrunner sees EOF when the server closes them.
    dup2_stdin(&ended)?;
    dup2_stdout(&ended)?;
    dup2_stderr(&ended)?;
    let server = Pid::from_raw(i32::try_from(server.id()).unwrap_or_default());
    Report::Started(server.as_raw()).send(socket);
    crate::memory::unmap_code();
    watch(server, socket, &ended)
}

/// Waits for the end of the server or of proxyrunner.
fn watch(server: Pid, mut socket: &UnixStream, ended: &SignalFd) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let mut status = None;
    let mut orders = Vec::new();
    loop {
        while reap(server, &mut status) {}
        if status.is_some() {
            break;
        }
        let mut files =
            [PollFd::new(ended.as_fd(), PollFlags::POLLIN), PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut files, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        while matches!(ended.read_signal(), Ok(Some(_))) {}
        let mut read = [0; 64];
        match socket.read(&mut read) {
            // proxyrunner is gone. The server must not outlive it.
            Ok(0) => break,
            Ok(length) => {
                orders.extend_from_slice(&read[..length]);
                Instruction::take_all(&mut orders).into_iter().for_each(|order| obey(order, server));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    let clear = clear(server, &mut status, Instant::now() + CLEARING);
    if let Some(status) = status {
        Report::Ended(status).send(socket);
    }
    if !clear {
        // A process stuck in the kernel is still waited for, but does not delay the report.
        clear_at_last(server, &mut status);
    }
    Ok(())
}

fn obey(order: Instruction, server: Pid) {
    // The process may have ended already.
    let _ = match order {
        Instruction::Group(Signal::SIGKILL) => return kill_all(),
        Instruction::Group(signal) => killpg(server, signal),
        Instruction::Server(signal) => kill(server, signal),
    };
}

/// Takes the status of one ended process; returns false if there is none.
fn reap(server: Pid, status: &mut Option<i32>) -> bool {
    match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(pid, code)) if pid == server => *status = Some(code << 8),
        Ok(WaitStatus::Signaled(pid, signal, _)) if pid == server => *status = Some(signal as i32),
        Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return false,
        Ok(_) | Err(_) => {}
    }
    true
}

/// Kills every descendant; returns false if one is left at the deadline.
fn clear(server: Pid, status: &mut Option<i32>, deadline: Instant) -> bool {
    loop {
        kill_all();
        while reap(server, status) {}
        if waitpid(None, Some(WaitPidFlag::WNOHANG)) == Err(Errno::ECHILD) {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn clear_at_last(server: Pid, status: &mut Option<i32>) {
    while !clear(server, status, Instant::now() + CLEARING) {}
}

/// Sends SIGKILL to every descendant. Descendants started meanwhile are adopted by this process, and found by the
/// next call.
fn kill_all() {
    for pid in Families::read().below(nix::unistd::getpid().as_raw()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Ignores the signals, and returns their previous dispositions, which the server inherits.
fn ignore_signals() -> io::Result<Vec<(Signal, SigAction)>> {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    let ignored = IGNORED.into_iter().map(|signal| {
        // SAFETY: no handler is installed, only the disposition to ignore.
        let before = unsafe { sigaction(signal, &ignore) }?;
        // Rust's runtime ignores SIGPIPE, and proxyrunner SIGXFSZ; programs expect the default.
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        let is_ours = [Signal::SIGPIPE, Signal::SIGXFSZ].contains(&signal);
        Ok((signal, if is_ours { default } else { before }))
    });
    ignored.collect()
}

/// Closes files that proxyrunner inherited, except for the first `handed` ones, which are the server's: neither this
/// process nor the server may have them. On systems without `close_range(2)` they stay open.
fn close_the_rest(handed: u32) {
    // SAFETY: nothing here owns any of these files.
    let _ = unsafe { libc::close_range((HANDED as u32).saturating_add(handed), u32::MAX, 0) };
}

fn close_on_exec(socket: &UnixStream) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    fcntl(socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}
