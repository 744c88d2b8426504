//! Load: with many requests and slow clients, each client gets its own responses and does not wait for others.

use crate::support::{Connection, Server, scratch, tool_call, until};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::net::TcpStream;

/// A loop that finishes writing before it reads again would deadlock here, because both pipes are full.
#[test]
fn a_synchronous_child_answers_concurrent_large_calls() {
    let server = Server::with().child("--serial").start();
    let session = server.session();
    let large = "x".repeat(50_000);
    let calls: Vec<_> =
        (0..8).map(|id| (id, session.begin_call(id, "echo", json!({"id": id, "large": large})))).collect();
    for (id, mut call) in calls {
        let answer = call.response().answer();
        assert_eq!((&answer["id"], &answer["result"]["id"]), (&json!(id), &json!(id)));
        assert_eq!(answer["result"]["large"].as_str().map(str::len), Some(50_000));
    }
}

/// Some clients send every request with `id: 1`.
#[test]
fn a_thousand_requests_with_the_same_id_get_their_own_responses() {
    // Responses on a stream are kept for replay, and would count as buffered.
    let server = Server::start("--sse-commit-after 1m");
    let sessions = [server.session(), server.session()];
    // Each request in progress is charged 40 KiB.
    until("the handshakes are over", || server.metric("proxyrunner_buffered_bytes") < 40 << 10);
    let at_rest = server.metric("proxyrunner_buffered_bytes");
    let calls: Vec<_> =
        (0..1_000).map(|n| (n, sessions[n % 2].begin_call(1, "echo", json!({"n": n})))).collect();
    for (n, mut call) in calls {
        let answer = call.response().answer();
        assert_eq!(answer, json!({"jsonrpc": "2.0", "id": 1, "result": {"n": n}}));
    }
    server.until_metric("proxyrunner_in_flight", 0);
    server.until_metric("proxyrunner_buffered_bytes", at_rest);
}

#[test]
fn ten_thousand_idle_connections_do_not_block_requests() {
    // Each connection uses a descriptor in both processes; the number is reduced to the limit of the machine.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("the hard limit is allowed");
    let connections = most.saturating_sub(500).min(10_000);
    let server = Server::start("");
    let session = server.session();
    let idle: Vec<_> =
        (0..connections).map(|_| TcpStream::connect(server.address()).expect("a connection")).collect();
    assert_eq!(session.call("sleep", json!({"ms": 0}))["result"]["ms"], 0);
    drop(idle);
}

#[test]
fn idle_connections_make_room_for_a_request() {
    let server = Server::start("--max-connections 8");
    let session = server.session();
    let _idle: Vec<_> =
        (0..50).map(|_| TcpStream::connect(server.address()).expect("a connection")).collect();
    assert_eq!(session.call("sleep", json!({"ms": 0}))["result"]["ms"], 0);
}

/// A client that keeps its connection open after a response must not block other clients.
#[test]
fn newly_idle_connections_make_room_for_waiting_ones() {
    let server = Server::start("--max-connections 2");
    let session = server.session();
    let mut calls: Vec<_> = (0..2).map(|id| session.begin_call(id, "sleep", json!({"ms": 200}))).collect();
    assert_eq!(session.call("echo", json!({"n": 1}))["result"]["n"], 1);
    for call in &mut calls {
        assert_eq!(call.response().answer()["result"]["ms"], 200);
    }
}

/// Supervisors must not mistake a busy proxyrunner for a dead one.
#[test]
fn probes_are_answered_when_all_connections_are_busy() {
    let server = Server::start("--max-connections 4");
    let sessions: Vec<_> = (0..4).map(|_| server.session()).collect();
    let mut busy: Vec<_> = sessions.iter().map(|session| session.listen()).collect();
    assert!(busy.iter_mut().all(|stream| stream.next().is_some()), "the streams are open");
    // Connections without requests do not block others.
    let _silent: Vec<_> =
        (0..20).map(|_| TcpStream::connect(server.address()).expect("a connection")).collect();
    for path in ["/livez", "/readyz", "/startupz", "/metrics"] {
        let probed = server.request("GET", path, &[], b"");
        assert_eq!((probed.status, probed.header("connection")), (200, Some("close")), "{path}");
    }
    let refused = sessions[0].post(tool_call(1, "echo", &json!({"pad": "x".repeat(4 << 20)})));
    assert_eq!((refused.status, refused.code(), refused.header("retry-after")), (503, -32603, Some("1")));
    assert_eq!(refused.header("connection"), Some("close"));
    assert!(refused.text().contains("--max-connections"), "{}", refused.text());
    busy.pop().expect("a stream").cut();
    until("a connection is free", || sessions[0].post(tool_call(1, "echo", &json!({}))).status == 200);
}

