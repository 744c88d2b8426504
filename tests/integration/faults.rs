//! Faults of children: the affected clients get errors, and other clients are not affected.

use crate::support::{Server, Session, scratch, tool_call, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

/// Returns `data.reason` of the error, which must have a message.
fn reason(answer: &Value) -> &str {
    assert!(answer["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{answer}");
    answer["error"]["data"]["reason"].as_str().unwrap_or_default()
}

fn emit(session: &Session<'_>, lines: &[&str], answer: bool) -> Value {
    session.call("emit", json!({"lines": lines, "answer": answer}))
}

#[test]
fn invalid_lines_on_stdout_are_ignored_and_counted() {
    let server = Server::with().child("--banner 2").start();
    let session = server.session();
    let garbage = [
        "Listening on port 3000",
        "   ",
        "{\"jsonrpc\":\"2.0\",\"id\":",
        "\u{ff}\u{fe}\u{80}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"a\u{ff}b\"}",
        "[]",
        "[{\"jsonrpc\":\"2.0\"}]",
        "null",
        "{}",
        "\u{0}\u{1b}[31mred\u{1b}[0m",
    ];
    assert_eq!(emit(&session, &garbage, true)["result"], json!({}));
    assert_eq!(server.metric("proxyrunner_malformed_frames_total"), 2 + 9, "a blank line does not count");
    let logged = server.until_logged("Listening on port 3000");
    assert!(logged.contains("\"level\":\"WARN\""), "{logged}");
}

#[test]
fn a_malformed_response_fails_its_request() {
    let server = Server::start("");
    let session = server.session();
    for line in [
        "{\"jsonrpc\":\"2.0\",\"id\":$ID,\"result\":{\"text\":\"\u{ff}\"}}",
        "{\"jsonrpc\":\"2.0\",\"id\":$ID,\"result\":{\"text\":NaN}}",
        "{\"jsonrpc\":\"1.0\",\"id\":$ID,\"result\":{}}",
        "{\"jsonrpc\":\"2.0\",\"result\":{},\"error\":{},\"id\":$ID}",
    ] {
        assert_eq!(reason(&emit(&session, &[line], false)), "answer_malformed", "{line}");
    }
    assert_eq!(session.call("sleep", json!({"ms": 0}))["result"]["ms"], 0);
}

#[test]
fn carriage_returns_and_byte_order_marks_are_removed() {
    let server = Server::with().child("--crlf").start();
    let session = server.session();
    let answer =
        emit(&session, &["\u{ef}\u{bb}\u{bf}{\"jsonrpc\":\"2.0\",\"id\":$ID,\"result\":{\"a\":1}}"], false);
    assert_eq!(answer, json!({"jsonrpc": "2.0", "id": 1, "result": {"a": 1}}));
    assert_eq!(server.metric("proxyrunner_repaired_frames_total"), 1);
}

#[test]
fn unexpected_responses_are_dropped_and_counted() {
    let server = Server::start("");
    let (session, other) = (server.session(), server.session());
    let mut waiting = other.begin_call(7, "wait", json!({"name": "a"}));
    until("the call runs", || server.metric("proxyrunner_in_flight") == 1);
    let unknown = [
        "{\"jsonrpc\":\"2.0\",\"id\":999999,\"result\":{\"stray\":1}}",
        "{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{\"stray\":1}}",
        "{\"jsonrpc\":\"2.0\",\"id\":-1,\"result\":{\"stray\":1}}",
        "{\"jsonrpc\":\"2.0\",\"id\":\"7\",\"result\":{\"stray\":1}}",
        "{\"jsonrpc\":\"2.0\",\"id\":18446744073709551616,\"result\":{\"stray\":1}}",
    ];
    assert_eq!(emit(&session, &unknown, true)["result"], json!({}));
    assert_eq!(server.metric("proxyrunner_unknown_answers_total"), 5);
    let twice = "{\"jsonrpc\":\"2.0\",\"id\":$ID,\"result\":{\"first\":true}}";
    assert_eq!(emit(&session, &[twice, twice], true)["result"], json!({"first": true}));
    server.until_metric("proxyrunner_late_answers_total", 2);
    session.result("release", json!({"name": "a"}));
    assert_eq!(waiting.response().answer()["result"], json!({"name": "a"}));
}

#[test]
fn an_error_without_an_id_fails_only_a_sole_request() {
    let server = Server::start("");
    let (session, other) = (server.session(), server.session());
    let nobodys = "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32700,\"message\":\"?\"}}";
    let null = "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32700,\"message\":\"?\"}}";
    for line in [nobodys, null] {
        assert_eq!(reason(&emit(&session, &[line], false)), "answer_malformed", "{line}");
    }
    let mut waiting = other.begin_call(7, "wait", json!({"name": "a"}));
    server.until_metric("proxyrunner_in_flight", 1);
    assert_eq!(emit(&session, &[nobodys], true)["result"], json!({}));
    session.result("release", json!({"name": "a"}));
    assert_eq!(waiting.response().answer()["result"], json!({"name": "a"}));
}

#[test]
fn an_oversized_response_fails_only_its_request() {
    let server = Server::start("--max-frame 100000");
    let (session, other) = (server.session(), server.session());
    let mut neighbor = other.begin_call(7, "wait", json!({"name": "a"}));
    server.until_metric("proxyrunner_in_flight", 1);
    for place in ["first", "last"] {
        let answer = session.call("oversized", json!({"bytes": 1 << 20, "id": place}));
        assert_eq!(reason(&answer), "answer_too_large", "id {place}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("--max-frame"), "{answer}");
    }
    assert_eq!(session.call("oversized", json!({"bytes": 1 << 20, "id": "none"}))["result"], json!({}));
    assert_eq!(server.metric("proxyrunner_oversized_frames_total"), 3);
    session.result("release", json!({"name": "a"}));
    assert_eq!(neighbor.response().answer()["result"], json!({"name": "a"}));
}

#[test]
fn a_line_of_200_mib_is_not_held_in_memory() {
    let server = Server::start("--max-frame 1MiB");
    let session = server.session();
    let answer = session.call("oversized", json!({"bytes": 200 << 20, "id": "last"}));
    assert_eq!(reason(&answer), "answer_too_large");
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("a process");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    let peak: u64 = peak.expect("the peak").trim().parse().expect("a number");
    assert!(peak < 64 << 10, "{peak} kB");
}

/// A secret that a client's call makes the server write to stderr.
const LAST_WORDS: &str = "postgres://app:hunter2@db";

/// Returns all responses that report a server's exit: errors of clients, and the probes during the restart.
fn told_of_an_end(server: &Server) -> String {
    let session = server.session();
    let lost = session.call("leave", json!({"code": 7, "stderr": LAST_WORDS}));
    assert_eq!(lost["error"]["data"]["exitCode"], 7);
    let probes = || ["/readyz", "/startupz"].map(|path| server.request("GET", path, &[], b"").text());
    until("the probes report it", || probes()[0].contains("exited with code 7"));
    let refused = server.modern().call("echo", json!({})).text();
    format!("{lost}{refused}{:?}", probes())
}

#[test]
fn last_stderr_lines_are_logged_but_not_sent_to_clients_or_probes() {
    let slow = "--restart-backoff 1h --restart-backoff-max 1h --restart-wait 10ms";
    let server = Server::start(slow);
    let told = told_of_an_end(&server);
    assert!(!told.contains("hunter2"), "{told}");
    let log = server.until_logged("last line of stderr: postgres");
    assert!(log.contains(LAST_WORDS), "{log}");
}

/// Starts a collector of spans; returns its address and the bodies that it receives.
fn collector() -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let store = Arc::clone(&bodies);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
            let mut stream = stream;
            while let Some(length) = content_length(&mut reader) {
                let mut body = vec![0; length];
                reader.read_exact(&mut body).expect("a body");
                store.lock().expect("no panic").extend(body);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("a client");
            }
        }
    });
    (address, bodies)
}

