//! `shim --socket PATH -- COMMAND`: serves the pipes of a server on a Unix socket, for proxyrunner in another container of
//! the pod (`--connect`). Each connection gets a process of the server. The shim interprets no byte of the messages.

use super::files::obstacle;
use crate::child::{self, Lines, Spawned, Spawner, Tail, follow_stderr};
use crate::config::{self, Config, Exit};
use crate::lifecycle::{Action, Event, Graces, Lifecycle};
use crate::mounted;
use crate::signals::{Meaning, Signals};
use crate::{tasks, telemetry};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, value_parser};
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
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The settings that a shim has: those of the server's process, of logs and of files.
const SETTINGS: &[&str] = &[
    "max-children",
    "env",
    "env-clear",
    "env-file",
    "cwd",
    "close-grace",
    "terminate-grace",
    "child-memory",
    "child-nofile",
    "child-nice",
    "child-user",
    "child-group",
    "no-new-privileges",
    "log-format",
    "log-level",
    "child-log-rate",
    "reload-interval",
    "config",
    "check",
];
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
        .value_parser(value_parser!(PathBuf))
        .help("Unix socket to listen on, in a folder that both containers share");
    let server = Arg::new("command")
        .value_name("COMMAND")
        .num_args(1..)
        .trailing_var_arg(true)
        .value_parser(value_parser!(OsString))
        .help("Program of the stdio MCP server, followed by its arguments");
    Command::new("shim")
        .about("Serve a server's pipes on a Unix socket, for --connect in another container")
        .after_help("Other settings of proxyrunner are refused as options, and have no effect as variables or in a file.")
        .next_line_help(true)
        .args_override_self(true)
        .arg(socket)
        .args(config::options(SETTINGS))
        .arg(server)
}

pub(super) fn run(words: &[OsString]) -> Result<ExitCode, Exit> {
    let (socket, rest) = socket(words)?;
    let words = std::iter::once("proxyrunner".into()).chain(rest).collect();
    let config = config::load(words, std::env::vars_os().collect(), None)?;
    let _log = telemetry::start(&config.telemetry);
    let failed = |error: io::Error| Exit::failed(format!("proxyrunner: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(serve(socket, config))
}

/// Takes `--socket PATH` from the words before COMMAND; the others are settings.
fn socket(words: &[OsString]) -> Result<(PathBuf, Vec<OsString>), Exit> {
    let command = command().bin_name("proxyrunner shim").max_term_width(110);
    let mut matches = command.try_get_matches_from(words).map_err(|error| refusal(&error))?;
    let server: Vec<OsString> = matches.remove_many("command").map(Iterator::collect).unwrap_or_default();
    let own = words.get(1..words.len() - server.len()).unwrap_or_default();
    let own = own.strip_suffix(&["--".into()]).unwrap_or(own);
    let mut rest = Vec::new();
    let mut own = own.iter();
    while let Some(word) = own.next() {
        if word == "--socket" {
            own.next();
        } else if !word.as_encoded_bytes().starts_with(b"--socket=") {
            rest.push(word.clone());
        }
    }
    if !server.is_empty() {
        rest.push("--".into());
        rest.extend(server);
    }
    Ok((matches.remove_one("socket").unwrap_or_default(), rest))
}

/// Returns the exit for words that a shim does not take. A setting of proxyrunner is not called unknown.
fn refusal(error: &clap::Error) -> Exit {
    let flag = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(flag))) => flag,
        (ErrorKind::MissingRequiredArgument, _) => {
            let why = "--socket is missing: give the socket to listen on, e.g. --socket /run/mcp/mcp.sock";
            return Exit::usage(format!("proxyrunner: {why}"));
        }
        _ => return Exit::of_clap(error),
    };
    match flag.strip_prefix("--").and_then(config::table::find) {
        Some(_) => Exit::usage(format!(
            "proxyrunner: {flag}: has no effect on a shim, which only runs the server; give it to the proxyrunner that connects \
             to the socket"
        )),
        None => Exit::of_clap(error),
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
    mounted::set_interval(config.mounts.interval);
    if let Some(env) = config.mounts.env {
        // A running server is of a connection, whose calls the shim does not know.
        let changed = || {
            tracing::info!("the variables of the server have changed; new processes get them (--env-file)")
        };
        tasks::spawn(env.watch(shim.settings.env_files.clone(), changed));
    }
    let most = config.upstream.max_children;
    let (refuse, mut refused) = mpsc::unbounded_channel();
    let mut code = 0;
    let running = TaskTracker::new();
    let mut number = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    number += 1;
                    let (shim, refuse) = (Arc::clone(&shim), refuse.clone());
                    tasks::spawn(running.track_future(async move {
                        if let Some(code) = shim.serve(number, stream).await {
                            // The receiver is gone only during the shutdown.
                            let _ = refuse.send(code);
                        }
                    }));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            // As long as others are served, they continue.
            Some(refusal) = refused.recv() => {
                if shim.places.available_permits() == most {
                    code = refusal;
                    break;
                }
            }
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
    Ok(ExitCode::from(code))
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
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(failed(
                        "the socket belongs to another user; remove it, or give another path".to_owned(),
                    ));
                }
                Err(error) => return Err(failed(error.to_string())),
            }
            std::fs::remove_file(path).map_err(|error| failed(obstacle(path, &error)))?;
            UnixListener::bind(path)
        }
        bound => bound,
    };
    let listener = listener.map_err(|error| match error.kind() {
        // The path does not fit into an address (unix(7)).
        io::ErrorKind::InvalidInput => {
            failed("its path is too long for a socket; give one of at most 100 bytes".into())
        }
        _ => failed(obstacle(path, &error)),
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
    /// Serves one connection by a process of its own. Returns an exit code if the program can never be started.
    async fn serve(&self, number: u64, stream: UnixStream) -> Option<u8> {
        let Ok(_place) = Arc::clone(&self.places).try_acquire_owned() else {
            tracing::warn!("a connection was refused: --max-children servers are running");
            return None;
        };
        let spawned = match self.spawner.spawn(None).await {
            Ok(spawned) => spawned,
            Err(error) => {
                tracing::error!("{error}");
                return error.is_permanent().then(|| u8::try_from(error.code()).unwrap_or(1));
            }
        };
        tracing::info!(child = number, pid = spawned.process.pid(), "server started");
        let status = self.accompany(number, spawned, stream).await;
        match status {
            Ok(status) => {
                let (how, code) = child::describe(status);
                tracing::info!(child = number, code, "the server {how}");
            }
            Err(error) => tracing::warn!(child = number, "the server was lost: {error}"),
        }
        None
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
        let mut writing = tasks::run(async move {
            tokio::select! {
                copied = copy(from_peer, stdin) => copied,
                () = closing.cancelled() => Ok(()),
            }
        });
        let mut reading = tasks::run(copy(stdout, to_peer));
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
