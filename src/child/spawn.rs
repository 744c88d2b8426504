//! Starts servers through a [guardian](super::guardian), or directly where a guardian is impossible.
//!
//! Servers are started by a thread that lives as long as proxyrunner. The parent-death signal fires when the *thread*
//! that spawned a process ends (prctl(2), PR_SET_PDEATHSIG), and the runtime's threads come and go.

use super::process::Process;
use super::reaper::{Guardians, Lineage, MARK};
use super::report::Report;
use super::start_error::StartError;
use super::{Settings, guardian, program};
use crate::tasks;
use nix::sys::resource::{Resource, getrlimit};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
#[cfg(target_os = "linux")]
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// A started child: the process and its pipes.
#[derive(Debug)]
pub struct Spawned {
    /// The process, which leads a process group of its own.
    pub process: Process,
    /// The pipe to its stdin.
    pub stdin: ChildStdin,
    /// The pipe from its stdout.
    pub stdout: ChildStdout,
    /// The pipe from its stderr. Must always be read, or the child stalls.
    pub stderr: ChildStderr,
}

type Reply = oneshot::Sender<Result<Spawned, StartError>>;

/// A task for the spawning thread.
#[derive(Debug)]
enum SpawnerTask {
    Spawn(Reply),
    Reap,
    Clear { lineage: Lineage, done: oneshot::Sender<()> },
}

/// Starts children with the same settings.
#[derive(Clone, Debug)]
pub struct Spawner {
    orders: mpsc::Sender<SpawnerTask>,
    /// Set while a reap is queued. Without this flag a server could queue any number of reaps.
    is_to_reap: Arc<AtomicBool>,
}

impl Spawner {
    /// Starts the spawning thread. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the system refuses to create a thread.
    pub fn start(mut settings: Settings) -> io::Result<Self> {
        let (orders, intake) = mpsc::channel();
        let runtime = tokio::runtime::Handle::current();
        // Read before proxyrunner raises its own limit, so that the child inherits the original one.
        settings.limits.files = settings.limits.files.or(getrlimit(Resource::RLIMIT_NOFILE).ok());
        if !can_guard() {
            tracing::warn!(
                "/proc is not mounted; processes that a server starts in sessions of their own may outlive it"
            );
        }
        let mut guardians = Guardians::new();
        let is_to_reap = Arc::new(AtomicBool::new(false));
        let reaps = Arc::clone(&is_to_reap);
        thread::Builder::new().name("spawner".into()).spawn(move || {
            let _runtime = runtime.enter();
            for task in intake {
                match task {
                    SpawnerTask::Spawn(reply) => drop(reply.send(spawn(&settings, &mut guardians))),
                    SpawnerTask::Reap => {
                        // Cleared first, so that a process that ends after this point queues another reap.
                        reaps.store(false, Ordering::SeqCst);
                        guardians.reap();
                    }
                    SpawnerTask::Clear { lineage, done } => {
                        guardians.clear_after(&lineage);
                        let _ = done.send(());
                    }
                }
            }
        })?;
        Ok(Spawner { orders, is_to_reap })
    }

    /// Starts one child.
    ///
    /// # Errors
    /// When the program cannot be executed.
    pub async fn spawn(&self) -> Result<Spawned, StartError> {
        let (reply, spawned) = oneshot::channel();
        let gone = || StartError::new("cannot start the server: the spawning thread is gone");
        self.orders.send(SpawnerTask::Spawn(reply)).map_err(|_| gone())?;
        spawned.await.map_err(|_| gone())?
    }

    /// Kills a guardian that does not report, and the processes that its server left behind.
    pub async fn clear_after(&self, lineage: Lineage) {
        let (done, cleared) = oneshot::channel();
        if self.orders.send(SpawnerTask::Clear { lineage, done }).is_ok() {
            let _ = cleared.await;
        }
    }

    /// Reaps ended processes on every SIGCHLD, as long as proxyrunner runs.
    ///
    /// # Errors
    /// When the handler for SIGCHLD cannot be installed.
    pub fn reap_on_sigchld(self) -> io::Result<()> {
        if !can_guard() {
            return Ok(());
        }
        // Otherwise the processes that a killed guardian leaves behind are adopted by the system's init, and continue
        // to run.
        #[cfg(target_os = "linux")]
        let _ = nix::sys::prctl::set_child_subreaper(true);
        let mut ended = signal(SignalKind::child())?;
        tasks::spawn(async move {
            while ended.recv().await.is_some() {
                self.reap();
            }
        });
        Ok(())
    }