fn content_length(reader: &mut impl BufRead) -> Option<usize> {
    let mut length = None;
    for line in reader.lines().map_while(Result::ok) {
        let line = line.to_ascii_lowercase();
        length =
            line.strip_prefix("content-length:").and_then(|length| length.trim().parse().ok()).or(length);
        if line.is_empty() {
            return length;
        }
    }
    None
}

#[test]
fn last_stderr_lines_are_not_in_spans() {
    let (address, bodies) = collector();
    let endpoint = format!("http://{address}/v1/traces");
    let server =
        Server::with().env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &endpoint).flags("--restart-backoff 10ms");
    let server = server.start();
    let session = server.session();
    session.call("leave", json!({"code": 7, "stderr": LAST_WORDS}));
    assert!(session.result("facts", json!({}))["pid"].is_number());
    server.until_logged(LAST_WORDS);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 0);
    let bodies = String::from_utf8_lossy(&bodies.lock().expect("no panic")).into_owned();
    assert!(bodies.contains("exited with code 7"), "{bodies}");
    assert!(!bodies.contains("hunter2"), "{bodies}");
}

#[test]
fn expose_stderr_sends_the_last_stderr_lines_to_clients() {
    let slow = "--restart-backoff 1h --restart-backoff-max 1h --restart-wait 10ms --expose-stderr";
    let told = told_of_an_end(&Server::start(slow));
    assert_eq!(
        told.matches("hunter2").count(),
        4,
        "the error's message and its data, and two probes: {told}"
    );
}

