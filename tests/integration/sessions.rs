//! Sessions: how they open, end and expire; versions, principals and batches.

use crate::support::{Journal, Server, tool_call, until};
use serde_json::{Value, json};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

#[test]
fn requests_without_a_valid_session_are_refused() {
    let server = Server::start("");
    let none = server.post(&[], PING);
    assert_eq!((none.status, none.code(), &none.json()["id"]), (400, -32600, &json!(1)));
    assert_eq!(server.request("GET", "/mcp", &[("Accept", "text/event-stream")], b"").status, 400);
    assert_eq!(server.request("DELETE", "/mcp", &[], b"").status, 400);
    for unknown in ["", "x", "00000000000000000000000000000000", "ABCDEF"] {
        let response = server.post(&[("Mcp-Session-Id", unknown)], PING);
        assert_eq!((response.status, response.code()), (404, -32001), "{unknown:?}");
    }
    let (id, other) = (server.session().id, server.session().id);
    let both = [("Mcp-Session-Id", id.as_str()), ("Mcp-Session-Id", other.as_str())];
    assert_eq!(server.post(&both, PING).status, 400);
    let twice = [("Mcp-Session-Id", id.as_str()), ("Mcp-Session-Id", id.as_str())];
    assert_eq!(server.post(&twice, PING).status, 200);
}

#[test]
fn a_disconnect_during_a_streamed_handshake_ends_the_child() {
    let flags = "--child-era legacy --sse-commit-after 0";
    let server = Server::with().flags(flags).child("--mute").start();
    let mut connection = server.connect();
    connection.post(&[], server.opening().exclusive().body());
    let waiting = connection.events();
    server.until_metric("proxyrunner_children", 2);
    waiting.cut();
    server.until_metric("proxyrunner_children", 1);
}

#[test]
fn session_ids_are_unguessable_and_printable() {
    let server = Server::start("");
    let ids: Vec<String> = (0..20).map(|_| server.session().id).collect();
    let unique: std::collections::HashSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), 20);
    assert!(ids.iter().all(|id| id.len() >= 32 && id.bytes().all(|b| b.is_ascii_graphic())), "{ids:?}");
    assert!(!server.logged().contains(&ids[0]), "a session id is a secret");
}

#[test]
fn deleting_a_session_ends_its_requests_and_streams() {
    let server = Server::start("");
    let session = server.session();
    let mut listening = session.listen();
    let mut waiting = session.begin_call(5, "hang", json!({}));
    server.until_metric("proxyrunner_in_flight", 1);
    let deleted = session.delete();
    assert_eq!((deleted.status, deleted.text().as_str()), (204, ""));
    assert_eq!(listening.rest(), Vec::<Value>::new());
    let answers = waiting.response().messages();
    assert_eq!((answers.len(), &answers[0]["error"]["data"]["reason"]), (1, &json!("session_ended")));
    assert_eq!(session.post(PING).status, 404);
    assert_eq!(session.delete().status, 404);
    assert_eq!(session.request("GET", &[]).response().status, 404);
}

#[test]
fn an_exclusive_child_ends_with_its_session() {
    let server = Server::start("");
    let session = server.opening().exclusive().open();
    let pid = session.result("facts", json!({}))["pid"].as_i64().expect("a pid");
    session.delete();
    until("the child's end", || !crate::support::lives(i32::try_from(pid).expect("a pid")));
    server.until_metric("proxyrunner_children", 1);
}

