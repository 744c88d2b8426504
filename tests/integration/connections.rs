//! Connections under attack: slow heads, unread responses, permanent streams and floods. Probes must be answered within
//! 2 s and calls of other clients within 5 s; these are the only durations that tests assert.

use crate::support::{Connection, Server, Session, tool_call, until};
use serde_json::json;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Connects from the loopback address that ends in `last`.
fn connect_from(last: u8, server: &Server) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, last], 0))))?;
    socket.connect(&SockAddr::from(server.address()))?;
    Ok(socket.into())
}

/// Opens an event stream of a session from the loopback address that ends in `last`.
fn stream_from(last: u8, server: &Server, session: &Session<'_>) -> Connection {
    let mut connection = Connection::over(connect_from(last, server).expect("a connection"));
    connection.head("GET", "/mcp", &[("Accept", "text/event-stream"), ("Mcp-Session-Id", &session.id)]);
    assert!(connection.is_answered());
    connection
}

/// Runs `rounds` while `attack` runs in its own thread until its flag is set.
fn under_attack(attack: impl Fn(&AtomicBool) + Sync, rounds: impl FnOnce()) {
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| attack(&over));
        let _over = Over(&over);
        rounds();
    });
}

/// Checks that probes from a separate address are answered within 2 s.
fn probe(server: &Server) {
    for path in ["/livez", "/readyz", "/metrics"] {
        let begun = Instant::now();
        let mut connection = Connection::over(connect_from(250, server).expect("a connection"));
        connection.request("GET", path, &[], b"");
        assert_eq!(connection.response().status, 200, "{path}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{path} took {:?}", begun.elapsed());
    }
}

/// Regression: each byte of a head counted as activity, and a place for probes was held for 60 s by an unfinished head.
#[test]
fn slow_request_heads_do_not_block_probes() {
    let server = Server::start("--max-connections 20");
    let sessions: Vec<_> = (0..20).map(|_| server.session()).collect();
    let _streams: Vec<_> = sessions.iter().map(|session| stream_from(2, &server, session)).collect();
    let attack = |over: &AtomicBool| {
        let mut trickling: Vec<TcpStream> = Vec::new();
        while !over.load(Ordering::Relaxed) {
            trickling.retain_mut(|stream| stream.write_all(b"G").is_ok());
            while trickling.len() < 64 {
                trickling.push(connect_from(2, &server).expect("a connection"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    under_attack(attack, || {
        (0..10).for_each(|_| probe(&server));
        let begun = Instant::now();
        assert_eq!(sessions[0].call("echo", json!({"n": 1}))["result"]["n"], 1);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    });
}

/// Regression: one client could hold all connections indefinitely.
#[test]
fn the_client_that_holds_most_connections_gives_way_to_another() {
    let server = Server::start("--max-connections 8 --isolation shared");
    let sessions: Vec<_> = (0..9).map(|_| server.session()).collect();
    // A client may use all connections while no other client needs one, ...
    let mut streams: Vec<_> = (0..8).map(|n| stream_from(2, &server, &sessions[n])).collect();
    let mut own = Connection::over(connect_from(2, &server).expect("a connection"));
    own.post(&[("Mcp-Session-Id", &sessions[8].id)], tool_call(1, "echo", &json!({})));
    assert_eq!(own.response().status, 503, "no other client has a connection to give up");
    // ... but another client's request is served.
    let mut held = Vec::new();
    for n in 0..4 {
        let mut other = Connection::over(connect_from(3, &server).expect("a connection"));
        other.post(&[("Mcp-Session-Id", &sessions[8].id)], tool_call(n, "wait", &json!({"name": "x"})));
        held.push(other);
        server.until_metric("proxyrunner_in_flight", n + 1);
    }
    // The other client's share is half of the connections.
    let mut fifth = Connection::over(connect_from(3, &server).expect("a connection"));
    fifth.post(&[("Mcp-Session-Id", &sessions[8].id)], tool_call(9, "echo", &json!({})));
    assert_eq!(fifth.response().status, 503);
    streams.clear();
}

/// Regression: connections that sent complete requests and read nothing counted as busy until `--write-timeout`.
#[test]
fn unread_responses_and_floods_block_neither_probes_nor_clients() {
    let server = Server::start("--max-connections 16 --isolation shared");
    let session = server.session();
    let attack = |over: &AtomicBool| {
        let mut unread: Vec<TcpStream> = Vec::new();
        let mut n = 0_u8;
        while !over.load(Ordering::Relaxed) {
            n = n % 5 + 1;
            let Ok(mut stream) = connect_from(10 + n, &server) else { continue };
            let request = match n {
                1 => "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(50),
                2 => "GET http://localhost/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
                3 => format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\nX: {}", "a".repeat(30_000)),
                4 => "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{".into(),
                _ => String::new(),
            };
            let _ = stream.write_all(request.as_bytes());
            if n == 5 {
                let _ = stream.shutdown(std::net::Shutdown::Write);
            }
            unread.push(stream);
            if unread.len() > 300 {
                drop(unread.drain(..150));
            }
        }
    };
    under_attack(attack, || {
        for n in 0..10 {
            probe(&server);
            let begun = Instant::now();
            assert_eq!(session.call("echo", json!({"n": n}))["result"]["n"], n);
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        }
    });
}

/// Regression: each unfinished head took 67 KiB, without a limit on their sum.
#[test]
fn unfinished_heads_share_one_memory_limit() {
    let server = Server::start("");
    let session = server.session();
    let head = format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\nX: {}", "a".repeat(60_000));
    let mut heads: Vec<_> = (0..200).map(|_| server.connect()).collect();
    heads.iter_mut().for_each(|connection| drop(connection.try_send(&head)));
    server.until_logged("unfinished request heads exceed");
    // 4 MiB are enough for 72 of these heads and for the connections that serve requests.
    until("most are closed", || server.metric("proxyrunner_connections") < 90);
    assert_eq!(session.call("echo", json!({"n": 1}))["result"]["n"], 1);
}

#[test]
fn the_admin_listener_serves_probes_outside_max_connections() {
    let server = Server::start("--max-connections 4 --admin-listen 127.0.0.1:0");
    let line = server.until_logged("serving probes and metrics");
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let admin: SocketAddr =
        line["fields"]["address"].as_str().and_then(|to| to.parse().ok()).expect("an address");
    assert_eq!(server.session().call("echo", json!({"n": 1}))["result"]["n"], 1, "the server is ready");
    let _idle: Vec<_> = (0..100).map(|_| TcpStream::connect(admin).expect("a connection")).collect();
    for (path, status) in [("/livez", 200), ("/readyz", 200), ("/metrics", 200), ("/mcp", 404)] {
        let mut connection = Connection::open(admin);
        connection.request("GET", path, &[("Host", "proxyrunner.monitoring:9090")], b"");
        assert_eq!(connection.response().status, status, "{path}");
    }
    let mut connection = Connection::open(admin);
    connection.request("POST", "/livez", &[], b"{}");
    assert_eq!(connection.response().status, 405);
    server.until_metric("proxyrunner_connections", 1);
    assert_eq!(server.request("GET", "/livez", &[], b"").status, 200, "the main listener serves probes, too");
}
