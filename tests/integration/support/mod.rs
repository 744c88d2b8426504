//! Tools for black-box tests: the real binary in front of `children/scripted.py`, and a client that controls every byte
//! that it sends. The tools do not sleep to win races: they poll for conditions, with a deadline.

mod connection;
pub mod http2;
mod journal;
pub mod modern;
#[cfg(feature = "gateway")]
pub mod redis;
mod session;
#[cfg(feature = "gateway")]
pub mod upstream;

pub use connection::{Connection, Event, Events, JSON, Response};
pub use journal::{Journal, Read};
pub use session::{Opening, Session, tool_call};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Time after which a test gives up waiting for a condition, even on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Interval between polls of a condition.
const LOOK: Duration = Duration::from_millis(5);

/// A proxyrunner process with its child, which is killed when dropped.
pub struct Server {
    process: Child,
    address: SocketAddr,
    log: Arc<Log>,
    path: String,
}

#[derive(Default)]
struct Log {
    state: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

/// Builder for a proxyrunner process.
#[derive(Default)]
pub struct Start {
    flags: Vec<String>,
    child: Vec<String>,
    env: Vec<(String, String)>,
    program: Option<Vec<String>>,
    under: Vec<String>,
    is_gateway: bool,
}

impl Start {
    /// Adds flags of proxyrunner, separated by spaces.
    pub fn flags(mut self, flags: &str) -> Self {
        self.flags.extend(flags.split_whitespace().map(String::from));
        self
    }

    /// Disables metrics, for which proxyrunner would ask the child for its tools. The child then reads only requests
    /// that clients cause.
    pub fn asked_nothing(self) -> Self {
        self.flags("--metrics=false")
    }

    /// Adds flags of the child, separated by spaces.
    pub fn child(mut self, flags: &str) -> Self {
        self.child.extend(flags.split_whitespace().map(String::from));
        self
    }

    /// Sets a variable in proxyrunner's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Replaces the scripted child by another program.
    pub fn program(mut self, words: &[&str]) -> Self {
        self.program = Some(words.iter().map(|&word| word.to_owned()).collect());
        self
    }

    /// Starts a gateway of the servers in this file.
    #[cfg(feature = "gateway")]
    pub fn gateway(self, servers: &std::path::Path) -> Self {
        Start { is_gateway: true, ..self.flags(&format!("--servers {}", servers.display())) }
    }

    /// Starts a gateway of the servers in another registry only.
    pub fn mirror(self, registry: &str) -> Self {
        Start { is_gateway: true, ..self.flags(&format!("--register {registry}")) }
    }

    /// Starts proxyrunner by another program, which gets the command line after these words.
    pub fn under(mut self, words: &[&str]) -> Self {
        self.under = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Uses `children/modern.py` as the child, with these flags.
    pub fn modern_child(self, flags: &str) -> Self {
        self.program(&["python3", &child("modern.py")]).child(flags)
    }

    /// Uses `children/tasks.py` as the child, with these flags.
    pub fn tasks_child(self, flags: &str) -> Self {
        self.program(&["python3", &child("tasks.py")]).child(flags)
    }

    /// Starts proxyrunner and waits until it listens.
    pub fn start(self) -> Server {
        let (process, log) = self.spawn();
        let listening = log.wait(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let fields = &line["fields"];
            (fields["message"] == "listening").then(|| fields["address"].as_str().map(str::to_owned))?
        });
        let address = listening.unwrap_or_else(|| panic!("proxyrunner never listened: {:#?}", log.lines()));
        Server { process, address: address.parse().expect("an address"), log, path: "/mcp".to_owned() }
    }

    /// Runs proxyrunner until it exits; returns the exit status and the log.
    pub fn run(self) -> (ExitStatus, String) {
        let (mut process, log) = self.spawn();
        let status = wait_for_exit(&mut process);
        log.wait(|_| None::<()>);
        (status, log.lines().join("\n"))
    }