#[test]
fn a_shared_childs_exit_fails_waiting_requests_and_sets_the_exit_code() {
    let server = Server::start("--restart-limit 0");
    let (one, two) = (server.session(), server.session());
    let mut first = one.begin_call("x", "hang", json!({}));
    let mut second = two.begin_call(5, "hang", json!({}));
    server.until_metric("proxyrunner_in_flight", 2);
    let mut last = one.begin_call(6, "leave", json!({"code": 7, "stderr": "the database is gone"}));
    for (waiting, id) in [(&mut first, json!("x")), (&mut second, json!(5)), (&mut last, json!(6))] {
        let messages = waiting.response().messages();
        assert_eq!(messages.len(), 1, "{messages:?}");
        let error = &messages[0]["error"];
        assert_eq!((&messages[0]["id"], reason(&messages[0])), (&id, "child_ended"));
        assert!(error["message"].as_str().unwrap().contains("exited with code 7"), "{error}");
        assert_eq!(error["data"]["exitCode"], 7);
        assert!(
            !messages[0].to_string().contains("the database is gone"),
            "stderr is only for the log: {error}"
        );
    }
    assert_eq!(server.exit_code(), 7);
}

#[test]
fn a_killed_child_is_reported_with_its_signal() {
    let server = Server::start("--restart-limit 0");
    let answer = server.session().call("kill", json!({}));
    assert!(answer["error"]["message"].as_str().unwrap().contains("SIGKILL"), "{answer}");
    assert_eq!(server.exit_code(), 128 + 9);
}

