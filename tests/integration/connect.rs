//! `proxyrunner connect`: a remote server on stdin and stdout, whatever the remote server does.

use crate::support::modern::result as modern_result;
use crate::support::upstream::{Received, Upstream};
use crate::support::{PATIENCE, Server, scratch, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A client over stdio, and the process that stands for its server.
struct Client {
    process: Child,
    stdin: Option<ChildStdin>,
    said: Receiver<Value>,
    log: Arc<Mutex<String>>,
}

impl Client {
    fn start(words: &[&str]) -> Client {
        let mut command = Command::new(env!("CARGO_BIN_EXE_proxyrunner"));
        command
            .arg("connect")
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = command.spawn().expect("a process");
        let stdout = BufReader::new(process.stdout.take().expect("stdout"));
        let mut stderr = BufReader::new(process.stderr.take().expect("stderr"));
        let (sender, said) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let message = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}"));
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let log = Arc::<Mutex<String>>::default();
        let kept = Arc::clone(&log);
        thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|length| length > 0) {
                kept.lock().expect("a log").push_str(&line);
                line.clear();
            }
        });
        let stdin = process.stdin.take();
        Client { process, stdin, said, log }
    }

    fn say(&mut self, message: &Value) {
        let stdin = self.stdin.as_mut().expect("stdin");
        stdin.write_all(format!("{message}\n").as_bytes()).expect("written");
    }

    /// Returns the next message.
    fn hear(&self) -> Value {
        self.said.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no message; {}", self.logged()))
    }

    /// Sends a request, and returns its answer; what comes before is dropped.
    fn ask(&mut self, message: &Value) -> Value {
        self.say(message);
        loop {
            let said = self.hear();
            if said["id"] == message["id"] && said.get("method").is_none() {
                return said;
            }
        }
    }

    /// Opens a legacy session.
    fn initialize(&mut self) -> Value {
        let answer = self.ask(&initialize());
        self.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        answer
    }

    /// Returns the message of the error that answers a call.
    fn failure(&mut self) -> String {
        let answer = self.ask(&call(7));
        answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    fn logged(&self) -> String {
        self.log.lock().expect("a log").clone()
    }

    /// Closes stdin, and returns the exit code.
    fn end(mut self) -> i32 {
        drop(self.stdin.take());
        self.exit_code()
    }

    fn exit_code(&mut self) -> i32 {
        let mut code = None;
        until("the exit", || {
            code = self.process.try_wait().expect("a status");
            code.is_some()
        });
        code.and_then(|status| status.code()).expect("an exit code")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn initialize() -> Value {
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}})
}

fn call(id: u32) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "t", "arguments": {}}})
}

fn modern(id: u32, method: &str, params: &Value) -> Value {
    let mut params = params.clone();
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {}});
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