    fn spawn(self) -> (Child, Arc<Log>) {
        let scripted = || vec!["python3".into(), child("scripted.py")];
        let program = self.program.unwrap_or_else(scripted);
        let mut words = self.under;
        // The soak, built without optimizations, tests the release binary.
        words.push(
            std::env::var("PROXYRUNNER_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_proxyrunner").into()),
        );
        if self.is_gateway {
            words.push("gateway".into());
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["--listen", "127.0.0.1:0", "--log-format", "json"]).args(self.flags);
        if !self.is_gateway {
            command.arg("--").args(program).args(self.child);
        }
        let mut process = command
            .envs(self.env)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let (stderr, log) = (process.stderr.take().expect("a pipe"), Arc::new(Log::default()));
        let follower = Arc::clone(&log);
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).for_each(|line| follower.push(Some(line)));
            follower.push(None);
        });
        (process, log)
    }
}

/// Returns the path of a scripted child.
fn child(file: &str) -> String {
    format!("{}/tests/children/{file}", env!("CARGO_MANIFEST_DIR"))
}

impl Server {
    /// Returns a builder for a proxyrunner process.
    pub fn with() -> Start {
        Start::default()
    }

    /// Starts proxyrunner with these flags.
    pub fn start(flags: &str) -> Server {
        Self::with().flags(flags).start()
    }

    /// Returns the address on which proxyrunner listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the same process, whose clients use another endpoint.
    #[cfg(feature = "gateway")]
    pub fn at(mut self, path: &str) -> Server {
        self.path = path.to_owned();
        self
    }

    /// Returns the path of the endpoint.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Opens a connection.
    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// Sends a request on a new connection and reads the response.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let mut connection = self.connect();
        connection.request(method, path, headers, body);
        connection.response()
    }

    /// Posts to the endpoint with the usual headers and these.
    pub fn post(&self, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Response {
        self.request("POST", &self.path, &[connection::JSON, headers].concat(), body.as_ref())
    }

    /// Opens a session at 2025-11-25 for a client without capabilities.
    pub fn session(&self) -> Session<'_> {
        self.opening().open()
    }

    /// Returns a builder for a session.
    pub fn opening(&self) -> Opening<'_> {
        Opening::new(self)
    }

    /// Returns a value from `/metrics`.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.request("GET", "/metrics", &[], b"").text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().expect("a number")
    }

    /// Waits until a metric has this value.
    pub fn until_metric(&self, name: &str, value: u64) {
        until(name, || self.metric(name) == value);
    }

    /// Waits for a log line that contains this text, and returns it.
    pub fn until_logged(&self, text: &str) -> String {
        let found = self.log.wait(|line| line.contains(text).then(|| line.to_owned()));
        found.unwrap_or_else(|| panic!("{text:?} was not logged: {:#?}", self.log.lines()))
    }

    /// Returns the log so far.
    pub fn logged(&self) -> String {
        self.log.lines().join("\n")
    }

    /// Sends a signal to the proxyrunner process only.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("a process");
    }

    /// Waits until proxyrunner exits, and returns the exit code.
    pub fn exit_code(mut self) -> i32 {
        wait_for_exit(&mut self.process).code().expect("an exit code")
    }

    /// Returns the process id of proxyrunner.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("proxyrunner logged:\n{}", self.logged());
        }
    }
}

impl Log {
    fn push(&self, line: Option<String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match line {
            Some(line) => state.0.push(line),
            None => state.1 = true,
        }
        self.changed.notify_all();
    }

    fn lines(&self) -> Vec<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Returns the first result of `find` over the lines, or `None` at the end of the log.
    fn wait<T>(&self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = 0;
        loop {
            if let Some(found) = state.0[seen..].iter().find_map(|line| find(line)) {
                return Some(found);
            }
            seen = state.0.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if state.1 || left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Waits until a condition holds; panics after [`PATIENCE`].
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(LOOK);
    }
}

/// Returns whether a process exists and is not a zombie.
pub fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Returns a unique path at which no file exists.
pub fn scratch(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Process ids are reused, and files of earlier runs may still exist.
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_nanos();
    let unique = format!("{name}-{}-{since}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique)
}

fn wait_for_exit(process: &mut Child) -> ExitStatus {
    let mut status = None;
    until("the end of proxyrunner", || {
        status = process.try_wait().expect("a child process");
        status.is_some()
    });
    status.expect("a status")
}
