//! Deviations of real servers on stdout, in ids, in errors and in the handshake: their clients are served nevertheless.

use crate::support::{Journal, Server, Session, Start, scratch};
use serde_json::{Value, json};

fn with(flags: &str) -> Start {
    let child = format!("{}/tests/children/habits.py", env!("CARGO_MANIFEST_DIR"));
    Server::with().program(&["python3", &child]).child(flags)
}

fn say(session: &Session<'_>, lines: &[&str], answer: bool) -> Value {
    session.call("say", json!({"lines": lines, "answer": answer}))
}

fn reason(answer: &Value) -> &str {
    answer["error"]["data"]["reason"].as_str().unwrap_or_default()
}

/// Waits until a deviation is logged once for each of two children.
fn until_told_twice(server: &Server, text: &str) {
    crate::support::until(text, || times(&server.logged(), text) == 2);
}

fn times(log: &str, text: &str) -> usize {
    log.lines().filter(|line| line.contains(text)).count()
}

// ---- ids

#[test]
fn a_server_that_returns_ids_as_strings_or_floats_is_served() {
    for (ids, told) in
        [("string", "integer ids as strings"), ("float", "integer ids as floating-point numbers")]
    {
        let server = with(&format!("--ids {ids}")).start();
        for session in [server.session(), server.opening().exclusive().open()] {
            assert!(session.result("say", json!({}))["pid"].is_number());
            let call = json!({"jsonrpc": "2.0", "id": "a", "method": "tools/call",
                "params": {"name": "say", "arguments": {"progress": 1}, "_meta": {"progressToken": "t"}}});
            let heard = session.begin(call.to_string()).response().messages();
            assert_eq!(heard[0]["params"]["progressToken"], "t", "{heard:?}");
            assert_eq!(heard[1]["id"], "a");
        }
        assert_eq!(server.metric("proxyrunner_unknown_answers_total"), 0);
        until_told_twice(&server, told);
    }
}

#[test]
fn an_oversized_response_with_a_string_id_fails_its_request() {
    let server = with("--ids float").flags("--max-frame 2000").start();
    let session = server.session();
    let long = "x".repeat(3000);
    for id in ["\"$ID\"", "$ID.0"] {
        let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":\"{long}\"}}");
        // The line is longer than `--max-frame`, but the request that contains it is not.
        assert_eq!(reason(&say(&session, &[&line], false)), "answer_too_large", "{id}");
    }
}

// ---- members

#[test]
fn null_members_from_a_server_are_removed() {
    let server = with("--nulls").start();
    for session in [server.session(), server.opening().exclusive().open()] {
        let answer = session.call("say", json!({}));
        assert!(answer["result"]["pid"].is_number(), "{answer}");
        let mut members: Vec<_> = answer.as_object().expect("an object").keys().collect();
        members.sort();
        assert_eq!(members, ["id", "jsonrpc", "result"]);
        let refused = session.ask("server/discover", json!({}));
        assert_eq!(refused["error"]["code"], -32601, "{refused}");
        assert!(refused.get("result").is_none(), "{refused}");
        let call = json!({"jsonrpc": "2.0", "id": 5, "method": "tools/call",
            "params": {"name": "say", "arguments": {"progress": 1}, "_meta": {"progressToken": 7}}});
        let heard = session.begin(call.to_string()).response().messages();
        assert_eq!(heard[0]["params"], json!({"progressToken": 7, "progress": 1}), "{heard:?}");
    }
    until_told_twice(&server, "members that are null");
}

