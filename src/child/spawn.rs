//! Starts servers through a [guardian](super::guardian), or directly where a guardian is impossible.
//!
//! Servers are started by a thread that lives as long as proxyrunner. The parent-death signal fires when the *thread*
//! that spawned a process ends (prctl(2), PR_SET_PDEATHSIG), and the runtime's threads come and go.

use super::guardian::OWN_PROGRAM;
use super::process::Process;
use super::reaper::{Guardians, Lineage, MARK};
use super::report::Report;
use super::start_error::StartError;
use super::{Settings, guardian, program};
use crate::identity::{VARIABLE_PREFIX, Variables};
use crate::tasks;
use nix::sys::resource::{Resource, getrlimit};
use std::fs::File;
use std::io::{self, Read};
use std::iter;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
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

/// What a child learns about its only caller.
type Told<'a> = Option<&'a [(String, String)]>;

type Reply = oneshot::Sender<Result<Spawned, StartError>>;

/// A task for the spawning thread.
#[derive(Debug)]
enum SpawnerTask {
    Spawn(Reply, Option<Variables>, Vec<Arc<OwnedFd>>),
    Other(Reply, Box<Settings>, Vec<Arc<OwnedFd>>),
    Reap,
    Clear { lineage: Lineage, done: oneshot::Sender<()> },
}

/// Starts children with the same settings.
#[derive(Clone, Debug)]
pub struct Spawner {
    orders: mpsc::Sender<SpawnerTask>,
    /// Set while a reap is queued. Without this flag a server could queue any number of reaps.
    is_to_reap: Arc<AtomicBool>,
    /// Receives one end of a pair of sockets for each child, which inherits the other.
    plug: Option<Plug>,
}

