//! What passes through `proxyrunner gateway`, and what does not: headers, statuses, large answers, and failures of
//! servers. The server is a stand-in that shows what arrives.

use crate::support::upstream::Upstream;
use crate::support::{Connection, PATIENCE, Response, Server, scratch, until};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

const CALL: &str =
    r#"{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"t","arguments":{"a":1}}}"#;

/// Returns an answer with these headers.
fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

fn json_answer(result: &str) -> String {
    let body = format!(r#"{{"jsonrpc":"2.0","id":"x","result":{result}}}"#);
    answer("200 OK", "content-type: application/json\r\n", &body)
}

fn gateway_of(servers: &Value, flags: &str) -> Server {
    let path = scratch("servers.json");
    fs::write(&path, json!({"mcpServers": servers}).to_string()).expect("a file");
    Server::with().gateway(&path).flags(flags).start().at("/servers/s/mcp")
}

fn gateway(upstream: &Upstream) -> Server {
    gateway_of(&json!({"s": {"url": upstream.url()}}), "")
}

/// Another gateway may have opened a session at a replica that has started anew, before this one probes it again.
#[test]
fn a_session_at_a_replica_that_has_returned_goes_on() {
    let opened = "content-type: application/json\r\nmcp-session-id: one\r\n";
    let body = r#"{"jsonrpc":"2.0","id":"x","result":{"protocolVersion":"2025-11-25","capabilities":{}}}"#;
    let [owner, other] = [(); 2].map(|()| Upstream::saying(answer("200 OK", opened, body)));
    let gateway = gateway_of(&json!({"s": {"urls": [owner.url(), other.url()]}}), "");
    let initialize = CALL.replace("tools/call", "initialize");
    let mut sessions = std::iter::repeat_with(|| gateway.post(&[], &initialize));
    let session = sessions.find(|_| !owner.received().is_empty()).expect("a session at the owner");
    let id = session.header("mcp-session-id").expect("an id").to_owned();
    let call = || gateway.post(&[("Mcp-Session-Id", &id)], CALL).status;
    assert_eq!(call(), 200);
    owner.drain(true);
    until("the session ends", || call() == 404);
    owner.drain(false);
    assert_eq!(call(), 200);
}

#[test]
fn only_known_headers_reach_the_server() {
    let upstream = Upstream::saying(json_answer("{}"));
    let headers = json!({"X-Tenant": "blue", "User-Agent": "from the file"});
    let servers = json!({"s": {"url": upstream.url(), "headers": headers}});
    let gateway = gateway_of(&servers, "--allow-baggage tenant");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let sent = [
        ("Authorization", "Bearer secret"),
        ("Proxy-Authorization", "Basic secret"),
        ("Cookie", "secret=1"),
        ("DPoP", "secret"),
        ("X-API-Key", "secret"),
        ("X-Proxyrunner-Caller", "secret"),
        ("X-Forwarded-For", "secret"),
        ("Forwarded", "for=secret"),
        ("Connection", "keep-alive, Mcp-Hop"),
        ("Mcp-Hop", "secret"),
        ("Keep-Alive", "timeout=5"),
        ("TE", "trailers"),
        ("Origin", "http://localhost:3000"),
        ("Mcp-Param-City", "Oslo"),
        ("MCP-Protocol-Version", "2025-11-25"),
        ("X-Request-Id", "r-1"),
        ("traceparent", trace),
        ("baggage", "tenant=a,other=secret"),
    ];
    assert_eq!(gateway.post(&sent, CALL).status, 200);
    let received = upstream.last();
    assert_eq!(received.line, "POST /mcp HTTP/1.1");
    assert_eq!(received.body, CALL);
    let names: Vec<_> = received.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "accept",
            "accept-encoding",
            "authorization",
            "baggage",
            "content-length",
            "content-type",
            "host",
            "mcp-param-city",
            "mcp-protocol-version",
            "traceparent",
            "user-agent",
            "x-proxyrunner-gateway",
            "x-request-id",
            "x-tenant",
        ]
    );
    assert!(!format!("{received:?}").contains("secret"), "{received:?}");
    assert_eq!(format!("http://{}/mcp", received.header("host").expect("a host")), upstream.url());
    assert_eq!(received.header("traceparent"), Some(trace));
    assert_eq!(received.header("baggage"), Some("tenant=a"));
    assert_eq!(received.header("user-agent"), Some("from the file"));
}

