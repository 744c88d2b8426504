//! proxyrunner's own commands: probes, calls, the shim, the manual, and copies of the program.

use crate::support::{PATIENCE, Server, tool_call, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proxyrunner::internals::config::table;
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const EXAMPLE: [&str; 2] = ["python3", "examples/server.py"];

/// Runs the binary with these words.
fn run(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_proxyrunner")).args(words).output().expect("the binary runs")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("an exit code")
}

/// Returns the only line on stderr.
fn line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    text
}

/// Returns an empty folder for one test.
fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("a folder");
    path
}

fn probe(server: &Server, which: &str) -> Output {
    run(&["probe", which, "--address", &server.address().to_string()])
}

fn url(server: &Server) -> String {
    format!("http://{}/mcp", server.address())
}

#[test]
fn probes_follow_the_server() {
    let gate = folder("probes").join("gate");
    let server = Server::with().child(&format!("--gate {}", gate.display())).start();
    assert_eq!(code(&probe(&server, "live")), 0);
    for which in ["ready", "startup"] {
        let early = probe(&server, which);
        assert_eq!(code(&early), 1);
        assert!(line(&early).starts_with(&format!("proxyrunner: not {which}: 503")), "{early:?}");
    }
    fs::write(&gate, "").expect("a file");
    until("ready", || code(&probe(&server, "ready")) == 0);
    assert_eq!(code(&probe(&server, "startup")), 0);
}

#[test]
fn a_probe_reads_the_address_from_the_environment() {
    let server = Server::start("");
    let probed = |name: &str, value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_proxyrunner"));
        command.args(["probe", "live"]).env_clear().env(name, value).output().expect("the binary runs")
    };
    let port = server.address().port();
    assert_eq!(code(&probed("PROXYRUNNER_LISTEN", &format!(":{port}"))), 0);
    assert_eq!(code(&probed("PROXYRUNNER_ADMIN_LISTEN", &format!("[::]:{port}"))), 0, "by IPv4, too");
    let bad = probed("PROXYRUNNER_LISTEN", "nowhere");
    assert_eq!(code(&bad), 64);
    assert!(line(&bad).contains("is not an address"), "{bad:?}");
}

#[test]
fn a_probe_says_that_nothing_listens_or_that_the_answer_is_late() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address").to_string();
    let late = run(&["probe", "live", "--address", &address, "--timeout", "50ms"]);
    assert_eq!((code(&late), line(&late).contains("no answer within 0.05 s")), (1, true), "{late:?}");
    drop(silent);
    let gone = run(&["probe", "live", "--address", &address]);
    assert_eq!((code(&gone), line(&gone).contains("nothing listens on")), (1, true), "{gone:?}");
}