/// Where the sockets of children go that serve a part of this process.
pub(crate) type Plug = tokio::sync::mpsc::UnboundedSender<UnixStream>;

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
                    SpawnerTask::Spawn(reply, variables, handed) => {
                        let started = spawn(&settings, &handed, variables.as_deref(), &mut guardians);
                        drop(reply.send(started));
                    }
                    SpawnerTask::Other(reply, mut other, handed) => {
                        other.limits.files = other.limits.files.or(settings.limits.files);
                        other.limits.handed = u32::try_from(handed.len()).unwrap_or_default();
                        let started = spawn(&other, &handed, None, &mut guardians);
                        drop(reply.send(started));
                    }
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
        Ok(Spawner { orders, is_to_reap, plug: None })
    }

    /// Gives each child one end of a pair of sockets, as [`guardian::HANDED`], and `plug` the other end. The settings must
    /// say that one file is handed on.
    #[cfg(feature = "gateway")]
    pub(crate) fn plugged(self, plug: Plug) -> Self {
        Spawner { plug: Some(plug), ..self }
    }

    /// Starts one child; `variables` tell it who its only caller is.
    ///
    /// # Errors
    /// When the program cannot be executed.
    pub async fn spawn(&self, variables: Option<Variables>) -> Result<Spawned, StartError> {
        let (reply, spawned) = oneshot::channel();
        let gone = || StartError::new("cannot start the server: the spawning thread is gone");
        let mut handed = Vec::new();
        if let Some(plug) = &self.plug {
            let (ours, theirs) = UnixStream::pair()
                .map_err(|error| StartError::new(format!("cannot create the sockets of a child: {error}")))?;
            handed.push(Arc::new(theirs.into()));
            // The receiver is gone only during the shutdown.
            let _ = plug.send(ours);
        }
        self.orders.send(SpawnerTask::Spawn(reply, variables, handed)).map_err(|_| gone())?;
        spawned.await.map_err(|_| gone())?
    }

    /// Starts another program than the settings name, which inherits these files, from [`guardian::HANDED`] on.
    ///
    /// # Errors
    /// When the program cannot be executed, or has no guardian that hands files on.
    #[cfg_attr(not(feature = "gateway"), allow(dead_code, reason = "only the gateway runs other programs"))]
    pub async fn spawn_other(
        &self,
        settings: Settings,
        handed: Vec<Arc<OwnedFd>>,
    ) -> Result<Spawned, StartError> {
        let (reply, spawned) = oneshot::channel();
        let gone = || StartError::new("cannot start the server: the spawning thread is gone");
        self.orders.send(SpawnerTask::Other(reply, Box::new(settings), handed)).map_err(|_| gone())?;
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

fn spawn(
    settings: &Settings,
    handed: &[Arc<OwnedFd>],
    variables: Told<'_>,
    guardians: &mut Guardians,
) -> Result<Spawned, StartError> {
    let refused = |error: io::Error| StartError::refused(settings, &error);
    if let Some(unusable) = StartError::of_content(settings) {
        return Err(unusable);
    }
    if !can_guard() {
        if !handed.is_empty() {
            return Err(StartError::new(
                "cannot start the server: it needs Linux, and /proc must be mounted",
            ));
        }
        return direct(settings, variables).map_err(refused);
    }
    let guarding = guardian(settings, handed, variables, guardians).map_err(|error| match &settings.cwd {
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
fn guardian(
    settings: &Settings,
    handed: &[Arc<OwnedFd>],
    variables: Told<'_>,
    guardians: &mut Guardians,
) -> io::Result<Guarding> {
    let (socket, theirs) = UnixStream::pair()?;
    let mut command = Command::new(own_program()?);
    command
        .arg0(guardian::NAME)
        .arg(settings.limits.word())
        .arg(program::find(settings))
        .args(&settings.args);
    let handed = handed.to_vec();
    // SAFETY: between fork and exec only async-signal-safe calls are made: dup2(2), fcntl(2).
    unsafe {
        command.pre_exec(move || place_all(&theirs, &handed));
    }
    let mark = mark();
    let guardian = prepared(&mut command, settings, variables).env(MARK, &*mark).spawn()?;
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

/// Maximum number of files that are handed on.
const MOST_HANDED: usize = 2;
/// A descriptor above those that a guardian expects.
const AWAY: i32 = guardian::SOCKET + MOST_HANDED as i32 + 1;

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

/// Gives a guardian its socket and the files that it hands on, in the process that is about to be executed.
fn place_all(socket: &UnixStream, handed: &[Arc<OwnedFd>]) -> io::Result<()> {
    // One of these files may have the descriptor that another one gets.
    let mut away = [const { None }; MOST_HANDED + 1];
    for (slot, file) in away.iter_mut().zip(iter::once(socket.as_fd()).chain(handed.iter().map(AsFd::as_fd)))
    {
        *slot = Some(nix::fcntl::fcntl(file, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(AWAY))?);
    }
    for (file, at) in away.into_iter().flatten().zip(guardian::SOCKET..) {
        // SAFETY: both are file descriptors, and the process has no use for the file at `at`.
        if unsafe { nix::libc::dup2(file, at) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn direct(settings: &Settings, variables: Told<'_>) -> io::Result<Spawned> {
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
    prepared(&mut command, settings, variables);
    let mut process = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
    let pipes = (|| Some((process.stdin.take()?, process.stdout.take()?, process.stderr.take()?)))();
    let (stdin, stdout, stderr) = pipes.ok_or_else(without_pipes)?;
    let pid = process.id().and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.ok_or_else(|| io::Error::other("it exited at once"))?;
    Ok(Spawned { process: Process::direct(pid, process), stdin, stdout, stderr })
}

fn prepared<'a>(command: &'a mut Command, settings: &Settings, variables: Told<'_>) -> &'a mut Command {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    environment(command, settings, variables);
    if let Some(cwd) = &settings.cwd {
        command.current_dir(cwd);
    }
    command
}

fn without_pipes() -> io::Error {
    io::Error::other("it has no pipes")
}

/// Sets the child's environment: proxyrunner's own, without its settings and without the headers for collectors,
/// which are secrets (`docs/architecture.md#credentials`). Variables of `--env-file` and `--env` are always passed, and
/// the later of these wins. With `--child-identity env` nothing but the caller's identity has its names.
fn environment(command: &mut Command, settings: &Settings, variables: Told<'_>) {
    if settings.env_clear {
        command.env_clear();
    }
    for (key, _) in std::env::vars_os() {
        let name = key.to_string_lossy();
        let is_secret = name.starts_with("OTEL_EXPORTER_OTLP_") && name.ends_with("HEADERS");
        let is_identity = settings.tells_identity && name.starts_with(VARIABLE_PREFIX);
        if name.starts_with("PROXYRUNNER_") || is_secret || is_identity {
            command.env_remove(&key);
        }
    }
    command.envs(settings.env_files.current().iter().map(|(key, value)| (key, value)));
    command.envs(settings.env.iter().map(|(key, value)| (key, value)));
    command.envs(variables.unwrap_or_default().iter().map(|(key, value)| (key, value)));
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