    /// Takes the status of every ended process, but not in the middle of a start.
    fn reap(&self) {
        if !self.is_to_reap.swap(true, Ordering::SeqCst) {
            // Without the spawning thread, proxyrunner is ending anyway.
            let _ = self.orders.send(SpawnerTask::Reap);
        }
    }
}

fn spawn(settings: &Settings, guardians: &mut Guardians) -> Result<Spawned, StartError> {
    let refused = |error: io::Error| StartError::refused(settings, &error);
    if let Some(alien) = StartError::of_architecture(settings) {
        return Err(alien);
    }
    if !can_guard() {
        return direct(settings).map_err(refused);
    }
    let guarding = guardian(settings, guardians).map_err(|error| match &settings.cwd {
        Some(cwd) if !cwd.is_dir() => refused(error),
        cwd => {
            let place = cwd.as_ref().map(|cwd| format!(" in --cwd {}", cwd.display())).unwrap_or_default();
            StartError::new(format!(
                "cannot execute proxyrunner again as the server's guardian{place}: {error}"
            ))
        }
    })?;
    guarded(guarding, guardians).map_err(refused)
}

/// Returns whether proxyrunner can execute itself again.
fn can_guard() -> bool {
    cfg!(target_os = "linux") && Path::new(OWN_PROGRAM).exists()
}