/// Returns an HTTP answer with a body.
fn http(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

fn json_answer(body: &Value) -> String {
    http("200 OK", "content-type: application/json\r\n", &body.to_string())
}

fn parsed(request: &Received) -> Value {
    serde_json::from_str(&request.body).unwrap_or_default()
}

fn result(id: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": {"content": []}})
}

fn initialized(id: &Value, session: &str) -> String {
    let body = json!({"jsonrpc": "2.0", "id": id, "result": {
        "protocolVersion": "2025-11-25", "capabilities": {"tools": {"listChanged": true}},
        "serverInfo": {"name": "remote", "version": "1"}}});
    let headers = format!("content-type: application/json\r\nmcp-session-id: {session}\r\n");
    http("200 OK", &headers, &body.to_string())
}

/// Starts a legacy server, which leaves all but the handshake to `serve`.
fn legacy(
    serve: impl Fn(&Received, &Value, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> Upstream {
    let sessions = AtomicUsize::new(0);
    Upstream::doing(move |request, stream| {
        let message = parsed(request);
        match message["method"].as_str() {
            Some("initialize") => {
                let session = sessions.fetch_add(1, Ordering::SeqCst) + 1;
                stream.write_all(initialized(&message["id"], &format!("s{session}")).as_bytes())
            }
            Some(method) if method.starts_with("notifications/") => {
                stream.write_all(http("202 Accepted", "", "").as_bytes())
            }
            None if request.line.starts_with("GET") && request.header("last-event-id").is_none() => {
                stream.write_all(http("405 Method Not Allowed", "", "").as_bytes())
            }
            None if request.line.starts_with("DELETE") => stream.write_all(http("200 OK", "", "").as_bytes()),
            _ => serve(request, &message, stream),
        }
    })
}

/// Starts a legacy server that answers calls with these bytes.
fn saying(answer: impl Fn(&Value) -> String + Send + Sync + 'static) -> Upstream {
    legacy(move |_, message, stream| stream.write_all(answer(&message["id"]).as_bytes()))
}

fn connected(remote: &Upstream) -> Client {
    let mut client = Client::start(&[&remote.url()]);
    assert_eq!(client.initialize()["result"]["serverInfo"]["name"], "remote");
    client
}

#[test]
fn a_legacy_session_has_its_headers_and_is_deleted_at_the_end() {
    let remote = saying(|id| json_answer(&result(id)));
    let mut client = connected(&remote);
    assert!(client.ask(&call(1)).get("result").is_some());
    assert_eq!(client.end(), 0);
    until("the end of the session", || deleted(&remote).is_some());
    assert_eq!(deleted(&remote).expect("a request").header("mcp-session-id"), Some("s1"));
    let received = remote.received();
    let called = received.iter().find(|request| request.body.contains("tools/call")).expect("a call");
    assert_eq!(called.header("mcp-session-id"), Some("s1"));
    assert_eq!(called.header("mcp-protocol-version"), Some("2025-11-25"));
    assert_eq!(called.header("accept"), Some("application/json, text/event-stream"));
    let first = &received[0];
    assert_eq!((first.header("mcp-session-id"), first.header("mcp-protocol-version")), (None, None));
}

/// Returns the request that ends a session.
fn deleted(remote: &Upstream) -> Option<Received> {
    remote.received().into_iter().find(|request| request.line.starts_with("DELETE /mcp"))
}

#[test]
fn what_a_server_does_wrong_is_the_answer_to_the_request() {
    let stream = "content-type: text/event-stream\r\n";
    type Answer = Box<dyn Fn(&Value) -> String + Send + Sync>;
    let cases: Vec<(&str, Answer)> = vec![
        (
            "refuses the credentials (401",
            Box::new(|_| http("401 Unauthorized", "www-authenticate: Bearer\r\n", "")),
        ),
        ("check the credentials in --header-file", Box::new(|_| http("403 Forbidden", "", "no"))),
        (
            "503 Service Unavailable without a message",
            Box::new(|_| http("503 Service Unavailable", "", "busy")),
        ),
        (
            "check that the URL is that of an MCP endpoint",
            Box::new(|_| http("200 OK", "content-type: text/html\r\n", "<html>")),
        ),
        (
            "something else than JSON-RPC",
            Box::new(|_| http("200 OK", "content-type: application/json\r\n", "[1,")),
        ),
        (
            "redirects to https://elsewhere.example/mcp (307",
            Box::new(|_| {
                http("307 Temporary Redirect", "location: https://elsewhere.example/mcp?secret=1\r\n", "")
            }),
        ),
        (
            "an encoding that was not asked for",
            Box::new(|_| {
                http("200 OK", "content-type: application/json\r\ncontent-encoding: gzip\r\n", "{}")
            }),
        ),
        ("answered another request", Box::new(|_| json_answer(&result(&json!("other"))))),
        (
            "ended its answer before it was complete",
            Box::new(move |_| http("200 OK", stream, ": nothing\n\n")),
        ),
        ("something else than JSON-RPC", Box::new(move |_| http("200 OK", stream, "data: {]\n\n"))),
    ];
    for (expected, answer) in cases {
        let remote = saying(answer);
        let failure = connected(&remote).failure();
        assert!(failure.contains(expected) && failure.contains("the remote server"), "{expected}: {failure}");
        assert!(!failure.contains("secret"), "{failure}");
    }
}

#[test]
fn an_error_beside_an_http_error_reaches_the_client_with_the_id_of_its_request() {
    for id in [json!(null), json!("server-error")] {
        let error =
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32600, "message": "no", "data": 1}});
        let remote = saying(move |_| {
            http("400 Bad Request", "content-type: application/json\r\n", &error.to_string())
        });
        let answer = connected(&remote).ask(&call(5));
        assert_eq!(answer["error"], json!({"code": -32600, "message": "no", "data": 1}));
    }
}

