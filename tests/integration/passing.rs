//! Clients and children of 2026-07-28: messages pass unchanged except for ids, progress tokens, subscription ids and
//! trace context.

use crate::support::modern::{CLIENT_CAPABILITIES, Modern, result};
use crate::support::{Events, Journal, Response, Server, until};
use serde_json::{Value, json};
use std::collections::HashSet;

const STAMP: &str = "io.modelcontextprotocol/subscriptionId";

fn modern(flags: &str, child: &str) -> (Server, Journal) {
    let journal = Journal::new();
    let child = format!("{child} {}", journal.flag());
    (Server::with().flags(flags).modern_child(&child).start(), journal)
}

/// Returns the last frame of a method that the child read.
fn last(journal: &Journal, method: &str) -> Value {
    let frames = journal.frames().into_iter().map(|read| read.message);
    frames.rev().find(|message| message["method"] == method).unwrap_or_else(|| panic!("no {method}"))
}

fn told(response: &Response) -> (u16, i64, Value) {
    (response.status, response.code(), response.json()["id"].clone())
}

#[test]
fn requests_and_responses_pass_unchanged() {
    let (server, journal) = modern("", "");
    let client = server.asked().meta("progressToken", "mine").meta("acme/key", json!([1e3, "é"]));
    let body = r#"{ "jsonrpc":"2.0","method":"tools/call", "params":{"arguments":{"n":123456789012345678901234567890,"x":1.50},"name":"heard","_meta":META}, "id":"seven"}"#;
    let meta = client.body(1, "m", json!({}))["params"]["_meta"].to_string();
    let body = body.replace("META", &meta);
    let headers = [
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
        ("MCP-Protocol-Version", "2026-07-28"),
        ("Mcp-Method", "tools/call"),
        ("Mcp-Name", "heard"),
    ];
    let response = server.request("POST", "/mcp", &headers, body.as_bytes());
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["id"], "seven");
    let frame = last(&journal, "tools/call");
    let id = frame["id"].clone();
    assert!(id.is_u64() && frame["params"]["_meta"]["progressToken"] == id, "{frame}");
    // The child echoes what it read, so this covers both directions.
    let mut expected: Value = serde_json::from_str(&body).expect("JSON");
    expected["params"]["_meta"]["progressToken"] = id;
    assert_eq!(response.json()["result"]["structuredContent"]["params"], expected["params"]);
    assert!(
        response.text().contains(r#""resultType": "complete""#),
        "spaces are preserved: {}",
        response.text()
    );
}

#[test]
fn every_byte_except_ids_and_tokens_is_preserved() {
    let (server, journal) = modern("", "");
    let envelope = r#""io.modelcontextprotocol/protocolVersion" :"2026-07-28","io.modelcontextprotocol/clientCapabilities":{ }"#;
    let odd = "{\"n\":123456789012345678901234567890,\"x\":1.50e+2,\"s\":\"\\u00e9\\/\u{a0}\u{200d}\u{3000}\",\"a\":[ 1 , 2 ],\"n\":0}";
    let answer = format!(
        r#"{{ "result":{{"content":[] , "structuredContent":{odd},"resultType":"complete"}},"id":$ID ,"jsonrpc":"2.0" }}"#
    );
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    // The child's argument has one character for each byte.
    let line = json!(answer.bytes().map(char::from).collect::<String>());
    let body = format!(
        r#" {{ "params":{{"name":"raw","arguments":{{"odd":{odd},"line":{line}}},"_meta":{{"progressToken":"mine",{envelope},"traceparent":"{trace}","k":{odd}}}}},"id" : "seven","jsonrpc":"2.0","method":"tools/call","more":{odd}}}"#
    );
    let headers = [("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", "tools/call"), ("Mcp-Name", "raw")];
    let response = server.post(&headers, &body);
    assert_eq!(response.text(), answer.replace("$ID", "\"seven\""));
    let frame = journal.call("raw");
    let id = frame.message["id"].to_string();
    let expected = body.trim_start().replace("\"seven\"", &id).replace("\"mine\"", &id);
    assert_eq!(frame.text, expected);
}

