//! `shim --socket PATH -- COMMAND`: serves the pipes of a server on a Unix socket, for proxyrunner in another container of
//! the pod (`--connect`). Each connection gets a process of the server. The shim interprets no byte of the messages.

use super::words::parse;
use crate::child::{self, Lines, Spawned, Spawner, Tail, follow_stderr};
use crate::config::{self, Config, Exit};
use crate::lifecycle::{Action, Event, Graces, Lifecycle};
use crate::signals::{Meaning, Signals};
use crate::{tasks, telemetry};
use clap::{Arg, Command};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Access to the socket: for the user and the group, which the containers of a pod share (`fsGroup`).
const ACCESS: u32 = 0o660;
/// Maximum number of bytes copied at once.
const COPIED: usize = 64 * 1024;
/// Time for the last bytes of an ended server to be copied.
const LAST_BYTES: Duration = Duration::from_secs(5);
/// Pause after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) fn command() -> Command {
    let socket = Arg::new("socket")
        .long("socket")
        .value_name("PATH")
        .required(true)
        .help("Unix socket to listen on, in a folder that both containers share");
    let server = Arg::new("command")
        .value_name("COMMAND")
        .num_args(1..)
        .trailing_var_arg(true)
        .help("Program of the stdio MCP server, followed by its arguments");
    Command::new("shim")
        .about("Serve a server's pipes on a Unix socket, for --connect in another container")
        .after_help("Options of the child process and of logs may be given, too, before COMMAND.")
        .arg(socket)
        .arg(server)
}

pub(super) fn run(words: &[OsString]) -> Result<ExitCode, Exit> {
    let (socket, rest) = socket(words)?;
    let words = std::iter::once("proxyrunner".into()).chain(rest);
    let config = config::load(words, std::env::vars_os(), None)?;
    let _log = telemetry::start(&config.telemetry);
    let failed = |error: io::Error| Exit::failed(format!("proxyrunner: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(serve(socket, config))
}

/// Takes `--socket PATH` from the words before COMMAND; the others are options of proxyrunner.
fn socket(words: &[OsString]) -> Result<(PathBuf, Vec<OsString>), Exit> {
    let (mut socket, mut rest) = (None, Vec::new());
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--help" | "-h") => drop(parse("shim", command(), &["shim".into(), "--help".into()])?),
            Some("--socket") => socket = words.next().map(PathBuf::from),
            Some(text) if text.starts_with("--socket=") => socket = text.get(9..).map(PathBuf::from),
            Some("--") => {
                rest.push(word.clone());
                rest.extend(words.by_ref().cloned());
            }
            _ => rest.push(word.clone()),
        }
    }
    match socket.filter(|path| !path.as_os_str().is_empty()) {
        Some(socket) => Ok((socket, rest)),
        None => Err(Exit::usage(
            "proxyrunner: --socket is missing: give the socket to listen on, e.g. --socket /run/mcp/mcp.sock"
                .to_owned(),
        )),
    }
}

async fn serve(path: PathBuf, config: Config) -> Result<ExitCode, Exit> {
    let failed = |error: io::Error| Exit::failed(format!("proxyrunner: {error}"));
    let listener = listen(&path).await?;
    let mut signals = Signals::listen().map_err(failed)?;
    let spawner = Spawner::start(config.child.clone()).map_err(failed)?;
    spawner.clone().reap_on_sigchld().map_err(failed)?;
    tracing::info!(socket = %path.display(), "listening for proxyrunner --connect");
    let shim = Arc::new(Shim {
        spawner,
        settings: config.child,
        places: Arc::new(Semaphore::new(config.upstream.max_children)),
        stopping: CancellationToken::new(),
    });
    let running = TaskTracker::new();
    let mut number = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    number += 1;
                    let shim = Arc::clone(&shim);
                    running.spawn(tasks::boxed(async move { shim.serve(number, stream).await }));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            meaning = signals.next() => match meaning {
                Meaning::End(signal) => {
                    tracing::info!(signal, "shutting down");
                    break;
                }
                // Each server is of a connection, whose proxyrunner forwards signals of its own.
                Meaning::Forward(_) => {}
            },
        }
    }
    drop(listener);
    let _ = std::fs::remove_file(&path);
    shim.stopping.cancel();
    running.close();
    running.wait().await;
    Ok(ExitCode::SUCCESS)
}