#[test]
fn only_known_headers_reach_the_client() {
    let headers = "content-type: application/json\r\nset-cookie: a=b\r\nserver: x\r\nwww-authenticate: Bearer\r\n\
                   access-control-allow-origin: *\r\nstrict-transport-security: max-age=1\r\nx-proxyrunner-a: b\r\n\
                   mcp-protocol-version: 2025-11-25\r\nretry-after: 7\r\ncache-control: no-store\r\n";
    let gateway = gateway(&Upstream::saying(answer("429 Too Many Requests", headers, "{}")));
    let response = gateway.post(&[], CALL);
    assert_eq!((response.status, response.text().as_str()), (429, "{}"));
    for (name, value) in [
        ("retry-after", Some("7")),
        ("cache-control", Some("no-store")),
        ("mcp-protocol-version", Some("2025-11-25")),
        ("set-cookie", None),
        ("server", None),
        ("www-authenticate", None),
        ("access-control-allow-origin", None),
        ("strict-transport-security", None),
        ("x-proxyrunner-a", None),
    ] {
        assert_eq!(response.header(name), value, "{name}");
    }
}

/// As for a child, so that the rest is the time of the gateway itself.
#[test]
fn the_time_of_the_server_is_told_apart() {
    for is_broken in [false, true] {
        let upstream = Upstream::doing(move |_, stream| {
            let answer = json_answer("{}");
            let sent = if is_broken { answer.len() - 1 } else { answer.len() };
            stream.write_all(&answer.as_bytes()[..sent])?;
            if is_broken { Err(std::io::Error::other("broken")) } else { Ok(()) }
        });
        let gateway = gateway_of(&json!({"s": {"url": upstream.url()}}), "--access-log");
        let mut connection = gateway.connect();
        connection.request("POST", gateway.path(), &Connection::post_headers(&[]), CALL.as_bytes());
        let line: Value = serde_json::from_str(&gateway.until_logged("\"access\"")).expect("JSON");
        assert!(line["fields"]["child_ms"].as_f64().expect("a time") > 0.0, "{line}");
    }
}

/// In the modern era that is how a client cancels its request.
#[test]
fn a_client_that_leaves_ends_its_request() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (told, heard) = mpsc::channel();
    // Answers probes, and no message.
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let (mut connection, told) = (connection.expect("a connection"), told.clone());
            std::thread::spawn(move || {
                let mut bytes = [0; 64 << 10];
                let mut is_message = false;
                while let Ok(count @ 1..) = connection.read(&mut bytes) {
                    if bytes[..count].starts_with(b"POST") {
                        is_message = true;
                        let _ = told.send("arrived");
                    } else if !is_message {
                        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                    }
                }
                let _ = is_message.then(|| told.send("closed"));
            });
        }
    });
    let gateway = gateway_of(&json!({"s": {"url": format!("http://{address}/mcp")}}), "");
    let mut client = gateway.connect();
    client.request("POST", "/servers/s/mcp", &Connection::post_headers(&[]), CALL.as_bytes());
    assert_eq!(heard.recv_timeout(PATIENCE), Ok("arrived"));
    client.cut();
    assert_eq!(heard.recv_timeout(PATIENCE), Ok("closed"));
}

#[test]
fn a_servers_page_is_no_page_of_the_gateway() {
    for (kind, passed) in [
        ("text/html", "text/plain"),
        ("image/svg+xml", "text/plain"),
        ("application/json; charset=utf-8", "application/json; charset=utf-8"),
    ] {
        let upstream = Upstream::saying(answer("404 Not Found", &format!("content-type: {kind}\r\n"), "<b>"));
        let response = gateway(&upstream).post(&[], CALL);
        assert_eq!((response.status, response.header("content-type")), (404, Some(passed)));
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
    }
}