#[test]
fn a_server_that_breaks_off_or_is_silent_fails_the_request_only() {
    let count = AtomicUsize::new(0);
    let remote = legacy(move |_, message, stream| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Err(std::io::ErrorKind::ConnectionReset.into()),
        1 => stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{")
            .and(Err(std::io::ErrorKind::ConnectionReset.into())),
        // The connection stays open, and nothing is said.
        2 => Ok(()),
        _ => stream.write_all(json_answer(&result(&message["id"])).as_bytes()),
    });
    let mut client = Client::start(&["--request-timeout", "5s", &remote.url()]);
    client.initialize();
    assert!(client.failure().contains("broke the connection before it answered"));
    assert!(client.failure().contains("in the middle of its answer"));
    assert!(client.failure().contains("has sent nothing for 5 s (--request-timeout)"));
    assert!(client.ask(&call(1)).get("result").is_some());
}

#[test]
fn an_answer_that_is_too_long_fails_the_request() {
    for kind in ["application/json", "text/event-stream"] {
        let remote = saying(move |_| {
            http("200 OK", &format!("content-type: {kind}\r\n"), &format!("data: {}", "x".repeat(3 << 20)))
        });
        let mut client = Client::start(&["--max-frame", "1MiB", &remote.url()]);
        client.initialize();
        assert!(client.failure().contains("more than 1048576 bytes (--max-frame)"), "{kind}");
    }
}

#[test]
fn a_server_that_cannot_be_reached_is_told_and_tried_again() {
    // Bound, so that no other process gets the port, but not listening.
    let taken = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    taken.set_reuse_address(true).expect("an option");
    taken.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let free = taken.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
    let mut client = Client::start(&[&format!("http://{free}/mcp")]);
    let answer = client.ask(&initialize());
    let why = answer["error"]["message"].as_str().expect("an error");
    assert!(why.contains("cannot be reached") && why.contains("nothing was sent"), "{why}");
    let _remote = Upstream::at(
        free,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 85\r\n\r\n\
        {\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{}}}  ",
    );
    assert_eq!(client.ask(&initialize())["result"]["protocolVersion"], "2025-06-18");
    assert_eq!(client.end(), 0);
}

#[test]
fn a_lost_session_is_opened_again_with_all_that_it_was_asked_for() {
    let remote = legacy(|request, message, stream| {
        let is_lost = message["method"] == "tools/call" && request.header("mcp-session-id") == Some("s1");
        let answer =
            if is_lost { http("404 Not Found", "", "") } else { json_answer(&result(&message["id"])) };
        stream.write_all(answer.as_bytes())
    });
    let sessions = |method: &str| {
        let all = remote.received();
        let named = all.iter().filter(|request| request.body.contains(method));
        named.map(|request| request.header("mcp-session-id").unwrap_or("none").to_owned()).collect::<Vec<_>>()
    };
    let mut client = connected(&remote);
    client
        .ask(&json!({"jsonrpc": "2.0", "id": 1, "method": "resources/subscribe", "params": {"uri": "a:1"}}));
    client
        .ask(&json!({"jsonrpc": "2.0", "id": 2, "method": "logging/setLevel", "params": {"level": "info"}}));
    assert!(client.ask(&call(3)).get("result").is_some());
    for method in ["resources/subscribe", "logging/setLevel", "tools/call", "notifications/initialized"] {
        assert_eq!(sessions(method), ["s1", "s2"], "{method}");
    }
    assert_eq!(client.end(), 0);
}

#[test]
fn a_lost_session_of_a_server_that_answers_400_is_opened_again() {
    let remote = legacy(move |request, message, stream| {
        let body = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Bad Request: No valid session ID"}}"#;
        let answer = match request.header("mcp-session-id") {
            Some("s1") => http("400 Bad Request", "content-type: application/json\r\n", body),
            _ => json_answer(&result(&message["id"])),
        };
        stream.write_all(answer.as_bytes())
    });
    let mut client = connected(&remote);
    client.say(&call(1));
    // The client is told that lists may have changed.
    let heard = [client.hear(), client.hear()];
    assert_eq!(heard[0]["method"], "notifications/tools/list_changed");
    assert!(heard[1].get("result").is_some(), "{heard:?}");
}

