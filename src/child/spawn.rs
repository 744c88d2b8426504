//! Starting a process, from a thread that lives as long as proxyrunner does.
//!
//! The parent-death signal fires when the *thread* that spawned a process ends, not the process (prctl(2),
//! PR_SET_PDEATHSIG), and a runtime's threads come and go.

use super::Settings;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;

/// A started child: the process and its pipes.
#[derive(Debug)]
pub struct Spawned {
    /// The process, which leads a process group of its own.
    pub process: Child,
    /// Its id, which is its group's too.
    pub pid: i32,
    /// To be written.
    pub stdin: ChildStdin,
    /// To be read.
    pub stdout: ChildStdout,
    /// To be read, always, or the child stalls.
    pub stderr: ChildStderr,
}

/// Why a child could not be started: which program, and the reason.
#[derive(Clone, Debug)]
pub struct StartError(Arc<str>);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

type Reply = oneshot::Sender<Result<Spawned, StartError>>;

/// Starts children of one kind.
#[derive(Clone, Debug)]
pub struct Spawner(mpsc::Sender<Reply>);

impl Spawner {
    /// Starts the spawning thread. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let (orders, intake) = mpsc::channel::<Reply>();
        let runtime = tokio::runtime::Handle::current();
        // Before proxyrunner raises its own limit, so that the child gets the one it was meant to have.
        let files = getrlimit(Resource::RLIMIT_NOFILE).ok();
        thread::Builder::new().name("spawner".into()).spawn(move || {
            let _runtime = runtime.enter();
            for reply in intake {
                let _ = reply.send(spawn(&settings, files));
            }
        })?;
        Ok(Spawner(orders))
    }

    /// Starts one child.
    ///
    /// # Errors
    /// When the program can't be executed.
    pub async fn spawn(&self) -> Result<Spawned, StartError> {
        let (reply, spawned) = oneshot::channel();
        let gone = || StartError("cannot start the server: the spawning thread is gone".into());
        self.0.send(reply).map_err(|_| gone())?;
        spawned.await.map_err(|_| gone())?
    }
}

fn spawn(settings: &Settings, files: Option<(u64, u64)>) -> Result<Spawned, StartError> {
    let mut command = Command::new(program(settings));
    command
        .args(&settings.args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    environment(&mut command, settings);
    if let Some(cwd) = &settings.cwd {
        command.current_dir(cwd);
    }
    let parent = nix::unistd::getpid();
    // SAFETY: between fork and exec only async-signal-safe calls are made: setrlimit(2), prctl(2), getppid(2).
    unsafe {
        command.pre_exec(move || before_exec(files, parent));
    }
    let refused = |error: io::Error| StartError(describe(settings, &error).into());
    let mut process = command.spawn().map_err(refused)?;
    let whole = (|| {
        let pid = i32::try_from(process.id()?).ok()?;
        Some((pid, process.stdin.take()?, process.stdout.take()?, process.stderr.take()?))
    })();
    let Some((pid, stdin, stdout, stderr)) = whole else {
        return Err(refused(io::Error::other("it was gone at once")));
    };
    Ok(Spawned { process, pid, stdin, stdout, stderr })
}

/// The program, looked up in proxyrunner's own PATH: the child's may be another, or none.
fn program(settings: &Settings) -> PathBuf {
    let name = Path::new(&settings.program);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_executable =
        |path: &PathBuf| path.metadata().is_ok_and(|file| file.is_file() && file.mode() & 0o111 != 0);
    let found = || std::env::split_paths(&path).map(|folder| folder.join(name)).find(is_executable);
    if name.components().count() == 1 { found() } else { None }.unwrap_or_else(|| name.to_path_buf())
}

/// The child gets what the operator gave proxyrunner for it, and nothing that was meant for proxyrunner itself.
fn environment(command: &mut Command, settings: &Settings) {
    if settings.env_clear {
        command.env_clear();
    }
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("PROXYRUNNER_") {
            command.env_remove(key);
        }
    }
    command.envs(settings.env.iter().map(|(key, value)| (key, value)));
}

#[cfg(target_os = "linux")]
fn before_exec(files: Option<(u64, u64)>, parent: nix::unistd::Pid) -> io::Result<()> {
    restore_limit(files);
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    // proxyrunner may have died between fork and prctl.
    if nix::unistd::getppid() != parent {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn before_exec(files: Option<(u64, u64)>, _parent: nix::unistd::Pid) -> io::Result<()> {
    restore_limit(files);
    Ok(())
}

fn restore_limit(files: Option<(u64, u64)>) {
    if let Some((soft, hard)) = files {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, hard);
    }
}

fn describe(settings: &Settings, error: &io::Error) -> String {
    let program = Path::new(&settings.program).display();
    let cwd_missing = settings.cwd.as_ref().filter(|cwd| !cwd.is_dir());
    match (error.kind(), cwd_missing) {
        (_, Some(cwd)) => {
            format!("cannot start `{program}`: --cwd {} is no directory", cwd.display())
        }
        (io::ErrorKind::NotFound, _) => format!(
            "cannot start `{program}`: no such program; give its full path, or check PATH and spelling"
        ),
        (io::ErrorKind::PermissionDenied, _) => {
            format!("cannot start `{program}`: permission denied; is it executable?")
        }
        _ => format!("cannot start `{program}`: {error}"),
    }
}