#[test]
fn answers_that_are_not_for_the_client_become_502() {
    let refused = |status: &str, headers: &str, told: &str| {
        let gateway = gateway(&Upstream::saying(answer(status, headers, "secret")));
        let response = gateway.post(&[], CALL);
        assert_eq!((response.status, response.code()), (502, -32603), "{status}");
        let error = response.json();
        assert_eq!(error["id"], "x");
        let message = error["error"]["message"].as_str().expect("a message");
        assert!(message.contains(told) && !message.contains("secret"), "{message}");
    };
    refused("302 Found", "location: http://127.0.0.1:1/\r\n", "redirects are not followed");
    refused("401 Unauthorized", "www-authenticate: Bearer\r\n", "refuses the credentials of the gateway");
    refused(
        "403 Forbidden",
        "www-authenticate: Bearer error=\"insufficient_scope\"\r\n",
        "refuses the credentials",
    );
    let inner = format!("mcp-session-id: {}\r\ncontent-type: application/json\r\n", "x".repeat(900));
    refused("200 OK", &inner, "an id that cannot be passed on");
    // A policy of the server has denied the caller, and not the gateway.
    let denied = r#"{"jsonrpc":"2.0","id":"x","error":{"code":403,"message":"Unauthorized"}}"#;
    let gateway =
        gateway(&Upstream::saying(answer("403 Forbidden", "content-type: application/json\r\n", denied)));
    let response = gateway.post(&[], CALL);
    assert_eq!((response.status, response.text().as_str()), (403, denied));
}

#[test]
fn the_servers_own_session_id_stays_hidden() {
    let upstream = Upstream::doing(|request, stream| {
        let inner = request.header("mcp-session-id").unwrap_or("none").to_owned();
        let headers = "mcp-session-id: inner-1\r\ncontent-type: application/json\r\n";
        stream.write_all(answer("200 OK", headers, &format!("\"{inner}\"")).as_bytes())
    });
    let gateway = gateway(&upstream);
    let opened = gateway.post(&[], gateway.opening().body());
    assert_eq!(opened.text(), "\"none\"");
    let id = opened.header("mcp-session-id").expect("a session");
    assert!(!id.contains("inner-1") && id.len() < 1024, "{id}");
    let called = gateway.post(&[("Mcp-Session-Id", id)], CALL);
    assert_eq!(called.text(), "\"inner-1\"");
    // A server that does not know the session any more says so itself.
    let gone = Upstream::doing(|request, stream| {
        let is_new = request.header("mcp-session-id").is_none();
        let headers = "mcp-session-id: inner-2\r\n";
        stream.write_all(answer(if is_new { "200 OK" } else { "404 Not Found" }, headers, "").as_bytes())
    });
    let gateway = gateway_of(&json!({"s": {"url": gone.url()}}), "");
    let opened = gateway.post(&[], gateway.opening().body());
    let id = opened.header("mcp-session-id").expect("a session").to_owned();
    assert_eq!(gateway.post(&[("Mcp-Session-Id", &id)], CALL).status, 404);
}

#[test]
fn a_request_is_never_sent_twice() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let breaking = Upstream::doing(move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        Err(std::io::Error::other("closed"))
    });
    let other = Arc::clone(&calls);
    let breaking_too = Upstream::doing(move |_, _| {
        other.fetch_add(1, Ordering::SeqCst);
        Err(std::io::Error::other("closed"))
    });
    let servers = json!({"s": {"urls": [breaking.url(), breaking_too.url()]}});
    let gateway = gateway_of(&servers, "");
    let response = gateway.post(&[], CALL);
    assert_eq!((response.status, response.code()), (502, -32603));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn a_replica_that_cannot_be_reached_costs_no_request() {
    let upstream = Upstream::saying(json_answer("{}"));
    let servers =
        json!({"s": {"urls": ["http://127.0.0.1:1/mcp", upstream.url(), "http://127.0.0.1:2/mcp"]}});
    let gateway = gateway_of(&servers, "");
    for _ in 0..20 {
        assert_eq!(gateway.post(&[], CALL).status, 200);
    }
    let none = gateway_of(&json!({"s": {"url": "http://127.0.0.1:1/mcp"}}), "");
    let response = none.post(&[], CALL);
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    assert_eq!(response.json()["id"], "x");
}

