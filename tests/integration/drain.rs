//! Drain after a signal: every waiting request gets a response, whatever it waits for.

use crate::support::{Connection, Journal, Server, scratch, until};
use nix::sys::signal::Signal;
use serde_json::json;

/// Sends `initialize` without reading the response.
fn begin_initialize(server: &Server, capabilities: serde_json::Value) -> Connection {
    let mut connection = server.connect();
    connection.post(&[], server.opening().capabilities(capabilities).body());
    connection
}

#[test]
fn requests_waiting_for_a_child_to_start_get_shutting_down() {
    let ask = json!({"sampling": {}});
    for (capabilities, flags) in
        [(json!({}), ""), (json!({}), "--sse-commit-after 0"), (ask, "--child-era legacy")]
    {
        let server = Server::with().flags("--drain-timeout 1s").flags(flags).child("--mute").start();
        let exclusive = capabilities != json!({});
        let mut waiting = begin_initialize(&server, capabilities);
        server.until_metric("proxyrunner_children", if exclusive { 2 } else { 1 });
        server.signal(Signal::SIGTERM);
        let answers = waiting.response().messages();
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert!(answers[0]["error"]["message"].as_str().unwrap().contains("shutting down"), "{answers:?}");
        assert_eq!(server.exit_code(), 0);
    }
}

#[test]
fn requests_waiting_for_a_full_stdin_get_shutting_down() {
    let flags = "--drain-timeout 1s --close-grace 1s --terminate-grace 1s --max-client-in-flight 300";
    let server = Server::start(flags);
    let session = server.session();
    let until_file = scratch("never-reads-again");
    session.result("stop_reading", json!({"until": until_file}));
    let pad = "x".repeat(20_000);
    // The calls exceed the capacity of the child's queue and pipe.
    let mut calls: Vec<_> = (0..300).map(|id| session.begin_call(id, "echo", json!({"pad": pad}))).collect();
    server.until_metric("proxyrunner_in_flight", 300);
    server.signal(Signal::SIGTERM);
    for call in &mut calls {
        let answers = call.response().messages();
        assert_eq!((answers.len(), &answers[0]["error"]["data"]["reason"]), (1, &json!("shutting_down")));
    }
    assert_eq!(server.exit_code(), 0);
}

/// Regression: after the signal, the event loop was busy-waiting.
#[test]
fn queued_notifications_are_written_until_drain_timeout() {
    for (is_read_again, flags) in
        [(true, "--drain-timeout 60s"), (false, "--drain-timeout 1s --close-grace 1s")]
    {
        let journal = Journal::new();
        let flags = format!("--drain-delay 0s --terminate-grace 1s {flags}");
        let server = Server::with().flags(&flags).child(&journal.flag()).start();
        let session = server.session();
        let until_file = scratch("reads-again");
        session.result("stop_reading", json!({"until": until_file}));
        // More notifications than are written before the server has to answer a ping.
        for n in 0..48 {
            let method = format!("notifications/number-{n}");
            session.tell(json!({"jsonrpc": "2.0", "method": method}));
        }
        server.signal(Signal::SIGTERM);
        until("the drain has begun", || server.request("GET", "/readyz", &[], b"").status == 503);
        if is_read_again {
            std::fs::write(&until_file, "").expect("the file");
        }
        assert_eq!(server.exit_code(), 0);
        let read = journal.frames();
        let numbered = read
            .iter()
            .filter(|read| read.message["method"].as_str().is_some_and(|method| method.contains("number-")));
        let numbered = numbered.count();
        assert!(if is_read_again { numbered == 48 } else { numbered < 48 }, "the child read {numbered}");
    }
}

/// Regression: the connection was closed without a response.
#[test]
fn a_client_that_sent_part_of_a_body_gets_shutting_down() {
    for length in ["1000", "1000000"] {
        let server = Server::start("--drain-delay 0s --drain-timeout 1s");
        let session = server.session();
        let mut sending = server.connect();
        let headers = [("Content-Length", length), ("Mcp-Session-Id", session.id.as_str())];
        sending.head("POST", "/mcp", &Connection::post_headers(&headers));
        sending.send("{");
        server.until_metric("proxyrunner_connections", 2);
        server.signal(Signal::SIGTERM);
        let told = sending.response();
        assert_eq!((told.status, told.header("connection")), (503, Some("close")));
        assert!(told.text().contains("shutting down"), "{}", told.text());
        assert_eq!(server.exit_code(), 0);
    }
}

/// Checks that the response has one message, an error with the reason `shutting_down`.
fn assert_told(connection: &mut Connection) {
    let answers = connection.response().messages();
    assert_eq!((answers.len(), &answers[0]["error"]["data"]["reason"]), (1, &json!("shutting_down")));
}

