//! The connections from `proxyrunner gateway` to replicas: when one is used again, when it is not, and that no caller gets
//! what belongs to another one.

use crate::support::upstream::Upstream;
use crate::support::{Connection, PATIENCE, Server, scratch, until};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::fs;
use std::io::{Error, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

const CALL: &str = r#"{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"t"}}"#;
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
/// More than the kernel keeps of a body that nobody reads.
const LARGE: usize = 16 << 20;

fn gateway_of(url: &str, flags: &str) -> Server {
    let path = scratch("servers.json");
    fs::write(&path, json!({"mcpServers": {"s": {"url": url}}}).to_string()).expect("a file");
    Server::with().gateway(&path).flags(flags).start().at("/servers/s/mcp")
}

/// Returns an answer to the call.
fn answer(result: &str) -> String {
    let body = format!(r#"{{"jsonrpc":"2.0","id":"x","result":{result}}}"#);
    format!("{HEAD}content-length: {}\r\n\r\n{body}", body.len())
}

fn peer(stream: &TcpStream) -> SocketAddr {
    stream.peer_addr().expect("an address")
}

/// A server that serves its first call in one way and all others in another, and tells the connection of each.
fn unlike(
    first: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> (Upstream, Arc<Mutex<Vec<SocketAddr>>>) {
    let peers = Arc::<Mutex<Vec<SocketAddr>>>::default();
    let kept = Arc::clone(&peers);
    let upstream = Upstream::doing(move |_, stream| {
        let mut kept = kept.lock().expect("a lock");
        kept.push(peer(stream));
        let is_first = kept.len() == 1;
        drop(kept);
        if is_first { first(stream) } else { stream.write_all(answer(r#"{"own":1}"#).as_bytes()) }
    });
    (upstream, peers)
}

/// Calls once more, which must yield its own answer by another connection than the first call's.
fn call_elsewhere(gateway: &Server, peers: &Mutex<Vec<SocketAddr>>) {
    let response = gateway.post(&[], CALL);
    assert_eq!((response.status, &response.json()["result"]), (200, &json!({"own": 1})));
    let peers = peers.lock().expect("a lock");
    assert!(peers.len() == 2 && peers[0] != peers[1], "{peers:?}");
}

#[test]
fn a_connection_serves_many_calls() {
    let peers = Arc::<Mutex<Vec<SocketAddr>>>::default();
    let kept = Arc::clone(&peers);
    let upstream = Upstream::doing(move |_, stream| {
        kept.lock().expect("a lock").push(peer(stream));
        stream.write_all(answer("{}").as_bytes())
    });
    let gateway = gateway_of(&upstream.url(), "");
    for _ in 0..50 {
        assert_eq!(gateway.post(&[], CALL).status, 200);
    }
    let mut peers = peers.lock().expect("a lock").clone();
    peers.dedup();
    // A probe, or a pause of more than four seconds, takes another one now and then.
    assert!(peers.len() < 25, "{peers:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_connection_that_its_replica_closes_while_it_is_idle_costs_no_request() {
    let (told, closed) = channel();
    let told = Mutex::new(told);
    let upstream = Upstream::doing(move |_, stream| {
        stream.write_all(answer("{}").as_bytes())?;
        stream.shutdown(Shutdown::Both)?;
        let _ = told.lock().expect("a lock").send(peer(stream).port());
        Err(Error::other("closed"))
    });
    let gateway = gateway_of(&upstream.url(), "");
    for _ in 0..20 {
        assert_eq!(gateway.post(&[], CALL).status, 200);
        let port = closed.recv_timeout(PATIENCE).expect("a connection");
        // The gateway's end knows of it, or is gone.
        until("it has arrived", || {
            let sockets = fs::read_to_string("/proc/net/tcp").expect("the sockets");
            let own = format!(":{port:04X}");
            let state = |line: &str| {
                let words: Vec<&str> = line.split_whitespace().collect();
                words[1].ends_with(&own).then(|| words[3].to_owned())
            };
            sockets.lines().skip(1).find_map(state).is_none_or(|state| state != "01")
        });
    }
    assert_eq!(upstream.received().len(), 20);
}

#[test]
fn a_second_answer_to_one_call_is_nobodys() {
    let (upstream, peers) = unlike(|stream| {
        stream.write_all(format!("{}{}", answer("{}"), answer(r#"{"foreign":1}"#)).as_bytes())
    });
    let gateway = gateway_of(&upstream.url(), "");
    assert_eq!(gateway.post(&[], CALL).json()["result"], json!({}));
    call_elsewhere(&gateway, &peers);
}

#[test]
fn the_rest_of_an_answer_whose_caller_has_left_is_nobodys() {
    let (go_on, waiting) = channel();
    let waiting = Mutex::new(waiting);
    let (upstream, peers) = unlike(move |stream| {
        let whole = answer(r#"{"foreign":1}"#);
        let (half, rest) = whole.split_at(whole.len() - 20);
        stream.write_all(half.as_bytes())?;
        let _ = waiting.lock().expect("a lock").recv_timeout(PATIENCE);
        stream.write_all(rest.as_bytes())
    });
    let gateway = gateway_of(&upstream.url(), "");
    let mut client = gateway.connect();
    client.request("POST", "/servers/s/mcp", &Connection::post_headers(&[]), CALL.as_bytes());
    assert_eq!(client.response_head().status, 200);
    client.cut();
    let cancelled = r#"proxyrunner_gateway_requests_total{server="s",result="cancelled"}"#;
    until("it is counted", || gateway.metric(cancelled) == 1);
    call_elsewhere(&gateway, &peers);
    go_on.send(()).expect("a server");
}

#[test]
fn an_answer_that_breaks_off_is_passed_as_far_as_it_came() {
    for end in ["", "5\r\n{\"b"] {
        let (upstream, peers) = unlike(move |stream| {
            write!(stream, "{HEAD}transfer-encoding: chunked\r\n\r\n7\r\n{{\"a\":1,\r\n{end}")?;
            Err(Error::other("broken"))
        });
        let gateway = gateway_of(&upstream.url(), "");
        let mut client = gateway.connect();
        client.request("POST", "/servers/s/mcp", &Connection::post_headers(&[]), CALL.as_bytes());
        assert_eq!(client.response_head().status, 200);
        let rest = String::from_utf8(client.until_closed()).expect("UTF-8");
        assert!(rest.contains("{\"a\":1,") && !rest.ends_with("0\r\n\r\n"), "{rest:?}");
        call_elsewhere(&gateway, &peers);
    }
}

/// Answers probes by 404. Calls get 413 as soon as their head has arrived. Tells whether the connection ended before the
/// whole body, which nobody reads before the answer is `passed`.
fn hasty(mut stream: TcpStream, passed: &Mutex<Receiver<()>>, told: &Sender<bool>) {
    let mut seen = Vec::new();
    let mut byte = [0; 1];
    while let Ok(1) = stream.read(&mut byte) {
        seen.push(byte[0]);
        if !seen.ends_with(b"\r\n\r\n") {
            continue;
        }
        let is_call = seen.starts_with(b"POST");
        seen.clear();
        if !is_call {
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
            continue;
        }
        let body = r#"{"jsonrpc":"2.0","id":"x","error":{"code":-32600,"message":"too large"}}"#;
        let head = "HTTP/1.1 413 Content Too Large\r\ncontent-type: application/json\r\n";
        let _ = write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len());
        let _ = passed.lock().expect("a lock").recv_timeout(PATIENCE);
        let (mut left, mut count) = (vec![0; 64 << 10], 0);
        while let Ok(more @ 1..) = stream.read(&mut left) {
            count += more;
        }
        let _ = told.send(count < LARGE);
    }
}

#[test]
fn a_replica_may_answer_before_it_has_read_the_body() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/mcp", listener.local_addr().expect("an address"));
    let (told, heard) = channel();
    let (pass, passed) = channel();
    let passed = Arc::new(Mutex::new(passed));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (told, passed) = (told.clone(), Arc::clone(&passed));
            std::thread::spawn(move || hasty(stream, &passed, &told));
        }
    });
    let gateway = gateway_of(&url, "");
    let large = CALL.replace(r#""t"}"#, &format!(r#""t","arguments":{{"a":"{}"}}}}"#, "a".repeat(LARGE)));
    for _ in 0..2 {
        let response = gateway.post(&[], &large);
        assert_eq!((response.status, response.code()), (413, -32600));
    }
    for _ in 0..2 {
        pass.send(()).expect("a server");
        assert_eq!(heard.recv_timeout(PATIENCE), Ok(true), "the connection was closed");
    }
}

/// The gateway remembers what it has told a server of its last callers.
#[test]
fn every_caller_is_named_by_its_own_token() {
    let upstream = Upstream::saying(answer("{}"));
    let gateway = gateway_of(&upstream.url(), "--principal-header x-user");
    for user in (0..3).flat_map(|_| (0..12).chain([0, 1])) {
        let user = format!("user-{user}");
        assert_eq!(gateway.post(&[("X-User", &user)], CALL).status, 200);
        let received = upstream.last();
        let token = received.header("authorization").expect("a token").trim_start_matches("Bearer ");
        let claims = token.split('.').nth(1).expect("claims");
        let claims = URL_SAFE_NO_PAD.decode(claims).expect("base64");
        let claims: Value = serde_json::from_slice(&claims).expect("JSON");
        assert_eq!(claims["sub"], format!("proxy#{user}"));
    }
}
