//! The HTTP+SSE transport of 2024-11-05: one stream per session, and a separate endpoint for posted messages.

use crate::support::{Events, Response, Server, tool_call, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Opens the stream; returns it and the path for posts.
fn open(server: &Server, headers: &[(&str, &str)]) -> (Events, String) {
    let mut connection = server.connect();
    connection.request("GET", "/sse", &[&[("Accept", "text/event-stream")], headers].concat(), b"");
    let mut events = connection.events();
    let first = events.next().expect("an event");
    assert_eq!(first.name.as_deref(), Some("endpoint"));
    // Clients resolve the reference relative to the path of the stream.
    (events, format!("/{}", first.data))
}

fn post(server: &Server, path: &str, body: impl AsRef<[u8]>) -> Response {
    server.request("POST", path, &[("Content-Type", "application/json")], body.as_ref())
}

/// Opens a session and completes its handshake.
fn initialized(server: &Server, version: &str, capabilities: Value) -> (Events, String) {
    let (mut events, path) = open(server, &[]);
    let opening = server.opening().version(version).capabilities(capabilities);
    assert_eq!(post(server, &path, opening.body()).status, 202);
    let welcome = events.next_event();
    assert_eq!(welcome.name.as_deref(), Some("message"));
    assert_eq!(
        (&welcome.json()["id"], &welcome.json()["result"]["protocolVersion"]),
        (&json!(0), &json!(version))
    );
    assert_eq!(post(server, &path, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).status, 202);
    (events, path)
}

#[test]
fn http_sse_is_disabled_by_default() {
    let server = Server::start("");
    assert_eq!(server.request("GET", "/sse", &[("Accept", "text/event-stream")], b"").status, 404);
    assert_eq!(server.request("POST", "/messages", &[], b"").status, 404);
}

#[test]
fn responses_arrive_on_the_stream() {
    let server = Server::start("--sse");
    let (mut events, path) = initialized(&server, "2024-11-05", json!({}));
    for (id, tool) in [(json!("a"), "sleep"), (json!(7), "sleep")] {
        let accepted = post(&server, &path, tool_call(id.clone(), tool, &json!({"ms": 0})));
        assert_eq!((accepted.status, accepted.text().as_str()), (202, ""));
        let answer = events.message();
        assert_eq!((&answer["id"], &answer["result"]["ms"]), (&id, &json!(0)));
    }
    post(&server, &path, r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#);
    assert_eq!(events.message(), json!({"jsonrpc": "2.0", "id": "p", "result": {}}));
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"progressToken":"t"},"name":"progress","arguments":{"n":1}}}"#;
    post(&server, &path, call);
    assert_eq!(events.message()["params"]["progressToken"], "t");
    assert_eq!(events.message()["result"], json!({"n": 1}));
}

#[test]
fn questions_arrive_on_the_stream_and_answers_are_posted() {
    let server = Server::start("--sse");
    let (mut events, path) = initialized(&server, "2024-11-05", json!({"sampling": {}}));
    post(&server, &path, tool_call(1, "ask", &json!({"method": "sampling/createMessage"})));
    let question = events.message();
    assert_eq!(question["method"], "sampling/createMessage");
    post(&server, &path, json!({"jsonrpc": "2.0", "id": question["id"], "result": {"x": 1}}).to_string());
    assert_eq!(events.message()["result"]["answers"][0]["result"], json!({"x": 1}));
}

#[test]
fn a_disconnect_during_the_handshake_ends_the_child() {
    let server = Server::with().flags("--sse --child-era legacy").child("--mute").start();
    let (events, path) = open(&server, &[]);
    assert_eq!(post(&server, &path, server.opening().exclusive().body()).status, 202);
    server.until_metric("proxyrunner_children", 2);
    events.cut();
    server.until_metric("proxyrunner_children", 1);
}

