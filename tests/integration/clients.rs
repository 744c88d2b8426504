//! Deviations of real HTTP clients, browsers, load balancers and ingresses: requests that violate the specification
//! with a clear meaning are served; ambiguous or cross-site requests are refused.

use crate::support::{Connection, Journal, Response, Server, Session, tool_call};
use serde_json::{Value, json};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const VERSION: &str = "MCP-Protocol-Version";

/// Sends a POST with exactly these headers.
fn post(server: &Server, headers: &[(&str, &str)], body: &str) -> Response {
    server.request("POST", "/mcp", headers, body.as_bytes())
}

/// Sends a POST within a session, with this Accept header or without one.
fn accepting(session: &Session<'_>, server: &Server, accept: Option<&str>, body: &str) -> Response {
    let mut headers = vec![("Content-Type", "application/json"), ("Mcp-Session-Id", &*session.id)];
    headers.extend(accept.map(|accept| ("Accept", accept)));
    post(server, &headers, body)
}

fn with_progress(n: u32) -> String {
    let params = json!({"name": "progress", "arguments": {"n": n}, "_meta": {"progressToken": "t"}});
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string()
}

#[test]
fn a_repeated_or_joined_version_header_counts_once() {
    let server = Server::start("");
    let session = server.session();
    let ping = |versions: &[&str]| {
        let mut headers = vec![("Mcp-Session-Id", &*session.id)];
        headers.extend(versions.iter().map(|version| (VERSION, *version)));
        server.post(&headers, PING).status
    };
    for same in [
        &["2025-11-25", "2025-11-25"][..],
        &["2025-11-25, 2025-11-25"],
        &["2025-11-25,2025-11-25 "],
        &["2025-11-25,"],
        &["2025-11-25", ""],
    ] {
        assert_eq!(ping(same), 200, "{same:?}");
    }
    for different in [&["2025-11-25", "2025-06-18"][..], &["2025-11-25, 2025-06-18"]] {
        assert_eq!(ping(different), 400, "{different:?}");
    }
    for given in ["2026-07-28, 2026-07-28", "2026-07-28"] {
        assert_eq!(
            server.modern().header(VERSION, given).call("sleep", json!({"ms": 0})).status,
            200,
            "{given}"
        );
    }
    let two = server.modern().header(VERSION, "2026-07-28").header(VERSION, "2026-07-28");
    assert_eq!(two.call("sleep", json!({"ms": 0})).status, 200);
    let other = server.modern().header(VERSION, "2026-07-28, 2025-11-25").call("sleep", json!({"ms": 0}));
    assert_eq!((other.status, other.code()), (400, -32020));
}

#[test]
fn supported_versions_are_served_even_if_not_negotiated() {
    let server = Server::start("");
    let session = server.opening().version("2025-06-18").open();
    let ping = |version: &str| server.post(&[("Mcp-Session-Id", &session.id), (VERSION, version)], PING);
    for supported in ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"] {
        assert_eq!(ping(supported).status, 200, "{supported}");
    }
    for unsupported in ["", "undefined", "null", "1", "2025-06-19", "2.0", "draft"] {
        let refused = ping(unsupported);
        assert_eq!((refused.status, refused.code()), (400, -32600), "{unsupported:?}");
    }
    server.until_logged("MCP-Protocol-Version is not the negotiated one");
    let opened = server.opening().header(VERSION, "undefined").send();
    assert_eq!(opened.status, 200, "no version is negotiated before the handshake: {}", opened.text());
    assert_eq!(session.request("GET", &[(VERSION, "2025-11-25")]).response_head().status, 200);
    assert_eq!(session.request("DELETE", &[(VERSION, "2025-11-25")]).response().status, 204);
}

#[test]
fn extra_slashes_around_a_path_are_ignored() {
    for flag in ["--path /deep/mcp", "--path /deep/mcp/"] {
        let server = Server::start(flag);
        let body = server.opening().body();
        for path in ["/deep/mcp", "/deep/mcp/", "//deep/mcp", "/deep/mcp/?x=1"] {
            let opened = server.request("POST", path, crate::support::JSON, body.as_bytes());
            assert_eq!(opened.status, 200, "{flag} {path}");
        }
        for path in ["/health/", "/livez/", "/readyz/", "//startupz", "/health/ready/", "/metrics/"] {
            assert_eq!(server.request("GET", path, &[], b"").status, 200, "{path}");
        }
        assert_eq!(
            server.request("POST", "/deep/mcp/more", crate::support::JSON, body.as_bytes()).status,
            404
        );
    }
}