#[test]
fn another_principals_session_is_unknown() {
    let server = Server::start("--principal-header X-User");
    let session = server.opening().header("X-User", "ann").open();
    let of = |user: &[(&str, &str)]| {
        let own = [("Mcp-Session-Id", session.id.as_str()), ("Accept", "text/event-stream")];
        let all = [&own[..], user].concat();
        let posted = server.post(&[&own[..1], user].concat(), PING).status;
        let mut connection = server.connect();
        connection.request("GET", "/mcp", &all, b"");
        (posted, connection.response_head().status)
    };
    assert_eq!(of(&[("X-User", "ann")]), (200, 200));
    assert_eq!(of(&[("X-User", "bob")]), (404, 404));
    assert_eq!(of(&[("X-User", "Ann")]), (404, 404));
    assert_eq!(of(&[]), (400, 400));
    assert_eq!(of(&[("X-User", "ann"), ("X-User", "bob")]), (400, 400));
    let other = [("Mcp-Session-Id", session.id.as_str()), ("X-User", "bob")];
    assert_eq!(server.request("DELETE", "/mcp", &other, b"").status, 404);
    assert_eq!(session.post(PING).status, 200, "the session is not affected");
}

#[test]
fn idle_sessions_expire_unless_a_stream_is_open() {
    let server = Server::start("--session-idle 1s --sse-keep-alive 100ms");
    let (idle, listening) = (server.session(), server.session());
    let mut stream = listening.listen();
    let reader = std::thread::spawn(move || while stream.next().is_some() {});
    server.until_metric("proxyrunner_expired_sessions_total", 1);
    assert_eq!(idle.post(PING).status, 404);
    assert_eq!(listening.post(PING).status, 200);
    assert_eq!(server.metric("proxyrunner_sessions"), 1);
    listening.delete();
    reader.join().expect("the stream ends");
}

#[test]
fn a_running_call_keeps_its_session_alive() {
    let server = Server::start("--session-idle 500ms");
    let (busy, idle) = (server.session(), server.session());
    let mut waiting = busy.begin_call(1, "wait", json!({"name": "a"}));
    server.until_metric("proxyrunner_expired_sessions_total", 1);
    assert_eq!(idle.post(PING).status, 404);
    busy.result("release", json!({"name": "a"}));
    assert_eq!(waiting.response().answer()["result"]["name"], "a");
}

#[test]
fn sessions_end_at_session_max_age() {
    let server = Server::start("--session-max-age 1s --sse-keep-alive 100ms");
    let session = server.session();
    let mut stream = session.listen();
    until("the expiry", || session.post(PING).status == 404);
    while stream.next().is_some() {}
}

#[test]
fn initialize_within_a_session_is_refused() {
    let server = Server::start("");
    let session = server.session();
    let again = server.post(&[("Mcp-Session-Id", &session.id)], server.opening().body());
    assert_eq!((again.status, again.code()), (400, -32600));
    assert_eq!(again.header("mcp-session-id"), None);
    assert_eq!(session.post(PING).status, 200);
}

#[test]
fn the_version_is_negotiated_and_then_fixed() {
    let server = Server::start("");
    for (asked, given) in [
        ("2025-11-25", "2025-11-25"),
        ("2025-06-18", "2025-06-18"),
        ("2025-03-26", "2025-03-26"),
        ("2024-11-05", "2024-11-05"),
        ("1999-01-01", "2025-11-25"),
        ("2099-01-01", "2025-11-25"),
    ] {
        let session = server.opening().version(asked).open();
        assert_eq!(session.version(), given, "{asked}");
        let with = |version: &str| {
            let headers = [("Mcp-Session-Id", session.id.as_str()), ("MCP-Protocol-Version", version)];
            server.post(&headers, PING).status
        };
        assert_eq!((with(given), with("2025-01-01"), with("")), (200, 400, 400), "{asked}");
        assert_eq!(session.post(PING).status, 200, "the header may be absent");
    }
    assert_eq!(
        server.session().child_read().iter().filter(|frame| frame["method"] == "initialize").count(),
        1
    );
}

#[test]
fn an_older_child_limits_the_negotiated_version() {
    let server = Server::with().child("--protocol 2025-03-26").start();
    assert_eq!(server.session().version(), "2025-03-26");
    assert_eq!(server.opening().version("2024-11-05").open().version(), "2024-11-05");
    assert_eq!(server.opening().exclusive().open().version(), "2025-03-26");
}