#[test]
fn a_post_without_a_session_is_refused() {
    let server = Server::start("--sse --principal-header X-User");
    let (_events, path) = open(&server, &[("X-User", "ann")]);
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for (query, status) in [("", 400), ("?sessionId=", 404), ("?sessionId=x", 404)] {
        let headers = [("Content-Type", "application/json"), ("X-User", "ann")];
        let refused = server.request("POST", &format!("/messages{query}"), &headers, ping.as_bytes());
        assert_eq!(refused.status, status, "{query}");
    }
    let headers = [("Content-Type", "application/json"), ("X-User", "bob")];
    assert_eq!(server.request("POST", &path, &headers, ping.as_bytes()).status, 404, "another principal");
    let headers = [("Content-Type", "application/json"), ("X-User", "ann")];
    assert_eq!(server.request("POST", &path, &headers, ping.as_bytes()).status, 202);
    assert_eq!(server.request("POST", &path, &headers, b"no JSON").status, 400);
    for (method, path) in [("POST", "/sse"), ("GET", "/messages")] {
        assert_eq!(server.request(method, path, &[("X-User", "ann")], b"").status, 405, "{method} {path}");
    }
    let id = path.rsplit_once('=').expect("an id").1;
    assert_eq!(
        server.post(&[("Mcp-Session-Id", id), ("X-User", "ann")], ping).status,
        404,
        "the session belongs to another transport"
    );
}

#[test]
fn a_request_before_initialize_gets_an_error() {
    let server = Server::start("--sse");
    let (mut events, path) = open(&server, &[]);
    assert_eq!(post(&server, &path, tool_call(5, "facts", &json!({}))).status, 202);
    let answer = events.message();
    assert_eq!(answer["id"], 5);
    assert!(answer["error"]["message"].as_str().is_some_and(|told| told.contains("initialize")), "{answer}");
}

#[test]
fn the_session_ends_with_its_stream() {
    let server = Server::start("--sse --sse-keep-alive 50ms");
    let (events, path) = initialized(&server, "2024-11-05", json!({"sampling": {}}));
    server.until_metric("proxyrunner_children", 2);
    events.cut();
    server.until_metric("proxyrunner_sessions", 0);
    server.until_metric("proxyrunner_children", 1);
    assert_eq!(post(&server, &path, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).status, 404);
}

#[test]
fn a_failed_child_ends_the_stream_after_the_error() {
    let server = Server::start("--sse");
    let (mut events, path) = initialized(&server, "2024-11-05", json!({"sampling": {}}));
    post(&server, &path, tool_call(1, "leave", &json!({"code": 4})));
    assert_eq!(events.message()["error"]["data"]["exitCode"], 4);
    assert_eq!(events.rest(), Vec::<Value>::new());
    until("404", || post(&server, &path, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).status == 404);
}

#[test]
fn requests_cut_off_by_shutdown_get_errors_on_the_stream() {
    let server = Server::start("--sse --drain-timeout 300ms");
    let (mut events, path) = initialized(&server, "2024-11-05", json!({}));
    for id in [1, 2] {
        post(&server, &path, tool_call(id, "hang", &json!({})));
    }
    server.until_metric("proxyrunner_in_flight", 2);
    server.signal(Signal::SIGTERM);
    let mut failed: Vec<_> = events
        .rest()
        .iter()
        .map(|answer| answer["id"].to_string() + &answer["error"]["data"]["reason"].to_string())
        .collect();
    failed.sort();
    assert_eq!(failed, ["1\"shutting_down\"", "2\"shutting_down\""]);
}

#[test]
fn a_modern_childs_question_arrives_on_the_stream() {
    let server = Server::with().flags("--sse --child-era modern").modern_child("").start();
    let (mut events, path) = initialized(&server, "2024-11-05", json!({"sampling": {}}));
    let message = json!({"role": "user", "content": {"type": "text", "text": "t"}});
    let asks = json!({"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": 1}});
    let rounds = json!({"rounds": [{"inputRequests": {"s": asks}}]});
    post(&server, &path, tool_call("c", "ask", &rounds));
    let question = events.message();
    assert_eq!(question["method"], "sampling/createMessage");
    let said = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "t"}});
    let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": said});
    assert_eq!(post(&server, &path, answer.to_string()).status, 202);
    let answer = events.message();
    assert_eq!((&answer["id"], &answer["result"]["content"][0]["text"]), (&json!("c"), &json!("asked")));
}
