//! How callers are identified: by API keys, and by what trusted proxies say. Tokens of real identity providers are
//! tested by tests/security, certificates in tls.rs.

use crate::support::{Server, scratch};
use std::fs;

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

/// SHA-256 of `ann-key` and `bob-key`.
const KEYS: &str = "
- {name: ann, sha256: ANN}
- {name: bob, sha256: BOB, scopes: [extra]}
";

fn digest(key: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Starts a server that knows the keys `ann-key` and `bob-key`.
fn with_keys(name: &str, flags: &str) -> Server {
    let file = scratch(name);
    fs::write(&file, KEYS.replace("ANN", &digest("ann-key")).replace("BOB", &digest("bob-key")))
        .expect("a file");
    Server::start(&format!("--api-keys {} {flags}", file.display()))
}

#[test]
fn a_caller_needs_a_key_for_everything_but_probes() {
    let server = with_keys("keys-needed", "--sse");
    let initialize = server.opening().body();
    for (method, path) in
        [("POST", "/mcp"), ("GET", "/mcp"), ("DELETE", "/mcp"), ("GET", "/sse"), ("GET", "/other")]
    {
        let refused = server.request(method, path, &[], b"");
        assert_eq!(refused.status, 401, "{method} {path}");
        assert_eq!(
            refused.header("www-authenticate"),
            Some("Bearer realm=\"mcp\""),
            "{method} {path}: no server issues keys"
        );
    }
    for (headers, status) in [
        (vec![("Authorization", "Bearer ann-key")], 200),
        (vec![("authorization", "bearer  ann-key")], 200),
        (vec![("X-API-Key", "ann-key")], 200),
        (vec![("Authorization", "Bearer other-key")], 401),
        (vec![("Authorization", "Basic YW5uLWtleQ==")], 401),
        (vec![("Authorization", "Bearer ann-key, Bearer bob-key")], 400),
        (vec![("Authorization", "Bearer ann-key"), ("Authorization", "Bearer ann-key")], 400),
        (vec![("Authorization", "Bearer ann-key"), ("X-API-Key", "ann-key")], 400),
        (vec![("Authorization", "Bearer ")], 400),
    ] {
        assert_eq!(server.post(&headers, &initialize).status, status, "{headers:?}");
    }
    for in_url in ["/mcp?access_token=ann-key", "/mcp?%61ccess_token=ann-key"] {
        for headers in [&[("Authorization", "Bearer ann-key")][..], &[]] {
            assert_eq!(server.request("POST", in_url, headers, b"").status, 400, "{in_url} {headers:?}");
        }
    }
    for path in ["/livez", "/readyz", "/health"] {
        assert_eq!(server.request("GET", path, &[], b"").status, 200, "{path}");
    }
    assert_eq!(server.request("OPTIONS", "/mcp", &[], b"").status, 204, "a preflight has no credentials");
    assert_eq!(server.request("GET", "/metrics", &[], b"").status, 404, "only at --admin-listen");
    assert!(!server.logged().contains("ann-key"), "{}", server.logged());
}

#[test]
fn what_belongs_to_one_caller_does_not_exist_for_another() {
    let server = with_keys("keys-own", "");
    let session = server.opening().header("Authorization", "Bearer ann-key").open();
    let of = |key: &str, id: &str, method: &str| {
        let headers = [
            ("Content-Type", "application/json"),
            ("Accept", "application/json, text/event-stream"),
            ("Authorization", key),
            ("Mcp-Session-Id", id),
        ];
        server.request(method, "/mcp", &headers, if method == "POST" { PING.as_bytes() } else { b"" })
    };
    for method in ["POST", "DELETE", "GET"] {
        let (foreign, unknown) =
            (of("Bearer bob-key", &session.id, method), of("Bearer bob-key", "unknown", method));
        assert_eq!((foreign.status, unknown.status), (404, 404), "{method}");
        assert_eq!(foreign.text(), unknown.text(), "{method}");
    }
    assert_eq!(of("Bearer ann-key", &session.id, "POST").status, 200, "the session is still there");
}

#[test]
fn a_missing_scope_is_a_403_that_names_all_scopes() {
    let server = with_keys("keys-scopes", "--auth-scopes extra");
    let initialize = server.opening().body();
    let refused = server.post(&[("Authorization", "Bearer ann-key")], &initialize);
    assert_eq!((refused.status, refused.code()), (403, 403));
    let challenge = refused.header("www-authenticate").expect("a challenge");
    assert_eq!(challenge, "Bearer error=\"insufficient_scope\", scope=\"extra\"");
    assert_eq!(server.post(&[("Authorization", "Bearer bob-key")], &initialize).status, 200);
}

#[test]
fn clients_find_no_metadata_without_an_issuer_and_get_json() {
    let server = with_keys("keys-metadata", "");
    for path in
        ["/.well-known/oauth-protected-resource", "/.well-known/oauth-authorization-server", "/.well-known/x"]
    {
        let missing = server.request("GET", path, &[], b"");
        assert_eq!(
            (missing.status, missing.header("content-type")),
            (404, Some("application/json")),
            "{path}"
        );
    }
}

#[test]
fn a_proxy_is_believed_only_where_the_operator_says() {
    let headers = [("X-User", "ann"), ("X-Forwarded-For", "203.0.113.9")];
    let trusting = Server::start("--principal-header x-user --trusted-proxy 127.0.0.0/8 --access-log");
    let initialize = trusting.opening().body();
    assert_eq!(trusting.post(&headers, &initialize).status, 200);
    trusting.request("GET", "/other", &headers, b"");
    assert!(trusting.until_logged("/other").contains("203.0.113.9"), "the address that the proxy names");
    let strict = Server::start("--principal-header x-user --trusted-proxy 10.0.0.0/8 --access-log");
    let refused = strict.post(&headers, &initialize);
    assert_eq!((refused.status, refused.code()), (403, 403));
    assert!(refused.text().contains("--trusted-proxy"), "{}", refused.text());
    strict.request("GET", "/other", &headers, b"");
    assert!(!strict.until_logged("/other").contains("203.0.113.9"), "an untrusted peer names no address");
}

#[test]
fn a_name_from_a_proxy_is_bounded() {
    let server = Server::start("--principal-header x-user");
    let (initialize, long) = (server.opening().body(), "x".repeat(5_000));
    assert_eq!(server.post(&[("X-User", &long[..1024])], &initialize).status, 200);
    for name in [&long[..1025], &long] {
        let refused = server.post(&[("X-User", name)], &initialize);
        assert_eq!((refused.status, refused.code()), (400, -32600));
        let message = "the header x-user is longer than 1 KiB (--principal-header)";
        assert_eq!(refused.json()["error"]["message"], message);
    }
}

#[test]
fn an_untrusted_header_does_not_replace_a_key() {
    let server = with_keys("keys-proxy", "--principal-header x-user --trusted-proxy 10.0.0.0/8");
    let initialize = server.opening().body();
    assert_eq!(server.post(&[("X-User", "bob")], &initialize).status, 401);
    let headers = [("X-User", "bob"), ("Authorization", "Bearer ann-key")];
    assert_eq!(server.post(&headers, &initialize).status, 200);
}