/// Returns the data of the endpoint event of a stream at `path`.
fn announced(server: &Server, path: &str) -> String {
    let mut connection = server.connect();
    connection.request("GET", path, &[], b"");
    connection.events().next().expect("the endpoint event").data
}

/// Regression: the endpoint event contained an absolute path, which lacked the prefix that an ingress removes.
#[test]
fn the_endpoint_event_is_relative_to_the_stream() {
    let server = Server::start("--sse");
    let reference = announced(&server, "/sse");
    assert!(reference.starts_with("messages?sessionId="), "{reference}");
    let below = announced(&server, "/sse/");
    assert!(below.starts_with("../messages?sessionId="), "{below}");
    for (public, start) in [
        ("https://tools.example/github", "/github/messages?sessionId="),
        ("https://tools.example/github/mcp", "/github/messages?sessionId="),
        ("https://tools.example", "/messages?sessionId="),
    ] {
        let server = Server::start(&format!("--sse --public-url {public}"));
        let reference = announced(&server, "/sse");
        assert!(reference.starts_with(start), "{public}: {reference}");
        let head = server.request("GET", "/sse", &[("Host", "tools.example"), ("Accept", "text/plain")], b"");
        assert_eq!(head.status, 406, "the public host passes the guard");
    }
}

#[test]
fn null_params_are_served_and_not_forwarded() {
    let server = Server::with().asked_nothing().start();
    let session = server.session();
    assert_eq!(session.post(r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":null}"#).status, 200);
    let listed = session.post(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params": null }"#).answer();
    assert!(listed["result"].is_object(), "{listed}");
    assert_eq!(session.child_read().pop().expect("a frame")["method"], "tools/list");
    for body in [
        r#"{"jsonrpc":"2.0","method":"notifications/x","params":null}"#,
        r#"{"params":null,"method":"notifications/x","jsonrpc":"2.0"}"#,
    ] {
        assert_eq!(session.post(body).status, 202, "{body}");
    }
    let traced = [("Mcp-Session-Id", &*session.id), ("traceparent", TRACE)];
    assert_eq!(
        server.post(&traced, r#"{"jsonrpc":"2.0","params":null,"id":1,"method":"prompts/list"}"#).status,
        200
    );
    let read: Vec<Value> =
        session.child_read().iter().rev().take(3).map(|frame| frame["params"].clone()).collect();
    assert_eq!(read, [json!({"_meta": {"traceparent": TRACE}}), json!({}), json!({})]);
    let twice = r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":null,"params":{}}"#;
    for twice in [twice, r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":null,"params":null}"#] {
        assert_eq!(session.post(twice).status, 400, "{twice}");
    }
}

#[test]
fn irrelevant_null_members_are_ignored() {
    let server = Server::with().asked_nothing().start();
    let session = server.session();
    for (body, status) in [
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":null,"result":null,"error":null}"#, 200),
        (r#"{"jsonrpc":"2.0","id":null,"method":"notifications/x"}"#, 202),
        (r#"{"jsonrpc":"2.0","id":7,"method":null,"result":{},"error":null}"#, 202),
        // A method with a null id is a request whose response could not be delivered.
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, 400),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#, 400),
        (r#"{"jsonrpc":"2.0","id":1.0,"method":"ping"}"#, 400),
    ] {
        let answer = session.post(body);
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
    }
    server.until_logged("members that are null");
}

#[test]
fn repeated_equal_headers_count_once() {
    let server = Server::start("");
    let json = ("Content-Type", "application/json");
    let with = |more: &[(&str, &str)]| {
        let session = server.session();
        let mut headers =
            vec![("Accept", "application/json, text/event-stream"), ("Mcp-Session-Id", &*session.id)];
        headers.extend(more);
        post(&server, &headers, PING).status
    };
    assert_eq!(with(&[json, json]), 200);
    assert_eq!(with(&[json, ("Content-Type", "text/plain")]), 415);
    let origin = ("Origin", "http://localhost");
    assert_eq!(with(&[json, origin, origin]), 200);
    assert_eq!(with(&[json, origin, ("Origin", "http://other.example")]), 400);
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[test]
fn a_compressed_body_is_refused_and_its_encoding_named() {
    let server = Server::start("");
    let session = server.session();
    let send = |encoding: &str| {
        server.post(&[("Mcp-Session-Id", &session.id), ("Content-Encoding", encoding)], PING)
    };
    for encoding in ["gzip", "br", "identity, gzip"] {
        let refused = send(encoding);
        assert_eq!((refused.status, refused.code()), (415, -32600), "{encoding}");
        assert_eq!(refused.header("accept-encoding"), Some("identity"));
        let name = encoding.rsplit(' ').next().expect("a name");
        assert!(refused.text().contains(name), "{}", refused.text());
    }
    for plain in ["identity", "", "Identity"] {
        assert_eq!(send(plain).status, 200, "{plain}");
    }
}

#[test]
fn a_byte_order_mark_before_the_body_is_ignored() {
    let server = Server::start("");
    let session = server.session();
    assert_eq!(session.post(format!("\u{feff}{PING}")).json()["id"], 1);
    assert_eq!(session.post(format!("\u{feff}\u{feff}{PING}")).status, 400);
}

#[test]
fn a_json_only_client_gets_json() {
    let server = Server::start("--sse-commit-after 0");
    let session = server.session();
    for accept in [Some("application/json"), Some("application/json, text/event-stream;q=0"), None] {
        for body in [PING.to_owned(), with_progress(3), tool_call(1, "sleep", &json!({"ms": 300}))] {
            let response = accepting(&session, &server, accept, &body);
            assert_eq!(response.header("content-type"), Some("application/json"), "{accept:?} {body}");
            assert_eq!((response.status, &response.json()["id"]), (200, &json!(1)), "{}", response.text());
        }
    }
    server.until_logged("Accept does not list both application/json and text/event-stream");
    let headers = [("Content-Type", "application/json"), ("Accept", "application/json")];
    let opened = post(&server, &headers, &server.opening().exclusive().body());
    assert_eq!(opened.json()["result"]["protocolVersion"], "2025-11-25");
    let old = server.opening().version("2025-03-26").open();
    let batch = format!("[{},{}]", with_progress(2), tool_call(2, "sleep", &json!({"ms": 0})));
    let answers = accepting(&old, &server, Some("application/json"), &batch).json();
    assert_eq!(answers.as_array().map(Vec::len), Some(2), "{answers}");
}

#[test]
fn a_modern_json_only_client_gets_json() {
    let server = Server::with().flags("--sse-commit-after 0").modern_child("").start();
    let client = server.modern().header("Accept", "application/json");
    let accept = |body: &Value| {
        let method = body["method"].as_str().expect("a method");
        let name = body["params"]["name"].as_str().unwrap_or_default();
        let headers = [
            ("Content-Type", "application/json"),
            ("Accept", "application/json"),
            (VERSION, "2026-07-28"),
            ("Mcp-Method", method),
            ("Mcp-Name", name),
        ];
        post(&server, &headers, &body.to_string())
    };
    let call = accept(&client.body(1, "tools/call", json!({"name": "sleep", "arguments": {"ms": 100}})));
    assert_eq!(
        (call.status, call.header("content-type")),
        (200, Some("application/json")),
        "{}",
        call.text()
    );
    let listen = accept(&client.body(1, "subscriptions/listen", json!({"notifications": {}})));
    assert_eq!((listen.status, &listen.json()["id"]), (406, &json!(1)), "a subscription is always a stream");
}

#[test]
fn a_json_only_client_is_asked_on_its_standalone_stream() {
    let server = Server::start("");
    let session = server.opening().exclusive().open();
    let mut stream = session.listen();
    let mut connection = server.connect();
    let headers = [
        ("Content-Type", "application/json"),
        ("Accept", "application/json"),
        ("Mcp-Session-Id", &*session.id),
    ];
    let body = tool_call(1, "ask", &json!({"method": "sampling/createMessage"}));
    connection.request("POST", "/mcp", &headers, body.as_bytes());
    let question = stream.message();
    assert_eq!(question["method"], "sampling/createMessage");
    session.tell(json!({"jsonrpc": "2.0", "id": question["id"], "result": {"x": 1}}));
    let response = connection.response();
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.json()["result"]["answers"][0]["result"], json!({"x": 1}));
}

#[test]
fn a_modern_json_only_client_cancels_by_disconnecting() {
    let journal = Journal::new();
    let server = Server::with().child(&journal.flag()).start();
    let body = server.modern().body(1, "tools/call", json!({"name": "hang", "arguments": {}}));
    let headers = [
        ("Content-Type", "application/json"),
        ("Accept", "application/json"),
        (VERSION, "2026-07-28"),
        ("Mcp-Method", "tools/call"),
        ("Mcp-Name", "hang"),
    ];
    let mut connection = server.connect();
    connection.request("POST", "/mcp", &headers, body.to_string().as_bytes());
    journal.until_called("hang");
    connection.cut();
    journal.until_cancelled("hang");
}

/// Notifications and responses get an empty 202, whatever the client accepts.
#[test]
fn notifications_and_responses_are_taken_with_any_accept_header() {
    let server = Server::start("");
    let session = server.session();
    let answer = r#"{"jsonrpc":"2.0","id":77,"result":{}}"#;
    for accept in [Some("text/html"), Some("application/json"), Some("text/event-stream"), Some(""), None] {
        for body in [INITIALIZED, answer] {
            assert_eq!(accepting(&session, &server, accept, body).status, 202, "{accept:?} {body}");
        }
    }
    let envelope = server.modern().body(1, "notifications/x", json!({}));
    let modern = json!({"jsonrpc": "2.0", "method": "notifications/x", "params": envelope["params"]});
    let headers = [("Content-Type", "application/json"), (VERSION, "2026-07-28")];
    assert_eq!(post(&server, &headers, &modern.to_string()).status, 202);
}

#[test]
fn cors_allows_parameter_headers() {
    let server = Server::start("--allow-origin https://*.app.example");
    let asked = "content-type, Mcp-Param-Region,mcp-param-count, x-evil, mcp-param-\u{e9}, mcp-paramX";
    let headers = [
        ("Origin", "https://pr-7.app.example"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", asked),
        ("Access-Control-Request-Private-Network", "true"),
    ];
    let preflight = server.request("OPTIONS", "/mcp/", &headers, b"");
    assert_eq!(preflight.status, 204);
    let allowed = preflight.header("access-control-allow-headers").expect("a list");
    let allowed: Vec<_> = allowed.split(", ").collect();
    for header in
        ["mcp-param-region", "mcp-param-count", "mcp-method", "mcp-name", "content-type", "last-event-id"]
    {
        assert!(allowed.contains(&header), "{header} is not in {allowed:?}");
    }
    assert!(!allowed.iter().any(|name| name.contains("evil") || *name == "mcp-paramx"), "{allowed:?}");
    assert_eq!(preflight.header("access-control-allow-private-network"), Some("true"));
    let exposed = server.post(&[headers[0]], PING);
    assert!(exposed.header("access-control-expose-headers").is_some_and(|list| list.contains("retry-after")));
}

#[test]
fn initialize_with_a_stale_session_id_opens_a_new_session() {
    let server = Server::start("");
    let dead = server.session();
    assert_eq!(dead.delete().status, 204);
    for id in [&*dead.id, "", "undefined", "null", "\u{e9}x"] {
        let opened = server.opening().header("Mcp-Session-Id", id).send();
        assert_eq!(opened.status, 200, "{id:?}: {}", opened.text());
        assert_ne!(opened.header("mcp-session-id").expect("a new id"), id);
    }
    server.until_logged("initialize carries an unknown Mcp-Session-Id");
    let long = server.opening().padded(20_000).header("Mcp-Session-Id", &dead.id).send();
    assert_eq!(long.status, 200, "a long handshake is read before it is checked");
    assert_eq!(
        server.post(&[("Mcp-Session-Id", &dead.id)], PING).status,
        404,
        "only a handshake opens a session"
    );
    let live = server.session();
    assert_eq!(server.opening().header("Mcp-Session-Id", &live.id).send().status, 400);
}

#[test]
fn an_empty_last_event_id_is_ignored() {
    let server = Server::start("");
    let session = server.session();
    assert_eq!(session.request("GET", &[("Last-Event-ID", "")]).response_head().status, 200);
    assert_eq!(session.request("GET", &[("Last-Event-ID", "x")]).response_head().status, 400);
}

/// A load balancer that kept a connection longer might send a request on it just as it closes.
#[test]
fn idle_connections_are_kept_longer_than_by_load_balancers() {
    let by_default =
        proxyrunner::internals::config::table::find("keep-alive-timeout").expect("a setting").default_words();
    let seconds = by_default.and_then(|words| words.strip_suffix('s')?.parse::<u32>().ok()).expect("seconds");
    assert!(seconds > 600, "load balancers keep idle connections for up to 600 s");
    let server = Server::start("--keep-alive-timeout 300ms");
    let mut connection = server.connect();
    connection.request("GET", "/livez", &[], b"");
    assert_eq!(connection.response().status, 200);
    assert!(connection.is_closed(), "--keep-alive-timeout applies");
}

#[test]
fn off_loopback_service_hosts_are_served_and_public_ones_if_allowed() {
    let server = Server::start("--listen 0.0.0.0:0 --allow-host *.tools --allow-host mcp.example");
    let status = |host: &str| server.post(&[("Host", host)], PING);
    for served in [
        "mcp:8080",
        "mcp.tools:8080",
        "mcp.other.svc.cluster.local",
        "mcp.other.svc:80",
        "mcp.example:8443",
        "MCP.Example.",
    ] {
        assert_eq!(status(served).status, 400, "{served} passes the guard, but the request has no session");
    }
    for (refused, helps) in [
        ("mcp.other:8080", "--allow-host mcp.other (or '*.other')"),
        ("evil.example", "--allow-host evil.example"),
        ("tools.evil.example", "--allow-host tools.evil.example"),
        ("evil.dev", "--allow-host evil.dev"),
    ] {
        let response = status(refused);
        assert_eq!(response.status, 403, "{refused}");
        assert!(response.text().contains(helps), "{}", response.text());
    }
}

#[test]
fn metrics_are_served_for_any_host_but_not_to_foreign_origins() {
    let server = Server::start("");
    let get = |headers: &[(&str, &str)]| server.request("GET", "/metrics", headers, b"").status;
    for host in ["mcp.tools:8080", "10.1.2.3:8080", "evil.example"] {
        assert_eq!(get(&[("Host", host)]), 200, "{host}");
    }
    assert_eq!(get(&[("Host", "mcp.tools"), ("Origin", "https://evil.example")]), 403);
}

/// RFC 9112 §3.2: an authority in the target takes precedence, Host occurs once, and HTTP/1.0 may omit it.
#[test]
fn the_host_is_determined_as_in_rfc_9112() {
    let server = Server::start("");
    let local = server.address();
    let raw = |head: &str| {
        let mut connection = server.connect();
        let rest = format!(
            "Content-Type: application/json\r\nAccept: */*\r\nContent-Length: {}\r\n\r\n{PING}",
            PING.len()
        );
        connection.send(head.to_owned() + &rest);
        connection.response_head().status
    };
    assert_eq!(
        raw(&format!("POST http://{local}/mcp HTTP/1.1\r\nHost: evil.example\r\n")),
        400,
        "no session"
    );
    assert_eq!(raw(&format!("POST http://evil.example/mcp HTTP/1.1\r\nHost: {local}\r\n")), 403);
    assert_eq!(raw(&format!("POST http://{local}@evil.example/mcp HTTP/1.1\r\nHost: {local}\r\n")), 400);
    assert_eq!(raw(&format!("POST /mcp HTTP/1.1\r\nHost: {local}\r\nHost: {local}\r\n")), 400);
    assert_eq!(raw("POST /mcp HTTP/1.1\r\n"), 400);
    assert_eq!(raw("POST /mcp HTTP/1.1\r\nHost:\r\n"), 403);
    assert_eq!(raw("POST /mcp HTTP/1.0\r\n"), 400, "no session");
    assert_eq!(raw("POST /mcp HTTP/1.0\r\nHost: evil.example\r\n"), 403);
}

#[test]
fn cross_site_requests_without_an_origin_are_refused() {
    let server = Server::start("--sse --allow-origin https://app.example");
    let get = |headers: &[(&str, &str)]| {
        let mut connection = server.connect();
        connection.request("GET", "/sse", headers, b"");
        connection.response_head().status
    };
    for site in ["cross-site", "same-site", "unheard-of"] {
        assert_eq!(get(&[("Sec-Fetch-Site", site)]), 403, "{site}");
        assert_eq!(server.post(&[("Sec-Fetch-Site", site)], server.opening().body()).status, 403, "{site}");
    }
    for site in ["same-origin", "none"] {
        assert_eq!(get(&[("Sec-Fetch-Site", site)]), 200, "{site}");
    }
    assert_eq!(get(&[("Sec-Fetch-Site", "cross-site"), ("Origin", "https://app.example")]), 200);
    assert_eq!(server.request("GET", "/livez", &[("Sec-Fetch-Site", "cross-site")], b"").status, 200);
}

/// Two parsers that disagree about the end of a body would read different requests from the connection.
#[test]
fn other_transfer_codings_are_refused_and_the_connection_closed() {
    let server = Server::start("");
    let session = server.session();
    let send = |coding: &[&str], path: &str| {
        let mut headers = Connection::post_headers(&[("Mcp-Session-Id", &session.id)]);
        headers.extend(coding.iter().map(|coding| ("Transfer-Encoding", *coding)));
        let mut connection = server.connect();
        connection.head("POST", path, &headers);
        // The server may have refused the head and closed the connection already.
        let _ = connection.chunk(PING.as_bytes());
        let _ = connection.try_send("0\r\n\r\n");
        let response = connection.response();
        let closed = response.header("connection") == Some("close");
        (response.status, closed)
    };
    assert_eq!(send(&["chunked"], "/mcp"), (200, false));
    assert_eq!(send(&["Chunked"], "/mcp"), (200, false));
    for path in ["/mcp", "/livez", "/nowhere"] {
        assert_eq!(send(&["gzip, chunked"], path), (501, true), "{path}");
        assert_eq!(send(&["gzip", "chunked"], path), (501, true), "{path}");
        assert_eq!(send(&["chunked, chunked"], path), (400, true), "{path}");
        assert_eq!(send(&["chunked", "chunked"], path), (400, true), "{path}");
    }
}

/// Regression: a request that bypassed the authenticating proxy, or that it forwarded without a name, was served as the
/// shared anonymous principal.
#[test]
fn principal_header_refuses_anonymous_requests() {
    let server = Server::start("--sse --principal-header X-User");
    for user in [
        None,
        Some(""),
        Some(" "),
        Some("anonymous"),
        Some("Anonymous"),
        Some("anonymous, anonymous"),
        Some("ann,"),
        Some("\"anonymous\""),
    ] {
        let headers: Vec<_> = user.iter().map(|user| ("X-User", *user)).collect();
        let refused = server.post(&headers, server.opening().body());
        assert_eq!((refused.status, refused.code()), (400, -32600), "{user:?}");
        assert!(refused.text().contains("--principal-header"), "{}", refused.text());
        let client = headers.iter().fold(server.modern(), |client, (name, value)| client.header(name, value));
        assert_eq!(client.call("sleep", json!({"ms": 0})).status, 400, "{user:?}");
        assert_eq!(server.request("GET", "/sse", &headers, b"").status, 400, "{user:?}");
    }
    for user in ["ann", "CN=Ann,OU=Works"] {
        assert_eq!(server.opening().header("X-User", user).open().post(PING).status, 200, "{user}");
    }
    for path in ["/livez", "/metrics"] {
        assert_eq!(server.request("GET", path, &[], b"").status, 200, "{path} needs no principal");
    }
    assert_eq!(server.request("OPTIONS", "/mcp", &[], b"").status, 204, "a preflight needs no principal");
}

/// Regression: if a long body was refused because of its head, the connection was reset before the client could read
/// the response.
#[test]
fn a_refusal_can_be_read_after_sending_a_long_body() {
    let server = Server::start("");
    let body = vec![b' '; 8 << 20];
    for (path, header, status) in [
        ("/mcp", ("Content-Encoding", "gzip"), 415),
        ("/mcp", ("Content-Type", "text/plain"), 415),
        ("/mcp", ("Origin", "https://evil.example"), 403),
        ("/nowhere", ("Accept", "*/*"), 404),
    ] {
        let mut headers = vec![header];
        if header.0 != "Content-Type" {
            headers.push(("Content-Type", "application/json"));
        }
        assert_eq!(server.request("POST", path, &headers, &body).status, status, "{path} {header:?}");
    }
}