#[test]
fn a_server_that_comes_back_as_another_one_ends_the_process() {
    let count = AtomicUsize::new(0);
    let remote = Upstream::doing(move |request, stream| {
        let message = parsed(request);
        let answer = match message["method"].as_str() {
            Some("initialize") => {
                let version = count.fetch_add(1, Ordering::SeqCst);
                let body = json!({"jsonrpc": "2.0", "id": message["id"], "result": {
                    "protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "a", "version": version.to_string()}}});
                http("200 OK", "content-type: application/json\r\nmcp-session-id: s\r\n", &body.to_string())
            }
            Some("tools/call") => http("404 Not Found", "", ""),
            Some(_) => http("202 Accepted", "", ""),
            None => http("405 Method Not Allowed", "", ""),
        };
        stream.write_all(answer.as_bytes())
    });
    let mut client = Client::start(&[&remote.url()]);
    client.initialize();
    assert!(client.failure().contains("has restarted with another version"));
    assert_eq!(client.exit_code(), 1);
}

#[test]
fn a_broken_stream_is_resumed_where_it_broke() {
    let remote = legacy(|request, message, stream| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        let report = |id: u32| {
            let report = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": id}});
            format!("id: e{id}\ndata: {report}\n\n")
        };
        let text = match request.header("last-event-id") {
            None if message["method"] == "tools/call" => {
                format!("{head}id: e0\nretry: 10\ndata:\n\n{}", report(1))
            }
            Some("e1") => format!("{head}{}", report(2)),
            Some("e2") => format!("{head}{}data: {}\n\n", report(3), result(&json!(7))),
            _ => http("400 Bad Request", "", ""),
        };
        stream.write_all(text.as_bytes())?;
        Err(std::io::ErrorKind::ConnectionReset.into())
    });
    let mut client = connected(&remote);
    client.say(&call(7));
    for progress in 1..=3 {
        assert_eq!(client.hear()["params"]["progress"], progress);
    }
    assert!(client.hear().get("result").is_some());
}

#[test]
fn what_a_server_says_outside_of_requests_reaches_the_client_also_after_its_stream_broke() {
    let streams = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&streams);
    let remote = Upstream::doing(move |request, stream| {
        let message = parsed(request);
        match message["method"].as_str() {
            Some("initialize") => stream.write_all(initialized(&message["id"], "s").as_bytes()),
            Some(_) => stream.write_all(http("202 Accepted", "", "").as_bytes()),
            None if request.line.starts_with("GET") => {
                let at = counted.fetch_add(1, Ordering::SeqCst);
                let asked = json!({"jsonrpc": "2.0", "id": at, "method": "roots/list"});
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\nretry: 10\n";
                // An answer has no place here.
                let stray = result(&json!(99));
                stream.write_all(format!("{head}id: {at}\ndata: {asked}\n\ndata: {stray}\n\n").as_bytes())?;
                Err(std::io::ErrorKind::ConnectionReset.into())
            }
            // The client's answers.
            None => stream.write_all(http("202 Accepted", "", "").as_bytes()),
        }
    });
    let mut client = Client::start(&[&remote.url()]);
    client.initialize();
    for at in 0..2 {
        let asked = client.hear();
        assert_eq!((&asked["method"], &asked["id"]), (&json!("roots/list"), &json!(at)));
        client.say(&json!({"jsonrpc": "2.0", "id": at, "result": {"roots": []}}));
    }
    until("the answers", || {
        remote.received().iter().filter(|request| request.body.contains("roots")).count() == 2
    });
    let resumed =
        remote.received().into_iter().find_map(|request| request.header("last-event-id").map(str::to_owned));
    assert_eq!(resumed.as_deref(), Some("0"));
}

#[test]
fn a_legacy_request_is_cancelled_by_a_message_and_its_failure_stays_untold() {
    let (cancelled, broken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (seen, done) = (Arc::clone(&cancelled), Arc::clone(&broken));
    let remote = Upstream::doing(move |request, stream| {
        let message = parsed(request);
        match message["method"].as_str() {
            Some("initialize") => stream.write_all(initialized(&message["id"], "s").as_bytes()),
            Some("tools/call") if message["id"] == 1 => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: wait\n\n")?;
                until("the cancellation", || seen.load(Ordering::SeqCst) == 1);
                done.fetch_add(1, Ordering::SeqCst);
                Err(std::io::ErrorKind::ConnectionReset.into())
            }
            Some("tools/call") => stream.write_all(json_answer(&result(&message["id"])).as_bytes()),
            Some(method) => {
                seen.fetch_add(usize::from(method.ends_with("/cancelled")), Ordering::SeqCst);
                stream.write_all(http("202 Accepted", "", "").as_bytes())
            }
            None => stream.write_all(http("405 Method Not Allowed", "", "").as_bytes()),
        }
    });
    let mut client = connected(&remote);
    client.say(&call(1));
    until("the call", || remote.received().iter().any(|request| request.body.contains("tools/call")));
    client.say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}));
    until("the end of the stream", || broken.load(Ordering::SeqCst) == 1);
    client.say(&call(2));
    assert_eq!(client.hear()["id"], 2);
    drop(client.stdin.take());
    assert_eq!(client.exit_code(), 0);
    assert!(client.said.try_recv().is_err(), "nothing else was said");
}