/// The running program.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Returns a path to the running program as an open file, so that it can be executed even if it was renamed or
/// deleted. Executing `/proc/self/exe` itself would start the tool under which proxyrunner runs, such as valgrind.
/// The file is opened as a mere path (open(2), O_PATH), since it may be executable but not readable.
fn own_program() -> io::Result<String> {
    static OPENED: OnceLock<File> = OnceLock::new();
    if OPENED.get().is_none() {
        #[cfg(target_os = "linux")]
        let opened = File::options().read(true).custom_flags(nix::libc::O_PATH).open(OWN_PROGRAM)?;
        #[cfg(not(target_os = "linux"))]
        let opened = File::open(OWN_PROGRAM)?;
        let _ = OPENED.set(opened);
    }
    let file = OPENED.get().ok_or(io::ErrorKind::NotFound)?;
    Ok(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Executes proxyrunner again as the guardian that starts the server.
fn guardian(settings: &Settings, guardians: &mut Guardians) -> io::Result<Guarding> {
    let (socket, theirs) = UnixStream::pair()?;
    let mut command = Command::new(own_program()?);
    command
        .arg0(guardian::NAME)
        .arg(settings.limits.word())
        .arg(program::find(settings))
        .args(&settings.args);
    // SAFETY: between fork and exec only async-signal-safe calls are made: dup2(2), fcntl(2).
    unsafe {
        command.pre_exec(move || place(&theirs, guardian::SOCKET));
    }
    let mark = mark();
    let guardian = prepared(&mut command, settings).env(MARK, &*mark).spawn()?;
    let pid = guardians.register(&guardian);
    // `command` is dropped here, and with it the guardian's end of the socket.
    Ok(Guarding { socket, guardian, pid, mark })
}

/// A guardian that was executed, but has not reported yet.
struct Guarding {
    socket: UnixStream,
    guardian: Child,
    pid: i32,
    mark: Arc<str>,
}

/// Waits for the guardian's first report, and returns the started server.
fn guarded(guarding: Guarding, guardians: &mut Guardians) -> io::Result<Spawned> {
    let Guarding { socket, mut guardian, pid, mark } = guarding;
    let pipes = (|| {
        let (stdin, stdout, stderr) =
            (guardian.stdin.take()?, guardian.stdout.take()?, guardian.stderr.take()?);
        Some((ChildStdin::from_std(stdin), ChildStdout::from_std(stdout), ChildStderr::from_std(stderr)))
    })();
    let (stdin, stdout, stderr) = pipes.ok_or_else(without_pipes)?;
    let (stdin, stdout, stderr) = (stdin?, stdout?, stderr?);
    let report = first_report(&socket, guardians).inspect_err(|_| {
        guardians.clear_after(&Lineage { guardian: pid, server: pid, mark: Arc::clone(&mark) });
    })?;
    match Report::read(report) {
        Some(Report::Started(server)) => {
            let process = Process::guarded(Lineage { guardian: pid, server, mark }, socket)?;
            Ok(Spawned { process, stdin, stdout, stderr })
        }
        Some(Report::Failed(errno)) => Err(io::Error::from_raw_os_error(errno)),
        _ => Err(io::Error::other("its guardian sent a malformed report")),
    }
}

/// Maximum time that the system may take to start a process.
const STARTING: Duration = Duration::from_secs(60);
/// Interval between checks of a guardian that has not reported yet. Its server may have stopped it.
const LOOK: Duration = Duration::from_millis(200);

/// Reads the guardian's first report.
fn first_report(mut socket: &UnixStream, guardians: &mut Guardians) -> io::Result<[u8; Report::LENGTH]> {
    let deadline = Instant::now() + STARTING;
    let (mut report, mut length) = ([0; Report::LENGTH], 0);
    socket.set_read_timeout(Some(LOOK))?;
    while length < report.len() {
        match socket.read(&mut report[length..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                guardians.reap();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(report)
}

/// Returns a value that marks the processes of one server.
fn mark() -> Arc<str> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    format!("{}-{since}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)).into()
}

/// Duplicates a file to the descriptor `at`, in the process that is about to be executed.
fn place(file: &UnixStream, at: i32) -> io::Result<()> {
    if file.as_raw_fd() == at {
        let keep = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty());
        nix::fcntl::fcntl(file, keep)?;
        return Ok(());
    }
    // SAFETY: both are file descriptors, and the process has no use for the file at `at`.
    if unsafe { nix::libc::dup2(file.as_raw_fd(), at) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn direct(settings: &Settings) -> io::Result<Spawned> {
    let mut command = Command::new(program::find(settings));
    command.args(&settings.args).process_group(0);
    let (limits, parent) = (settings.limits.clone(), nix::unistd::getpid());
    // SAFETY: between fork and exec only async-signal-safe calls are made, such as setrlimit(2), prctl(2) and
    // getppid(2). Memory is allocated only if groups are changed.
    unsafe {
        command.pre_exec(move || {
            limits.apply()?;
            die_with(parent)
        });
    }
    prepared(&mut command, settings);
    let mut process = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
    let pipes = (|| Some((process.stdin.take()?, process.stdout.take()?, process.stderr.take()?)))();
    let (stdin, stdout, stderr) = pipes.ok_or_else(without_pipes)?;
    let pid = process.id().and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.ok_or_else(|| io::Error::other("it exited at once"))?;
    Ok(Spawned { process: Process::direct(pid, process), stdin, stdout, stderr })
}

fn prepared<'a>(command: &'a mut Command, settings: &Settings) -> &'a mut Command {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    environment(command, settings);
    if let Some(cwd) = &settings.cwd {
        command.current_dir(cwd);
    }
    command
}

fn without_pipes() -> io::Error {
    io::Error::other("it has no pipes")
}

/// Sets the child's environment: proxyrunner's own, without its settings and without the headers for collectors,
/// which are secrets (`docs/architecture.md#credentials`). Variables named by `--env` are always passed.
fn environment(command: &mut Command, settings: &Settings) {
    if settings.env_clear {
        command.env_clear();
    }
    for (key, _) in std::env::vars_os() {
        let name = key.to_string_lossy();
        let is_secret = name.starts_with("OTEL_EXPORTER_OTLP_") && name.ends_with("HEADERS");
        if name.starts_with("PROXYRUNNER_") || is_secret {
            command.env_remove(&key);
        }
    }
    command.envs(settings.env.iter().map(|(key, value)| (key, value)));
}

#[cfg(target_os = "linux")]
fn die_with(parent: nix::unistd::Pid) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    // proxyrunner may have died between fork and prctl.
    if nix::unistd::getppid() != parent {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn die_with(_parent: nix::unistd::Pid) -> io::Result<()> {
    Ok(())
}