/// Listens on the socket. One that no process listens on any more is replaced.
async fn listen(path: &Path) -> Result<UnixListener, Exit> {
    let failed = |why: String| {
        Exit::failed(format!("proxyrunner: cannot listen on {} (--socket): {why}", path.display()))
    };
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            match UnixStream::connect(path).await {
                Ok(_) => return Err(failed("another process listens on it".to_owned())),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_socket(path) => {}
                Err(_) if !is_socket(path) => {
                    return Err(failed("the file exists and is not a socket".to_owned()));
                }
                Err(error) => return Err(failed(error.to_string())),
            }
            std::fs::remove_file(path).map_err(|error| failed(error.to_string()))?;
            UnixListener::bind(path)
        }
        bound => bound,
    };
    let listener = listener.map_err(|error| match path.parent() {
        Some(folder) if error.kind() == io::ErrorKind::NotFound => {
            failed(format!("the folder {} does not exist", folder.display()))
        }
        Some(folder) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            failed(format!("the folder {} is read-only", folder.display()))
        }
        _ => failed(error.to_string()),
    })?;
    let access = std::fs::Permissions::from_mode(ACCESS);
    std::fs::set_permissions(path, access).map_err(|error| failed(error.to_string()))?;
    Ok(listener)
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

/// What all connections share.
struct Shim {
    spawner: Spawner,
    settings: child::Settings,
    places: Arc<Semaphore>,
    stopping: CancellationToken,
}

impl Shim {
    /// Serves one connection by a process of its own.
    async fn serve(&self, number: u64, stream: UnixStream) {
        let Ok(_place) = Arc::clone(&self.places).try_acquire_owned() else {
            tracing::warn!("a connection was refused: --max-children servers are running");
            return;
        };
        let spawned = match self.spawner.spawn().await {
            Ok(spawned) => spawned,
            Err(error) => return tracing::error!("{error}"),
        };
        tracing::info!(child = number, pid = spawned.process.pid(), "server started");
        let status = self.accompany(number, spawned, stream).await;
        match status {
            Ok(status) => tracing::info!(child = number, %status, "the server has ended"),
            Err(error) => tracing::warn!(child = number, %error, "the server has ended"),
        }
    }

    /// Copies between the connection and the pipes until the server has ended. It is ended when the connection is.
    async fn accompany(
        &self,
        number: u64,
        spawned: Spawned,
        stream: UnixStream,
    ) -> io::Result<std::process::ExitStatus> {
        let Spawned { mut process, stdin, stdout, stderr } = spawned;
        let (from_peer, to_peer) = stream.into_split();
        let (close, cut) = (CancellationToken::new(), CancellationToken::new());
        let lines = Lines::new(number, Tail::default(), self.settings.log_rate);
        let following = tasks::spawn(follow_stderr(stderr, lines, cut.clone()));
        let closing = close.clone();
        let mut writing = tasks::spawn(async move {
            tokio::select! {
                copied = copy(from_peer, stdin) => copied,
                () = closing.cancelled() => Ok(()),
            }
        });
        let mut reading = tasks::spawn(copy(stdout, to_peer));
        let (mut is_written, mut is_read) = (false, false);
        let server = process.signaller();
        let graces = Graces { close: self.settings.close_grace, terminate: self.settings.terminate_grace };
        let mut lifecycle = Lifecycle::new(graces);
        let mut is_stopping = false;
        let status = loop {
            let deadline = lifecycle.deadline();
            let at = deadline.unwrap_or_else(Instant::now).into();
            let event = tokio::select! {
                status = process.wait() => break status,
                // The peer has closed its half, or the server its stdin.
                _ = &mut writing, if !is_written => {
                    is_written = true;
                    Event::Stop
                }
                // The server has closed its stdout, or the peer is gone.
                _ = &mut reading, if !is_read => {
                    is_read = true;
                    Event::Stop
                }
                () = self.stopping.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    Event::Stop
                }
                () = sleep_until(at), if deadline.is_some() => Event::Deadline,
            };
            match lifecycle.handle(event, Instant::now()) {
                Some(Action::Close) => close.cancel(),
                Some(Action::Terminate) => server.group(Signal::SIGTERM),
                Some(Action::Kill) => server.group(Signal::SIGKILL),
                Some(Action::Abandon) => break Err(io::Error::other("still running after SIGKILL")),
                None => {}
            }
        };
        server.group(Signal::SIGKILL);
        if status.is_err()
            && let Some(lineage) = process.lineage()
        {
            self.spawner.clear_after(lineage).await;
        }
        close.cancel();
        if !is_read {
            let _ = timeout(LAST_BYTES, &mut reading).await;
        }
        reading.abort();
        writing.abort();
        cut.cancel();
        let _ = timeout(LAST_BYTES, following).await;
        status
    }
}

/// Copies until EOF, then closes the other end.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(COPIED);
    loop {
        buffer.clear();
        if from.read_buf(&mut buffer).await? == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer).await?;
        to.flush().await?;
    }
}
