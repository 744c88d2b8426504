//! The process between proxyrunner and a server: proxyrunner's own binary, executed again under another name. What the
//! server starts, and what that starts, has nobody else to fall to when its parents end, so that nothing outlives the
//! server, and nothing outlives proxyrunner, however that ends (D13).
//!
//! It has one thread, never touches what passes between the two, and knows no configuration: the pipes are its first
//! three files, the fourth is a socket to proxyrunner.

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

/// What it is executed as. Not by proxyrunner's name, so that whoever ends everything of that name leaves the guardians to
/// clean up behind it.
pub const NAME: &str = "mcp-server-guardian";
/// Where its socket is.
pub const SOCKET: i32 = 3;

/// How long what the server left behind may take to be gone before the server's end is reported: the next one may need
/// what it holds.
const CLEARING: Duration = Duration::from_secs(1);

/// What asks a process to end or go on, and is meant for proxyrunner or the server, never for what stands between.
const IGNORED: [Signal; 7] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGPIPE,
];

/// Whether this process was executed as a guardian.
pub fn is_meant(name: Option<OsString>) -> bool {
    name.is_some_and(|name| name == NAME)
}

/// Starts the server that the arguments name, and sees to its end and to that of all that it started.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    // SAFETY: whoever executes a guardian gives it this file, and nothing else here owns it.
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
    close_the_rest();
    // Else lists of processes show the number of a file.
    nix::sys::prctl::set_name(c"guardian")?;
    // Out of the terminal's foreground group; and what the server leaves behind falls to this process.
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    nix::sys::prctl::set_child_subreaper(true)?;
    // Whoever stops this process and then ends proxyrunner must not keep it from clearing up.
    nix::sys::prctl::set_pdeathsig(Signal::SIGCONT)?;
    let inherited = ignore_signals()?;
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block()?;
    let ended = SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let limits = Limits::parse(&args.next().unwrap_or_default()).ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(args.next().unwrap_or_default());
    command.args(args).process_group(0);
    let guardian = nix::unistd::getpid();
    // SAFETY: this process has one thread, so that anything may be done between fork and exec.
    unsafe {
        command.pre_exec(move || {
            for (signal, action) in &inherited {
                sigaction(*signal, action)?;
            }
            // A new program inherits what is blocked.
            SigSet::empty().thread_set_mask()?;
            limits.apply()?;
            // Last, since a change of user undoes it.
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // This process may have died between fork and prctl.
            if nix::unistd::getppid() != guardian {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        });
    }
    let server = command.spawn()?;
    // The pipes are the server's: their other ends must see EOF when it closes them.
    dup2_stdin(&ended)?;
    dup2_stdout(&ended)?;
    dup2_stderr(&ended)?;
    let server = Pid::from_raw(i32::try_from(server.id()).unwrap_or_default());
    Report::Started(server.as_raw()).send(socket);
    watch(server, socket, &ended)
}

/// Until the server ends, or proxyrunner does.
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
            // proxyrunner is gone, and the server was its own.
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
        // What is stuck in the kernel is waited for, but holds up nobody.
        clear_at_last(server, &mut status);
    }
    Ok(())
}

fn obey(order: Instruction, server: Pid) {
    // A process that is gone already is fine.
    let _ = match order {
        Instruction::Group(Signal::SIGKILL) => return kill_all(),
        Instruction::Group(signal) => killpg(server, signal),
        Instruction::Server(signal) => kill(server, signal),
    };
}

/// Takes the status of one process that has ended; false if there is none.
fn reap(server: Pid, status: &mut Option<i32>) -> bool {
    match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(pid, code)) if pid == server => *status = Some(code << 8),
        Ok(WaitStatus::Signaled(pid, signal, _)) if pid == server => *status = Some(signal as i32),
        Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return false,
        Ok(_) | Err(_) => {}
    }
    true
}

/// Ends everything that is left; false if something is still there at the deadline.
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

/// SIGKILL to every descendant. Those that are started meanwhile fall to this process when their parents end, and are
/// found the next time.
fn kill_all() {
    for pid in Families::read().below(nix::unistd::getpid().as_raw()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// What was done with each of these signals before: the server is to have it so again.
fn ignore_signals() -> io::Result<Vec<(Signal, SigAction)>> {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    let ignored = IGNORED.into_iter().map(|signal| {
        // SAFETY: no handler is installed, only the disposition to ignore.
        let before = unsafe { sigaction(signal, &ignore) }?;
        // A runtime ignores it for itself; programs are written for the default.
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        Ok((signal, if signal == Signal::SIGPIPE { default } else { before }))
    });
    ignored.collect()
}

/// What whoever started proxyrunner left open is for neither this process nor the server. Where the system can't do it,
/// it stays open, as it would without a guardian.
fn close_the_rest() {
    // SAFETY: nothing here owns any of these files.
    let _ = unsafe { libc::close_range(SOCKET as u32 + 1, u32::MAX, 0) };
}

fn close_on_exec(socket: &UnixStream) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    fcntl(socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}