#[test]
fn an_incomplete_last_line_is_not_a_response() {
    let server = Server::start("--restart-limit 0");
    let answer = server.session().call("half", json!({}));
    assert_eq!(reason(&answer), "child_ended");
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn a_child_that_closes_its_stdout_is_terminated() {
    let server = Server::start("--restart-limit 0 --close-grace 100ms --terminate-grace 100ms");
    let answer = server.session().call("close_stdout", json!({}));
    assert_eq!(reason(&answer), "child_closed_stdout");
    server.until_logged("the server closed its stdout and");
    server.exit_code();
}

#[test]
fn an_exclusive_childs_exit_ends_only_its_session() {
    let server = Server::start("");
    let shared = server.session();
    let (doomed, other) = (server.opening().exclusive().open(), server.opening().exclusive().open());
    let pid = doomed.result("facts", json!({}))["pid"].clone();
    assert_ne!(pid, other.result("facts", json!({}))["pid"]);
    let mut listening = doomed.listen();
    let answer = doomed.call("leave", json!({"code": 3}));
    assert_eq!((reason(&answer), &answer["error"]["data"]["exitCode"]), ("child_ended", &json!(3)));
    until("404", || doomed.post(tool_call(1, "facts", &json!({}))).status == 404);
    assert_eq!(listening.rest(), Vec::<Value>::new(), "the stream ends");
    for session in [&shared, &other] {
        assert!(session.result("facts", json!({}))["pid"].is_number());
    }
}

#[test]
fn an_unanswered_request_times_out_and_is_cancelled_at_the_child() {
    let server = Server::start("--request-timeout 300ms");
    let session = server.session();
    let answer = session.call("hang", json!({}));
    assert_eq!((reason(&answer), &answer["id"]), ("timed_out", &json!(1)));
    let read = session.child_read();
    let call = read.iter().find(|frame| frame["params"]["name"] == "hang").expect("the call");
    let cancelled =
        read.iter().find(|frame| frame["method"] == "notifications/cancelled").expect("the cancellation");
    assert_eq!(cancelled["params"]["requestId"], call["id"]);
    assert_eq!(server.metric("proxyrunner_timed_out_requests_total"), 1);
}

#[test]
fn a_late_response_is_dropped_and_frees_its_permit() {
    let server = Server::start("--request-timeout 300ms --max-in-flight 1");
    let session = server.session();
    for _ in 0..3 {
        assert_eq!(reason(&session.call("late", json!({}))), "timed_out");
        server.until_metric("proxyrunner_in_flight", 0);
    }
    assert_eq!(server.metric("proxyrunner_late_answers_total"), 3);
}

#[test]
fn an_unanswered_cancelled_call_frees_its_permit_after_cancel_grace() {
    let server = Server::start("--request-timeout 100ms --max-in-flight 1 --cancel-grace 1s");
    let session = server.session();
    assert_eq!(reason(&session.call("hang", json!({}))), "timed_out");
    server.until_metric("proxyrunner_in_flight", 0);
    assert_eq!(session.call("sleep", json!({"ms": 0}))["result"]["ms"], 0);
}

/// The child's stdout must be read even while the child reads nothing.
#[test]
fn a_child_that_stops_reading_stalls_only_its_callers() {
    let server = Server::start("--request-timeout 1s");
    let (stalled, other) = (server.opening().exclusive().open(), server.session());
    let until_file = scratch("reads-again");
    let mut listening = stalled.listen();
    stalled.result("stop_reading", json!({"until": until_file}));
    // The call exceeds the capacity of a pipe.
    let big = "x".repeat(300_000);
    let answers: Vec<_> =
        (0..3).map(|id| stalled.begin_call(id, "sleep", json!({"ms": 0, "big": big}))).collect();
    assert_eq!(listening.message()["method"], "notifications/tools/list_changed", "stdout is still read");
    assert_eq!(other.call("sleep", json!({"ms": 0}))["result"]["ms"], 0);
    for mut answer in answers {
        assert_eq!(reason(&answer.response().answer()), "timed_out");
    }
    // Notifications wait in the queue, too, and no longer than requests.
    let ignored = r#"{"jsonrpc":"2.0","method":"notifications/ignored"}"#;
    let told: Vec<_> = (0..300).map(|_| stalled.begin(ignored)).collect();
    let refused = told.into_iter().map(|mut told| told.response().status).filter(|status| *status == 503);
    assert!(refused.count() > 0);
    std::fs::write(&until_file, "").expect("a scratch file");
    until("the child works again", || stalled.call("sleep", json!({"ms": 0}))["result"]["ms"] == 0);
}

#[test]
fn a_program_that_cannot_be_started_is_reported() {
    let told = |program: &[&str]| {
        let (status, log) = Server::with().program(program).run();
        (status.code(), log)
    };
    let (code, log) = told(&["no-such-program-anywhere"]);
    assert_eq!(code, Some(127));
    assert!(log.contains("cannot start `no-such-program-anywhere`: no such program"), "{log}");
    let (code, log) = told(&["/etc/passwd"]);
    assert_eq!(code, Some(126));
    assert!(log.contains("permission denied"), "{log}");
}

#[test]
fn a_failed_handshake_is_reported() {
    let (status, log) = Server::with().child("--die 3").run();
    assert_eq!(status.code(), Some(3));
    assert!(log.contains("exited with code 3; last line of stderr: cannot go on"), "{log}");
    let (status, log) = Server::with().child("--refuse").run();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("not today"), "{log}");
    let (status, log) =
        Server::with().flags("--child-era legacy --start-timeout 300ms").child("--mute").run();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("did not answer initialize within 0.3 s (--start-timeout)"), "{log}");
}