#[test]
fn a_batch_is_answered_together() {
    let server = Server::start("");
    let session = server.opening().version("2025-03-26").open();
    let batch = format!(
        r#"[{}, {PING}, {{"jsonrpc":"2.0","method":"notifications/x"}}, {}, {{"jsonrpc":"2.0","id":"s","result":{{}}}}]"#,
        tool_call("a", "sleep", &json!({"ms": 0})),
        tool_call(7, "no-such-tool", &json!({})),
    );
    let response = session.post(batch);
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
    let answers = response.json();
    let mut ids: Vec<String> =
        answers.as_array().expect("an array").iter().map(|a| a["id"].to_string()).collect();
    ids.sort();
    assert_eq!(ids, ["\"a\"", "1", "7"], "one answer each: {answers}");
    assert!(session.child_read().iter().all(Value::is_object), "the child never sees a batch");
}

#[test]
fn a_batch_without_requests_gets_202() {
    let server = Server::start("");
    let session = server.opening().version("2025-03-26").open();
    let told = session.post(
        r#"[{"jsonrpc":"2.0","method":"notifications/a"},{"jsonrpc":"2.0","method":"notifications/b"}]"#,
    );
    assert_eq!((told.status, told.text().as_str()), (202, ""));
    let read: Vec<Value> = session.child_read().iter().map(|frame| frame["method"].clone()).collect();
    assert_eq!(read[read.len() - 2..], ["notifications/a", "notifications/b"], "in order");
}

#[test]
fn an_invalid_batch_is_refused_as_a_whole() {
    let server = Server::start("");
    let session = server.opening().version("2025-03-26").open();
    let before = session.child_read().len();
    let initialize = format!("[{}]", server.opening().body());
    for body in ["[]", "[1]", "[[]]", &initialize, &format!("[{PING},{{}}]"), &format!("[{PING}")] {
        let response = session.post(body);
        assert_eq!(response.status, 400, "{body}");
        assert!(response.json().is_object(), "{body}");
    }
    let ran = tool_call(1, "facts", &json!({}));
    assert_eq!(session.post(format!("[{ran},7]")).status, 400);
    assert_eq!(session.child_read().len(), before + 1, "no request of the batches was forwarded");
    assert_eq!(server.post(&[], initialize).status, 400, "initialize is never part of a batch");
}

#[test]
fn batches_are_refused_in_later_revisions() {
    let server = Server::start("");
    for version in ["2025-06-18", "2025-11-25"] {
        let refused = server.opening().version(version).open().post(format!("[{PING}]"));
        assert_eq!((refused.status, refused.code()), (400, -32600), "{version}");
    }
}

#[test]
fn a_batch_streams_progress_with_its_responses() {
    let server = Server::start("");
    let session = server.opening().version("2025-03-26").open();
    let progress = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"progressToken":"t"},"name":"progress","arguments":{"n":2}}}"#;
    let response = session.post(format!("[{progress},{}]", tool_call(2, "sleep", &json!({"ms": 0}))));
    let messages = response.messages();
    assert_eq!(
        messages.iter().filter(|message| message["params"]["progressToken"] == "t").count(),
        2,
        "{messages:?}"
    );
    for id in [1, 2] {
        assert_eq!(messages.iter().filter(|message| message["id"] == id).count(), 1, "{messages:?}");
    }
}