/// Children and logs need files, too, but must leave half of them to connections.
#[test]
fn connections_get_half_of_the_open_files_if_there_are_few() {
    let few = ["sh", "-c", "ulimit -n 256 && exec \"$0\" \"$@\""];
    let server = Server::with().under(&few).start();
    server.until_logged("the limit of 256 open files leaves room for 128 connections");
    assert_eq!(server.session().call("sleep", json!({"ms": 0}))["result"]["ms"], 0);
}

#[test]
fn slow_clients_do_not_stall_others() {
    let server = Server::start("--sse-commit-after 0 --max-buffered 16MiB --max-body 8MiB --max-frame 8MiB");
    let (slow, quick) = (server.session(), server.session());
    // One client sends a body byte by byte, ...
    let mut dribbling = server.connect();
    let headers = [("Content-Length", "1000"), ("Mcp-Session-Id", slow.id.as_str())];
    dribbling.head("POST", "/mcp", &Connection::post_headers(&headers));
    dribbling.send("{");
    // ... one sends half a head, ...
    let mut head = server.connect();
    head.send("POST /mcp HT");
    // ... and one reads none of its responses, which exceed the socket buffers.
    let unread: Vec<_> = (0..3).map(|id| slow.begin_call(id, "blob", json!({"bytes": 4 << 20}))).collect();
    for n in 0..50 {
        assert_eq!(quick.call("echo", json!({"n": n}))["result"]["n"], n);
        dribbling.send(" ");
    }
    drop(unread);
}

#[test]
fn undelivered_responses_are_bounded_and_the_slowest_reader_is_cut() {
    let server = Server::start("--sse-commit-after 0 --max-buffered 16MiB --max-body 8MiB --max-frame 8MiB");
    let (slow, quick) = (server.session(), server.session());
    let unread: Vec<_> = (0..20).map(|id| slow.begin_call(id, "blob", json!({"bytes": 4 << 20}))).collect();
    server.until_metric("proxyrunner_in_flight", 0);
    until("most responses are buffered", || server.metric("proxyrunner_buffered_bytes") > 8 << 20);
    assert!(server.metric("proxyrunner_buffered_bytes") <= 18 << 20, "the limit and its reserve");
    let answer = quick.call("blob", json!({"bytes": 1 << 20}));
    assert_eq!(answer["result"]["blob"].as_str().map(str::len), Some(1 << 20), "{answer}");
    let gave_way = |name| server.metric(name);
    assert!(gave_way("proxyrunner_gave_way_total") + gave_way("proxyrunner_cut_streams_total") > 0);
    drop(unread);
}

#[test]
fn without_a_queue_excess_requests_are_refused_at_once() {
    let server = Server::start("--max-in-flight 3 --max-queued 0");
    let (session, other) = (server.session(), server.session());
    let mut calls: Vec<_> = (0..3).map(|id| session.begin_call(id, "wait", json!({"name": "a"}))).collect();
    server.until_metric("proxyrunner_in_flight", 3);
    let refused = other.post(tool_call("r", "facts", &json!({})));
    assert_eq!((refused.status, refused.code(), refused.header("retry-after")), (503, -32603, Some("1")));
    assert_eq!(refused.json()["id"], "r");
    assert_eq!(server.metric("proxyrunner_shed_requests_total"), 1);
    // A cancellation needs no permit.
    session.tell(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}}));
    assert_eq!(calls[2].response().answer()["error"]["code"], -32800);
    assert_eq!(other.post(tool_call(1, "facts", &json!({}))).status, 503, "the call is still at the child");
    assert_eq!(other.ask("ping", json!({}))["result"], json!({}));
    assert_eq!(other.listen().next().map(|event| event.data), Some(String::new()), "streams take no permit");
}