#[test]
fn failures_of_servers_count_neither_as_shed_nor_as_rejected_by_the_gateway() {
    let broken = Upstream::doing(|_, _| Err(std::io::Error::other("closed")));
    let dead = json!({"url": "http://127.0.0.1:1/mcp"});
    for (server, status, result) in
        [(dead, 503, "unreachable"), (json!({"url": broken.url()}), 502, "broken")]
    {
        let gateway = gateway_of(&json!({"s": server}), "");
        assert_eq!(gateway.post(&[], CALL).status, status);
        assert_eq!(gateway.metric("proxyrunner_shed_requests_total"), 0);
        assert_eq!(gateway.metric("proxyrunner_rejected_requests_total"), 0);
        let counted = |result| {
            gateway.metric(&format!(r#"proxyrunner_gateway_requests_total{{server="s",result="{result}"}}"#))
        };
        assert_eq!(counted(result) + counted("no_replica"), 1);
    }
}

#[test]
fn failures_in_a_row_open_the_breaker_and_a_trial_closes_it() {
    let fails = Arc::new(Mutex::new(true));
    let switch = Arc::clone(&fails);
    let upstream = Upstream::doing(move |_, stream| {
        let fails = *switch.lock().expect("a lock");
        stream.write_all(
            if fails { answer("503 Service Unavailable", "", "") } else { json_answer("{}") }.as_bytes(),
        )
    });
    let gateway = gateway(&upstream);
    for _ in 0..5 {
        assert_eq!(gateway.post(&[], CALL).status, 503);
    }
    let before = upstream.received().len();
    assert_eq!(before, 5);
    let refused = gateway.post(&[], CALL);
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("no replica serves the server s"), "{}", refused.text());
    assert_eq!(upstream.received().len(), before, "nothing was sent");
    assert_eq!(gateway.metric("proxyrunner_gateway_ejections_total"), 1);
    assert_eq!(gateway.metric(r#"proxyrunner_gateway_replicas{server="s",state="ejected"}"#), 1);
    *fails.lock().expect("a lock") = false;
    until("the replica is tried again", || gateway.post(&[], CALL).status == 200);
    assert_eq!(gateway.post(&[], CALL).status, 200);
    assert_eq!(gateway.metric(r#"proxyrunner_gateway_replicas{server="s",state="healthy"}"#), 1);
}

#[test]
fn a_large_answer_streams_without_being_held() {
    const PART: usize = 64 * 1024;
    const PARTS: usize = 1024;
    let upstream = Upstream::doing(|_, stream| {
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            PART * PARTS
        )?;
        (0..PARTS).try_for_each(|_| stream.write_all(&[b'x'; PART]))
    });
    let gateway = gateway_of(&json!({"s": {"url": upstream.url()}}), "--max-buffered 2MiB");
    let mut connection = gateway.connect();
    let headers = Connection::post_headers(&[]);
    connection.request("POST", gateway.path(), &headers, CALL.as_bytes());
    // The client does not read for a moment: the gateway holds a bounded part.
    until("the answer has begun", || gateway.metric("proxyrunner_in_flight") == 1);
    assert!(gateway.metric("proxyrunner_buffered_bytes") < 1 << 20);
    let memory = || resident(gateway.pid());
    let before = memory();
    let response = connection.response();
    assert_eq!((response.status, response.body.len()), (200, PART * PARTS));
    let grown = memory().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
    until("the end", || gateway.metric("proxyrunner_in_flight") == 0);
}

/// Returns the resident memory of a process in bytes.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[test]
fn an_answer_that_breaks_off_does_not_look_complete() {
    let upstream = Upstream::doing(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n")?;
        Err(std::io::Error::other("broken"))
    });
    let gateway = gateway(&upstream);
    let mut connection = gateway.connect();
    connection.request("POST", gateway.path(), &Connection::post_headers(&[]), CALL.as_bytes());
    let head = connection.response_head();
    assert_eq!(head.status, 200);
    let rest = connection.until_closed();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&rest));
    until("it is counted", || {
        gateway.metric(r#"proxyrunner_gateway_requests_total{server="s",result="broken"}"#) == 1
    });
}

#[test]
fn events_pass_one_by_one() {
    let (sender, receiver) = mpsc::channel::<()>();
    let receiver = Mutex::new(receiver);
    let upstream = Upstream::doing(move |_, stream| {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        )?;
        for n in 0..3 {
            let event = format!("id: {n}\ndata: {{\"n\":{n}}}\n\n");
            write!(stream, "{:x}\r\n{event}\r\n", event.len())?;
            let _ = receiver.lock().expect("a lock").recv_timeout(Duration::from_secs(30));
        }
        stream.write_all(b"0\r\n\r\n")
    });
    let gateway = gateway(&upstream);
    let mut connection = gateway.connect();
    connection.request("POST", gateway.path(), &Connection::post_headers(&[]), CALL.as_bytes());
    let mut events = connection.events();
    for n in 0..3 {
        // The next event is sent only once this one has arrived.
        assert_eq!(events.message()["n"], n);
        sender.send(()).expect("a server");
    }
    assert_eq!(events.next(), None);
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    let (sender, receiver) = mpsc::channel::<()>();
    let receiver = Mutex::new(receiver);
    let upstream = Upstream::doing(move |_, _| {
        let _ = receiver.lock().expect("a lock").recv_timeout(Duration::from_secs(30));
        Err(std::io::Error::other("never"))
    });
    let gateway = gateway_of(&json!({"s": {"url": upstream.url()}}), "--request-timeout 1s");
    let response = gateway.post(&[], CALL);
    assert_eq!((response.status, response.code()), (504, -32603));
    assert!(response.text().contains("--request-timeout"), "{}", response.text());
    drop(sender);
}

fn status(response: &Response) -> (u16, i64) {
    (response.status, response.code())
}

#[test]
fn other_paths_and_bad_requests_are_refused_in_json() {
    let gateway = gateway(&Upstream::saying(json_answer("{}")));
    let json = Connection::post_headers(&[]);
    let at = |method: &str, path: &str| gateway.request(method, path, &json, CALL.as_bytes());
    for path in ["/", "/servers", "/servers/s", "/servers/s/other", "/servers/a/b/mcp", "/servers//mcp"] {
        let refused = at("POST", path);
        assert_eq!(status(&refused), (404, -32600), "{path}");
        assert!(refused.text().contains("/servers/NAME/mcp"), "{path}: {}", refused.text());
    }
    for path in ["/servers/other/mcp", "/servers/S/mcp", "/servers/%73/mcp", "/servers/../s/mcp"] {
        assert_eq!(at("POST", path).status, 404, "{path}");
    }
    assert_eq!(status(&at("PUT", "/servers/s/mcp")), (405, -32600));
    assert_eq!(status(&gateway.post(&[], "{")), (400, -32700));
    assert_eq!(status(&gateway.post(&[], "[]")), (400, -32600));
    assert_eq!(status(&gateway.post(&[("Host", "evil.example")], CALL)), (403, -32600));
    assert_eq!(status(&gateway.post(&[("Origin", "http://evil.example")], CALL)), (403, -32600));
    let plain = [("Content-Type", "text/plain"), ("Accept", "application/json")];
    assert_eq!(status(&gateway.request("POST", gateway.path(), &plain, CALL.as_bytes())), (415, -32600));
    let preflight = [("Origin", "http://localhost:3000"), ("Access-Control-Request-Method", "POST")];
    assert_eq!(gateway.request("OPTIONS", gateway.path(), &preflight, b"").status, 204);
    for path in ["/health", "/health/ready", "/readyz", "/startupz"] {
        assert_eq!(gateway.request("GET", path, &[], b"").status, 200, "{path}");
    }
    assert_eq!(at("POST", "/servers/s/mcp/").status, 200, "a slash at the end does not matter");
}

#[test]
fn settings_that_a_gateway_cannot_follow_are_refused() {
    let path = scratch("servers.json");
    fs::write(&path, r#"{"mcpServers": {}}"#).expect("a file");
    for (flags, told) in [
        ("--isolation session", "--isolation: is not used by a gateway"),
        ("--path /x", "--path: is not used by a gateway"),
        ("--policy-url http://127.0.0.1:1", "--policy-url: needs to know the caller"),
        ("--policy-server s", "--policy-server: is a sidecar's"),
        ("--servers /none", "--servers"),
        ("-- python3", "COMMAND"),
    ] {
        let (status, log) = Server::with().gateway(&path).flags(flags).run();
        assert_eq!(status.code(), Some(64), "{flags}: {log}");
        assert!(log.contains(told), "{flags}: {log}");
    }
    let (status, log) = Server::with().flags(&format!("--servers {}", path.display())).run();
    assert_eq!(status.code(), Some(64), "{log}");
    assert!(log.contains("proxyrunner gateway --servers FILE"), "{log}");
}