#[test]
fn modern_calls_get_an_error_after_drain_timeout() {
    for flags in ["", "--sse-commit-after 0"] {
        for modern_child in [false, true] {
            let start = Server::with().flags("--drain-timeout 300ms --close-grace 100ms").flags(flags);
            let server = if modern_child { start.modern_child("").start() } else { start.start() };
            let mut calls: Vec<_> =
                (0..10).map(|id| server.modern().begin_call(id, "hang", json!({}))).collect();
            server.until_metric("proxyrunner_in_flight", 10);
            server.signal(Signal::SIGTERM);
            calls.iter_mut().for_each(assert_told);
            assert_eq!(server.exit_code(), 0);
        }
    }
}

#[test]
fn modern_requests_waiting_for_a_start_get_shutting_down() {
    for flags in ["", "--sse-commit-after 0"] {
        let graces = "--drain-timeout 300ms --close-grace 100ms --terminate-grace 100ms";
        let server = Server::with().flags(graces).flags(flags).modern_child("--gate /no/such").start();
        let client = server.modern();
        let mut waiting: Vec<_> = [
            client.body(1, "tools/call", json!({"name": "echo", "arguments": {}})),
            client.body(2, "server/discover", json!({})),
            client.body(3, "subscriptions/listen", json!({"notifications": {}})),
        ]
        .iter()
        .map(|body| client.begin_body(body))
        .collect();
        server.until_metric("proxyrunner_queued", 1);
        server.signal(Signal::SIGTERM);
        waiting.iter_mut().for_each(assert_told);
        assert_eq!(server.exit_code(), 0);
    }
}

#[test]
fn queued_requests_are_served_during_the_drain() {
    let server = Server::start("--max-child-in-flight 1");
    let session = server.session();
    let file = scratch("answer-now");
    let answer = r#"{"jsonrpc":"2.0","id":$ID,"result":{}}"#;
    let arguments = json!({"lines": [], "answer": false, "after": [answer], "file": file});
    let mut held = session.begin_call(0, "emit", arguments);
    server.until_metric("proxyrunner_in_flight", 1);
    let mut calls: Vec<_> = (1..40).map(|id| session.begin_call(id, "sleep", json!({"ms": 2}))).collect();
    let modern = server.modern();
    let mut moderns: Vec<_> = (1..40).map(|id| modern.begin_call(id, "sleep", json!({"ms": 2}))).collect();
    server.until_metric("proxyrunner_queued", 78);
    server.signal(Signal::SIGTERM);
    server.until_logged("shutting down");
    // The queued calls wait for the place of the first call.
    std::fs::write(&file, "").expect("a scratch file");
    held.response();
    for call in calls.iter_mut().chain(&mut moderns) {
        assert_eq!(call.response().answer()["result"]["ms"], 2);
    }
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn requests_waiting_for_a_restart_are_served_during_the_drain() {
    for resumed in [false, true] {
        let flags = "--restart-backoff 1s --restart-backoff-max 1s --resume-sessions";
        let server = Server::start(flags);
        let session = if resumed { server.opening().exclusive().open() } else { server.session() };
        assert_eq!(session.call("leave", json!({"code": 3}))["error"]["data"]["exitCode"], 3);
        let mut waiting = session.begin_call(1, "sleep", json!({"ms": 0}));
        server.until_metric("proxyrunner_queued", 1);
        server.signal(Signal::SIGTERM);
        assert_eq!(waiting.response().answer()["result"]["ms"], 0);
        assert_eq!(server.exit_code(), 0);
    }
}

#[test]
fn streams_get_a_retry_hint_before_they_close() {
    let server = Server::start("");
    let session = server.session();
    let mut stream = session.listen();
    server.signal(Signal::SIGTERM);
    let last = std::iter::from_fn(|| stream.next()).last().expect("a last event");
    assert_eq!(last.retry, Some(500), "{last:?}");
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn a_client_that_reconnects_during_the_drain_gets_its_response() {
    let server = Server::start("--sse-commit-after 0 --sse-max-age 1ms");
    let session = server.session();
    let mut events = session.begin_call(3, "wait", json!({"name": "a"})).events();
    let primer = events.next().and_then(|event| event.id).expect("the priming event");
    assert_eq!(std::iter::from_fn(|| events.next()).last().expect("a word").retry, Some(500));
    session.result("release", json!({"name": "a"}));
    server.until_metric("proxyrunner_in_flight", 0);
    server.signal(Signal::SIGTERM);
    server.until_logged("shutting down");
    let mut resumed = session.resume(&primer);
    assert_eq!(resumed.message()["id"], 3);
    assert_eq!(server.exit_code(), 0);
}