/// Answers a modern server's `server/discover`.
fn discovered(id: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": {"resultType": "complete", "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private",
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "remote", "version": "1"}}}})
}

/// Starts a modern server, which leaves all but discovery to `serve`.
fn modern_server(
    serve: impl Fn(&Received, &Value, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> Upstream {
    Upstream::doing(move |request, stream| {
        let message = parsed(request);
        if message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"].is_null() {
            let error = json!({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32022, "message": "no",
                "data": {"supported": ["2026-07-28"], "requested": "?"}}});
            return stream.write_all(
                http("400 Bad Request", "content-type: application/json\r\n", &error.to_string()).as_bytes(),
            );
        }
        match message["method"].as_str() {
            Some("server/discover") => stream.write_all(json_answer(&discovered(&message["id"])).as_bytes()),
            _ => serve(request, &message, stream),
        }
    })
}

#[test]
fn a_modern_call_repeats_in_headers_what_its_server_demands() {
    let tools = json!({"tools": [{"name": "t", "inputSchema": {"type": "object", "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"}}}}], "ttlMs": 0, "cacheScope": "private"});
    let remote = modern_server(move |request, message, stream| {
        let id = &message["id"];
        let answer = match message["method"].as_str() {
            Some("tools/list") => json_answer(&json!({"jsonrpc": "2.0", "id": id, "result": tools})),
            _ if request.header("mcp-param-region") == Some("eu") => json_answer(&result(id)),
            _ => {
                let error =
                    json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32020, "message": "header"}});
                http("400 Bad Request", "content-type: application/json\r\n", &error.to_string())
            }
        };
        stream.write_all(answer.as_bytes())
    });
    let mut client = Client::start(&[&remote.url()]);
    let answer = client.ask(&modern(1, "tools/call", &json!({"name": "t", "arguments": {"region": "eu"}})));
    assert!(answer.get("result").is_some(), "{answer}");
    let called = remote.last();
    assert_eq!(called.header("mcp-method"), Some("tools/call"));
    assert_eq!(called.header("mcp-name"), Some("t"));
    assert_eq!(called.header("mcp-protocol-version"), Some("2026-07-28"));
    assert_eq!(called.header("mcp-session-id"), None);
    assert_eq!(client.end(), 0);
    assert!(!remote.received().iter().any(|request| request.line.starts_with("DELETE")));
}

#[test]
fn a_modern_request_is_cancelled_by_closing_its_stream() {
    let closed = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&closed);
    let remote = modern_server(move |_, message, stream| {
        if message["id"] == 2 {
            return stream.write_all(json_answer(&result(&message["id"])).as_bytes());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: wait\n\n")?;
        let _ = stream.read(&mut [0]);
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    let mut client = Client::start(&[&remote.url()]);
    let slow = modern(1, "tools/call", &json!({"name": "t"}));
    client.say(&slow);
    until("the call", || remote.received().iter().any(|request| request.body.contains("tools/call")));
    client.say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}));
    until("the end of the stream", || closed.load(Ordering::SeqCst) == 1);
    client.say(&modern(2, "tools/call", &json!({"name": "t"})));
    assert_eq!(client.hear()["id"], 2);
    assert!(!remote.received().iter().any(|request| request.body.contains("cancelled")));
}

