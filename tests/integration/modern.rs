//! Clients of 2026-07-28 in front of a legacy server: refusals, translation and cancellation.

use crate::support::modern::{CLIENT_CAPABILITIES, PROTOCOL_VERSION, SERVER_INFO, VERSION, result};
use crate::support::{Journal, Response, Server, scratch, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// A method for tests in which the requests to the child do not matter.
const LIST: &str = "tools/list";

fn told(response: &Response) -> (u16, i64, Value) {
    (response.status, response.code(), response.json()["id"].clone())
}

#[test]
fn an_incomplete_envelope_is_refused_before_other_errors() {
    let server = Server::start("");
    let client = server.modern().header("Mcp-Method", "wrong/too");
    let info = "io.modelcontextprotocol/clientInfo";
    for client in [
        client.clone().without(CLIENT_CAPABILITIES),
        client.clone().meta(CLIENT_CAPABILITIES, json!([])),
        client.clone().meta(PROTOCOL_VERSION, 7).header("MCP-Protocol-Version", VERSION),
        client.clone().without(PROTOCOL_VERSION).header("MCP-Protocol-Version", VERSION),
        client.clone().meta(info, "me"),
        client.clone().meta("io.modelcontextprotocol/logLevel", "loud"),
        client.clone().without(CLIENT_CAPABILITIES).header("MCP-Protocol-Version", "2025-11-25"),
    ] {
        assert_eq!(told(&client.send(LIST, json!({}))), (400, -32602, json!(1)));
    }
    let bare = json!({"jsonrpc": "2.0", "id": "s", "method": LIST}).to_string();
    let response = server.post(&[("MCP-Protocol-Version", VERSION)], bare);
    assert_eq!(told(&response), (400, -32602, json!("s")));
}

#[test]
fn initialize_under_a_modern_version_header_is_refused() {
    let server = Server::start("");
    let response = server.post(&[("MCP-Protocol-Version", VERSION)], server.opening().body());
    assert_eq!(told(&response), (400, -32020, json!(0)));
}

#[test]
fn header_and_body_must_name_the_same_supported_version() {
    let server = Server::start("");
    for header in ["2025-11-25", "v999", "2026-07-28, 2025-11-25", "", "=?base64?!?="] {
        let response = server.modern().header("MCP-Protocol-Version", header).send(LIST, json!({}));
        assert_eq!(told(&response), (400, -32020, json!(1)), "{header}");
    }
    let headless = server.post(&[("Mcp-Method", LIST)], server.modern().body(1, LIST, json!({})).to_string());
    assert_eq!(told(&headless), (400, -32020, json!(1)));
    let newer = server.modern().meta(PROTOCOL_VERSION, "v999");
    let mismatch = newer.clone().header("MCP-Protocol-Version", VERSION).send(LIST, json!({}));
    assert_eq!(told(&mismatch), (400, -32020, json!(1)));
    let unknown = newer.header("Mcp-Method", "wrong/too").send(LIST, json!({}));
    assert_eq!(told(&unknown), (400, -32022, json!(1)));
    assert_eq!(unknown.json()["error"]["data"], json!({"supported": [VERSION], "requested": "v999"}));
}

#[test]
fn method_and_name_headers_must_match_the_body() {
    let journal = Journal::new();
    let server = Server::with().child(&journal.flag()).start();
    let client = server.modern();
    let (name, method) = ("Mcp-Name", "Mcp-Method");
    let encoded = "=?base64?cmVjYWxs?=";
    for (header, value, status) in [
        (method, "tools/list", 400),
        (method, "Tools/call", 400),
        (method, "=?base64?dG9vbHMvY2FsbA==?=", 200),
        (name, "facts", 400),
        (name, "Recall", 400),
        (name, "", 400),
        (name, "  recall  ", 200),
        (name, encoded, 200),
        (name, "=?BASE64?cmVjYWxs?=", 400),
        (name, "=?base64?cmVjYWxs", 400),
        (name, "=?base64?cmVjYWx?=", 400),
        (name, "=?base64?cm!jYWxs?=", 400),
        (name, "=?base64?ZmFjdHM=?=", 400),
    ] {
        let response = client.clone().header(header, value).call("recall", json!({}));
        assert_eq!(response.status, status, "{header}: {value}");
        if status == 400 {
            assert_eq!(told(&response), (400, -32020, json!(1)), "{header}: {value}");
        }
    }
    for header in [name, method] {
        let value = if header == name { "recall" } else { "tools/call" };
        let twice = client.clone().header(header, value).header(header, value);
        assert_eq!(told(&twice.call("recall", json!({}))), (400, -32020, json!(1)), "{header} twice");
    }
    assert_eq!(journal.runs("recall"), 3, "refused requests are not forwarded");
    for uri in ["file:///b", "=?base64?ZmlsZTovLy9i?="] {
        let other = client.clone().header(name, uri).send("resources/read", json!({"uri": "file:///a"}));
        assert_eq!(told(&other), (400, -32020, json!(1)));
    }
    // A server might convert a value that is not a string, and run a tool that differs from the header.
    for given in [json!(["recall"]), json!({"toString": "recall"}), json!(1), json!(null)] {
        let other = client.clone().header(name, "recall").send("tools/call", json!({"name": given}));
        assert_eq!(told(&other), (400, -32020, json!(1)), "{given}");
    }
    let none = client.clone().header(name, "file:///a").send("resources/read", json!({}));
    assert_eq!(told(&none), (400, -32020, json!(1)));
    let uri = "file:///ä";
    let read = client
        .clone()
        .header(name, "=?base64?ZmlsZTovLy/DpA==?=")
        .send("resources/read", json!({"uri": uri}));
    assert_eq!(read.status, 200);
}

#[test]
fn missing_headers_are_refused() {
    let server = Server::start("");
    let body = server.modern().body("id", "tools/call", json!({"name": "facts"})).to_string();
    let all = [("MCP-Protocol-Version", VERSION), ("Mcp-Method", "tools/call"), ("Mcp-Name", "facts")];
    assert_eq!(server.post(&all, &body).status, 200);
    for missing in 0..all.len() {
        let mut headers = all.to_vec();
        let (name, _) = headers.remove(missing);
        assert_eq!(told(&server.post(&headers, &body)), (400, -32020, json!("id")), "{name}");
    }
}

#[test]
fn removed_and_unsupported_methods_get_404() {
    let journal = Journal::new();
    let server = Server::with().child(&journal.flag()).start();
    server.modern().result("facts", json!({}));
    let before = journal.frames().len();
    for method in [
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/get",
        "tasks/list",
        "tasks/result",
        "tasks/cancel",
        "notifications/initialized",
        "prompts/list",
        "prompts/get",
        "completion/complete",
    ] {
        let response = server.modern().send(method, json!({"uri": "file:///a", "name": "n", "taskId": "t"}));
        assert_eq!(told(&response), (404, -32601, json!(1)), "{method}");
    }
    assert_eq!(journal.frames().len(), before, "no refused request reached the child");
    assert_eq!(told(&server.modern().send("no/such", json!({}))), (404, -32601, json!(1)));
}

#[test]
fn modern_clients_may_send_only_requests() {
    let journal = Journal::new();
    let server = Server::with().child(&journal.flag()).start();
    let version = ("MCP-Protocol-Version", VERSION);
    let answer = server.post(&[version], r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    assert_eq!((answer.status, answer.code()), (400, -32600));
    let mut waiting = server.modern().begin_call(1, "wait", json!({"name": "w"}));
    let call = journal.until_called("wait");
    for id in [json!(1), call.message["id"].clone()] {
        let cancel =
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
        let dropped = server.post(&[version, ("Mcp-Method", "notifications/cancelled")], cancel.to_string());
        assert_eq!((dropped.status, dropped.text().as_str()), (202, ""));
    }
    server.modern().result("release", json!({"name": "w"}));
    assert_eq!(result(&waiting.response())["name"], "w");
    assert!(!journal.is_cancelled("wait"));
    for method in ["GET", "DELETE"] {
        let headers = [("Accept", "text/event-stream"), version];
        let refused = server.request(method, "/mcp", &headers, b"");
        assert_eq!((refused.status, refused.header("allow")), (405, Some("POST")), "{method}");
    }
}

#[test]
fn session_ids_are_ignored_and_one_endpoint_serves_both_eras() {
    let server = Server::start("");
    let session = server.session();
    for id in ["no-such-session", &session.id] {
        let response = server.modern().header("Mcp-Session-Id", id).send(LIST, json!({}));
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("mcp-session-id"), None);
        assert_eq!(result(&response)["resultType"], "complete");
    }
    let mut events = server
        .modern()
        .meta("progressToken", 1)
        .begin_call(1, "progress", json!({"n": 1, "until": "p"}))
        .events();
    assert_eq!(events.head.header("mcp-session-id"), None);
    assert_eq!(events.head.header("x-accel-buffering"), Some("no"));
    assert!(session.result("release", json!({"name": "p"}))["resultType"].is_null());
    assert_eq!(events.rest().pop().expect("an answer")["result"]["resultType"], "complete");
    let pid = server.modern().child();
    assert_eq!(session.result("facts", json!({}))["pid"], pid, "the same child");
    let refused = server.modern().header("Origin", "https://evil.example").send(LIST, json!({}));
    assert_eq!(refused.status, 403);
}

#[test]
fn results_are_completed_and_six_methods_get_cache_hints() {
    let server = Server::with().child("--prompts").start();
    for (method, params, cached) in [
        ("server/discover", json!({}), true),
        ("tools/list", json!({}), true),
        ("prompts/list", json!({}), true),
        ("resources/list", json!({}), true),
        ("resources/templates/list", json!({}), true),
        ("resources/read", json!({"uri": "file:///a"}), true),
        ("tools/call", json!({"name": "progress", "arguments": {"n": 0}}), false),
        ("prompts/get", json!({"name": "p"}), false),
    ] {
        for id in [json!("a"), json!(9_007_199_254_740_993_u64), json!(-1)] {
            let response =
                server.modern().send_body(&server.modern().body(id.clone(), method, params.clone()));
            assert_eq!(response.answer()["id"], id);
            let result = result(&response);
            assert_eq!(result["resultType"], "complete", "{method}");
            assert_eq!(result["_meta"][SERVER_INFO], json!({"name": "scripted", "version": "1"}), "{method}");
            let hints = if cached { (json!(0), json!("private")) } else { (Value::Null, Value::Null) };
            assert_eq!((result["ttlMs"].clone(), result["cacheScope"].clone()), hints, "{method}");
        }
    }
    let discovered = result(&server.modern().send("server/discover", json!({})));
    assert_eq!(discovered["supportedVersions"], json!([VERSION]));
    assert_eq!(discovered["instructions"], "break me");
    assert_eq!(discovered["capabilities"]["tasks"], Value::Null);
    assert!(discovered["capabilities"]["tools"].is_object());
}

#[test]
fn the_childs_errors_are_translated_to_the_revision() {
    let server = Server::start("");
    let missing = server.modern().send("resources/read", json!({"uri": "missing:x"}));
    assert_eq!(told(&missing), (200, -32602, json!(1)));
    assert_eq!(missing.json()["error"]["data"], json!({"uri": "missing:x"}));
    let error = |error: &Value| {
        let line = json!({"jsonrpc": "2.0", "id": "ID", "error": error}).to_string().replace("\"ID\"", "$ID");
        server.modern().call("emit", json!({"lines": [line], "answer": false}))
    };
    let reserved = error(&json!({"code": -32001, "message": "m", "data": {"k": 1}}));
    assert_eq!(told(&reserved), (200, -32603, json!(1)));
    let original = json!({"original": {"code": -32001, "data": {"k": 1}}});
    assert_eq!(reserved.json()["error"], json!({"code": -32603, "message": "m", "data": original}));
    for (code, status) in [(-32601, 404), (-32602, 200), (-32603, 200), (7, 200)] {
        assert_eq!(told(&error(&json!({"code": code, "message": "m"}))), (status, code, json!(1)));
    }
    for taken in [-32020, -32021, -32022] {
        assert_eq!(told(&error(&json!({"code": taken, "message": "m"}))), (200, -32603, json!(1)));
    }
}

#[test]
fn only_the_envelope_is_removed() {
    let journal = Journal::new();
    let server = Server::with().child(&journal.flag()).start();
    let client = server.modern().meta("io.modelcontextprotocol/logLevel", "info");
    let client = client.meta("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let client = client.meta("com.example/k", json!([1, {"a": null}])).meta("progressToken", "t");
    client.result("facts", json!({"requestState": "mine", "_meta": {PROTOCOL_VERSION: 1}}));
    let read = journal.call("facts").message;
    assert!(read["id"].is_u64());
    assert_eq!(read["params"]["arguments"], json!({"requestState": "mine", "_meta": {PROTOCOL_VERSION: 1}}));
    let meta = json!({
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "com.example/k": [1, {"a": null}], "progressToken": read["id"],
    });
    assert_eq!(read["params"]["_meta"], meta);
}

#[test]
fn progress_arrives_before_the_response_with_the_clients_token() {
    let server = Server::start("");
    for token in [json!("t"), json!(7), json!("7")] {
        let client = server.modern().meta("progressToken", token.clone());
        let mut events = client.begin_call("a", "progress", json!({"n": 3})).events();
        for n in 0..3 {
            let event = events.next_event();
            assert_eq!(event.id, None, "modern streams cannot be resumed");
            assert_eq!(event.json()["params"], json!({"progressToken": token, "progress": n}));
        }
        let last = events.next_event();
        assert_eq!((last.id.clone(), last.json()["id"].clone()), (None, json!("a")));
        assert_eq!(events.next(), None, "the answer ends the stream");
    }
}

#[test]
fn a_disconnect_cancels_before_and_after_the_response_head() {
    let journal = Journal::new();
    let server = Server::with().child(&journal.flag()).start();
    let mut neighbor = server.modern().begin_call(1, "wait", json!({"name": "n"}));
    let quiet = server.modern().begin_call(1, "hang", json!({}));
    journal.until_called("hang");
    quiet.cut();
    journal.until_cancelled("hang");
    let client = server.modern().meta("progressToken", 1);
    let mut events = client.begin_call(1, "progress", json!({"n": 1, "until": "never"})).events();
    events.message();
    events.cut();
    journal.until_cancelled("progress");
    server.modern().result("release", json!({"name": "n"}));
    assert_eq!(result(&neighbor.response())["name"], "n");
    assert!(!journal.is_cancelled("wait"));
}

#[test]
fn a_slow_call_gets_a_stream_with_keep_alive_comments() {
    let server = Server::start("--sse-commit-after 50ms --sse-keep-alive 20ms");
    let mut events = server.modern().begin_call(1, "wait", json!({"name": "w"})).events();
    let comment = events.next().expect("a comment");
    assert_eq!((comment.comment.as_deref(), comment.data.as_str()), (Some("keep-alive"), ""));
    server.modern().result("release", json!({"name": "w"}));
    assert_eq!(events.message()["result"]["name"], "w");
}

#[test]
fn a_request_that_times_out_is_cancelled_at_the_child() {
    for flags in ["--request-timeout 200ms", "--request-timeout 200ms --sse-commit-after 50ms"] {
        let journal = Journal::new();
        let server = Server::with().flags(flags).child(&journal.flag()).start();
        let answer = server.modern().call("hang", json!({})).answer();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(1), &json!(-32603)));
        assert_eq!(answer["error"]["data"]["reason"], "timed_out");
        journal.until_cancelled("hang");
        assert_eq!(server.modern().send(LIST, json!({})).status, 200, "the child still serves");
    }
}

#[test]
fn requests_get_503_when_full_or_draining() {
    let (journal, file) = (Journal::new(), scratch("answer-now"));
    let server = Server::with()
        .flags("--max-in-flight 1 --max-queued 0 --drain-delay 0s")
        .child(&journal.flag())
        .start();
    let answer = r#"{"jsonrpc":"2.0","id":$ID,"result":{"late":true}}"#;
    let arguments = json!({"lines": [], "answer": false, "after": [answer], "file": file});
    let mut waiting = server.modern().begin_call(1, "emit", arguments);
    journal.until_called("emit");
    let busy = server.modern().send(LIST, json!({}));
    assert_eq!((told(&busy), busy.header("retry-after")), ((503, -32603, json!(1)), Some("1")));
    assert!(busy.text().contains("--max-in-flight"));
    server.signal(Signal::SIGTERM);
    until("a refusal", || {
        let refused = server.modern().send(LIST, json!({}));
        assert_eq!(told(&refused), (503, -32603, json!(1)));
        refused.text().contains("shutting down")
    });
    std::fs::write(&file, "").expect("a scratch file");
    assert_eq!(result(&waiting.response())["late"], true, "the running call is finished");
    assert_eq!(server.exit_code(), 0);
}
