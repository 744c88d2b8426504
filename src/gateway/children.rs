//! Servers that are commands: the gateway runs its own program as a sidecar of each, on a listener that it hands down.
//! The sidecar asks for the gateway's tokens, so that no other user of this host can use the server.

use super::replica::Endpoint;
use super::servers::Command;
use super::signing::Signing;
use crate::backoff::{self, Backoff};
use crate::child::guardian::{HANDED, OWN_PROGRAM};
use crate::child::{self, Lines, Spawned, Spawner, Tail, follow_stderr};
use crate::lifecycle::{Action, Event, Graces, Lifecycle};
use crate::tasks;
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// The shortest and the longest time before a restart.
const LEAST_PAUSE: Duration = Duration::from_millis(500);
const MOST_PAUSE: Duration = Duration::from_secs(30);
/// Uptime after which a restart is the first one again.
const STABLE: Duration = Duration::from_secs(60);
/// Time from SIGTERM to SIGKILL: the sidecar's `--drain-timeout`, and the end of its server.
const GRACE: Duration = Duration::from_secs(10);
/// The sidecar's `--drain-timeout`. The gateway has drained before.
pub(super) const DRAIN: &str = "3s";
/// Time for the last lines of an ended sidecar.
const LAST_LINES: Duration = Duration::from_secs(1);
/// Interval between questions whether a sidecar is ready, and the time that it has for an answer.
const LOOK: Duration = Duration::from_millis(100);
const PROBE: Duration = Duration::from_secs(2);
/// The beginning of its answer.
const READY: &[u8; 12] = b"HTTP/1.1 200";
/// Variables that programs need to find their way, and that the server inherits. All others are the file's.
pub(super) const INHERITED: &[&str] = &[
    "HOME",
    "LANG",
    "LC_ALL",
    "LOGNAME",
    "PATH",
    "SHELL",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Runs sidecars.
#[derive(Clone, Debug)]
pub(crate) struct Children {
    /// Starts them.
    spawner: Spawner,
    /// The gateway's tokens, which they demand.
    signing: Signing,
    /// `--log-level`
    log_level: Arc<str>,
}

impl Children {
    /// Returns what starts sidecars.
    pub(super) fn new(spawner: Spawner, signing: Signing, log_level: &str) -> Self {
        Children { spawner, signing, log_level: log_level.into() }
    }

    /// Runs a server until `ended`. Tells its endpoint whenever it becomes ready, and that there is none when its process
    /// ends. The listener stays, so that the address of the server is never another process's.
    pub(super) async fn run(
        self,
        server: &str,
        command: &Command,
        ended: CancellationToken,
        tell: impl Fn(Vec<Endpoint>),
    ) {
        let mut pauses = Backoff::new(LEAST_PAUSE, MOST_PAUSE);
        let (listener, endpoint) = loop {
            match listen() {
                Ok((listener, endpoint)) => break (Arc::new(OwnedFd::from(listener)), endpoint),
                Err(error) => {
                    tracing::error!(server, "cannot listen for the server, and will retry: {error}")
                }
            }
            if rest(pauses.advance(), &ended).await {
                return;
            }
        };
        let make = || {
            let handed = vec![Arc::clone(&listener), self.signing.published.file()];
            (self.settings(server, command), handed)
        };
        keep(&self.spawner, server, &endpoint, make, &ended, tell).await;
    }

    /// Returns the sidecar's command line, variables and limits.
    fn settings(&self, server: &str, command: &Command) -> child::Settings {
        let fd = |at: i32| HANDED + at;
        let mut args: Vec<OsString> = Vec::new();
        let mut option = |name: &str, value: &str| args.push(format!("--{name}={value}").into());
        option("listen", &format!("fd:{}", fd(0)));
        option("auth-issuer", &format!("{} jwks=/proc/self/fd/{}", self.signing.minter.issuer(), fd(1)));
        option("auth-audience", &self.signing.minter.audience(server));
        // The keys are read from the file, and nothing is asked of the issuer.
        option("auth-insecure-http", "true");
        option("log-level", &self.log_level);
        option("drain-delay", "0s");
        option("drain-timeout", DRAIN);
        option("env-clear", "true");
        let mut env: Vec<(OsString, OsString)> = Vec::new();
        for name in INHERITED {
            let is_set = command.env.iter().any(|(own, _)| own == name);
            if let Some(value) = std::env::var_os(name).filter(|_| !is_set) {
                option("env", name);
                env.push((name.into(), value));
            }
        }
        // By name only: everybody on this host may read the words of a command line.
        for (name, value) in &command.env {
            option("env", name);
            env.push((name.into(), value.into()));
        }
        if let Some(cwd) = &command.cwd {
            let mut word = OsString::from("--cwd=");
            word.push(cwd);
            args.push(word);
        }
        args.push("--".into());
        args.push((&command.program).into());
        args.extend(command.args.iter().map(OsString::from));
        sidecar(args, env)
    }
}

/// Runs a sidecar until `ended`, and starts it again whenever it ends. `make` returns its settings, and the files that it
/// inherits. Tells its endpoint whenever it becomes ready, and that there is none when its process ends.
pub(super) async fn keep(
    spawner: &Spawner,
    server: &str,
    endpoint: &Endpoint,
    make: impl Fn() -> (child::Settings, Vec<Arc<OwnedFd>>),
    ended: &CancellationToken,
    tell: impl Fn(Vec<Endpoint>),
) {
    let mut pauses = Backoff::new(LEAST_PAUSE, MOST_PAUSE);
    loop {
        let begun = Instant::now();
        let (settings, handed) = make();
        match spawner.spawn_other(settings, handed).await {
            Ok(spawned) => {
                let is_ready = || tell(vec![endpoint.clone()]);
                accompany(spawner, server, endpoint, spawned, ended, is_ready).await;
                tell(Vec::new());
            }
            Err(error) => tracing::error!(server, "{error}"),
        }
        if begun.elapsed() > STABLE {
            pauses.reset();
        }
        let pause = backoff::jittered(pauses.advance(), backoff::chance());
        if ended.is_cancelled() {
            return;
        }
        tracing::warn!(server, ?pause, "the server's process is started again after a pause");
        if rest(pause, ended).await {
            return;
        }
    }
}

/// Waits for the end of a sidecar, and ends it when its time has come.
async fn accompany(
    spawner: &Spawner,
    server: &str,
    endpoint: &Endpoint,
    spawned: Spawned,
    ended: &CancellationToken,
    is_ready: impl Fn(),
) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // A sidecar writes nothing to stdout, and reads nothing from stdin.
    let Spawned { mut process, stderr, .. } = spawned;
    tracing::info!(server, child = number, pid = process.pid(), "the server's process has started");
    let cut = CancellationToken::new();
    // The sidecar bounds the rate of its lines.
    let lines = Lines::new(number, Tail::default(), 0);
    let following = tasks::spawn(follow_stderr(stderr, lines, cut.clone()));
    let signaller = process.signaller();
    let mut lifecycle = Lifecycle::new(Graces { close: Duration::ZERO, terminate: GRACE });
    let mut readiness = pin!(readiness(endpoint));
    let (mut is_told, mut is_ending) = (false, false);
    let status = loop {
        let deadline = lifecycle.deadline();
        let at = deadline.unwrap_or_else(Instant::now).into();
        let event = tokio::select! {
            status = process.wait() => break status,
            () = ended.cancelled(), if !is_ending => {
                is_ending = true;
                Event::Stop
            }
            () = sleep_until(at), if deadline.is_some() => Event::Deadline,
            () = &mut readiness, if !is_told => {
                is_told = true;
                is_ready();
                continue;
            }
        };
        match lifecycle.handle(event, Instant::now()) {
            Some(Action::Terminate) => signaller.group(Signal::SIGTERM),
            Some(Action::Kill) => signaller.group(Signal::SIGKILL),
            Some(Action::Abandon) => break Err(io::Error::other("it is still running after SIGKILL")),
            Some(Action::Close) | None => {}
        }
    };
    if status.is_err()
        && let Some(lineage) = process.lineage()
    {
        spawner.clear_after(lineage).await;
    }
    report(server, number, status, is_ending);
    let _ = timeout(LAST_LINES, following).await;
    cut.cancel();
}