#[test]
fn a_call_tells_success_and_failure() {
    let server = Server::with().program(&EXAMPLE).start();
    let call = |tool: &str, arguments: &str| run(&["probe", "call", tool, arguments, "--url", &url(&server)]);
    let good = call("echo", r#"{"text": "hello"}"#);
    assert_eq!(code(&good), 0, "{good:?}");
    assert!(String::from_utf8_lossy(&good.stdout).starts_with("echo succeeded in "), "{good:?}");
    for (tool, arguments, why) in [
        ("nope", "{}", "nope failed after"),
        ("add", r#"{"a": "x", "b": 1}"#, "the tool reports an error: TypeError"),
    ] {
        let bad = call(tool, arguments);
        assert_eq!(code(&bad), 1, "{bad:?}");
        assert!(line(&bad).contains(why), "{bad:?}");
    }
    for (arguments, url) in [("[1]", url(&server)), ("{", url(&server)), ("{}", "ftp://x/".to_owned())] {
        assert_eq!(code(&run(&["probe", "call", "echo", arguments, "--url", &url])), 64, "{arguments} {url}");
    }
}

#[test]
fn a_call_in_an_event_stream_is_understood() {
    let server = Server::with().flags("--sse-commit-after 0s").program(&EXAMPLE).start();
    let answer =
        run(&["probe", "call", "countdown", r#"{"start": 2, "pause": 0.01}"#, "--url", &url(&server)]);
    assert_eq!(code(&answer), 0, "{answer:?}");
}

#[test]
fn a_call_writes_its_metrics() {
    let server = Server::with().program(&EXAMPLE).start();
    let path = folder("call-metrics").join("golden.prom");
    let file = path.to_str().expect("text");
    let written = |tool: &str| {
        run(&["probe", "call", tool, r#"{"text": "x"}"#, "--url", &url(&server), "--metrics-file", file]);
        fs::read_to_string(&path).expect("a file")
    };
    let text = written("echo");
    assert!(text.contains("mcp_golden_path_success{tool=\"echo\"} 1\n"), "{text}");
    assert!(text.contains("mcp_golden_path_duration_seconds{tool=\"echo\"} 0."), "{text}");
    let text = written("nope");
    assert!(text.contains("mcp_golden_path_success{tool=\"nope\"} 0\n"), "{text}");
    assert_eq!(
        fs::read_dir(path.parent().expect("a folder")).expect("a folder").count(),
        1,
        "no parts are left"
    );
}

#[test]
fn a_token_is_sent_from_a_file_and_never_shown() {
    let server = Server::with().flags("--principal-header X-Caller").program(&EXAMPLE).start();
    let path = folder("call-headers").join("headers");
    let file = path.to_str().expect("text");
    let call =
        || run(&["probe", "call", "echo", r#"{"text":"x"}"#, "--url", &url(&server), "--header-file", file]);
    fs::write(&path, "X-Caller: hunter2\n").expect("a file");
    assert_eq!(code(&call()), 0);
    fs::write(&path, "X-Caller hunter2\n").expect("a file");
    let bad = call();
    assert_eq!(code(&bad), 64);
    assert!(line(&bad).contains("line 1 is not NAME: VALUE") && !line(&bad).contains("hunter2"), "{bad:?}");
}

#[test]
fn the_program_copies_itself() {
    let folder = folder("copy-self");
    let copy = folder.join("proxyrunner");
    fs::write(&copy, "old").expect("a file");
    let copied = run(&["--copy-self", copy.to_str().expect("text")]);
    assert_eq!((code(&copied), copied.stderr.len()), (0, 0), "{copied:?}");
    assert_eq!(fs::metadata(&copy).expect("a file").permissions().mode() & 0o777, 0o755);
    let version = Command::new(&copy).arg("--version").output().expect("it runs");
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("proxyrunner "), "{version:?}");
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 1, "no parts are left");
    let missing = run(&["--copy-self", folder.join("no/such").to_str().expect("text")]);
    assert_eq!((code(&missing), line(&missing).contains("(--copy-self)")), (1, true), "{missing:?}");
    assert_eq!(code(&run(&["--copy-self"])), 64);
    assert_eq!(code(&run(&["--copy-self", "a", "b"])), 64);
}

#[test]
fn the_manual_and_the_completions_contain_every_setting() {
    let page = String::from_utf8(run(&["man"]).stdout).expect("UTF-8").replace('\\', "");
    let bash = String::from_utf8(run(&["completions", "bash"]).stdout).expect("UTF-8");
    for setting in table::settings() {
        let flag = format!("--{}", setting.flag);
        assert!(page.contains(&flag), "{flag} is not in the manual");
        assert!(bash.contains(&flag), "{flag} is not in the completions");
    }
    for shell in ["zsh", "fish"] {
        assert!(!run(&["completions", shell]).stdout.is_empty());
    }
    assert_eq!(code(&run(&["completions", "cmd"])), 64);
}

#[test]
fn a_server_may_have_the_name_of_a_command() {
    for words in [&["--", "probe"][..], &["relay"], &["relay", "x"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_proxyrunner"));
        let started = command.args(words).env("PROXYRUNNER_LISTEN", "127.0.0.1:0").output().expect("it runs");
        assert_eq!(code(&started), 127, "{started:?}");
        assert!(String::from_utf8_lossy(&started.stderr).contains("cannot start `"), "{started:?}");
    }
}

#[test]
fn a_program_that_cannot_start_is_named_with_the_reason_and_a_shells_exit_code() {
    let folder = folder("bad-programs");
    let file = |name: &str, mode: u32, content: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("access");
        path.to_str().expect("text").to_owned()
    };
    let mut foreign = fs::read("/proc/self/exe").expect("a program");
    foreign.truncate(4096);
    foreign[18..20].copy_from_slice(&183_u16.to_le_bytes());
    for (program, expected, why) in [
        ("no-such-program".to_owned(), 127, "no such program"),
        ("/no/such/program".to_owned(), 127, "no such program; give its full path"),
        ("python3 server.py".to_owned(), 127, "give program and arguments as separate words"),
        (file("no-interpreter", 0o755, b"#!/no/such/shell -x\n"), 127, "its interpreter `/no/such/shell`"),
        (file("not-executable", 0o644, b"#!/bin/sh\n"), 126, "permission denied"),
        (file("foreign", 0o755, &foreign), 126, "it is built for aarch64, and this machine is"),
        (folder.to_str().expect("text").to_owned(), 126, "it is a directory"),
    ] {
        let started = run(&["--listen", "127.0.0.1:0", "--", &program]);
        let text = String::from_utf8_lossy(&started.stderr);
        assert_eq!(code(&started), expected, "{program}: {text}");
        let errors: Vec<_> = text.lines().filter(|line| line.contains("ERROR")).collect();
        assert!(errors.len() == 1 && errors[0].contains(why), "{program}: {text}");
    }
}

#[test]
fn a_port_in_use_is_named_with_its_option() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for option in ["--listen", "--admin-listen"] {
        let refused = run(&[option, &address, "--", "true"]);
        assert_eq!(code(&refused), 1, "{refused:?}");
        assert!(
            String::from_utf8_lossy(&refused.stderr).contains(&format!("{address} ({option})")),
            "{refused:?}"
        );
    }
}

/// A running shim, which is ended when dropped.
struct Shim(Child);

impl Shim {
    fn start(socket: &Path) -> Self {
        Self::with(socket, &[])
    }

    fn with(socket: &Path, flags: &[&str]) -> Self {
        let scripted = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/children/scripted.py");
        let mut command = Command::new(env!("CARGO_BIN_EXE_proxyrunner"));
        command.arg("shim").arg("--socket").arg(socket).args(flags).args(["--", "python3", scripted]);
        let shim = Shim(command.stderr(Stdio::piped()).spawn().expect("the binary runs"));
        until("the socket", || UnixStream::connect(socket).is_ok());
        shim
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).expect("a pid")), signal).expect("a process");
    }

    /// Waits for its end, and returns its exit code and log.
    fn end(mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        self.0.stderr.take().expect("a pipe").read_to_string(&mut log).expect("text");
        (self.0.wait().expect("a status").code(), log)
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connected(socket: &Path, flags: &str) -> Server {
    let flags = format!("--connect unix:{} --restart-backoff 10ms {flags}", socket.display());
    Server::with().flags(&flags).program(&[]).start()
}

fn pid(server: &Server) -> i64 {
    let answer: Value = server.session().call("facts", json!({}));
    answer["result"]["pid"].as_i64().unwrap_or_else(|| panic!("{answer}"))
}

fn is_running(pid: i64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_server_behind_a_shim_serves_like_any_other() {
    let socket = folder("shim").join("mcp.sock");
    let shim = Shim::start(&socket);
    assert_eq!(fs::metadata(&socket).expect("a socket").permissions().mode() & 0o777, 0o660);
    let server = connected(&socket, "");
    let first = pid(&server);
    let large = "x".repeat(3_000_000);
    let session = server.session();
    let echoed = session.call("echo", json!({"text": large}));
    assert!(echoed.to_string().contains(&large), "every byte comes back");
    session.post(tool_call(7, "leave", &json!({"code": 3})));
    until("another process", || server.session().call("facts", json!({}))["result"]["pid"] != first);
    let second = pid(&server);
    drop(server);
    until("its process ends with proxyrunner", || !is_running(second));
    shim.signal(Signal::SIGTERM);
    let (code, log) = shim.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(!socket.exists(), "the socket is removed");
}

#[test]
fn either_side_of_a_shim_may_start_first_and_again() {
    let socket = folder("shim-restarts").join("mcp.sock");
    let server = connected(&socket, "");
    assert_eq!(code(&probe(&server, "ready")), 1);
    let shim = Shim::start(&socket);
    until("ready", || code(&probe(&server, "ready")) == 0);
    let first = pid(&server);
    // Killed, it leaves its socket behind, which the next one replaces.
    shim.signal(Signal::SIGKILL);
    drop(shim);
    until("its process is gone", || !is_running(first));
    assert!(socket.exists());
    let shim = Shim::start(&socket);
    until("another process", || {
        let answer = server.session().call("facts", json!({}));
        answer["result"]["pid"].as_i64().is_some_and(|pid| pid != first)
    });
    drop(server);
    let other = connected(&socket, "");
    assert_ne!(pid(&other), first);
    shim.signal(Signal::SIGTERM);
    let begun = Instant::now();
    let (code, log) = shim.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn a_shim_runs_no_more_servers_than_max_children() {
    let socket = folder("shim-limit").join("mcp.sock");
    let shim = Shim::with(&socket, &["--max-children", "1"]);
    // Closed at once, or open and silent.
    let connect = |patience| {
        let mut stream = UnixStream::connect(&socket).expect("the shim");
        stream.set_read_timeout(Some(patience)).expect("a socket");
        let is_open = stream.read(&mut [0]).is_err();
        is_open.then_some(stream)
    };
    let mut held = None;
    until("a place", || {
        held = connect(Duration::from_millis(200));
        held.is_some()
    });
    for _ in 0..100 {
        assert!(connect(PATIENCE).is_none(), "a connection beyond the limit is closed");
    }
    drop(held);
    until("the place is free again", || connect(Duration::from_millis(200)).is_some());
    shim.signal(Signal::SIGTERM);
    let (code, log) = shim.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("--max-children servers are running"), "{log}");
}

#[test]
fn an_unusable_socket_is_named_with_its_option() {
    let folder = folder("shim-sockets");
    let socket = folder.join("mcp.sock");
    let shim = |path: &Path| run(&["shim", "--socket", path.to_str().expect("text"), "--", "cat"]);
    let _listening = UnixListener::bind(&socket).expect("a socket");
    fs::write(folder.join("file"), "").expect("a file");
    for (path, why) in [
        (socket.clone(), "another process listens on it"),
        (folder.join("file"), "the file exists and is not a socket"),
        (folder.join("no/such/mcp.sock"), "does not exist"),
        (PathBuf::from("/proc/mcp.sock"), ""),
    ] {
        let refused = shim(&path);
        assert_eq!(code(&refused), 1, "{refused:?}");
        let text = line(&refused);
        assert!(text.contains(&format!("{} (--socket): ", path.display())) && text.contains(why), "{text}");
    }
    assert!(folder.join("file").exists(), "it is not replaced");
    assert_eq!(code(&run(&["shim", "--", "cat"])), 64);
    assert_eq!(code(&run(&["shim", "--socket", "x"])), 64, "COMMAND is missing");
    assert_eq!(code(&run(&["--connect", "unix:/x", "--", "cat"])), 64, "COMMAND beside --connect");
    assert_eq!(code(&run(&["--connect", "/x"])), 64);
}