#[test]
fn a_large_body_waits_for_room_and_small_ones_pass() {
    let server = Server::start("--sse-commit-after 0 --max-buffered 4MiB --max-body 4MiB --max-frame 1MiB");
    let stalled = server.opening().exclusive().open();
    let file = scratch("reads-again");
    stalled.result("stop_reading", json!({"until": file}));
    let big = "x".repeat(1 << 20);
    let waiting: Vec<_> =
        (0..3).map(|id| stalled.begin_call(id, "release", json!({"name": "", "big": big}))).collect();
    until("the calls are buffered", || server.metric("proxyrunner_buffered_bytes") > 3 << 20);
    let fourth = stalled.begin_call(4, "release", json!({"name": "", "big": big}));
    assert_eq!(server.session().call("sleep", json!({"ms": 0}))["result"]["ms"], 0, "small requests pass");
    std::fs::write(&file, "").expect("a scratch file");
    for mut call in waiting.into_iter().chain([fourth]) {
        // The responses are short, because responses kept for replay count as buffered bytes.
        assert_eq!(call.response().answer()["result"], json!({}));
    }
    until("only short answers are kept", || server.metric("proxyrunner_buffered_bytes") < 64 << 10);
}

/// Cancelled requests that wait for a child that reads nothing must not occupy memory.
#[test]
fn requests_cancelled_before_they_are_written_return_their_bytes() {
    for how in ["cancelled", "timed out", "deleted", "disconnected"] {
        let timeout = if how == "timed out" { "2s" } else { "1h" };
        let server =
            Server::start(&format!("--request-timeout {timeout} --request-max 1h --cancel-grace 1h"));
        let (stalled, session) = (server.session(), server.session());
        stalled.result("stop_reading", json!({"until": scratch("never-reads-again")}));
        let arguments = json!({"name": "", "big": "x".repeat(1 << 20)});
        let calls: Vec<_> = (0..8)
            .map(|id| match how {
                "disconnected" => server.modern().begin_call(id, "release", arguments.clone()),
                _ => session.begin_call(id, "release", arguments.clone()),
            })
            .collect();
        if how != "timed out" {
            until("the calls are buffered", || server.metric("proxyrunner_buffered_bytes") > 8 << 20);
            // Their bytes are charged before they arrive, and only a call that has begun can be cancelled.
            server.until_metric("proxyrunner_in_flight", 8);
        }
        match how {
            "cancelled" => (0..8).for_each(|id| {
                let params = json!({"requestId": id});
                session
                    .tell(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}));
            }),
            "deleted" => drop(session.delete()),
            "disconnected" => calls.into_iter().for_each(Connection::cut),
            _ => server.until_metric("proxyrunner_timed_out_requests_total", 8),
        }
        // The request that is being written stays charged.
        until(how, || server.metric("proxyrunner_buffered_bytes") < 2 << 20);
    }
}

#[test]
fn one_connection_carries_many_requests() {
    let server = Server::start("");
    let session = server.session();
    let mut connection = server.connect();
    let headers = [("Mcp-Session-Id", session.id.as_str())];
    for n in 0..200 {
        connection.post(&headers, tool_call(n, "echo", &json!({"n": n})));
    }
    let answers: Vec<Value> =
        (0..200).map(|_| connection.response().answer()["result"]["n"].clone()).collect();
    assert_eq!(answers, (0..200).map(Value::from).collect::<Vec<_>>(), "pipelined, and in order");
}

/// Small messages of many sessions add up.
#[test]
fn replay_buffers_are_charged_and_give_way_to_bodies() {
    let server = Server::start("--max-buffered 1MiB --max-body 1MiB --max-frame 1MiB --replay-bytes 1MiB");
    let sessions: Vec<_> = (0..4).map(|_| server.session()).collect();
    for session in &sessions {
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "progress",
            "_meta": {"progressToken": 1}, "arguments": {"n": 255}}});
        session.post(call.to_string()).answer();
    }
    assert!(server.metric("proxyrunner_buffered_bytes") > 200_000);
    let big = "x".repeat(900_000);
    let answer = sessions[0].call("facts", json!({"big": big}));
    assert!(answer["result"]["pid"].is_number(), "{answer}");
    assert_eq!(server.metric("proxyrunner_cut_streams_total"), 0);
}