/// Returns the settings of a sidecar with this command line and these variables.
pub(super) fn sidecar(args: Vec<OsString>, env: Vec<(OsString, OsString)>) -> child::Settings {
    child::Settings {
        program: own_program(),
        args,
        env,
        env_files: child::EnvFiles::default(),
        tells_identity: false,
        env_clear: true,
        cwd: None,
        limits: child::Limits::default(),
        log_rate: 0,
        expose_stderr: false,
        max_frame: 0,
        start_timeout: Duration::ZERO,
        close_grace: Duration::ZERO,
        terminate_grace: GRACE,
    }
}

/// Returns the program of this process: its path, for lists of processes, unless another file has taken its place.
pub(super) fn own_program() -> OsString {
    let file = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let path = std::env::current_exe().ok().filter(|path| file(path) == file(Path::new(OWN_PROGRAM)));
    path.map_or(OWN_PROGRAM.into(), OsString::from)
}

/// Listens on a port of this host that the system chooses.
pub(super) fn listen() -> io::Result<(TcpListener, Endpoint)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).or_else(|error| {
        // A host may have no IPv4.
        TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).map_err(|_| error)
    })?;
    let endpoint = Endpoint::parse(&format!("http://{}/mcp", listener.local_addr()?));
    Ok((listener, endpoint.ok_or(io::ErrorKind::AddrNotAvailable)?))
}

/// Resolves once the sidecar at this endpoint is ready.
async fn readiness(endpoint: &Endpoint) {
    let host = endpoint.address();
    let request = format!("GET /health/ready HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    // A text would be resolved by the C library, which loads modules of the system for that.
    let Ok(address) = host.parse::<SocketAddr>() else { return };
    loop {
        let asked = timeout(PROBE, async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut status = [0; READY.len()];
            stream.read_exact(&mut status).await?;
            io::Result::Ok(status)
        });
        if asked.await.is_ok_and(|status| status.is_ok_and(|status| status == *READY)) {
            return;
        }
        sleep(LOOK).await;
    }
}

/// Waits; returns whether the server was ended meanwhile.
async fn rest(pause: Duration, ended: &CancellationToken) -> bool {
    tokio::select! {
        () = sleep(pause) => false,
        () = ended.cancelled() => true,
    }
}

fn report(server: &str, number: u64, status: io::Result<ExitStatus>, is_ending: bool) {
    match status {
        Ok(status) => {
            let (how, code) = child::describe(status);
            if is_ending {
                tracing::info!(server, child = number, code, "the server's process {how}");
            } else {
                tracing::error!(server, child = number, code, "the server's process {how} unexpectedly");
            }
        }
        Err(error) => tracing::error!(server, child = number, "the server's process was lost: {error}"),
    }
}