#[test]
fn requests_wait_for_a_slow_start() {
    let gate = scratch("gate");
    let child = format!("--gate {}", gate.display());
    let server = Server::with().flags("--sse-commit-after 30s").child(&child).start();
    for (path, status) in [("/readyz", 503), ("/startupz", 503), ("/livez", 200)] {
        assert_eq!(server.request("GET", path, &[], b"").status, status, "{path}");
    }
    let mut early = server.connect();
    early.post(&[], server.opening().body());
    std::fs::write(&gate, "").expect("a scratch file");
    assert_eq!(early.response().answer()["result"]["serverInfo"]["name"], "scripted");
    assert_eq!(server.request("GET", "/readyz", &[], b"").status, 200);
}

#[test]
fn the_child_gets_only_the_configured_environment() {
    let facts = |flags: &str| {
        let server = Server::with()
            .flags(flags)
            .env("PROXYRUNNER_SESSION_IDLE", "5m")
            .env("FROM_OUTSIDE", "yes")
            .env("NOT_NAMED", "yes")
            .start();
        let session =
            server.opening().header("Authorization", "Bearer hunter2").header("Cookie", "c=hunter2").open();
        let env = session.result("facts", json!({}))["env"].clone();
        let read = session.result("recall", json!({}));
        assert!(!env.to_string().contains("hunter2") && !read.to_string().contains("hunter2"));
        assert!(!server.logged().contains("hunter2"));
        env
    };
    let inherited = facts("--env GIVEN=1 --log-level trace");
    assert_eq!((&inherited["FROM_OUTSIDE"], &inherited["GIVEN"]), (&json!("yes"), &json!("1")));
    assert_eq!(inherited["PROXYRUNNER_SESSION_IDLE"], Value::Null);
    let cleared = facts("--env-clear --env GIVEN=1 --env FROM_OUTSIDE");
    assert_eq!((&cleared["FROM_OUTSIDE"], &cleared["GIVEN"]), (&json!("yes"), &json!("1")));
    assert_eq!((&cleared["NOT_NAMED"], &cleared["HOME"]), (&Value::Null, &Value::Null));
}

/// A client that reads nothing must not block the child's other output.
#[test]
fn a_flood_of_notifications_does_not_stall_calls() {
    let server = Server::start("--sse-commit-after 0 --replay-events 16");
    let session = server.opening().exclusive().open();
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"progressToken":"t"},"name":"progress","arguments":{"n":20000}}}"#;
    let unread = session.begin(body);
    assert_eq!(session.call("sleep", json!({"ms": 0}))["result"]["ms"], 0);
    let mut events = unread.events();
    let messages = events.rest();
    let (answer, progress) = messages.split_last().expect("an answer");
    assert_eq!(answer["result"], json!({"n": 20000}), "the answer is never dropped");
    let steps: Vec<_> =
        progress.iter().map(|step| step["params"]["progress"].as_u64().expect("a number")).collect();
    assert!(steps.is_sorted(), "in order");
    assert_eq!(
        steps.len() as u64 + server.metric("proxyrunner_dropped_events_total"),
        20000,
        "dropped messages are counted"
    );
}