#[test]
fn a_subscription_is_opened_again_when_its_stream_breaks() {
    let count = AtomicUsize::new(0);
    let remote = modern_server(move |_, message, stream| {
        let at = count.fetch_add(1, Ordering::SeqCst);
        let stamp = json!({"io.modelcontextprotocol/subscriptionId": message["id"]});
        let acknowledged = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
            "params": {"notifications": {"toolsListChanged": true}, "_meta": stamp}});
        let changed = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {"_meta": stamp, "at": at}});
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        stream.write_all(format!("{head}data: {acknowledged}\n\ndata: {changed}\n\n").as_bytes())?;
        Err(std::io::ErrorKind::ConnectionReset.into())
    });
    let mut client = Client::start(&[&remote.url()]);
    client.say(&modern(1, "subscriptions/listen", &json!({"notifications": {"toolsListChanged": true}})));
    assert_eq!(client.hear()["method"], "notifications/subscriptions/acknowledged");
    for at in 0..2 {
        assert_eq!(client.hear()["params"]["at"], at);
    }
    assert_eq!(client.end(), 0);
}

#[test]
fn a_modern_client_reaches_a_legacy_server_and_the_reverse() {
    let remote = saying(|id| json_answer(&result(id)));
    let mut client = Client::start(&[&remote.url()]);
    let answer = client.ask(&modern(1, "tools/call", &json!({"name": "t", "arguments": {}})));
    assert_eq!(answer["result"]["resultType"], "complete", "{answer}; {}", client.logged());
    assert_eq!(client.end(), 0);
    until("the end of the session", || deleted(&remote).is_some());

    let remote =
        modern_server(|_, message, stream| stream.write_all(json_answer(&result(&message["id"])).as_bytes()));
    let mut client = Client::start(&[&remote.url()]);
    let greeting = client.initialize();
    assert_eq!(greeting["result"]["protocolVersion"], "2025-11-25", "{greeting}; {}", client.logged());
    assert!(client.ask(&call(1)).get("result").is_some());
    assert_eq!(client.end(), 0);
}

