//! Memory pressure when messages reach `--max-buffered`: undelivered data is dropped first, then slow readers are cut,
//! and clients that read are never affected.

use crate::support::{Connection, Server, Session, tool_call, until};
use serde_json::{Value, json};
use std::thread;

const BUFFERED: &str = "proxyrunner_buffered_bytes";
const MIB: usize = 1 << 20;
const FLAGS: &str = "--max-buffered 16MiB --max-body 12MiB --max-frame 12MiB --sse-commit-after 0";

/// Leaves `answers` undelivered responses of `bytes` each: the clients disconnect before their calls are answered. The
/// number of other open connections is `others`.
fn abandon(server: &Server, answers: usize, bytes: usize, others: u64) {
    for n in 0..answers {
        let session = server.session();
        let mut call = session.begin_call(1, "wait", json!({"name": n, "pad": "x".repeat(bytes)}));
        assert_eq!(call.response_head().status, 200);
        server.until_metric("proxyrunner_in_flight", 1);
        call.cut();
        until("the disconnect is noticed", || server.metric("proxyrunner_connections") == others + 1);
        session.result("release", json!({"name": n}));
        server.until_metric("proxyrunner_in_flight", 0);
    }
}

/// Returns a call with a long body and a short response.
fn long_call(id: u64, bytes: usize) -> String {
    let call = tool_call(id, "sleep", &json!({"ms": 0}));
    call.replacen('{', &format!(r#"{{"pad":"{}","#, "x".repeat(bytes)), 1)
}

fn slept(answer: &Value) -> bool {
    answer["result"]["ms"] == 0
}

#[test]
fn undelivered_responses_are_dropped_for_a_body() {
    let server = Server::start(FLAGS);
    let session = server.session();
    // The responses leave some room for the requests.
    abandon(&server, 4, 4 * MIB - 320 * 1_024, 0);
    assert!(server.metric(BUFFERED) > 14 * MIB as u64, "{}", server.metric(BUFFERED));
    assert!(slept(&session.post(long_call(1, MIB)).answer()));
    assert!(server.metric(BUFFERED) > 10 * MIB as u64, "no more is dropped than is needed");
    assert_eq!(server.metric("proxyrunner_dropped_events_total"), 1);
    assert_eq!(server.metric("proxyrunner_cut_streams_total"), 0);
}

#[test]
fn undelivered_responses_are_dropped_before_a_reader_is_cut() {
    let server = Server::start(FLAGS);
    let reader = server.session();
    // The reader pauses until the end of the test.
    let mut paused = reader.begin_call(1, "blob", json!({"bytes": 7 * MIB}));
    server.until_metric("proxyrunner_in_flight", 0);
    abandon(&server, 6, 3 * MIB, 1);
    until("memory is below the limit", || server.metric(BUFFERED) <= 16 * MIB as u64);
    assert!(server.metric("proxyrunner_dropped_events_total") > 0);
    assert_eq!(paused.response().answer()["result"]["blob"].as_str().map(str::len), Some(7 * MIB));
    assert_eq!(server.metric("proxyrunner_cut_streams_total"), 0);
}

/// Without turns, each body would hold part of the memory and wait for the parts of the others.
#[test]
fn long_bodies_take_turns() {
    let server = Server::start(FLAGS);
    let sessions: Vec<_> = (0..8).map(|_| server.session()).collect();
    thread::scope(|scope| {
        for session in &sessions {
            scope.spawn(|| assert!(slept(&session.post(long_call(1, 7 * MIB)).answer())));
        }
    });
    until("all memory is returned", || server.metric(BUFFERED) < MIB as u64);
}

fn post_chunked(server: &Server, session: &Session<'_>, body: &str) -> Value {
    let mut connection = server.connect();
    let headers = [("Transfer-Encoding", "chunked"), ("Mcp-Session-Id", session.id.as_str())];
    connection.head("POST", "/mcp", &Connection::post_headers(&headers));
    for piece in body.as_bytes().chunks(64 * 1024) {
        connection.chunk(piece).expect("the chunk is sent");
    }
    connection.send("0\r\n\r\n");
    connection.response().answer()
}

#[test]
fn long_bodies_of_unknown_length_take_turns() {
    let server = Server::start(FLAGS);
    let sessions: Vec<_> = (0..6).map(|_| server.session()).collect();
    let body = long_call(1, 7 * MIB);
    thread::scope(|scope| {
        for session in &sessions {
            scope.spawn(|| assert!(slept(&post_chunked(&server, session, &body))));
        }
    });
    until("all memory is returned", || server.metric(BUFFERED) < MIB as u64);
}

/// Sends the head of a request with a body of `length` bytes.
fn announce(server: &Server, session: &str, length: usize) -> Connection {
    let mut connection = server.connect();
    let length = length.to_string();
    let headers = [("Content-Length", length.as_str()), ("Mcp-Session-Id", session)];
    connection.head("POST", "/mcp", &Connection::post_headers(&headers));
    connection
}

#[test]
fn a_stalled_body_gives_way_to_waiting_ones() {
    let server = Server::start(FLAGS);
    let (slow, quick) = (server.session(), server.session());
    let body = long_call(1, 9 * MIB);
    let mut held = announce(&server, &slow.id, body.len());
    held.send(&body[..8 * MIB]);
    until("the body has its memory", || server.metric(BUFFERED) > 9 * MIB as u64);
    assert!(slept(&quick.post(&body).answer()));
    let refused = held.response();
    assert_eq!((refused.status, refused.header("connection")), (408, Some("close")));
    assert!(refused.text().contains("others wait"), "{}", refused.text());
}

/// A request that its head already refuses gets no memory for its body.
#[test]
fn a_body_for_an_unknown_session_is_refused_unread() {
    let server = Server::start(FLAGS);
    let mut announced = announce(&server, "no-such-session", 8 * MIB);
    let refused = announced.response();
    assert_eq!((refused.status, refused.code()), (404, -32001));
    let before = server.metric(BUFFERED);
    let mut sent = announce(&server, "no-such-session", 8 * MIB);
    sent.send(vec![b' '; 8 * MIB]);
    assert_eq!(sent.response().status, 404);
    assert_eq!(server.metric(BUFFERED), before);
    // A small body is read nevertheless, so that the error has the id of the request.
    let small =
        server.post(&[("Mcp-Session-Id", "no-such-session")], tool_call("small", "facts", &json!({})));
    assert_eq!((small.status, small.json()["id"].clone()), (404, json!("small")));
    // A modern request ignores the session id.
    let modern = server.modern().header("Mcp-Session-Id", "no-such-session");
    assert_eq!(
        modern.result("sleep", json!({"ms": 0, "pad": "x".repeat(MIB)}))["structuredContent"],
        Value::Null
    );
    let wrong = announce_version(&server, &server.session().id, "2025-03-27");
    assert_eq!(wrong, 400);
}

/// Returns the status of a request with a long body under this version.
fn announce_version(server: &Server, session: &str, version: &str) -> u16 {
    let mut connection = server.connect();
    let headers =
        [("Content-Length", "1000000"), ("Mcp-Session-Id", session), ("MCP-Protocol-Version", version)];
    connection.head("POST", "/mcp", &Connection::post_headers(&headers));
    connection.response().status
}

/// Regression: the memory of a call was no longer charged after its client had disconnected.
#[test]
fn a_call_is_charged_until_it_ends_even_after_a_disconnect() {
    let server = Server::start("");
    let session = server.session();
    let call = session.begin_call(1, "hang", json!({}));
    server.until_metric("proxyrunner_in_flight", 1);
    drop(call);
    server.until_metric("proxyrunner_connections", 1);
    assert_eq!(server.metric("proxyrunner_in_flight"), 1, "a disconnect does not cancel the call");
    assert!(server.metric("proxyrunner_buffered_bytes") > 8 << 10);
}