#[test]
fn a_child_that_closes_its_stdin_is_terminated_and_its_calls_fail() {
    let server = Server::start("--close-grace 300ms");
    let (session, other) = (server.opening().exclusive().open(), server.session());
    let mut first = session.begin_call(1, "hang", json!({}));
    server.until_metric("proxyrunner_in_flight", 1);
    let mut last = session.begin_call(2, "close_stdin", json!({}));
    server.until_metric("proxyrunner_in_flight", 2);
    server.until_logged("stdin is closed");
    // The child does not read this call.
    let mut lost = session.begin_call(3, "sleep", json!({"ms": 0}));
    for call in [&mut first, &mut last, &mut lost] {
        let answer = call.response().answer();
        assert!(matches!(reason(&answer), "child_ended" | "child_closed_stdin"), "{answer}");
    }
    server.until_logged("the server closed its stdin; stopping it");
    assert_eq!(other.call("sleep", json!({"ms": 0}))["result"]["ms"], 0);
}

#[test]
fn a_child_that_closes_its_stdin_is_replaced_before_the_next_call() {
    let server = Server::start("--close-grace 100ms --terminate-grace 100ms --restart-backoff 10ms");
    let session = server.session();
    let first = session.result("facts", json!({}))["pid"].clone();
    // The child does not answer this call, so nothing is written after it.
    let mut call = session.begin_call(1, "close_stdin", json!({}));
    server.until_logged("the server closed its stdin; stopping it");
    server.until_logged("the restarted server is serving");
    assert_eq!(reason(&call.response().answer()), "child_ended");
    assert_ne!(session.result("facts", json!({}))["pid"], first);
}

#[test]
fn a_childs_stderr_cannot_forge_log_lines() {
    let forged =
        "printf 'real\\r2026-01-01 ERROR forged\\000 \\342\\200\\256 \\302\\233\\033[31m\\n' >&2; exit 3";
    for format in ["text", "json"] {
        let flags = format!("--log-format {format} --restart-limit 0 --child-era legacy");
        let (_, log) = Server::with().flags(&flags).program(&["sh", "-c", forged]).run();
        assert!(log.contains("real\\r2026-01-01 ERROR forged"), "the line is logged, escaped: {log}");
        assert!(!log.contains(|c: char| c != '\n' && (c.is_control() || c == '\u{202e}')), "{log:?}");
        assert!(log.contains("x1b[31m") || log.contains("u001b[31m"), "{log}");
    }
}

#[test]
fn log_lines_dropped_for_a_slow_reader_are_counted() {
    let (flooded, told) = (scratch("flooded"), scratch("told"));
    let until = |file: &std::path::Path| {
        format!("n=0; while [ ! -e {} ] && [ $n -lt 400 ]; do sleep 0.05; n=$((n+1)); done", file.display())
    };
    let flood = format!("seq 1 100000 >&2; touch {}; {}; exit 3", flooded.display(), until(&told));
    let copy = "import sys\nfor line in sys.stdin.buffer:\n    sys.stderr.buffer.write(line)\n    \
                if b'were lost' in line: open(sys.argv[1], 'w')";
    // The reader of the log starts after the flood.
    let read = format!("\"$@\" 2>&1 | {{ {}; python3 -c \"{copy}\" {}; }}", until(&flooded), told.display());
    let flags = "--child-log-rate 0 --restart-limit 0 --child-era legacy";
    let start = Server::with().flags(flags).under(&["sh", "-c", &read, "sh"]).program(&["sh", "-c", &flood]);
    let (_, log) = start.run();
    let totals = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| {
            line["fields"]["message"].as_str().is_some_and(|message| message.contains("lost log lines"))
        })
        .filter_map(|line| line["fields"]["total"].as_u64());
    let lost = totals.max().unwrap_or_else(|| panic!("{} lines", log.lines().count()));
    let arrived = log.lines().filter(|line| line.contains("\"stream\":\"stderr\"")).count() as u64;
    assert!((100_000..101_000).contains(&(lost + arrived)), "{lost} lost and {arrived} arrived");
}
