//! Checks before a body is read: path, method, Content-Type, Accept, Host and Origin.

use crate::support::Server;
use serde_json::json;

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

#[test]
fn only_json_bodies_are_accepted() {
    let server = Server::start("");
    let session = server.session();
    let status = |content_type: &[(&str, &str)]| {
        let fixed =
            [("Accept", "application/json, text/event-stream"), ("Mcp-Session-Id", session.id.as_str())];
        server.request("POST", "/mcp", &[&fixed, content_type].concat(), PING.as_bytes())
    };
    for taken in ["application/json", "application/json; charset=utf-8", "Application/JSON"] {
        assert_eq!(status(&[("Content-Type", taken)]).status, 200, "{taken}");
    }
    for refused in ["text/plain", "application/jsonl", "", "multipart/form-data"] {
        let response = status(&[("Content-Type", refused)]);
        assert_eq!((response.status, response.code()), (415, -32600), "{refused}");
    }
    assert_eq!(status(&[]).status, 415);
    assert_eq!(status(&[("Content-Type", "application/json"), ("Content-Type", "text/plain")]).status, 415);
}

#[test]
fn posts_must_accept_json_and_gets_must_accept_event_streams() {
    let server = Server::start("");
    let session = server.session();
    let status = |method: &str, accept: &[(&str, &str)]| {
        let fixed = [("Content-Type", "application/json"), ("Mcp-Session-Id", session.id.as_str())];
        let mut connection = server.connect();
        connection.request(
            method,
            "/mcp",
            &[&fixed, accept].concat(),
            if method == "POST" { PING.as_bytes() } else { b"" },
        );
        connection.response_head().status
    };
    for taken in [
        "application/json, text/event-stream",
        "*/*",
        "text/event-stream;q=0.1,application/*",
        "application/json",
    ] {
        assert_eq!(status("POST", &[("Accept", taken)]), 200, "{taken}");
    }
    assert_eq!(status("POST", &[("Accept", "application/json"), ("Accept", "text/event-stream")]), 200);
    for refused in ["text/event-stream", "text/html", "text/event-stream, application/json;q=0"] {
        assert_eq!(status("POST", &[("Accept", refused)]), 406, "{refused}");
    }
    assert_eq!(status("POST", &[]), 200);
    assert_eq!(status("GET", &[]), 406);
    assert_eq!(status("GET", &[("Accept", "text/event-stream")]), 200);
    assert_eq!(status("GET", &[("Accept", "application/json")]), 406);
}

#[test]
fn foreign_origins_and_hosts_are_refused_on_every_path() {
    let server = Server::start("--sse --allow-origin https://app.example --allow-host mcp.example");
    for (method, path) in
        [("POST", "/mcp"), ("GET", "/mcp"), ("DELETE", "/mcp"), ("OPTIONS", "/mcp"), ("GET", "/sse")]
    {
        for header in [
            ("Origin", "https://evil.example"),
            ("Origin", "null"),
            ("Host", "evil.example"),
            ("Host", "10.0.0.1"),
        ] {
            let response = server.request(method, path, &[header], b"");
            assert_eq!((response.status, response.code()), (403, -32600), "{method} {path} {header:?}");
            assert_eq!(response.header("access-control-allow-origin"), None);
        }
    }
    for header in [
        ("Origin", "https://app.example"),
        ("Origin", "http://localhost:3000"),
        ("Host", "mcp.example"),
        ("Host", "localhost"),
    ] {
        assert_eq!(
            server.post(&[header], PING).status,
            400,
            "{header:?} passes the guard, but the request has no session"
        );
    }
}

#[test]
fn probes_are_answered_for_any_host() {
    let server = Server::start("");
    server.session();
    for path in ["/health", "/livez", "/readyz", "/startupz", "/health/ready", "/health/startup"] {
        assert_eq!(server.request("GET", path, &[("Host", "10.1.2.3:8080")], b"").status, 200, "{path}");
    }
}

#[test]
fn cors_headers_are_sent_only_to_allowed_origins() {
    let server = Server::start("--allow-origin https://app.example");
    let preflight = server.request("OPTIONS", "/mcp", &[("Origin", "https://app.example")], b"");
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("https://app.example"));
    let headers = preflight.header("access-control-allow-headers").unwrap_or_default();
    for header in [
        "mcp-session-id",
        "mcp-protocol-version",
        "mcp-method",
        "mcp-name",
        "last-event-id",
        "content-type",
        "authorization",
    ] {
        assert!(headers.contains(header), "{header} is not in {headers}");
    }
    let opened = server.opening().header("Origin", "https://app.example").send();
    assert_eq!(opened.header("access-control-allow-origin"), Some("https://app.example"));
    let exposed = opened.header("access-control-expose-headers");
    assert_eq!(exposed, Some("mcp-session-id, ratelimit, ratelimit-policy, retry-after, www-authenticate"));
    let error = server.post(&[("Origin", "https://app.example")], "no JSON");
    assert_eq!(
        error.header("access-control-allow-origin"),
        Some("https://app.example"),
        "errors are readable, too"
    );
    assert_eq!(server.opening().send().header("access-control-allow-origin"), None, "no Origin was sent");
}

#[test]
fn unknown_paths_get_404_and_unknown_methods_405() {
    let server = Server::start("--path /deep/mcp");
    for path in ["/", "/mcp", "/deep", "/deep/mcp/x", "/sse", "/messages"] {
        let response = server.request("GET", path, &[], b"");
        assert_eq!(response.status, 404, "{path}");
        assert!(response.text().contains("/deep/mcp"), "the error names the path: {}", response.text());
    }
    for method in ["PUT", "PATCH", "TRACE", "BREW"] {
        let response = server.request(method, "/deep/mcp", &[], b"");
        assert_eq!(response.status, 405, "{method}");
        assert_eq!(response.header("allow"), Some("GET, POST, DELETE, OPTIONS"));
    }
    for path in ["/readyz", "/metrics"] {
        let response = server.request("POST", path, &[], b"");
        assert_eq!(response.status, 405, "{path}");
        assert_eq!(response.header("allow"), Some("GET, HEAD"));
    }
}

#[test]
fn unreadable_request_heads_get_an_explained_error() {
    let server = Server::start("");
    let long = "x".repeat(300_000);
    let many: String = (0..150).map(|n| format!("X-{n}: 1\r\n")).collect();
    for (head, status, told) in [
        (
            format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\nCookie: {long}\r\n\r\n"),
            431,
            "too long or too many",
        ),
        (format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"), 431, "too long or too many"),
        ("GET /mcp HTTP/1.1\r\nHost localhost\r\n\r\n".to_owned(), 400, "not valid HTTP"),
    ] {
        let mut connection = server.connect();
        // The server may refuse the head before it is complete.
        let _ = connection.try_send(&head);
        let refused = connection.response();
        let error = &refused.json()["error"];
        assert_eq!((refused.status, &error["code"]), (status, &json!(-32600)), "{error}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(told)), "{error}");
        assert_eq!(refused.header("content-type"), Some("application/json"));
    }
}
