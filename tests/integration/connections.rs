//! Connections under attack: slow heads, unread answers, streams that stay, floods. Probes are answered within 2 s and
//! another client's calls within 5 s; these are the only durations that tests assert.

use crate::support::{Connection, Server, Session, tool_call, until};
use serde_json::json;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A connection from another loopback address.
fn connect_from(last: u8, server: &Server) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, last], 0))))?;
    socket.connect(&SockAddr::from(server.address()))?;
    Ok(socket.into())
}

/// An event stream of a session, on a connection from this address.
fn stream_from(last: u8, server: &Server, session: &Session<'_>) -> Connection {
    let mut connection = Connection::over(connect_from(last, server).expect("it is accepted"));
    connection.head("GET", "/mcp", &[("Accept", "text/event-stream"), ("Mcp-Session-Id", &session.id)]);
    assert!(connection.is_answered());
    connection
}

/// Runs `rounds` while `attack` runs in a thread of its own until its flag is set.
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

/// How long a probe from an address of its own takes, at most.
fn probe(server: &Server) {
    for path in ["/livez", "/readyz", "/metrics"] {
        let begun = Instant::now();
        let mut connection = Connection::over(connect_from(250, server).expect("it is accepted"));
        connection.request("GET", path, &[], b"");
        assert_eq!(connection.response().status, 200, "{path}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{path} took {:?}", begun.elapsed());
    }
}

/// Any byte of a head was activity, and a place for probes waited 60 s for a head.
#[test]
fn heads_that_come_byte_by_byte_keep_no_probe_out() {
    let server = Server::start("--max-connections 20");
    let sessions: Vec<_> = (0..20).map(|_| server.session()).collect();
    let _streams: Vec<_> = sessions.iter().map(|session| stream_from(2, &server, session)).collect();
    let attack = |over: &AtomicBool| {
        let mut trickling: Vec<TcpStream> = Vec::new();
        while !over.load(Ordering::Relaxed) {
            trickling.retain_mut(|stream| stream.write_all(b"G").is_ok());
            while trickling.len() < 64 {
                trickling.push(connect_from(2, &server).expect("it is accepted"));
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

/// One client could hold every connection for as long as it liked.
#[test]
fn the_client_that_holds_most_connections_gives_way_to_another() {
    let server = Server::start("--max-connections 8 --isolation shared");
    let sessions: Vec<_> = (0..9).map(|_| server.session()).collect();
    // It may use them all while nobody else wants one, ...
    let mut streams: Vec<_> = (0..8).map(|n| stream_from(2, &server, &sessions[n])).collect();
    let mut own = Connection::over(connect_from(2, &server).expect("it is accepted"));
    own.post(&[("Mcp-Session-Id", &sessions[8].id)], tool_call(1, "echo", &json!({})));
    assert_eq!(own.response().status, 503, "it has no place of another's to take");
    // ... but another client's request is served.
    let mut held = Vec::new();
    for n in 0..4 {
        let mut other = Connection::over(connect_from(3, &server).expect("it is accepted"));
        other.post(&[("Mcp-Session-Id", &sessions[8].id)], tool_call(n, "wait", &json!({"name": "x"})));
        held.push(other);
        server.until_metric("proxyrunner_in_flight", n + 1);
    }
    // Half of them are its share, and no more.
    let mut fifth = Connection::over(connect_from(3, &server).expect("it is accepted"));
    fifth.post(&[("Mcp-Session-Id", &sessions[8].id)], tool_call(9, "echo", &json!({})));
    assert_eq!(fifth.response().status, 503);
    streams.clear();
}

/// Connections that send whole requests and read nothing were busy until `--write-timeout`.
#[test]
fn answers_that_nobody_reads_and_floods_keep_no_probe_and_no_other_client_out() {
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

/// Each unfinished head took 67 KiB that nothing bounded.
#[test]
fn unfinished_heads_of_all_connections_are_bounded_together() {
    let server = Server::start("");
    let session = server.session();
    let head = format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\nX: {}", "a".repeat(60_000));
    let mut heads: Vec<_> = (0..200).map(|_| server.connect()).collect();
    heads.iter_mut().for_each(|connection| drop(connection.try_send(&head)));
    server.until_logged("unfinished request heads exceed");
    // 4 MiB hold 72 of them, and those that serve requests.
    until("most are closed", || server.metric("proxyrunner_connections") < 90);
    assert_eq!(session.call("echo", json!({"n": 1}))["result"]["n"], 1);
}

#[test]
fn the_admin_listener_serves_probes_and_metrics_and_takes_no_place() {
    let server = Server::start("--max-connections 4 --admin-listen 127.0.0.1:0");
    let line = server.until_logged("serving probes and metrics");
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let admin: SocketAddr =
        line["fields"]["address"].as_str().and_then(|to| to.parse().ok()).expect("an address");
    assert_eq!(server.session().call("echo", json!({"n": 1}))["result"]["n"], 1, "it is ready");
    let _idle: Vec<_> = (0..100).map(|_| TcpStream::connect(admin).expect("it is accepted")).collect();
    for (path, status) in [("/livez", 200), ("/readyz", 200), ("/metrics", 200), ("/mcp", 404)] {
        let mut connection = Connection::open(admin);
        connection.request("GET", path, &[("Host", "proxyrunner.monitoring:9090")], b"");
        assert_eq!(connection.response().status, status, "{path}");
    }
    let mut connection = Connection::open(admin);
    connection.request("POST", "/livez", &[], b"{}");
    assert_eq!(connection.response().status, 405);
    server.until_metric("proxyrunner_connections", 1);
    assert_eq!(server.request("GET", "/livez", &[], b"").status, 200, "probes stay here too");
}