#[test]
fn questions_and_answers_pass_unchanged() {
    let (server, journal) = modern("", "");
    let elicit = json!({"method": "elicitation/create", "params": {"mode": "form", "message": "m", "requestedSchema": {}}});
    let rounds = json!({"rounds": [{"inputRequests": {"user_name": elicit, "é": elicit}}, {"inputRequests": {"a": elicit}}]});
    let client = server.modern();
    let first = result(&client.call("ask", rounds.clone()));
    assert_eq!((&first["resultType"], &first["inputRequests"]["é"]), (&json!("input_required"), &elicit));
    assert_eq!(first["requestState"], r#"1:é"\"#, "the child's state is unchanged");
    let answers = json!({"user_name": {"action": "decline"}, "unasked": {"action": "accept"}});
    for state in [r#"1:é"\"#, "2:tampered with", "99:x"] {
        let params =
            json!({"name": "ask", "arguments": rounds, "requestState": state, "inputResponses": answers});
        let response = client.send("tools/call", params);
        assert_eq!(response.status, 200);
        let frame = last(&journal, "tools/call");
        assert_eq!(
            (&frame["params"]["requestState"], &frame["params"]["inputResponses"]),
            (&json!(state), &answers)
        );
    }
    let unasked = json!({"name": "ask", "arguments": {"rounds": []}, "inputResponses": answers});
    let done = result(&client.send("tools/call", unasked));
    assert_eq!(done["structuredContent"], json!({"state": null, "responses": answers}));
}

#[test]
fn errors_get_the_http_status_of_the_revision() {
    let (server, _) = modern("", "");
    let client = server.modern();
    for (code, status) in [
        (-32601, 404),
        (-32020, 400),
        (-32021, 400),
        (-32022, 400),
        (-32602, 200),
        (-32603, 200),
        (-32002, 200),
        (7, 200),
    ] {
        let data = json!({"requiredCapabilities": {"sampling": {}}});
        let response = client.call("fail", json!({"code": code, "data": data}));
        assert_eq!(told(&response), (status, code, json!(1)));
        assert_eq!(response.json()["error"], json!({"code": code, "message": "failed", "data": data}));
    }
    assert_eq!(told(&client.send("no/such", json!({}))), (404, -32601, json!(1)));
    assert_eq!(told(&client.send("tools/call", json!({"name": "nothing"}))), (200, -32602, json!(1)));
    assert_eq!(told(&client.send("ping", json!({}))), (404, -32601, json!(1)));
}

#[test]
fn extension_methods_and_capabilities_pass() {
    let (server, journal) = modern("", "");
    let extensions = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    let client = server.modern().capabilities(extensions.clone());
    assert_eq!(result(&client.send("acme/extra", json!({})))["extra"], true);
    assert_eq!(result(&client.send("tasks/get", json!({"taskId": "t"})))["extra"], true);
    let frame = last(&journal, "tasks/get");
    assert_eq!(frame["params"]["_meta"][CLIENT_CAPABILITIES], extensions);
    let discovered = result(&client.send("server/discover", json!({})));
    let advertised = &discovered["capabilities"]["extensions"];
    assert_eq!(advertised, &json!({"io.modelcontextprotocol/tasks": {}, "acme/extra": {}}));
    assert_eq!(discovered["instructions"], "be modern");
}

#[test]
fn discover_lists_only_supported_versions() {
    let (server, _) = modern("", "--versions 2025-11-25,2026-07-28");
    let discovered = result(&server.modern().send("server/discover", json!({})));
    assert_eq!(discovered["supportedVersions"], json!(["2026-07-28"]));
}

#[test]
fn clients_that_use_the_same_id_get_their_own_responses() {
    let (server, _) = modern("", "");
    std::thread::scope(|scope| {
        for n in 0..16 {
            let client = server.modern();
            scope.spawn(move || {
                let answer = client.call("echo", json!({"n": n})).answer();
                assert_eq!(
                    (&answer["id"], &answer["result"]["structuredContent"]),
                    (&json!(1), &json!({"n": n}))
                );
            });
        }
    });
}

#[test]
fn progress_arrives_before_the_response_with_the_clients_token() {
    let (server, _) = modern("", "");
    for token in [json!("t"), json!(0)] {
        let client = server.modern().meta("progressToken", token.clone());
        let messages = client.begin_call(1, "progress", json!({"n": 3})).events().rest();
        let tokens: Vec<&Value> =
            messages[..3].iter().map(|message| &message["params"]["progressToken"]).collect();
        assert_eq!((tokens, messages.len()), (vec![&token; 3], 4));
    }
}

#[test]
fn a_disconnect_cancels_the_request() {
    let (server, journal) = modern("--sse-commit-after 20ms", "");
    for tool in ["hang", "late"] {
        let events = server.modern().begin_call(1, tool, json!({})).events();
        journal.until_called(tool);
        events.cut();
        journal.until_cancelled(tool);
    }
    server.until_metric("proxyrunner_late_answers_total", 1);
    assert_eq!(server.metric("proxyrunner_unknown_answers_total"), 0);
}

#[test]
fn log_messages_reach_only_the_request_that_asked_for_them() {
    let (server, journal) = modern("", "");
    let wants = server.modern().meta("io.modelcontextprotocol/logLevel", "info");
    let messages = wants.begin_call(1, "log", json!({})).events().rest();
    assert_eq!((&messages[0]["method"], messages.len()), (&json!("notifications/message"), 2));
    let own = journal.call("log").pid;
    let response = server.modern().call("log", json!({}));
    assert!(response.json()["result"].is_object(), "the response is plain JSON: {}", response.text());
    assert_ne!(journal.call("log").pid, own, "the other request shares a child");
    server.until_metric("proxyrunner_withheld_messages_total", 1);
}

#[test]
fn a_child_exit_fails_waiting_requests() {
    let (server, journal) = modern("", "");
    let mut waiting = server.modern().begin_call(1, "hang", json!({}));
    journal.until_called("hang");
    let last = server.modern().call("leave", json!({}));
    for response in [last, waiting.response()] {
        let error = response.answer()["error"].clone();
        assert_eq!(
            (&error["data"]["reason"], &error["data"]["exitCode"]),
            (&json!("child_ended"), &json!(7))
        );
    }
}

fn listen(client: &Modern<'_>, id: &Value, filter: Value) -> Events {
    let mut events = client
        .begin_body(&client.body(id.clone(), "subscriptions/listen", json!({"notifications": filter})))
        .events();
    let acknowledged = events.message();
    assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(
        (&acknowledged["params"]["_meta"][STAMP], &acknowledged["params"]["notifications"]),
        (id, &filter)
    );
    events
}

#[test]
fn subscriptions_with_the_same_id_stay_separate() {
    let (server, journal) = modern("--request-timeout 1s", "");
    let client = server.modern();
    for id in [json!("same"), json!(7)] {
        let mut one = listen(&client, &id, json!({"resourceSubscriptions": ["a:"]}));
        let mut two = listen(&client, &id, json!({"toolsListChanged": true}));
        client.result("touch", json!({"uri": "a:"}));
        client.result("touch", json!({"kind": "tools"}));
        let (updated, changed) = (one.message(), two.message());
        assert_eq!(
            (&updated["method"], &updated["params"]["uri"]),
            (&json!("notifications/resources/updated"), &json!("a:"))
        );
        assert_eq!(changed["method"], "notifications/tools/list_changed");
        for message in [&updated, &changed] {
            assert_eq!(message["params"]["_meta"][STAMP], id);
        }
        one.cut();
        two.cut();
    }
    let ids = |method: &str, id: &str| -> HashSet<u64> {
        let frames = journal.frames().into_iter().filter(|read| read.message["method"] == method);
        frames.map(|read| read.message.pointer(id).and_then(Value::as_u64).expect("an id")).collect()
    };
    let cancelled = || ids("notifications/cancelled", "/params/requestId");
    until("their cancellations", || cancelled().len() == 4);
    assert!(cancelled().is_subset(&ids("subscriptions/listen", "/id")));
}

#[test]
fn request_timeout_does_not_end_a_subscription() {
    let (server, _) = modern("--request-timeout 300ms --sse-keep-alive 100ms", "");
    let client = server.modern();
    let mut events = listen(&client, &json!(1), json!({"toolsListChanged": true}));
    let failed = client.call("hang", json!({}));
    assert_eq!(failed.answer()["error"]["data"]["reason"], "timed_out");
    client.result("touch", json!({"kind": "tools"}));
    assert_eq!(events.message()["method"], "notifications/tools/list_changed");
}

#[test]
fn a_subscription_ended_by_the_child_gets_a_result() {
    for by in ["result", "cancel"] {
        let (server, _) = modern("", "");
        let client = server.modern();
        let mut events = listen(&client, &json!("l"), json!({"toolsListChanged": true}));
        client.result("end_listens", json!({"by": by}));
        let rest = events.rest();
        assert_eq!(rest.len(), 1, "{rest:?}");
        assert_eq!((&rest[0]["id"], &rest[0]["result"]["_meta"][STAMP]), (&json!("l"), &json!("l")));
        assert_eq!(rest[0]["result"]["resultType"], "complete");
    }
}

#[test]
fn a_child_exit_ends_its_subscriptions_with_an_error() {
    let (server, _) = modern("--restart-limit 0 --drain-timeout 5s", "");
    let client = server.modern();
    let mut events = listen(&client, &json!("l"), json!({"toolsListChanged": true}));
    client.call("leave", json!({}));
    let rest = events.rest();
    assert_eq!((rest.len(), &rest[0]["id"]), (1, &json!("l")), "{rest:?}");
    assert_eq!(rest[0]["error"]["data"]["reason"], "child_ended");
}

#[test]
fn shutdown_ends_a_subscription_with_its_result() {
    let (server, _) = modern("", "");
    let client = server.modern();
    let mut events = listen(&client, &json!("l"), json!({"toolsListChanged": true}));
    server.signal(nix::sys::signal::Signal::SIGTERM);
    let rest = events.rest();
    assert_eq!(
        (rest.len(), &rest[0]["id"], &rest[0]["result"]["resultType"]),
        (1, &json!("l"), &json!("complete"))
    );
}

/// A server may ignore the case of members, as Go's do, or end names at a NUL, as C's do.
#[test]
fn no_server_reads_another_message_than_proxyrunner() {
    let journal = Journal::new();
    let server = Server::with().flags("--sse").child(&journal.flag()).start();
    let session = server.session();
    let modern = server.modern();
    modern.result("echo", json!({}));
    let read = journal.frames().len();
    for members in [
        r#""id":9,"method":"ping","ID":1"#,
        r#""id":9,"method":"ping","Method":"tools/call","params":{"name":"die"}"#,
        r#""id":9,"method":"ping","method\u0000":"tools/call""#,
        r#""id":9,"method":"tools/call","params":{"name":"echo"},"Params":{"name":"die"}"#,
        r#""id":9,"method":"tools/call","params":{"name":"echo","Name":"die"}"#,
        r#""id":9,"method":"tools/call","params":{"name":"echo","_META":{"proxyrunner/identity":{}}}"#,
        r#""id":9,"method":"tools/call","params":{"name":"echo","_meta":{"ProxyRunner/identity":{}}}"#,
        r#""id":9,"method":"tasks/get","params":{"taskId":"a","TaskId":"b"}"#,
        r#""id":9,"method":"tools/call","params":{"name":"echo\u0000x"}"#,
        r#""id":9,"method":"resources/read","params":{"uri":"a:b\u0000"}"#,
        r#""method":"notifications/cancelled\u0000","params":{"requestId":1}"#,
        r#""method":"notifications/x","Method":"notifications/cancelled","params":{"requestId":1}"#,
        r#""method":"notifications/cancelled","params":{"requestId":9,"RequestId":1}"#,
        r#""id":0,"result":{"action":"accept"},"Method":"tools/call","params":{"name":"die"}"#,
        r#""id":0,"error":{"code":1,"message":"m"},"METHOD":"tools/call""#,
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0",{members}}}"#);
        let refused = session.post(&body);
        assert_eq!((refused.status, refused.code()), (400, -32600), "{body}: {}", refused.text());
        assert_eq!(session.post(format!("[{body}]")).status, 400, "{body}");
    }
    let opening = server.opening().body().replacen("\"method\"", "\"Method\":\"tools/call\",\"method\"", 1);
    assert_eq!(server.post(&[], opening).status, 400);
    let mut body = modern.body(9, "tools/call", json!({"name": "echo", "arguments": {}}));
    body["Id"] = json!(1);
    assert_eq!(modern.send_body(&body).status, 400);
    modern.result("echo", json!({"Name": "in arguments every name is free", "ID": 1}));
    let later = journal.frames().split_off(read);
    assert_eq!(later.len(), 1, "{later:?}");
}
