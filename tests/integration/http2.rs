//! HTTP/2 with prior knowledge: one connection carries many requests, and has limits of its own.

use crate::support::http2::{Asked, Http2, in_time};
use crate::support::{Journal, Server, tool_call, until};
use bytes::Bytes;
use h2::Reason;
use h2::client::Builder;
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"test","version":"1"}}}"#;

/// Opens a session of a legacy client.
async fn session(client: &mut Http2) -> String {
    let welcome = client.post(&[], INITIALIZE).await.whole().await;
    assert_eq!(welcome.status, 200, "{welcome:?}");
    welcome.headers["mcp-session-id"].to_str().expect("text").to_owned()
}

/// Calls a tool within a session.
async fn call(client: &mut Http2, session: &str, id: u64, tool: &str, arguments: serde_json::Value) -> Asked {
    let headers = [("mcp-session-id", session), ("mcp-protocol-version", "2025-11-25")];
    client.post(&headers, tool_call(id, tool, &arguments)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn both_eras_are_served_on_one_connection() {
    let server = Server::start("");
    let mut client = Http2::open(&server).await;
    let id = session(&mut client).await;
    let waiting = call(&mut client, &id, 1, "wait", json!({"name": "go"})).await;
    let modern = client.modern(&server, "tools/call", json!({"name": "echo", "arguments": {"n": 7}})).await;
    assert_eq!(modern.whole().await.json()["result"]["n"], 7, "calls do not wait for each other");
    call(&mut client, &id, 2, "release", json!({"name": "go"})).await.whole().await;
    assert_eq!(waiting.whole().await.json()["id"], 1);
    let stream = client.get("/mcp", &[("accept", "text/event-stream"), ("mcp-session-id", &id)]).await;
    assert_eq!(stream.head().await.status(), 200);
    assert_eq!(client.get("/health/ready", &[]).await.whole().await.status, 200);
    let end = client.request("DELETE", "/mcp", &[("mcp-session-id", &id)]);
    assert_eq!(client.send(end, true).await.whole().await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preface_in_pieces_is_recognized_and_a_similar_beginning_is_not() {
    let server = Server::start("");
    let mut stream = TcpStream::connect(server.address()).await.expect("a listener");
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0" {
        stream.write_all(&[*byte]).await.expect("sent");
        stream.flush().await.expect("sent");
        tokio::task::yield_now().await;
    }
    let mut answer = [0; 9];
    in_time(stream.read_exact(&mut answer)).await.expect("a frame");
    assert_eq!(answer[3], 4, "the first frame has the server's settings");
    for beginning in ["P", "PR", "PRI "] {
        let mut stream = TcpStream::connect(server.address()).await.expect("a listener");
        stream.write_all(beginning.as_bytes()).await.expect("sent");
        tokio::task::yield_now().await;
        stream.write_all(b"X /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
        let mut answer = [0; 12];
        in_time(stream.read_exact(&mut answer)).await.expect("an answer by HTTP/1.1");
        assert!(answer.starts_with(b"HTTP/1.1 4"), "{:?}", String::from_utf8_lossy(&answer));
    }
    let server = Server::start("--max-streams 0");
    let mut stream = TcpStream::connect(server.address()).await.expect("a listener");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    let _ = in_time(stream.read_to_end(&mut answer)).await;
    assert_ne!(answer.get(3), Some(&4), "HTTP/2 is not spoken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_stream_is_a_client_that_disconnected() {
    let journal = Journal::new();
    let server = Server::with().child(&journal.flag()).start();
    let mut client = Http2::open(&server).await;
    let id = session(&mut client).await;

    let kept = call(&mut client, &id, 1, "wait", json!({"name": "kept"})).await;
    let legacy = call(&mut client, &id, 2, "wait", json!({"name": "legacy"})).await;
    let modern = client.modern(&server, "tools/call", json!({"name": "hang", "arguments": {}})).await;
    until("the calls to be at the server", || journal.runs("wait") == 2 && journal.runs("hang") == 1);
    for Asked { response, mut body } in [legacy, modern] {
        body.send_reset(Reason::CANCEL);
        drop(response);
    }
    journal.until_cancelled("hang");
    assert!(!journal.is_cancelled("wait"), "a legacy client that disconnects has not cancelled");
    call(&mut client, &id, 3, "release", json!({"name": "kept"})).await.whole().await;
    assert_eq!(kept.whole().await.json()["id"], 1, "other streams go on");
    call(&mut client, &id, 4, "release", json!({"name": "legacy"})).await.whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_disconnects_leaves_all_of_its_streams() {
    let journal = Journal::new();
    let server = Server::with().child(&journal.flag()).start();
    let mut client = Http2::open(&server).await;
    let mut calls = Vec::new();
    for _ in 0..2 {
        calls.push(client.modern(&server, "tools/call", json!({"name": "hang", "arguments": {}})).await);
    }
    until("the calls to be at the server", || journal.runs("hang") == 2);
    client.driver.abort();
    let cancelled =
        || journal.frames().iter().filter(|read| read.message["method"] == "notifications/cancelled").count();
    until("both calls to be cancelled", || cancelled() == 2);
    until("the connection to be gone", || server.metric("proxyrunner_connections") <= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_close_their_connection_and_no_other() {
    let server = Server::start("");
    let mut good = Http2::open(&server).await;
    let bad = Http2::open(&server).await;
    for _ in 0..1_000 {
        let request = bad.request("GET", "/health", &[]);
        let Ok(mut ready) = in_time(bad.sender.clone().ready()).await else { break };
        let Ok((response, mut body)) = ready.send_request(request, false) else { break };
        tokio::task::yield_now().await;
        body.send_reset(Reason::CANCEL);
        drop(response);
    }
    assert!(in_time(bad.driver).await.expect("no panic").is_err(), "the connection is closed");
    assert_eq!(good.get("/health", &[]).await.whole().await.status, 200);
}

/// Resets each stream only once it is answered, so that hyper has accepted it.
#[tokio::test(flavor = "multi_thread")]
async fn resets_of_answered_streams_close_their_connection_too() {
    let server = Server::start("");
    let mut bad = Http2::open(&server).await;
    let id = session(&mut bad).await;
    for _ in 0..1_000 {
        let Ok(mut ready) = in_time(bad.sender.clone().ready()).await else { break };
        let headers = [("accept", "text/event-stream"), ("mcp-session-id", &*id)];
        let request = bad.request("GET", "/mcp", &headers);
        let Ok((response, mut body)) = ready.send_request(request, true) else { break };
        if in_time(response).await.is_err() {
            break;
        }
        body.send_reset(Reason::CANCEL);
    }
    let _ = in_time(bad.driver).await.expect("no panic");
    assert_eq!(server.metric("proxyrunner_reset_floods_total"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_headers_are_refused_and_the_connection_goes_on() {
    let server = Server::start("");
    let mut client = Http2::open(&server).await;
    let names: Vec<_> = (0..10_000).map(|at| format!("x-{at}")).collect();
    let headers: Vec<_> = names.iter().map(|name| (&**name, "v")).collect();
    let request = client.request("GET", "/health", &headers);
    // The server may also reset the stream, or close the connection: it must not read on.
    let asked = client.send(request, true).await;
    match in_time(asked.response).await {
        Ok(response) => assert_eq!(response.status(), 431),
        Err(error) => assert!(error.is_remote() || error.is_io() || error.is_go_away(), "{error}"),
    }
    let mut client = Http2::open(&server).await;
    let token = format!("Bearer {}", "x".repeat(17 * 1024));
    let asked = client.get("/health", &[("authorization", &token)]).await;
    assert_eq!(asked.whole().await.status, 200, "long headers are no attack");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_count_as_connections() {
    let journal = Journal::new();
    let server = Server::with().flags("--max-connections 4").child(&journal.flag()).start();
    let mut client = Http2::open(&server).await;
    let id = session(&mut client).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(client.modern(&server, "tools/call", json!({"name": "hang", "arguments": {}})).await);
    }
    until("the calls to be at the server", || journal.runs("hang") == 4);
    let refused = call(&mut client, &id, 5, "echo", json!({})).await.whole().await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(!refused.headers.contains_key("connection"));
    assert_eq!(client.get("/health", &[]).await.whole().await.status, 200, "probes need no place");
    held.pop();
    // The calls may have reached the server in any order.
    until("one call to be cancelled", || {
        journal.frames().iter().any(|read| read.message["method"] == "notifications/cancelled")
    });
    let answered = call(&mut client, &id, 6, "echo", json!({})).await.whole().await;
    assert_eq!(answered.status, 200, "the place of the stream that was reset is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_opens_no_more_streams_than_allowed() {
    let server = Server::start("--max-streams 3");
    let mut client = Http2::open(&server).await;
    let id = session(&mut client).await;
    let mut held = Vec::new();
    for name in 1..=3 {
        held.push(call(&mut client, &id, name, "wait", json!({"name": "all"})).await);
    }
    assert_eq!(client.sender.current_max_send_streams(), 3);
    server.session().call("release", json!({"name": "all"}));
    for call in held {
        assert_eq!(call.whole().await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_pass_in_both_directions() {
    let server = Server::start("");
    let mut client = Http2::open(&server).await;
    let id = session(&mut client).await;
    let text = "x".repeat(5 << 20);
    let message = tool_call(1, "echo", &json!({"text": text}));
    let headers = [("mcp-session-id", &*id)];
    let request = client.request("POST", "/mcp", &[crate::support::JSON, &headers].concat());
    let mut asked = client.send(request, false).await;
    asked.body.send_data(Bytes::from(message), true).expect("a stream");
    let answer = asked.whole().await;
    assert_eq!(answer.json()["result"]["text"].as_str().map(str::len), Some(5 << 20));
}

/// Bodies of unknown length wait until there is memory for the longest one, and keep others from nothing.
#[tokio::test(flavor = "multi_thread")]
async fn many_bodies_at_a_time_arrive_whole() {
    let server = Server::start("");
    let mut client = Http2::open(&server).await;
    let id = session(&mut client).await;
    let (text, headers) = ("x".repeat(500_000), [crate::support::JSON, &[("mcp-session-id", &*id)]].concat());
    let mut asked = Vec::new();
    for at in 0..60 {
        let params = json!({"name": "sleep", "arguments": {"ms": 0}, "_meta": {"pad": text}});
        let message =
            json!({"jsonrpc": "2.0", "id": at, "method": "tools/call", "params": params}).to_string();
        let request = client.request("POST", "/mcp", &headers);
        let mut stream = client.send(request, false).await;
        let mut body = Bytes::from(message);
        stream.body.send_data(body.split_to(64 << 10), false).expect("a stream");
        asked.push((stream, body));
    }
    let mut sent = Vec::new();
    for (mut stream, rest) in asked.into_iter().rev() {
        stream.body.send_data(rest, true).expect("a stream");
        sent.push(stream);
    }
    for asked in sent {
        let answer = asked.whole().await;
        assert_eq!((answer.status, &answer.json()["result"]["ms"]), (200, &json!(0)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_not_accepted_is_dropped() {
    let server = Server::start("--write-timeout 1s");
    let mut client = Http2::with(&server, Builder::new().initial_window_size(1_000)).await;
    let id = session(&mut client).await;
    let text = "x".repeat(1 << 20);
    let blocked = call(&mut client, &id, 1, "echo", json!({"text": text})).await.head().await;
    assert_eq!(blocked.status(), 200);
    server.until_metric("proxyrunner_blocked_streams_total", 1);
    let fine = call(&mut client, &id, 2, "echo", json!({"n": 1})).await.whole().await;
    assert_eq!(fine.json()["result"]["n"], 1, "other streams of the connection go on");
    until("the memory to be free", || server.metric("proxyrunner_buffered_bytes") < 256 * 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_obey_the_budget() {
    let server = Server::start("--max-buffered 4MiB");
    let mut client = Http2::open(&server).await;
    let id = session(&mut client).await;
    let mut asked = Vec::new();
    for at in 0..100 {
        let headers =
            [crate::support::JSON, &[("mcp-session-id", &*id), ("content-length", "2000000")]].concat();
        let request = client.request("POST", "/mcp", &headers);
        let stream = client.send(request, false).await;
        asked.push((at, stream));
    }
    let mut refused = 0;
    for (_, stream) in asked {
        if let Ok(Ok(response)) = tokio::time::timeout(Duration::from_millis(100), stream.response).await {
            assert_eq!(response.status(), 503);
            refused += 1;
        }
    }
    assert!(refused > 0, "no memory for all");
    assert!(server.metric("proxyrunner_buffered_bytes") <= 4 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_lets_streams_finish() {
    let journal = Journal::new();
    let server = Server::with().flags("--drain-timeout 20s").child(&journal.flag()).start();
    let mut client = Http2::open(&server).await;
    let id = session(&mut client).await;
    let waiting = call(&mut client, &id, 1, "sleep", json!({"ms": 700})).await;
    let idle = Http2::open(&server).await;
    until("the call to be at the server", || journal.runs("sleep") == 1);
    server.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(waiting.whole().await.status, 200);
    let _ = in_time(idle.driver).await.expect("no panic");
    assert_eq!(server.exit_code(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_is_checked_like_a_host() {
    let server = Server::start("");
    let mut client = Http2::open(&server).await;
    let mut status = async |authority: &str, host: Option<&str>| {
        let mut request = hyper::Request::builder().uri(format!("http://{authority}/mcp")).method("POST");
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let asked = client.send(request.body(()).expect("a request"), true).await;
        asked.whole().await.status
    };
    assert_eq!(status("evil.example", None).await, 403);
    assert_eq!(status("localhost", None).await, 415);
    assert_eq!(status("localhost", Some("evil.example")).await, 400);
    assert_eq!(status("localhost", Some("localhost")).await, 415);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_body_is_charged_before_it_arrives() {
    let server = Server::start("");
    let mut client = Http2::open(&server).await;
    let id = session(&mut client).await;
    let mut bodies = Vec::new();
    for _ in 0..10 {
        let request =
            client.request("POST", "/mcp", &[crate::support::JSON, &[("mcp-session-id", &*id)]].concat());
        bodies.push(client.send(request, false).await);
    }
    until("ten windows to be charged", || {
        server.metric("proxyrunner_buffered_bytes") >= 10 * (32 + 64) * 1024
    });
    drop(bodies);
    until("the memory to be free", || server.metric("proxyrunner_buffered_bytes") < 96 * 1024);
}

/// Returns a frame of stream 1.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let [.., a, b, c] = payload.len().to_be_bytes();
    [&[a, b, c, kind, 0, 0, 0, 0, 1][..], payload].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_heads_are_bounded_over_all_connections() {
    let server = Server::start("");
    // One header, `a`, whose value is announced as 60,000 bytes long.
    let begin = [&[0, 1, b'a', 0x7f, 0xe1, 0xd3, 0x03][..], &[b'v'; 16_000]].concat();
    let head = [frame(1, &begin), frame(9, &[b'v'; 16_000]), frame(9, &[b'v'; 16_000])].concat();
    let mut open = Vec::new();
    for _ in 0..120 {
        let mut stream = TcpStream::connect(server.address()).await.expect("a listener");
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        let _ = stream.write_all(&[&preface[..], &head].concat()).await;
        open.push(stream);
    }
    server.until_logged("unfinished request heads exceed");
    let mut client = Http2::open(&server).await;
    assert_eq!(client.get("/health", &[]).await.whole().await.status, 200);
}

/// Reads frames until the connection ends; returns the last one: its type and its payload.
async fn last_frame(mut stream: impl AsyncReadExt + Unpin) -> (u8, Vec<u8>) {
    let mut last = (0, Vec::new());
    let mut head = [0; 9];
    while in_time(stream.read_exact(&mut head)).await.is_ok() {
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        if in_time(stream.read_exact(&mut payload)).await.is_err() {
            break;
        }
        last = (head[3], payload);
    }
    last
}

/// Returns a frame of a stream, with flags.
fn raw(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = frame(kind, payload);
    (frame[4], frame[8]) = (flags, stream);
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_without_progress_end_their_connection_and_no_other() {
    let server = Server::start("");
    let mut good = Http2::open(&server).await;
    // The head of a POST whose body never ends: `:method`, `:scheme`, `:path`, `:authority`, `content-type`, `accept`.
    let json = [&[16][..], b"application/json"].concat();
    let head = [&[0x83, 0x86, 0x44, 4][..], b"/mcp", &[0x41, 9], b"localhost"].concat();
    let head = [&head[..], &[0x0f, 0x10], &json, &[0x0f, 0x04], &json].concat();
    let begin =
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), raw(4, 0, 0, b""), raw(1, 4, 1, &head)].concat();
    let floods = [
        ("PING", raw(6, 0, 0, b"12345678")),
        ("acknowledged PING", raw(6, 1, 0, b"12345678")),
        ("SETTINGS", raw(4, 0, 0, b"")),
        ("PRIORITY", raw(2, 0, 1, &[0, 0, 0, 0, 1])),
        ("WINDOW_UPDATE", raw(8, 0, 0, &[0, 0, 0, 1])),
        ("RST_STREAM", raw(3, 0, 1, &[0, 0, 0, 8])),
        ("unknown", raw(0xee, 0, 0, b"")),
        // The library of HTTP/2 has a bound of its own for them.
        ("empty DATA", raw(0, 0, 1, b"")),
    ];
    for (at, (name, flood)) in floods.iter().enumerate() {
        let stream = TcpStream::connect(server.address()).await.expect("a listener");
        let (reading, mut writing) = stream.into_split();
        let reading = tokio::spawn(last_frame(reading));
        let _ = writing.write_all(&[&begin[..], &flood.repeat(3_000)].concat()).await;
        let (kind, payload) = reading.await.expect("no panic");
        assert_eq!(
            (kind, payload.get(4..8)),
            (7, Some(&[0, 0, 0, 0xb][..])),
            "{name}: a GOAWAY for its frames"
        );
        assert_eq!(payload[..4], [0, 0, 0, 1], "{name}: the latest stream");
        let ours = (at + 1).min(floods.len() - 1);
        server.until_metric("proxyrunner_reset_floods_total", ours as u64);
    }
    assert_eq!(good.get("/health", &[]).await.whole().await.status, 200);
    server.until_logged("closed an HTTP/2 connection");
    let log = server.logged();
    assert_eq!(log.matches("closed an HTTP/2 connection").count(), 1, "once a minute: {log}");
}

/// The client of a small window must send a window update for each few KiB that it receives.
#[tokio::test(flavor = "multi_thread")]
async fn window_updates_for_what_was_received_are_no_flood() {
    let server = Server::start("");
    let mut client = Http2::with(&server, Builder::new().initial_window_size(2_048)).await;
    let id = session(&mut client).await;
    let text = "x".repeat(4 << 20);
    let answer = call(&mut client, &id, 1, "echo", json!({"text": text})).await.whole().await;
    assert_eq!(answer.json()["result"]["text"].as_str().map(str::len), Some(4 << 20));
    assert_eq!(server.metric("proxyrunner_reset_floods_total"), 0);
}