#[test]
fn a_proxyrunner_is_a_remote_server_of_both_eras() {
    let server = Server::with().program(&["python3", "examples/server.py"]).start();
    let url = format!("http://{}/mcp", server.address());
    let mut client = Client::start(&[&url]);
    assert_eq!(client.initialize()["result"]["serverInfo"]["name"], "example");
    let echo = json!({"name": "echo", "arguments": {"text": "hello"}});
    let answer = client.ask(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": echo}));
    assert_eq!(answer["result"]["content"][0]["text"], "hello");
    assert_eq!(client.end(), 0);
    let mut client = Client::start(&[&url]);
    let answer = client.ask(&modern(1, "tools/call", &echo));
    assert_eq!(answer["result"]["content"][0]["text"], "hello");
    assert!(!client.logged().contains("translated"), "{}", client.logged());
}

#[test]
fn a_legacy_server_without_a_proxyrunner_is_one_of_all_servers_of_a_gateway_as_a_command() {
    let remote = legacy(|_, message, stream| {
        let id = &message["id"];
        let answer = match message["method"].as_str() {
            Some("tools/list") => json!({"jsonrpc": "2.0", "id": id, "result": {"tools": [
                {"name": "t", "inputSchema": {"type": "object"}}]}}),
            _ => result(id),
        };
        stream.write_all(json_answer(&answer).as_bytes())
    });
    let file = scratch("connect-servers.json");
    let bridge =
        json!({"command": env!("CARGO_BIN_EXE_proxyrunner"), "args": ["connect", "--direct", remote.url()]});
    fs::write(&file, json!({"mcpServers": {"old": bridge}}).to_string()).expect("a file");
    let gateway = Server::with().gateway(&file).start();
    let client = gateway.modern();
    until("its tools", || {
        let listed = client.send("tools/list", json!({})).answer();
        listed["result"]["tools"].as_array().is_some_and(|tools| tools.iter().any(|tool| tool["name"] == "t"))
    });
    let called = modern_result(&client.send("tools/call", json!({"name": "t", "arguments": {}})));
    assert_eq!(called["content"], json!([]), "{called}");
    let session = remote.last().header("mcp-session-id").map(str::to_owned);
    assert!(session.is_some(), "the call is one of a session");
}

#[test]
fn a_token_is_read_again_when_it_is_refused_and_is_never_shown() {
    let file = scratch("connect-token");
    fs::write(&file, "Authorization: Bearer first-secret\n").expect("a file");
    let remote = legacy(|request, message, stream| {
        let answer = match request.header("authorization") {
            Some("Bearer second-secret") => json_answer(&result(&message["id"])),
            _ => http("401 Unauthorized", "", ""),
        };
        stream.write_all(answer.as_bytes())
    });
    let mut client =
        Client::start(&["--header-file", &file.display().to_string(), "--log-level", "debug", &remote.url()]);
    client.initialize();
    assert!(client.failure().contains("refuses the credentials"));
    fs::write(&file, "Authorization: Bearer second-secret\n").expect("a file");
    assert!(client.ask(&call(1)).get("result").is_some());
    assert_eq!(remote.received()[0].header("authorization"), Some("Bearer first-secret"));
    assert!(!client.logged().contains("secret"), "{}", client.logged());
}

#[test]
fn what_is_no_message_is_answered_and_the_next_one_counts() {
    let remote = saying(|id| json_answer(&result(id)));
    let mut client = Client::start(&["--max-frame", "64KiB", &remote.url()]);
    client.initialize();
    let stdin = client.stdin.as_mut().expect("stdin");
    stdin.write_all(format!("nonsense\n\n{}\n", "x".repeat(100_000)).as_bytes()).expect("written");
    assert_eq!(client.hear()["error"]["code"], -32700);
    let too_long = client.hear();
    assert!(too_long["error"]["message"].as_str().expect("a text").contains("--max-frame"), "{too_long}");
    assert!(client.ask(&call(1)).get("result").is_some());
}

#[test]
fn a_request_in_flight_is_finished_at_the_end_and_a_signal_does_not_wait() {
    let remote = legacy(|_, message, stream| {
        thread::sleep(Duration::from_secs(if message["id"] == 1 { 1 } else { 60 }));
        stream.write_all(json_answer(&result(&message["id"])).as_bytes())
    });
    let mut client = connected(&remote);
    client.say(&call(1));
    drop(client.stdin.take());
    assert!(client.hear().get("result").is_some());
    assert_eq!(client.exit_code(), 0);

    let mut client = connected(&remote);
    client.say(&call(2));
    until("the call", || remote.received().iter().any(|request| parsed(request)["id"] == 2));
    kill(Pid::from_raw(client.process.id().cast_signed()), Signal::SIGTERM).expect("a signal");
    assert_eq!(client.exit_code(), 0);
}

fn refused(words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxyrunner"));
    let Output { status, stderr, .. } = command.arg("connect").args(words).output().expect("the binary runs");
    assert_eq!(status.code(), Some(64), "{words:?}");
    String::from_utf8(stderr).expect("UTF-8")
}

#[test]
fn bad_words_are_refused() {
    let (file, bad) = (scratch("connect-words"), scratch("connect-bad-words"));
    fs::write(&file, "Authorization: Bearer secret\n").expect("a file");
    let file = file.display().to_string();
    for (url, expected) in [
        ("", "is no URL"),
        ("ftp://a/mcp", "does not begin with http"),
        ("https://u:secret@a/mcp", "has a name or a password"),
        ("https://a/mcp#x", "has a fragment"),
        ("https://a:99999/mcp", "no valid host and port"),
    ] {
        let line = refused(&[url]);
        assert!(line.contains(expected) && !line.contains("secret"), "{url}: {line}");
    }
    let line = refused(&["--header-file", &file, "http://tools.example/mcp"]);
    assert!(line.contains("--insecure-http") && !line.contains("secret"), "{line}");
    fs::write(&bad, "Mcp-Session-Id: 1\n").expect("a file");
    let line = refused(&["--header-file", &bad.display().to_string(), "https://a/mcp"]);
    assert!(line.contains("sets mcp-session-id"), "{line}");
    assert!(refused(&["--ca", &file, "https://a/mcp"]).contains("--ca"), "no certificate");
    assert!(refused(&["--listen", ":1", "https://a/mcp"]).contains("--listen"));
}
