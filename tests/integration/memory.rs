//! Who gives way when messages in transit take all of `--max-buffered`: what nobody reads first, who is slow next, and an
//! honest client never.

use crate::support::{Connection, Server, Session, tool_call, until};
use serde_json::{Value, json};
use std::thread;

const BUFFERED: &str = "proxyrunner_buffered_bytes";
const MIB: usize = 1 << 20;
const FLAGS: &str = "--max-buffered 16MiB --max-body 12MiB --max-frame 12MiB --sse-commit-after 0";

/// Answers of so many bytes whose clients leave before they are there, while so many other connections stay.
fn abandon(server: &Server, answers: usize, bytes: usize, others: u64) {
    for n in 0..answers {
        let session = server.session();
        let mut call = session.begin_call(1, "wait", json!({"name": n, "pad": "x".repeat(bytes)}));
        assert_eq!(call.response_head().status, 200);
        server.until_metric("proxyrunner_in_flight", 1);
        call.cut();
        until("it is gone", || server.metric("proxyrunner_connections") == others + 1);
        session.result("release", json!({"name": n}));
        server.until_metric("proxyrunner_in_flight", 0);
    }
}

/// A call whose body is long, and whose answer is short.
fn long_call(id: u64, bytes: usize) -> String {
    let call = tool_call(id, "sleep", &json!({"ms": 0}));
    call.replacen('{', &format!(r#"{{"pad":"{}","#, "x".repeat(bytes)), 1)
}

fn slept(answer: &Value) -> bool {
    answer["result"]["ms"] == 0
}

#[test]
fn what_is_owed_to_clients_that_left_makes_room_for_a_body() {
    let server = Server::start(FLAGS);
    let session = server.session();
    // With some room for the requests themselves.
    abandon(&server, 4, 4 * MIB - 320 * 1_024, 0);
    assert!(server.metric(BUFFERED) > 14 * MIB as u64, "{}", server.metric(BUFFERED));
    assert!(slept(&session.post(long_call(1, MIB)).answer()));
    assert!(server.metric(BUFFERED) > 10 * MIB as u64, "only as much goes as is needed");
    assert_eq!(server.metric("proxyrunner_dropped_events_total"), 1);
    assert_eq!(server.metric("proxyrunner_cut_streams_total"), 0);
}

#[test]
fn what_is_owed_to_clients_that_left_goes_before_a_reader_is_cut() {
    let server = Server::start(FLAGS);
    let reader = server.session();
    // It pauses for as long as it takes.
    let mut paused = reader.begin_call(1, "blob", json!({"bytes": 7 * MIB}));
    server.until_metric("proxyrunner_in_flight", 0);
    abandon(&server, 6, 3 * MIB, 1);
    until("there is room again", || server.metric(BUFFERED) <= 16 * MIB as u64);
    assert!(server.metric("proxyrunner_dropped_events_total") > 0);
    assert_eq!(paused.response().answer()["result"]["blob"].as_str().map(str::len), Some(7 * MIB));
    assert_eq!(server.metric("proxyrunner_cut_streams_total"), 0);
}

/// Each would hold a part, and wait for what the others hold.
#[test]
fn long_bodies_take_turns() {
    let server = Server::start(FLAGS);
    let sessions: Vec<_> = (0..8).map(|_| server.session()).collect();
    thread::scope(|scope| {
        for session in &sessions {
            scope.spawn(|| assert!(slept(&session.post(long_call(1, 7 * MIB)).answer())));
        }
    });
    until("all is given back", || server.metric(BUFFERED) < MIB as u64);
}

fn post_chunked(server: &Server, session: &Session<'_>, body: &str) -> Value {
    let mut connection = server.connect();
    let headers = [("Transfer-Encoding", "chunked"), ("Mcp-Session-Id", session.id.as_str())];
    connection.head("POST", "/mcp", &Connection::post_headers(&headers));
    for piece in body.as_bytes().chunks(64 * 1024) {
        connection.chunk(piece).expect("it is taken");
    }
    connection.send("0\r\n\r\n");
    connection.response().answer()
}

#[test]
fn long_bodies_that_do_not_say_how_long_they_are_take_turns() {
    let server = Server::start(FLAGS);
    let sessions: Vec<_> = (0..6).map(|_| server.session()).collect();
    let body = long_call(1, 7 * MIB);
    thread::scope(|scope| {
        for session in &sessions {
            scope.spawn(|| assert!(slept(&post_chunked(&server, session, &body))));
        }
    });
    until("all is given back", || server.metric(BUFFERED) < MIB as u64);
}

/// Begins to send a body of `length` bytes.
fn announce(server: &Server, session: &str, length: usize) -> Connection {
    let mut connection = server.connect();
    let length = length.to_string();
    let headers = [("Content-Length", length.as_str()), ("Mcp-Session-Id", session)];
    connection.head("POST", "/mcp", &Connection::post_headers(&headers));
    connection
}

#[test]
fn a_body_that_does_not_come_gives_way_to_those_that_wait() {
    let server = Server::start(FLAGS);
    let (slow, quick) = (server.session(), server.session());
    let body = long_call(1, 9 * MIB);
    let mut held = announce(&server, &slow.id, body.len());
    held.send(&body[..8 * MIB]);
    until("it has its room", || server.metric(BUFFERED) > 9 * MIB as u64);
    assert!(slept(&quick.post(&body).answer()));
    let refused = held.response();
    assert_eq!((refused.status, refused.header("connection")), (408, Some("close")));
    assert!(refused.text().contains("others wait"), "{}", refused.text());
}

/// Before its body is read: what the server knows from its head is not worth the room.
#[test]
fn a_body_of_an_unknown_session_is_refused_unread_and_its_client_can_read_why() {
    let server = Server::start(FLAGS);
    let mut announced = announce(&server, "no-such-session", 8 * MIB);
    let refused = announced.response();
    assert_eq!((refused.status, refused.code()), (404, -32001));
    let before = server.metric(BUFFERED);
    let mut sent = announce(&server, "no-such-session", 8 * MIB);
    sent.send(vec![b' '; 8 * MIB]);
    assert_eq!(sent.response().status, 404);
    assert_eq!(server.metric(BUFFERED), before);
    // What takes no room is read, so that the refusal names it.
    let small =
        server.post(&[("Mcp-Session-Id", "no-such-session")], tool_call("small", "facts", &json!({})));
    assert_eq!((small.status, small.json()["id"].clone()), (404, json!("small")));
    // A session means nothing to a modern request.
    let modern = server.modern().header("Mcp-Session-Id", "no-such-session");
    assert_eq!(
        modern.result("sleep", json!({"ms": 0, "pad": "x".repeat(MIB)}))["structuredContent"],
        Value::Null
    );
    let wrong = announce_version(&server, &server.session().id, "2025-03-27");
    assert_eq!(wrong, 400);
}

/// The status of a long body that is announced under this version.
fn announce_version(server: &Server, session: &str, version: &str) -> u16 {
    let mut connection = server.connect();
    let headers =
        [("Content-Length", "1000000"), ("Mcp-Session-Id", session), ("MCP-Protocol-Version", version)];
    connection.head("POST", "/mcp", &Connection::post_headers(&headers));
    connection.response().status
}

/// Its client had left, and what it took counted nowhere.
#[test]
fn a_call_is_charged_until_it_is_over_although_its_client_has_left() {
    let server = Server::start("");
    let session = server.session();
    let call = session.begin_call(1, "hang", json!({}));
    server.until_metric("proxyrunner_in_flight", 1);
    drop(call);
    server.until_metric("proxyrunner_connections", 1);
    assert_eq!(server.metric("proxyrunner_in_flight"), 1, "a client that leaves has not cancelled");
    assert!(server.metric("proxyrunner_buffered_bytes") > 8 << 10);
}
