//! Servers as they are: what they do badly on stdout, in ids, in errors and in the handshake, and who still is served.

mod support;

use serde_json::{Value, json};
use support::{Server, Session, Start, scratch};

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
        assert_eq!(times(&server.logged(), told), 2, "once for each child");
    }
}

#[test]
fn an_oversized_answer_with_the_id_as_a_string_fails_its_request() {
    let server = with("--ids float").flags("--max-frame 2000").start();
    let session = server.session();
    let long = "x".repeat(3000);
    for id in ["\"$ID\"", "$ID.0"] {
        let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":\"{long}\"}}");
        // Shorter than a request may be, longer than an answer.
        assert_eq!(reason(&say(&session, &[&line], false)), "answer_too_large", "{id}");
    }
}

// ---- members

#[test]
fn a_server_that_writes_every_member_of_a_message_is_served_and_its_clients_see_none_of_them() {
    let server = with("--nulls").start();
    for session in [server.session(), server.opening().exclusive().open()] {
        let answer = session.call("say", json!({}));
        assert!(answer["result"]["pid"].is_number(), "{answer}");
        let members: Vec<_> = answer.as_object().expect("an object").keys().collect();
        assert_eq!(members, ["id", "jsonrpc", "result"]);
        let refused = session.ask("server/discover", json!({}));
        assert_eq!(refused["error"]["code"], -32601, "{refused}");
        assert!(refused.get("result").is_none(), "{refused}");
        let call = json!({"jsonrpc": "2.0", "id": 5, "method": "tools/call",
            "params": {"name": "say", "arguments": {"progress": 1}, "_meta": {"progressToken": 7}}});
        let heard = session.begin(call.to_string()).response().messages();
        assert_eq!(heard[0]["params"], json!({"progressToken": 7, "progress": 1}), "{heard:?}");
    }
    assert_eq!(times(&server.logged(), "members that are null"), 2, "once for each child");
}

// ---- log lines

#[test]
fn a_log_line_with_the_id_of_a_request_fails_nobody() {
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
        // Its error to the first notification is written once the call waits.
        let session = server.opening().exclusive().open();
        let mut call = session.begin_call(1, "say", json!({}));
        server.until_metric("proxyrunner_in_flight", 1);
        std::fs::write(&gate, "").expect("a scratch file");
        let answer = call.response().answer();
        assert!(answer["result"]["pid"].is_number(), "{code}{id}: {answer}");
        session.tell(json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}));
        assert!(session.result("say", json!({}))["pid"].is_number());
        server.until_metric("proxyrunner_unknown_answers_total", 3);
        assert_eq!(
            times(&server.logged(), "probably the answer to a notification"),
            2,
            "once for each child"
        );
    }
}

#[test]
fn a_cancellation_that_is_answered_with_an_error_fails_no_other_call() {
    for code in [-32601, -32600, -32700] {
        let server = with(&format!("--answer-notifications {code}")).start();
        let (one, other) = (server.session(), server.session());
        let mut given_up = one.begin_call(1, "say", json!({"answer": false}));
        server.until_metric("proxyrunner_in_flight", 1);
        one.tell(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}));
        assert_eq!(reason(&given_up.response().answer()), "cancelled");
        for _ in 0..3 {
            assert!(other.result("say", json!({}))["pid"].is_number(), "{code}");
        }
    }
}

#[test]
fn an_error_without_an_id_fails_the_only_request_by_two_codes_only() {
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
fn a_flood_of_lines_that_are_no_messages_is_logged_in_part_and_the_rest_is_counted() {
    let server = with("--flood 20000").start();
    assert!(server.session().result("say", json!({}))["pid"].is_number());
    server.until_metric("proxyrunner_malformed_frames_total", 20_000);
    let left_out = || server.metric("proxyrunner_left_out_log_lines_total");
    support::until("all are logged or counted", || {
        times(&server.logged(), "no JSON-RPC message") as u64 + left_out() == 20_000
    });
    assert!(left_out() > 10_000, "{}", left_out());
    let told = server.until_logged("more lines than --child-log-rate");
    assert!(told.contains("\"stream\":\"stdout\""), "{told}");
}