#[test]
fn a_ping_is_answered_while_the_child_hangs() {
    let server = Server::with().child("--serial").start();
    let session = server.session();
    let _hanging = session.begin_call(1, "wait", json!({"name": "never"}));
    server.until_metric("proxyrunner_in_flight", 1);
    let pong = session.post(r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#);
    assert_eq!(pong.json(), json!({"jsonrpc": "2.0", "id": "p", "result": {}}));
}

#[test]
fn sessions_beyond_max_sessions_are_refused_until_one_ends() {
    let server = Server::start("--max-sessions 2");
    let (first, _second) = (server.session(), server.session());
    let refused = server.opening().send();
    assert_eq!((refused.status, refused.code(), refused.header("retry-after")), (503, -32603, Some("1")));
    assert!(refused.text().contains("--max-sessions"), "{}", refused.text());
    first.delete();
    until("room", || server.opening().send().status == 200);
}

/// Concurrent requests all pass a check whether the session is initialized, so the check alone is not enough.
#[test]
fn concurrent_initialize_requests_leave_no_extra_child() {
    let server = Server::start("--sse --isolation session --log-level debug");
    server.until_metric("proxyrunner_children", 0);
    let mut connection = server.connect();
    connection.request("GET", "/sse", &[("Accept", "text/event-stream")], b"");
    let mut stream = connection.events();
    let path = format!("/{}", stream.next().expect("the endpoint event").data);
    let body = server.opening().version("2024-11-05").body();
    for _ in 0..3 {
        assert_eq!(server.request("POST", &path, crate::support::JSON, body.as_bytes()).status, 202);
    }
    let answers = [stream.message(), stream.message(), stream.message()];
    assert_eq!(answers.iter().filter(|answer| answer["result"].is_object()).count(), 1, "{answers:?}");
    server.until_metric("proxyrunner_children", 1);
    stream.cut();
    server.until_metric("proxyrunner_children", 0);
}

fn of<'a>(server: &'a Server, principal: &str) -> crate::support::Session<'a> {
    server.opening().header("X-User", principal).open()
}

#[test]
fn a_client_with_all_sessions_gives_up_to_half_to_others() {
    let server = Server::start("--max-sessions 4 --principal-header x-user");
    let anns: Vec<_> = (0..4).map(|_| of(&server, "ann")).collect();
    assert_eq!(
        server.opening().header("X-User", "ann").send().status,
        503,
        "a client does not give way to itself"
    );
    assert_eq!(anns[0].post(PING).status, 200);
    let bobs = [of(&server, "bob"), of(&server, "bob")];
    let statuses: Vec<_> = anns.iter().map(|session| session.post(PING).status).collect();
    assert_eq!(statuses, [200, 404, 404, 200], "the sessions idle for longest are ended");
    assert_eq!(server.opening().header("X-User", "bob").send().status, 503, "at most half");
    assert!(bobs.iter().all(|session| session.post(PING).status == 200));
    assert_eq!(server.metric("proxyrunner_evicted_sessions_total"), 2);
}

#[test]
fn a_client_with_all_sessions_busy_gives_way_too() {
    let server = Server::start("--max-sessions 2 --principal-header x-user");
    let anns = [of(&server, "ann"), of(&server, "ann")];
    let mut hanging: Vec<_> = anns.iter().map(|session| session.begin_call(1, "hang", json!({}))).collect();
    server.until_metric("proxyrunner_in_flight", 2);
    let bob = of(&server, "bob");
    assert_eq!(bob.post(PING).status, 200);
    let told = hanging[0].response().answer();
    assert!(told["error"]["code"].is_i64(), "{told}");
    assert_eq!((anns[0].post(PING).status, anns[1].post(PING).status), (404, 200));
}

#[test]
fn messages_are_handled_although_their_client_disconnects_at_once() {
    const CLIENTS: usize = 30;
    let journal = Journal::new();
    let server = Server::with().child(&journal.flag()).start();
    let calling = server.session();
    for _ in 0..CLIENTS {
        let deleting = server.session();
        for (session, is_call) in [(&calling, true), (&deleting, false)] {
            let headers = [("Mcp-Session-Id", &*session.id)];
            let mut connection = session.begin(PING);
            assert_eq!(connection.response().status, 200);
            match is_call {
                true => connection.post(&headers, tool_call(2, "facts", &json!({}))),
                false => connection.request("DELETE", "/mcp", &headers, b""),
            }
        }
    }
    server.until_metric("proxyrunner_sessions", 1);
    until("all calls", || journal.runs("facts") == CLIENTS);
}
