//! Server cards, and a gateway's catalogue of them.

use crate::support::{Response, Server};
use serde_json::{Value, json};

const CARD: &str = "application/mcp-server-card+json";

fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Response {
    server.request("GET", path, headers, b"")
}

/// Checks what the schema demands of a card.
fn check(card: &Value) {
    let text = |member: &str, longest: usize| {
        let text = card[member].as_str().expect(member);
        assert!((1..=longest).contains(&text.chars().count()), "{member}: {text:?}");
        text.to_owned()
    };
    assert_eq!(card["$schema"], "https://static.modelcontextprotocol.io/schemas/v2/server-card.schema.json");
    let name = text("name", 200);
    assert_eq!(name.matches('/').count(), 1, "{name}");
    text("version", 255);
    text("description", 100);
}

#[test]
fn a_sidecar_describes_its_server() {
    let server = Server::start("--server-name com.example/time");
    server.session();
    let response = get(&server, "/mcp/server-card", &[]);
    assert_eq!((response.status, response.header("content-type")), (200, Some(CARD)));
    assert_eq!(response.header("cache-control"), Some("public, max-age=3600"));
    assert_eq!(response.header("access-control-allow-origin"), None);
    let card = response.json();
    check(&card);
    assert_eq!(card["name"], "com.example/time");
    assert_eq!(card["remotes"][0]["url"], format!("http://{}/mcp", server.address()));
    let versions = card["remotes"][0]["supportedProtocolVersions"].as_array().expect("versions");
    assert!(versions.contains(&json!("2026-07-28")) && versions.contains(&json!("2025-11-25")));
    let tag = response.header("etag").expect("a tag").to_owned();
    for (given, status) in [(tag.clone(), 304), (format!("\"x\", W/{tag}"), 304), ("\"x\"".to_owned(), 200)] {
        assert_eq!(get(&server, "/mcp/server-card", &[("If-None-Match", &given)]).status, status, "{given}");
    }
    assert_eq!(server.request("POST", "/mcp/server-card", &[], b"").status, 405);
    assert_eq!(server.request("OPTIONS", "/mcp/server-card", &[], b"").status, 204);
    // A page of another origin must not learn what runs on this host.
    let page = get(&server, "/mcp/server-card", &[("Origin", "https://evil.example")]);
    assert_eq!(page.status, 403);
    let elsewhere = ["/server-card", "/mcp/server-card/x", "/x/server-card"];
    assert!(elsewhere.iter().all(|path| get(&server, path, &[]).status == 404));
}

#[test]
fn a_server_without_a_name_gets_one_of_its_own() {
    let server = Server::start("--public-url https://tools.example.com/time");
    server.session();
    let headers = [("Host", "tools.example.com")];
    let card = get(&server, "/mcp/server-card", &headers).json();
    check(&card);
    let name = card["name"].as_str().expect("a name");
    assert!(name.starts_with("com.example.tools/") && !name.ends_with('/'), "{name}");
    assert_eq!(card["remotes"][0]["url"], "https://tools.example.com/time/mcp");
}

#[test]
fn a_card_is_for_every_page_where_everybody_may_call() {
    let server = Server::start("--listen 0.0.0.0:0");
    let port = server.address().port();
    let mut connection = crate::support::Connection::open(([127, 0, 0, 1], port).into());
    connection.request("GET", "/mcp/server-card", &[("Origin", "https://any.example")], b"");
    let response = connection.response();
    assert_eq!((response.status, response.header("access-control-allow-origin")), (200, Some("*")));
    connection.request("GET", "/mcp", &[("Origin", "https://any.example")], b"");
    assert_eq!(connection.response().status, 403);
}

#[test]
fn a_card_needs_a_caller_where_callers_are_identified() {
    let server = Server::start("--principal-header x-user");
    assert_eq!(get(&server, "/mcp/server-card", &[]).status, 400);
    let response = get(&server, "/mcp/server-card", &[("X-User", "ann")]);
    assert_eq!((response.status, response.header("vary")), (200, Some("authorization")));
    assert_eq!(response.header("cache-control"), Some("private, max-age=3600"));
}

#[cfg(feature = "gateway")]
#[test]
fn a_gateway_lists_the_cards_of_healthy_servers() {
    use crate::support::{scratch, until};
    let (path, replica) = (scratch("servers.json"), Server::start(""));
    replica.session();
    let servers = json!({"mcpServers": {
        "com.example/tools": {"url": format!("http://{}/mcp", replica.address()), "headers": {"x-api-key": "s3cret"}},
        "gone": {"url": "http://127.0.0.1:1/mcp", "description": "Gone"},
    }});
    std::fs::write(&path, servers.to_string()).expect("a file");
    let gateway = Server::with().gateway(&path).start();
    let base = format!("http://{}", gateway.address());
    let catalog = || get(&gateway, "/.well-known/ai-catalog.json", &[]);
    until("the dead server leaves", || catalog().json()["entries"].as_array().map(Vec::len) == Some(1));
    let response = catalog();
    assert_eq!(response.header("content-type"), Some("application/ai-catalog+json"));
    assert_eq!(response.header("cache-control"), Some("public, max-age=60"));
    let listed = response.json();
    assert_eq!(listed["specVersion"], "1.0");
    assert_eq!(
        listed["entries"][0],
        json!({
            "identifier": "urn:air:example.com:mcp:tools",
            "displayName": "tools",
            "type": CARD,
            "url": format!("{base}/servers/tools/mcp/server-card"),
        })
    );
    for path in ["/servers/tools/mcp/server-card", "/servers/tools/server-card"] {
        let response = get(&gateway, path, &[]);
        assert_eq!((response.status, response.header("content-type")), (200, Some(CARD)), "{path}");
        let card = response.json();
        check(&card);
        assert_eq!(
            card["remotes"],
            json!([{"type": "streamable-http", "url": format!("{base}/servers/tools/mcp")}])
        );
        let text = response.text();
        assert!(!text.contains("s3cret") && !text.contains(&replica.address().to_string()), "{text}");
    }
    assert_eq!(get(&gateway, "/servers/gone/server-card", &[]).json()["description"], "Gone");
    assert_eq!(get(&gateway, "/servers/none/server-card", &[]).status, 404);
    assert_eq!(gateway.request("DELETE", "/servers/tools/server-card", &[], b"").status, 405);
    let private = Server::with().gateway(&path).flags("--principal-header x-user").start();
    for path in ["/.well-known/ai-catalog.json", "/servers/tools/server-card"] {
        assert_eq!(get(&private, path, &[]).status, 400, "{path}");
        let response = get(&private, path, &[("X-User", "ann")]);
        assert_eq!(response.status, 200, "{path}");
        assert!(response.header("cache-control").is_some_and(|value| value.starts_with("private")));
    }
}
