//! proxyrunner's own commands: probes, calls, the shim, the manual, and copies of the program.

use crate::support::{PATIENCE, Server, tool_call, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proxyrunner::internals::config::table;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
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
    let took =
        text.lines().find_map(|line| line.strip_prefix("mcp_golden_path_duration_seconds{tool=\"echo\"} "));
    let took: f64 = took.expect("a duration").parse().expect("seconds");
    assert!(took > 0.0 && took.is_finite(), "{text}");
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
fn a_call_sends_its_arguments_and_any_name_unchanged() {
    let server = Server::with().program(&["python3", "-c", ECHOES_NAMES]).start();
    let call = |tool: &str, arguments: &str| run(&["probe", "call", tool, arguments, "--url", &url(&server)]);
    for tool in ["größe", " padded ", "a\tb", "a\nb", "=?base64?x?="] {
        assert_eq!(code(&call(tool, "{}")), 0, "{tool:?}: {:?}", call(tool, "{}"));
    }
    assert_eq!(code(&call("exact", r#" {"n": 1e400, "s": "\ud800"} "#)), 0);
    for arguments in ["", " ", "null", "{} {}", r#"{"a":1},"name":"other""#, "{\"a\":}"] {
        let refused = call("exact", arguments);
        assert_eq!(
            (code(&refused), line(&refused).contains("not a JSON object; give")),
            (64, true),
            "{arguments}"
        );
    }
    assert_eq!(code(&call("", "{}")), 64);
}

/// A server of which every tool succeeds if it is called by its whole name, and `exact` with exact arguments.
const ECHOES_NAMES: &str = r#"
import json, sys
for line in sys.stdin:
    m = json.loads(line)
    if m.get("method") == "initialize":
        r = {"protocolVersion": m["params"]["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": {"name": "n", "version": "1"}}
    elif m.get("method") == "tools/call":
        bad = m["params"]["name"] == "exact" and ('1e400' not in line or '\\ud800' not in line)
        r = {"content": [{"type": "text", "text": "bad"}], "isError": bad}
    else:
        r = {"tools": []}
    if "id" in m:
        print(json.dumps({"jsonrpc": "2.0", "id": m["id"], "result": r}), flush=True)
"#;

/// Answers each connection with these bytes.
fn peer(answer: &'static [u8]) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 65536]);
            let _ = stream.write_all(answer);
        }
    });
    address
}

#[test]
fn an_answer_that_is_none_is_explained_in_one_line_without_control_characters() {
    for (answer, called, probed) in [
        (&b""[..], "closed before an answer", "closed before an answer"),
        (b"SSH-2.0-OpenSSH\r\n", "is not HTTP/1.1", "is not HTTP/1.1"),
        (
            b"HTTP/1.1 301 Moved\r\nLocation: http://other/mcp\r\nContent-Length: 0\r\n\r\n",
            "redirects to http://other/mcp; give",
            "301; is proxyrunner the program at ",
        ),
        (
            b"HTTP/1.1 401 No\r\nContent-Length: 9\r\n\r\nno\n\x1b[31mx",
            "give credentials by --header-file",
            "401 no\\n\\x1b[31mx",
        ),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 99\r\n\r\nx", "lost before the end", "lost before the end"),
        (
            b"HTTP/1.1 500 X\r\nConnection: close\r\n\r\n{\"id\":1,\"error\":{\"code\":1,\"message\":\"a\\n\\u001b\"}}",
            "error 1: a\\n\\x1b",
            "500 {",
        ),
        (
            b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n{\"id\":2,\"result\":{}}",
            "answered another request",
            "",
        ),
    ] {
        let address = peer(answer);
        let call = run(&["probe", "call", "t", "--url", &format!("http://{address}/mcp")]);
        assert_eq!((code(&call), line(&call).contains(called)), (1, true), "{call:?}");
        assert!(!line(&call).contains('\x1b'), "{call:?}");
        if !probed.is_empty() {
            let probe = run(&["probe", "live", "--address", &address]);
            assert_eq!((code(&probe), line(&probe).contains(probed)), (1, true), "{probe:?}");
        }
    }
}

#[test]
fn an_unusable_url_is_refused_before_a_request() {
    for (url, why) in [
        ("http://127.0.0.1:99999/mcp", "has no valid port"),
        ("https://127.0.0.1/mcp", "needs the certificate"),
        ("http://me:hunter2@127.0.0.1/mcp", "send credentials by --header-file"),
        ("http://[::1/mcp", "is not a URL"),
    ] {
        let refused = run(&["probe", "call", "t", "--url", url]);
        assert_eq!((code(&refused), line(&refused).contains(why)), (64, true), "{refused:?}");
        assert!(!line(&refused).contains("hunter2"), "{refused:?}");
    }
    let named = |name: &str, value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_proxyrunner"));
        let refused =
            command.args(["probe", "call", "t"]).env(name, value).output().expect("the binary runs");
        assert_eq!(
            (code(&refused), line(&refused).contains(&format!("{name}: {value:?}"))),
            (64, true),
            "{refused:?}"
        );
    };
    named("PROXYRUNNER_LISTEN", "nowhere");
    named("PROXYRUNNER_PATH", "mcp");
}

#[test]
fn a_file_of_headers_is_bounded_and_sets_no_header_of_the_call() {
    let server = Server::with().program(&EXAMPLE).start();
    let folder = folder("header-files");
    let call = |file: &str| {
        let words = ["--header-file", file, "--timeout", "2s"];
        run(&[&["probe", "call", "echo", r#"{"text": "x"}"#, "--url", &url(&server)], &words[..]].concat())
    };
    let path = folder.join("headers");
    let file = path.to_str().expect("text");
    for name in ["Content-Length", "transfer-encoding", "Connection", "Content-Type", "Accept", "Mcp-Name"] {
        fs::write(&path, format!("{name}: 1\n")).expect("a file");
        let refused = call(file);
        assert_eq!((code(&refused), line(&refused).contains("sets itself")), (64, true), "{refused:?}");
    }
    fs::write(&path, "Host: localhost\nX-A: 1\nX-A: 2\n").expect("a file");
    assert_eq!(code(&call(file)), 0, "{:?}", call(file));
    for (file, why) in [("/dev/zero", "is larger than"), (folder.to_str().expect("text"), "is a directory")] {
        let refused = call(file);
        assert_eq!((code(&refused), line(&refused).contains(why)), (64, true), "{refused:?}");
    }
    let pipe = folder.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let late = call(pipe.to_str().expect("text"));
    assert_eq!((code(&late), line(&late).contains("was not read within 2 s")), (64, true), "{late:?}");
}

#[test]
fn only_regular_files_are_replaced() {
    let server = Server::with().program(&EXAMPLE).start();
    let folder = folder("replaced");
    let pipe = folder.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    for (path, why) in [
        (pipe.clone(), "it is a device, a pipe or a socket"),
        (folder.clone(), "it is a directory; give"),
        (folder.join("no/such"), "does not exist; create"),
        (pipe.join("x"), "is not a folder; give"),
        (folder.join("new/"), "it names no file"),
    ] {
        let path = path.to_str().expect("text");
        let copied = run(&["--copy-self", path]);
        assert_eq!((code(&copied), line(&copied).contains(why)), (1, true), "{copied:?}");
        let called = run(&[
            "probe",
            "call",
            "echo",
            r#"{"text": ""}"#,
            "--url",
            &url(&server),
            "--metrics-file",
            path,
        ]);
        assert_eq!((code(&called), line(&called).contains(why)), (1, true), "{called:?}");
    }
    assert_eq!(
        fs::read_dir(&folder).expect("a folder").count(),
        1,
        "nothing is left, the pipe is still there"
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxyrunner"));
    let asked = command.args(["--copy-self", "--help"]).current_dir(&folder).output().expect("it runs");
    assert_eq!((code(&asked), folder.join("--help").exists()), (64, false), "{asked:?}");
}

#[test]
fn a_mistake_in_the_words_takes_one_line() {
    for words in [
        &["--bogus", "cat"][..],
        &["--lisen", ":80", "cat"],
        &["probe"],
        &["probe", "well"],
        &["probe", "call"],
        &["completions", "tcsh"],
        &["man", "x"],
        &["--connect", "/x"],
        &["inject", "--port", "0"],
        &["inject", "--command", ""],
        &["inject", "-f"],
        &["shim", "--socket"],
        &["shim", "--socket", "x", "-f", "x", "--", "cat"],
        &["audit", "verify", "--key-file", "no/such/file", "x"],
    ] {
        mistaken(words);
    }
    for words in COMMANDS {
        mistaken(&[words, &["--bogus"]].concat());
        // A server and lists of files have any number of arguments; a gateway lists all that is wrong.
        if !matches!(words, ["shim"] | ["policy", "check"] | ["audit", "verify"] | ["gateway"]) {
            mistaken(&[words, &["a", "b", "c", "d", "e"]].concat());
        }
        if !matches!(words, ["inject"] | ["man"]) {
            mistaken(words);
        }
    }
}

/// The commands of proxyrunner's own.
const COMMANDS: [&[&str]; 15] = [
    &["gateway"],
    &["connect"],
    &["probe"],
    &["probe", "call"],
    &["inject"],
    &["shim"],
    &["policy"],
    &["policy", "check"],
    &["policy", "explain"],
    &["audit"],
    &["audit", "verify"],
    &["key"],
    &["key", "new"],
    &["completions"],
    &["man"],
];

/// Checks that the words are refused by one line.
fn mistaken(words: &[&str]) {
    let refused = run(words);
    assert_eq!(code(&refused), 64, "{words:?}: {refused:?}");
    let line = line(&refused);
    assert!(line.starts_with("proxyrunner: ") && !line.contains("Options:"), "{words:?}: {line}");
}

#[test]
fn output_that_cannot_be_written_is_a_failure_unless_its_reader_left() {
    for words in [&["--help"][..], &["--version"], &["--check", "cat"], &["man"], &["completions", "bash"]] {
        let with = |stdout: Stdio| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_proxyrunner"));
            command.args(words).stdout(stdout).output().expect("the binary runs")
        };
        let full = with(fs::File::options().write(true).open("/dev/full").expect("a device").into());
        assert_eq!((code(&full), line(&full).contains("cannot write to stdout")), (1, true), "{full:?}");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let left = with(writer.into());
        assert_eq!((code(&left), left.stderr.len()), (0, 0), "{words:?}: {left:?}");
    }
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

/// Returns the options that a text names, without their dashes.
fn options(text: &str) -> BTreeSet<&str> {
    text.split("--")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '-').next().unwrap_or_default())
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn help_the_manual_and_the_completions_contain_every_option_and_command() {
    let printed = |words: &[&str]| {
        let output = run(words);
        assert_eq!(code(&output), 0, "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let help = printed(&["--help"]);
    let page = printed(&["man"]).replace("\\fR", " ").replace('\\', "");
    for flag in table::settings().map(|setting| setting.flag).chain(["copy-self"]) {
        assert!(options(&help).contains(flag), "--{flag} is not in the help");
        assert!(options(&page).contains(flag), "--{flag} is not in the manual");
    }
    let listed = help.split_once("Own commands: ").expect("a list of commands").1;
    let listed: Vec<_> = listed.split([',', '(']).map(str::trim).collect();
    let own = COMMANDS.iter().map(|words| words[0]).collect::<BTreeSet<_>>();
    for name in &own {
        assert!(listed.contains(name), "{name} is not in the help");
    }
    let titles: BTreeSet<_> =
        page.lines().filter_map(|line| line.strip_prefix(".SH \"PROXYRUNNER ")).collect();
    for words in COMMANDS.iter().filter(|words| !matches!(words, ["key"] | ["policy"] | ["audit"])) {
        let title = format!("{}\"", words.join(" ").to_uppercase());
        assert!(titles.contains(&*title), "{title} is not in the manual");
    }
    assert_eq!(titles.len(), COMMANDS.len() - 3, "a command is missing in COMMANDS: {titles:?}");

    let mut texts: Vec<_> =
        COMMANDS.iter().map(|words| printed(&[words, &["--help"][..]].concat())).collect();
    texts.push(help);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]);
        let script = if shell == "fish" { script.replace(" -l ", " --") } else { script };
        let completed = options(&script);
        for text in &texts {
            let missing: Vec<_> = options(text).difference(&completed).copied().collect();
            assert!(missing.is_empty(), "{shell} does not complete {missing:?} of {text}");
            let missing: Vec<_> = options(text).difference(&options(&page)).copied().collect();
            assert!(missing.is_empty(), "the manual does not list {missing:?} of {text}");
        }
        for name in &own {
            assert!(script.contains(name), "{shell} does not complete {name}");
        }
    }
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
    let link = |name: &str, to: &str| {
        std::os::unix::fs::symlink(to, folder.join(name)).expect("a link");
        folder.join(name).to_str().expect("text").to_owned()
    };
    let bad_interpreter = format!("#!{}\n", folder.display());
    let mut foreign = fs::read("/proc/self/exe").expect("a program");
    foreign.truncate(4096);
    foreign[18..20].copy_from_slice(&183_u16.to_le_bytes());
    for (program, expected, why) in [
        ("no-such-program".to_owned(), 127, "no such program"),
        ("/no/such/program".to_owned(), 127, "no such program; give its full path"),
        ("python3 server.py".to_owned(), 127, "give program and arguments as separate words"),
        (file("no-interpreter", 0o755, b"#!/no/such/shell -x\n"), 127, "its interpreter `/no/such/shell`"),
        (file("not-executable", 0o644, b"#!/bin/sh\n"), 126, "permission denied; make it executable"),
        (file("windows", 0o755, b"#!/bin/sh\r\necho\r\n"), 127, "line ends as on Windows (CR LF)"),
        (
            file("bad-interpreter", 0o755, bad_interpreter.as_bytes()),
            126,
            "(#! line) is not an executable file",
        ),
        (file("empty", 0o755, b""), 126, "the file is empty"),
        (link("dangling", "gone"), 127, "a link to a file that does not exist"),
        (link("loop", "loop"), 126, "a link that leads back to itself"),
        (format!("{}/x", file("part", 0o755, b"")), 126, "a part of its path is a file"),
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
fn a_program_that_ends_without_a_word_is_no_server() {
    let started = run(&["--listen", "127.0.0.1:0", "--restart-limit", "0", "--", "true"]);
    let text = String::from_utf8_lossy(&started.stderr);
    assert_eq!(code(&started), 1, "{text}");
    let why = "the server exited with code 0 before it was ready, and wrote nothing to stderr; check that the command";
    assert!(text.contains(&format!("ERROR {why}")), "{text}");
}

#[test]
fn a_port_in_use_is_named_with_its_option() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for option in ["--listen", "--admin-listen"] {
        let refused = run(&[option, &address, "--", "true"]);
        assert_eq!(code(&refused), 1, "{refused:?}");
        assert!(
            String::from_utf8_lossy(&refused.stderr).contains(&format!(
                "{address} ({option}): another process listens on it; end that process, or give another port\n"
            )),
            "{refused:?}"
        );
    }
}

#[test]
fn a_setting_of_the_other_side_of_a_socket_is_refused() {
    let socket = folder("sides").join("mcp.sock");
    let socket = socket.to_str().expect("text");
    let refused = |words: &[&str], flag: &str, why: &str| {
        let refused = run(words);
        assert_eq!(code(&refused), 64, "{refused:?}");
        let line = line(&refused);
        assert!(line.starts_with(&format!("proxyrunner: {flag}: ")) && line.contains(why), "{line}");
    };
    let taken = options(&String::from_utf8(run(&["shim", "--help"]).stdout).expect("UTF-8"))
        .iter()
        .map(|&name| name.to_owned())
        .collect::<BTreeSet<_>>();
    for setting in table::settings().filter(|setting| !taken.contains(setting.flag)) {
        let (flag, given) = (format!("--{}", setting.flag), format!("--{}=x", setting.flag));
        refused(&["shim", "--socket", socket, &given, "--", "cat"], &flag, "has no effect on a shim");
    }
    refused(&["shim", "--listen", ":80", "--socket", socket, "cat"], "--listen", "has no effect on a shim");
    assert!(taken.contains("env") && taken.contains("log-format"), "{taken:?}");
    for flag in [
        "--env=A=b",
        "--env-clear",
        "--cwd=/",
        "--child-memory=1GiB",
        "--child-nice=1",
        "--on-env-change=ignore",
    ] {
        let connect = format!("unix:{socket}");
        let name = flag.split('=').next().expect("a name");
        refused(&["--check", "--connect", &connect, flag], name, "give it to `proxyrunner shim`");
    }
}

/// Words behind COMMAND are the server's, even if they are called like options of the shim.
#[test]
fn a_shim_passes_on_the_words_of_its_server() {
    for separator in [&[][..], &["--"]] {
        let words = [
            &["shim", "--socket=/x", "--check", "--env", "A=b"],
            separator,
            &["cat", "--socket", "y", "--help"],
        ];
        let shown = run(&words.concat());
        let text = String::from_utf8_lossy(&shown.stdout);
        assert!(text.contains(r#"command: ["cat","--socket","y","--help"]"#), "{shown:?}");
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
fn a_shim_whose_program_cannot_start_exits_with_its_code() {
    let socket = folder("shim-program").join("mcp.sock");
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxyrunner"));
    command.args(["shim", "--socket"]).arg(&socket).args(["--", "no-such-program"]).stderr(Stdio::piped());
    let shim = Shim(command.spawn().expect("the binary runs"));
    until("the socket", || UnixStream::connect(&socket).is_ok());
    let (code, log) = shim.end();
    assert_eq!(code, Some(127), "{log}");
    assert!(log.contains("cannot start `no-such-program`: no such program"), "{log}");
    assert!(!socket.exists(), "the socket is removed");
}

#[test]
fn a_lost_connection_is_not_called_an_exit_of_the_server() {
    let socket = folder("shim-lost").join("mcp.sock");
    let shim = Shim::start(&socket);
    let server = connected(&socket, "");
    server.session().post(tool_call(7, "leave", &json!({"code": 3})));
    server.until_logged("was closed; the log of `proxyrunner shim` has the reason");
    assert!(!server.logged().contains("exited with code 0"), "{}", server.logged());
    drop(server);
    shim.signal(Signal::SIGTERM);
    let (_, log) = shim.end();
    assert!(log.contains("the server exited with code 3"), "{log}");
}

#[test]
fn an_unusable_socket_of_connect_is_explained() {
    let folder = folder("connect-sockets");
    let file = folder.join("file");
    fs::write(&file, "").expect("a file");
    let connect = |path: &Path, flags: &[&str]| {
        let socket = format!("unix:{}", path.display());
        run(&[&["--listen", "127.0.0.1:0", "--restart-limit", "0", "--connect", &socket], flags].concat())
    };
    let text = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let refused = connect(&file, &[]);
    assert!(text(&refused).contains("it is not a socket; give"), "{refused:?}");
    let absent = connect(&folder.join("absent"), &["--start-timeout", "4s"]);
    assert!(text(&absent).contains("still waiting for `proxyrunner shim`"), "{absent:?}");
    assert!(text(&absent).contains("there is no such socket"), "{absent:?}");
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
        (PathBuf::from("/proc/mcp.sock"), "the folder /proc takes no files"),
        (folder.join("x".repeat(120)), "its path is too long for a socket"),
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

/// The entry goes into the file, the key to whoever asked; neither is in the other.
#[test]
fn a_new_api_key_is_shown_once() {
    let made = run(&["key", "new", "ci", "--scope", "call", "--expires", "2027-01-31"]);
    assert_eq!(code(&made), 0);
    let (key, entry) = (line(&made), String::from_utf8(made.stdout).expect("UTF-8"));
    assert!(key.starts_with("prk_") && key.trim_end().len() == 47, "{key}");
    assert!(entry.starts_with("- name: \"ci\"\n  sha256: ") && entry.contains("[\"call\"]"), "{entry}");
    assert!(!entry.contains(key.trim_end()));
    assert_ne!(line(&run(&["key", "new", "ci"])), key);
    for bad in [&["key"][..], &["key", "new"], &["key", "new", ""], &["key", "new", "a", "--expires", "soon"]]
    {
        assert_eq!(code(&run(bad)), 64, "{bad:?}");
    }
}
