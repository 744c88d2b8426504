//! Rate limits (`--rate-limits`, `--rate-limit-address`) and calls at the same time (`--max-calls-per-principal`).

use crate::support::{Journal, Server, scratch, tool_call};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

fn file(limits: &Value) -> PathBuf {
    let path = scratch("limits");
    fs::write(&path, limits.to_string()).expect("a file");
    path
}

fn started(limits: &Value, flags: &str) -> Server {
    Server::start(&format!("--rate-limits {} {flags}", file(limits).display()))
}

fn bucket(tokens: u64) -> Value {
    json!({"maxTokens": tokens, "refillPeriod": "1h0m0s"})
}

#[test]
fn a_call_beyond_its_limit_gets_429_and_the_time_to_wait() {
    let limits = json!({"rateLimiting": {
        "shared": bucket(60),
        "tools": [{"name": "echo", "shared": bucket(1)}],
    }});
    let journal = Journal::new();
    let path = file(&limits);
    let server =
        Server::with().flags(&format!("--rate-limits {}", path.display())).child(&journal.flag()).start();
    let session = server.session();
    assert_eq!(session.post(tool_call(1, "echo", &json!({}))).status, 200);
    let refused = session.post(tool_call("b", "echo", &json!({})));
    assert_eq!(refused.status, 429);
    assert_eq!(
        refused.json(),
        json!({
            "jsonrpc": "2.0",
            "id": "b",
            "error": {"code": 429, "message": "Rate limit exceeded", "data": {"retryAfterSeconds": 3600}},
        })
    );
    assert_eq!(refused.header("retry-after"), Some("3600"));
    assert_eq!(refused.header("ratelimit"), Some("\"tool-shared\";r=0;t=3600"));
    let policy = "\"shared\";q=60;w=3600, \"tool-shared\";q=1;w=3600";
    assert_eq!(refused.header("ratelimit-policy"), Some(policy));
    assert_eq!(journal.runs("echo"), 1, "the server does not see it");
    session.result("facts", json!({}));
    session.ask("tools/list", json!({}));
    let refused = server.modern().call("echo", json!({}));
    assert_eq!((refused.status, refused.code()), (429, 429));
}

#[test]
fn each_principal_has_its_own_tokens() {
    let server = started(&json!({"perUser": bucket(1)}), "--principal-header x-user");
    let called: Vec<_> = ["alice", "alice", "bob"]
        .iter()
        .map(|user| server.modern().of(user).call("echo", json!({})).status)
        .collect();
    assert_eq!(called, [200, 429, 200]);
}

#[test]
fn an_address_is_limited_before_anything_else() {
    let server = Server::start("--rate-limit-address 3/1h --principal-header x-user");
    let statuses: Vec<_> = (0..4).map(|_| server.request("GET", "/mcp", &[], b"").status).collect();
    assert_eq!(statuses, [400, 400, 400, 429], "nobody is named");
    assert_eq!(server.request("GET", "/livez", &[], b"").status / 100, 2, "probes are not limited");
}

#[test]
fn a_caller_has_so_many_calls_at_the_same_time() {
    let server = Server::start("--max-calls-per-principal 1 --principal-header x-user");
    let alice = server.opening().header("x-user", "alice").open();
    let bob = server.opening().header("x-user", "bob").open();
    let mut waiting = alice.begin_call(1, "wait", json!({"name": "a"}));
    assert!(bob.call("echo", json!({}))["result"].is_object());
    let mut refused = alice.post(tool_call(2, "echo", &json!({})));
    while refused.status == 200 {
        // The first call may not have arrived.
        refused = alice.post(tool_call(2, "echo", &json!({})));
    }
    assert_eq!((refused.status, refused.header("ratelimit")), (429, Some("\"calls\";r=0;t=1")));
    bob.call("release", json!({"name": "a"}));
    assert_eq!(waiting.response().status, 200);
    assert!(alice.call("echo", json!({}))["result"].is_object(), "its place is free again");
}

#[test]
fn a_batch_is_limited_call_by_call() {
    let server = started(&json!({"shared": bucket(1)}), "");
    let session = server.opening().version("2025-03-26").open();
    let batch = format!("[{},{}]", tool_call(1, "echo", &json!({})), tool_call(2, "echo", &json!({})));
    let answers = session.post(batch).json();
    let codes: Vec<_> =
        answers.as_array().expect("a batch").iter().map(|answer| &answer["error"]["code"]).collect();
    assert_eq!(codes.iter().filter(|code| **code == &json!(429)).count(), 1, "{answers}");
}

#[test]
fn a_bad_file_is_refused_at_start_with_its_line() {
    let path = file(&json!({"shard": 1}));
    let (status, logged) = Server::with().flags(&format!("--rate-limits {}", path.display())).run();
    assert_eq!(status.code(), Some(64));
    assert!(logged.contains("line 1: \"shard\" is not a limit"), "{logged}");
    let (status, logged) = Server::with().flags("--rate-limit-address 600").run();
    assert_eq!(status.code(), Some(64));
    assert!(logged.contains("600/1m"), "{logged}");
}

#[test]
fn a_refusal_is_audited_and_counted() {
    let log = scratch("audit-of-limits");
    let server = started(&json!({"shared": bucket(1)}), &format!("--audit {}", log.display()));
    let session = server.session();
    session.call("echo", json!({}));
    assert_eq!(session.post(tool_call(2, "echo", &json!({}))).status, 429);
    crate::support::until("the refusal is in the log", || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.contains("\"jsonrpc_error_code\":429") && text.contains("\"http_status\":429")
    });
    let metrics = server.request("GET", "/metrics", &[], b"").text();
    let line = "proxyrunner_rate_limit_decisions_total{limit=\"shared\",result=\"refused\"} 1";
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn a_call_is_limited_however_it_is_spelled() {
    let journal = Journal::new();
    let path = file(&json!({"tools": [{"name": "echo", "shared": bucket(1)}]}));
    let server =
        Server::with().flags(&format!("--rate-limits {}", path.display())).child(&journal.flag()).start();
    let session = server.session();
    for body in [
        r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"echo"}}"#,
        r#"{"jsonrpc":"2.0","ID":1,"method":"notifications/x","Method":"tools/call","params":{"name":"echo"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"facts","Name":"echo"}}"#,
    ] {
        let refused = session.post(body);
        assert_eq!((refused.status, refused.code()), (400, -32600), "{body}");
    }
    assert_eq!(journal.runs("echo") + journal.runs("facts"), 0, "the server sees none of them");
}