#[test]
fn invalid_error_objects_are_replaced_by_valid_ones() {
    let server = with("").start();
    let session = server.session();
    for error in [
        r#""no such tool""#,
        "{}",
        r#"{"code":-1}"#,
        r#"{"message":"x"}"#,
        r#"{"code":"-1","message":"x"}"#,
        "7",
    ] {
        let line = format!(r#"{{"jsonrpc":"2.0","id":$ID,"error":{error}}}"#);
        let answer = say(&session, &[&line], false);
        assert_eq!(reason(&answer), "answer_malformed", "{error}");
        assert!(
            answer["error"]["message"].as_str().is_some_and(|text| text.contains("numeric code")),
            "{answer}"
        );
    }
    let kept =
        say(&session, &[r#"{"jsonrpc":"2.0","id":$ID,"error":{"code":-5,"message":"x","data":1}}"#], false);
    assert_eq!(kept["error"], json!({"code": -5, "message": "x", "data": 1}));
}

#[test]
fn a_message_after_escape_sequences_is_read() {
    let server = with("").start();
    let session = server.session();
    let line = "\u{1b}[?1034h\u{1b}]0;title\u{7}{\"jsonrpc\":\"2.0\",\"id\":$ID,\"result\":{\"a\":1}}";
    assert_eq!(say(&session, &[line], false)["result"], json!({"a": 1}));
    server.until_logged("terminal escape sequences");
}

#[test]
fn a_batch_from_a_server_is_split() {
    let server = with("").start();
    let session = server.session();
    let note = r#"{"jsonrpc":"2.0","method":"notifications/x"}"#;
    let (short, long) = (r#"{"a":1}"#.to_owned(), format!(r#"{{"a":"{}"}}"#, "x".repeat(100_000)));
    for result in [short, long] {
        let line = format!("[{note}, 7,{{\"jsonrpc\":\"2.0\",\"id\":$ID,\"result\":{result}}} ]");
        let expected: Value = serde_json::from_str(&result).expect("JSON");
        assert_eq!(say(&session, &[&line], false)["result"], expected);
    }
    server.until_logged("writes batches");
    assert_eq!(server.metric("proxyrunner_malformed_frames_total"), 2, "the numbers are not messages");
    let answer = say(&session, &["[]", "[[]]", "[1,", r#"{"jsonrpc":"2.0","id":$ID,"result":{}}"#], false);
    assert_eq!(answer["result"], json!({}));
}

// ---- log lines

#[test]
fn a_log_line_with_a_request_id_fails_no_request() {
    let server = with("").flags("--max-frame 4000").child("--first-line {\"id\":1,\"level\":30}").start();
    let session = server.session();
    let long = format!("{{\"level\":30,\"id\":$ID,\"msg\":\"{}\"}}", "x".repeat(5000));
    for line in [
        r#"{"level":30,"id":$ID,"msg":"x"}"#,
        r#"{"level":50,"error":"refused","id":$ID}"#,
        r#"{"level":30,"id":$ID,"method":"GET","url":"/"}"#,
        r#"{"jsonrpc":"2.0","id":$ID}"#,
        r#"{"level":30,"id":$ID.0,"error":null,"msg":"x"}"#,
        r#"{"level":30,"id":$ID,"msg":"#,
        &long,
    ] {
        let lines = json!({"lines": [line]});
        assert!(session.call("say", lines)["result"]["pid"].is_number(), "{line}");
    }
    server.until_logged("{\\\\\\\"id\\\\\\\":1");
}

// ---- errors without an id

#[test]
fn an_error_that_answers_a_notification_fails_no_request() {
    for (code, id) in
        [(-32601, ""), (-32601, " --id-member"), (-32600, " --id-member"), (-32700, ""), (-32603, "")]
    {
        let gate = scratch("gate");
        let child = format!("--answer-notifications {code}{id} --hold {}", gate.display());
        let server = with(&child).start();
        // The child writes its error for the first notification once the call waits.
        let session = server.opening().exclusive().open();
        let mut call = session.begin_call(1, "say", json!({}));
        server.until_metric("proxyrunner_in_flight", 1);
        std::fs::write(&gate, "").expect("a scratch file");
        let answer = call.response().answer();
        assert!(answer["result"]["pid"].is_number(), "{code}{id}: {answer}");
        session.tell(json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}));
        assert!(session.result("say", json!({}))["pid"].is_number());
        server.until_metric("proxyrunner_unknown_answers_total", 3);
        until_told_twice(&server, "probably the answer to a notification");
    }
}

#[test]
fn an_error_in_response_to_a_cancellation_fails_no_other_call() {
    for code in [-32601, -32600, -32700] {
        let gate = scratch("gate");
        std::fs::write(&gate, "").expect("a scratch file");
        let child = format!("--answer-notifications {code} --hold {}", gate.display());
        let server = with(&child).flags("--cancel-grace 1s").start();
        let (one, other) = (server.session(), server.session());
        assert!(other.result("say", json!({}))["pid"].is_number());
        std::fs::remove_file(&gate).expect("a scratch file");
        let mut given_up = one.begin_call(1, "say", json!({"answer": false}));
        server.until_metric("proxyrunner_in_flight", 1);
        one.tell(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}));
        assert_eq!(reason(&given_up.response().answer()), "cancelled");
        server.until_metric("proxyrunner_in_flight", 0);
        // The other call is the only one in flight when the child answers the cancellation.
        let mut call = other.begin_call(2, "say", json!({}));
        server.until_metric("proxyrunner_in_flight", 1);
        std::fs::write(&gate, "").expect("a scratch file");
        let answer = call.response().answer();
        assert!(answer["result"]["pid"].is_number(), "{code}: {answer}");
    }
}

#[test]
fn only_two_error_codes_without_an_id_fail_the_only_request() {
    let server = with("").start();
    let session = server.session();
    let error = |code: i64| {
        format!("{{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{{\"code\":{code},\"message\":\"?\"}}}}")
    };
    assert_eq!(reason(&say(&session, &[&error(-32700)], false)), "answer_malformed");
    for code in [-32601, -32602, -32603, -32000, 1] {
        assert!(say(&session, &[&error(code)], true)["result"]["pid"].is_number(), "{code}");
    }
    assert_eq!(server.metric("proxyrunner_unknown_answers_total"), 5);
}

// ---- floods

#[test]
fn floods_of_invalid_lines_are_logged_in_part_and_counted() {
    let server = with("--flood 20000").start();
    assert!(server.session().result("say", json!({}))["pid"].is_number());
    server.until_metric("proxyrunner_malformed_frames_total", 20_000);
    let left_out = || server.metric("proxyrunner_left_out_log_lines_total");
    crate::support::until("all are logged or counted", || {
        times(&server.logged(), "not a JSON-RPC message") as u64 + left_out() == 20_000
    });
    assert!(left_out() > 10_000, "{}", left_out());
    let told = server.until_logged("more lines than --child-log-rate");
    assert!(told.contains("\"source\":\"stdout\""), "{told}");
}

// ---- revisions

#[test]
fn a_refused_revision_is_replaced_by_a_supported_one() {
    for (flags, revision) in [
        ("", "2025-06-18"),
        ("", "2024-11-05"),
        ("--terse", "2025-03-26"),
        ("--exit-over-revision", "2025-06-18"),
        ("--exit-over-revision", "2024-11-05"),
        ("--exit-after-refusal", "2025-03-26"),
    ] {
        let server = with(&format!("{flags} --only {revision}")).start();
        for opening in [server.opening(), server.opening().exclusive()] {
            let session = opening.open();
            assert_eq!(session.welcome["result"]["protocolVersion"], revision, "{flags}");
            assert!(session.result("say", json!({}))["pid"].is_number());
        }
        server.until_logged("; asking for ");
    }
}

#[test]
fn an_exit_before_initialize_is_read_is_not_retried_with_older_revisions() {
    let (status, log) = with("--lock /proc/none").flags("--restart-limit 0").run();
    assert_eq!(status.code(), Some(1));
    assert_eq!(times(&log, "server started"), 1 + 1, "once for each era");
    assert_eq!(times(&log, "; asking for "), 0);
}

#[test]
fn a_server_that_exits_on_every_revision_is_tried_once_with_each() {
    let (status, log) = with("--exit-over-revision --only 1999-01-01").flags("--restart-limit 1").run();
    assert_eq!(status.code(), Some(4));
    assert_eq!(times(&log, "; asking for "), 3, "the second start tries no other revision");
}

// ---- servers that run once

#[test]
fn clients_share_a_server_that_can_run_only_once() {
    for how in ["", "--exit-after-refusal"] {
        let lock = scratch("lock");
        let server = with(&format!("{how} --lock {}", lock.display())).start();
        let shared = server.session().result("say", json!({}))["pid"].clone();
        for _ in 0..3 {
            let session = server.opening().exclusive().open();
            assert_eq!(session.result("say", json!({}))["pid"], shared);
        }
        assert_eq!(server.metric("proxyrunner_shared_at_cap_total"), 3);
        assert_eq!(server.metric("proxyrunner_started_children_total"), 2, "not tried again");
        let told = server.until_logged("--max-children 1");
        assert!(told.contains("another instance is running"), "{told}");
        assert_eq!(times(&server.logged(), "--max-children 1"), 1);
    }
}

#[test]
fn a_modern_client_shares_a_server_that_can_run_only_once() {
    let lock = scratch("lock");
    let server = with(&format!("--lock {}", lock.display())).start();
    let asked = server.modern().capabilities(json!({"elicitation": {"form": {}}}));
    for _ in 0..2 {
        assert!(asked.result("say", json!({}))["pid"].is_number());
    }
    assert_eq!(server.metric("proxyrunner_started_children_total"), 2, "not tried again");
}

#[test]
fn at_cap_refuse_explains_that_the_server_runs_only_once() {
    let lock = scratch("lock");
    let server = with(&format!("--lock {}", lock.display())).flags("--at-cap refuse").start();
    for _ in 0..2 {
        let refused = server.opening().exclusive().send();
        assert_eq!(refused.status, 503);
        assert!(refused.text().contains("exits when started a second time"), "{}", refused.text());
    }
    assert!(server.session().result("say", json!({}))["pid"].is_number());
}

// ---- notifications/initialized

#[test]
fn requests_wait_for_notifications_initialized() {
    let journal = Journal::new();
    let server = with("--strict").child(&journal.flag()).start();
    for _ in 0..20 {
        let (id, version) = open_without_end(&server);
        let headers = [("mcp-session-id", &*id), ("mcp-protocol-version", &*version)];
        let mut call = server.connect();
        call.post(&headers, crate::support::tool_call(1, "say", &json!({})));
        let told = server.post(&headers, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        assert_eq!(told.status, 202);
        assert_eq!(call.response().answer()["result"]["initialized"], true);
        let deleted = server.request("DELETE", "/mcp", &headers, b"");
        assert!(deleted.status < 300, "{}", deleted.status);
    }
    let frames = journal.frames();
    let sent = frames.iter().filter(|read| read.message["method"] == "notifications/initialized").count();
    assert_eq!(sent, 1 + 20, "once for each child");
}

#[test]
fn a_missing_or_late_initialized_notification_is_sent_once() {
    let journal = Journal::new();
    let server = with("--strict").child(&journal.flag()).start();
    let (id, version) = open_without_end(&server);
    let headers = [("mcp-session-id", &*id), ("mcp-protocol-version", &*version)];
    let answer = server.post(&headers, crate::support::tool_call(1, "say", &json!({}))).answer();
    assert_eq!(answer["result"]["initialized"], true, "{answer}");
    server.until_logged("did not send notifications/initialized");
    assert_eq!(
        server.post(&headers, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).status,
        202
    );
    assert!(
        server.post(&headers, crate::support::tool_call(2, "say", &json!({}))).answer()["result"].is_object()
    );
    let frames = journal.frames();
    let sent = frames.iter().filter(|read| read.message["method"] == "notifications/initialized").count();
    assert_eq!(sent, 1 + 1, "the shared child and the session's own");
}

/// Opens a session with an exclusive child, without sending `notifications/initialized`.
fn open_without_end(server: &Server) -> (String, String) {
    let welcome = server.opening().exclusive().send();
    let version = welcome.answer()["result"]["protocolVersion"].as_str().expect("a version").to_owned();
    (welcome.header("mcp-session-id").expect("a session").to_owned(), version)
}

// ---- hints

/// Returns the log of a start that fails.
fn failed_start(start: Start) -> String {
    let (status, log) = start.flags("--start-timeout 2s --probe-timeout 100ms").run();
    assert_eq!(status.code(), Some(1), "{log}");
    log
}

#[test]
fn a_failed_start_is_explained_from_the_childs_stdout() {
    let silent = failed_start(Server::with().program(&["sleep", "600"]));
    assert!(
        silent.contains(
            "did not answer initialize within 2 s (--start-timeout): it wrote no whole line to stdout"
        ),
        "{silent}"
    );
    assert!(silent.contains("PYTHONUNBUFFERED=1") && silent.contains("--child-era legacy"), "{silent}");
    let text = failed_start(Server::with().program(&["sh", "-c", "echo Ready.; echo Go on.; sleep 600"]));
    assert!(text.contains("it wrote 2 lines to stdout that are not messages, the first: Ready."), "{text}");
    let headers = failed_start(with("--headers"));
    assert!(
        headers.contains("it writes Content-Length headers; MCP on stdio is one JSON message per line"),
        "{headers}"
    );
    let lines = failed_start(with("--indent"));
    assert!(lines.contains("it spreads a message over several lines"), "{lines}");
    let modern = failed_start(Server::with().flags("--child-era modern").program(&["sleep", "600"]));
    assert!(modern.contains("did not answer server/discover within 2 s"), "{modern}");
}

/// Regression: the client got an error that the server was being restarted.
#[test]
fn waiting_clients_get_the_reason_for_a_failed_start() {
    let go_on = scratch("go-on");
    let habits = format!("{}/tests/children/habits.py", env!("CARGO_MANIFEST_DIR"));
    let script =
        format!("while [ ! -e '{}' ]; do sleep 0.05; done; exec python3 '{habits}' --nan", go_on.display());
    let server = Server::with().program(&["sh", "-c", &script]).start();
    let opening = server.opening();
    let mut waits = server.connect();
    waits.request("POST", "/mcp", &crate::support::Connection::post_headers(&[]), opening.body().as_bytes());
    crate::support::until("the request waits", || server.metric("proxyrunner_buffered_bytes") > 0);
    std::fs::write(&go_on, "").expect("a scratch file");
    let answer = waits.response().answer();
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("the handshake failed at initialize"), "{answer}");
    assert_eq!(reason(&answer), "child_not_started", "{answer}");
}

#[test]
fn an_echoing_program_is_not_reported_as_a_refusal() {
    for era in ["auto", "legacy", "modern"] {
        let log = failed_start(Server::with().flags(&format!("--child-era {era}")).program(&["cat"]));
        assert!(log.contains("the server does not respond: it writes its input back"), "{log}");
        assert!(!log.contains("refused"), "{log}");
    }
}

#[test]
fn an_invalid_or_missing_response_is_not_reported_as_a_refusal() {
    let quiet = failed_start(with("--refuse-discover"));
    assert!(quiet.contains("did not answer initialize within 2 s (--start-timeout)"), "{quiet}");
    assert!(!quiet.contains("refused"), "{quiet}");
    let log = failed_start(with("--nan"));
    assert!(
        log.contains("the handshake failed at initialize: the server's answer is not a JSON-RPC message"),
        "{log}"
    );
    assert!(!log.contains("refused"), "{log}");
}

#[test]
fn a_program_that_cannot_be_started_is_logged_once() {
    let (status, log) = Server::with().program(&["no-such-program-anywhere"]).run();
    assert_eq!(status.code(), Some(127));
    assert_eq!(times(&log, "cannot start `no-such-program-anywhere`"), 1, "{log}");
}

#[test]
fn an_execute_only_binary_can_start_servers() {
    use std::os::unix::fs::PermissionsExt;
    let copy = std::env::temp_dir().join(scratch("execute-only").file_name().expect("a name"));
    std::fs::copy(env!("CARGO_BIN_EXE_proxyrunner"), &copy).expect("a copy");
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o111)).expect("permissions");
    // Root may read any file, so the test changes the user.
    let drop_root = "import os, sys; os.getuid() or (os.setgroups([]), os.setgid(65534), os.setuid(65534)); \
                     os.chdir('/'); os.execv(sys.argv[1], [sys.argv[1]] + sys.argv[3:])";
    let under = ["python3", "-c", drop_root, copy.to_str().expect("UTF-8")];
    let (_, log) = Server::with().under(&under).program(&["cat"]).run();
    std::fs::remove_file(&copy).expect("a scratch file");
    assert!(log.contains("server started"), "{log}");
    assert!(log.contains("it writes its input back"), "{log}");
}
