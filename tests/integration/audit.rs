//! The audit log (`--audit`): its lines, its chain, and calls while it cannot be written.

use crate::support::{Server, scratch, tool_call, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Log(PathBuf);

impl Log {
    fn new() -> Self {
        Log(scratch("audit"))
    }

    fn flags(&self) -> String {
        format!("--audit {}", self.0.display())
    }

    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Waits for a line of this type, and returns all of this type.
    fn until(&self, kind: &str) -> Vec<Value> {
        let mut found = Vec::new();
        until(kind, || {
            found = self.lines().into_iter().filter(|line| line["type"] == kind).collect();
            !found.is_empty()
        });
        found
    }
}

fn verify(key: Option<&Path>, files: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxyrunner"));
    command.args(["audit", "verify"]);
    if let Some(key) = key {
        command.arg("--key-file").arg(key);
    }
    command.args(files).output().expect("the binary runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn every_message_and_event_has_a_line_that_verifies() {
    let (log, key) = (Log::new(), scratch("audit-key"));
    fs::write(&key, "0123456789abcdef0123456789abcdef").expect("a key");
    let flags = format!("{} --audit-key-file {} --principal-header x-user", log.flags(), key.display());
    let server = Server::start(&flags);
    let session = server.opening().header("x-user", "alice").open();
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let body = json!({
        "jsonrpc": "2.0", "id": "a", "method": "tools/call",
        "params": {"name": "echo", "arguments": {"token": "hunter2"}, "_meta": {"traceparent": traceparent}},
    });
    session.post(body.to_string());
    assert_eq!(server.request("GET", "/mcp", &[], b"").status, 400, "the proxy names nobody");
    session.delete();
    let version = session.version().to_owned();
    log.until("session_end");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 0);

    let lines = log.lines();
    let kinds: Vec<_> = lines.iter().filter_map(|line| line["type"].as_str()).collect();
    for kind in [
        "audit_start",
        "server_start",
        "mcp_initialize",
        "session_start",
        "mcp_tool_call",
        "http_request",
        "session_end",
        "server_exit",
        "audit_stop",
        "audit_checkpoint",
    ] {
        assert!(kinds.contains(&kind), "{kind} is missing: {kinds:?}");
    }
    let calls: Vec<_> = lines.iter().filter(|line| line["type"] == "mcp_tool_call").collect();
    let [call] = calls[..] else { panic!("one line: {calls:?}") };
    assert_eq!((&call["outcome"], &call["subjects"]["user"]), (&json!("success"), &json!("alice")));
    assert_eq!(call["target"]["name"], "echo");
    assert_eq!(call["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(call["protocol_version"], version);
    assert_eq!(call["arguments_sha256"].as_str().map(str::len), Some(64));
    let text_of_log = fs::read_to_string(&log.0).expect("a file");
    assert!(!text_of_log.contains("hunter2"), "contents need --audit-content");
    let refused = lines.iter().find(|line| line["type"] == "http_request").expect("found above");
    assert_eq!((&refused["outcome"], &refused["target"]["method"]), (&json!("failure"), &json!("GET")));

    let verified = verify(Some(&key), &[&log.0]);
    assert!(
        verified.status.success() && text(&verified).contains("is whole up to the checkpoint"),
        "{verified:?}"
    );
    fs::write(&log.0, text_of_log.replacen("alice", "mallo", 1)).expect("written");
    let altered = verify(Some(&key), &[&log.0]);
    assert_eq!(altered.status.code(), Some(1));
    assert!(text(&altered).contains(" was altered"), "{altered:?}");
    let first: Vec<_> = text_of_log.lines().take(4).collect();
    fs::write(&log.0, first.join("\n") + "\n").expect("written");
    let cut = verify(Some(&key), &[&log.0]);
    assert_eq!(cut.status.code(), Some(1));
    assert!(text(&cut).contains("4 lines after the last checkpoint are unproven"), "{cut:?}");
}

#[test]
fn an_error_within_an_event_stream_is_an_outcome_too() {
    let log = Log::new();
    let server = Server::start(&format!("{} --sse-commit-after 0s --audit-content", log.flags()));
    let session = server.session();
    let arguments = json!({"name": "a", "password": "hunter2"});
    let mut events = session.begin_call(7, "wait", arguments).events();
    session.call("leave", json!({"code": 1}));
    assert!(events.rest().last().expect("an answer")["error"].is_object());
    let mut calls = Vec::new();
    until("two lines", || {
        calls = log.until("mcp_tool_call");
        calls.len() == 2
    });
    calls.sort_by_key(|call| call["target"]["name"] != "wait");
    let extra = &calls[0]["metadata"]["extra"];
    assert_eq!(calls[0]["outcome"], "application_error");
    assert_eq!((&extra["jsonrpc_id"], extra["jsonrpc_error_code"].is_i64()), (&json!(7), true));
    assert_eq!(calls[0]["data"]["request"], json!({"name": "a", "password": "<redacted>"}));
}

#[test]
fn a_batch_and_a_modern_client_have_their_lines() {
    let log = Log::new();
    let server = Server::start(&log.flags());
    let session = server.opening().version("2025-03-26").open();
    let batch = format!("[{},{}]", tool_call(1, "echo", &json!({})), tool_call(2, "echo", &json!({})));
    session.post(batch);
    server.modern().result("echo", json!({"x": 1}));
    let mut calls = Vec::new();
    until("three lines", || {
        calls = log.until("mcp_tool_call");
        calls.len() == 3
    });
    assert_eq!(calls[2]["protocol_version"], "2026-07-28");
    assert!(calls.iter().all(|call| call["outcome"] == "success"), "{calls:?}");
}

#[test]
fn a_limit_on_the_size_of_files_denies_calls() {
    let log = Log::new();
    let small = ["sh", "-c", "ulimit -f 1 && exec \"$0\" \"$@\""];
    let server = Server::with().flags(&log.flags()).under(&small).start();
    until("the log is full", || server.opening().send().status == 503);
    server.until_logged("cannot write the audit log");
    assert_eq!(server.request("GET", "/livez", &[], b"").status, 200);
}

#[test]
fn a_log_that_was_cut_at_an_earlier_stop_has_another_head() {
    let (log, key) = (Log::new(), scratch("audit-key"));
    fs::write(&key, "0123456789abcdef0123456789abcdef").expect("a key");
    let mut first = String::new();
    for _ in 0..2 {
        let server = Server::start(&format!("{} --audit-key-file {}", log.flags(), key.display()));
        server.session().delete();
        server.signal(Signal::SIGTERM);
        assert_eq!(server.exit_code(), 0);
        if first.is_empty() {
            first = fs::read_to_string(&log.0).expect("a file");
        }
    }
    let head_of = |output: &Output| {
        let head = text(output).lines().find_map(|line| line.strip_prefix("head ").map(str::to_owned));
        head.expect("a head")
    };
    let with = |head: &str| {
        let args = ["audit", "verify", "--key-file", key.to_str().expect("text"), "--head", head];
        Command::new(env!("CARGO_BIN_EXE_proxyrunner"))
            .args(args)
            .arg(&log.0)
            .output()
            .expect("the binary runs")
    };
    let whole = verify(Some(&key), &[&log.0]);
    let head = head_of(&whole);
    assert!(whole.status.success() && with(&head).status.success(), "{whole:?}");
    fs::write(&log.0, &first).expect("written");
    let cut = verify(Some(&key), &[&log.0]);
    assert!(cut.status.success() && head_of(&cut) != head, "it looks like a log that ended there: {cut:?}");
    let cut = with(&head);
    assert!(
        cut.status.code() == Some(1)
            && text(&cut).contains("1 of the lines that --head demands are not in the log"),
        "{cut:?}"
    );
}

#[test]
fn a_full_disk_denies_calls() {
    let server = Server::start("--audit /dev/full");
    server.until_logged("cannot write the audit log");
    let response = server.opening().send();
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    assert!(response.text().contains("--audit-on-failure"), "{}", response.text());
}

#[test]
fn a_full_disk_drops_lines_if_the_operator_says_so() {
    let server = Server::start("--audit /dev/full --audit-on-failure drop");
    server.session().result("echo", json!({}));
    until("lines are counted", || server.metric("proxyrunner_lost_audit_lines_total") >= 3);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 0, "it does not wait for the disk");
}

#[test]
fn calls_wait_for_the_reader_of_a_pipe_if_the_operator_says_so() {
    let pipe = scratch("audit-pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let server = Server::start(&format!("--audit {} --audit-on-failure block", pipe.display()));
    server.until_logged("cannot write the audit log");
    let opening = server.opening();
    let mut waiting = server.connect();
    waiting.post(&crate::support::Connection::post_headers(&[]), opening.body());
    assert!(!waiting.is_answered());
    let _reader = fs::File::open(&pipe).expect("a reader");
    assert_eq!(waiting.response().status, 200);
}

#[test]
fn a_file_that_cannot_be_opened_stops_the_start() {
    let (status, logged) = Server::with().flags("--audit /nowhere/audit.log").run();
    assert_eq!(status.code(), Some(64));
    assert!(logged.contains("is in /nowhere, which is no directory"), "{logged}");
    // It belongs to another process.
    let log = Log::new();
    let _other = Server::start(&log.flags());
    let (status, logged) = Server::with().flags(&log.flags()).run();
    assert_eq!(status.code(), Some(1));
    assert!(logged.contains("cannot open the audit log"), "{logged}");
    let (status, logged) = Server::with().flags("--audit otlp").run();
    assert_eq!(status.code(), Some(64));
    assert!(logged.contains("OTEL_LOGS_EXPORTER=otlp"), "{logged}");
}

#[test]
fn the_chain_goes_on_after_a_crash() {
    let log = Log::new();
    for _ in 0..2 {
        let server = Server::start(&log.flags());
        server.session().result("echo", json!({}));
        log.until("mcp_tool_call");
        // It is killed.
        drop(server);
    }
    let crashed = verify(None, &[&log.0]);
    assert_eq!(crashed.status.code(), Some(1), "the end is unproven");
    let server = Server::start(&log.flags());
    server.signal(Signal::SIGTERM);
    server.exit_code();
    // The checkpoint of the last process proves nothing of what it found there.
    let verified = verify(None, &[&log.0]);
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    assert!(
        text(&verified).contains("2 processes started after one that did not stop cleanly"),
        "{verified:?}"
    );
    let accepted = Command::new(env!("CARGO_BIN_EXE_proxyrunner"))
        .args(["audit", "verify", "--crashes"])
        .arg(&log.0)
        .output()
        .expect("the binary runs");
    assert!(accepted.status.success(), "{accepted:?}");
}

#[test]
fn a_failed_login_has_a_line_with_its_reason_and_without_its_credential() {
    use sha2::{Digest, Sha256};
    let (log, keys) = (Log::new(), scratch("audit-api-keys"));
    let digest: String = Sha256::digest("ann-key").iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(&keys, format!("- {{name: ann, sha256: {digest}}}")).expect("a file");
    let server = Server::start(&format!("{} --api-keys {}", log.flags(), keys.display()));
    let body = server.opening().body();
    assert_eq!(server.post(&[("Authorization", "Bearer wrong-key")], &body).status, 401);
    assert_eq!(server.post(&[("Authorization", "Bearer ann-key")], &body).status, 200);
    let refused = log.until("http_request");
    assert_eq!((&refused[0]["outcome"], refused.len()), (&json!("denied"), 1));
    let extra = &refused[0]["metadata"]["extra"];
    assert_eq!((&extra["http_status"], extra["reason"].is_string()), (&json!(401), true));
    let opened = log.until("mcp_initialize");
    assert!(opened[0]["subjects"]["user"].as_str().is_some_and(|user| user.contains("ann")), "{opened:?}");
    assert_eq!(opened[0]["subjects"]["means"], "api_key");
    let text = fs::read_to_string(&log.0).expect("a file");
    assert!(!text.contains("-key\""), "no credential is recorded");
}
