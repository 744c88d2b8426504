//! Sidecars that register at a gateway: they appear, renew, move, withdraw and expire; and everything that is refused.

use crate::support::{Response, Server, scratch, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

const RULES: &str = r#"[
    {"subject": "api_key#tools", "names": ["com.example/*"], "networks": ["127.0.0.0/8", "::1/128"]},
    {"subject": "api_key#far", "names": ["com.example/*"], "networks": ["10.0.0.0/8"]}
]"#;

fn file(name: &str, text: &str) -> PathBuf {
    let path = scratch(name);
    fs::write(&path, text).expect("a file");
    path
}

/// Returns the file of the API keys of `tools`, `far` and `ann`, each of which is the name with `-key`.
fn keys() -> PathBuf {
    let line = |name: &&str| {
        let digest: String =
            Sha256::digest(format!("{name}-key")).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("- {{name: {name}, sha256: {digest}}}\n")
    };
    file("keys", &["tools", "far", "ann"].iter().map(line).collect::<String>())
}

fn servers(rules: &str) -> PathBuf {
    let other = r#"{"com.example/other": {"url": "http://127.0.0.1:1/mcp"}}"#;
    file("servers.json", &format!(r#"{{"mcpServers": {other}, "register": {rules}}}"#))
}

fn gateway_of(servers: &Path, flags: &str) -> Server {
    let flags = format!("--api-keys {} --reload-interval 50ms {flags}", keys().display());
    Server::with().gateway(servers).flags(&flags).start().at("/servers/time/mcp")
}

fn gateway() -> Server {
    gateway_of(&servers(RULES), "")
}

/// Starts a sidecar that registers as `com.example/time`.
fn sidecar(gateway: &Server, flags: &str) -> Server {
    let token = file("token", "tools-key\n");
    let port = gateway.address().port();
    let flags = format!(
        "--register http://127.0.0.1:{port} --register-token-file {} --server-name com.example/time {flags}",
        token.display()
    );
    Server::with().flags(&flags).start()
}

const ANN: (&str, &str) = ("X-API-Key", "ann-key");

/// Returns the number of the replicas of `time` that a gateway lists.
fn replicas(gateway: &Server) -> u64 {
    let path = "/registry/v0.1/servers/com.example%2Ftime/versions/latest";
    let response = gateway.request("GET", path, &[ANN], b"");
    if response.status == 404 {
        return 0;
    }
    let entry = response.json();
    let states = entry["_meta"]["io.proxyrunner/gateway"]["replicas"].as_object().expect("replicas").clone();
    states.values().filter_map(Value::as_u64).sum()
}

fn send(gateway: &Server, method: &str, key: &str, target: &str, body: &str) -> Response {
    gateway.request(method, target, &[("Authorization", &format!("Bearer {key}"))], body.as_bytes())
}

fn target(name: &str, url: &str) -> String {
    let encoded: String = url.bytes().map(|byte| format!("%{byte:02X}")).collect();
    format!("/registrations/{name}?url={encoded}")
}

#[test]
fn a_sidecar_is_served_from_its_registration_to_its_withdrawal() {
    let gateway = gateway();
    let one = sidecar(&gateway, "--drain-delay 0s");
    until("the first replica", || replicas(&gateway) == 1);
    let session = gateway.opening().header(ANN.0, ANN.1).open();
    session.result("echo", json!({}));
    let two = sidecar(&gateway, "");
    until("the second replica", || replicas(&gateway) == 2);
    assert_eq!(one.metric("proxyrunner_registered_gateways"), 1);
    assert!(one.metric("proxyrunner_registrations_total{result=\"ok\"}") >= 1);
    one.signal(Signal::SIGTERM);
    until("the withdrawal", || replicas(&gateway) == 1);
    assert_eq!(one.exit_code(), 0);
    let after = session.post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    assert_eq!((after.status, after.code()), (404, -32001), "its sessions are gone");
    gateway.opening().header(ANN.0, ANN.1).open().result("echo", json!({}));
    let logged = format!("{}{}", gateway.logged(), two.logged());
    assert!(logged.contains("a replica has registered") && logged.contains("a replica has withdrawn"));
    assert!(!logged.contains("tools-key"), "{logged}");
}

#[test]
fn every_address_of_the_gateway_is_told() {
    let gateway = gateway();
    let token = file("token", "tools-key");
    // Nothing listens at the other address of the name, which changes nothing for the first.
    let sidecar = Server::with()
        .flags(&format!("--register http://localhost:{}", gateway.address().port()))
        .flags(&format!("--register-token-file {} --server-name com.example/time", token.display()))
        .start();
    until("a replica", || replicas(&gateway) == 1);
    assert_eq!(sidecar.metric("proxyrunner_registered_gateways"), 1);
    sidecar.until_logged("cannot register at the gateway");
    let logged = sidecar.logged();
    assert!(logged.contains("\"address\":\"::1\""), "{logged}");
    // One line for each change, however often it is tried.
    until("more attempts", || sidecar.metric("proxyrunner_registrations_total{result=\"failed\"}") > 1);
    assert_eq!(sidecar.logged().matches("cannot register at the gateway").count(), 1);
    assert_eq!(
        sidecar.request("GET", "/readyz", &[], b"").status,
        200,
        "a gateway that is down is no reason"
    );
}

#[test]
fn a_gateway_that_starts_later_is_told_and_knows_that_it_may_not_know() {
    let gateway = gateway();
    let unknown = gateway.opening().header(ANN.0, ANN.1).send();
    assert_eq!((unknown.status, unknown.header("retry-after")), (503, Some("1")));
    let other = Server::with().gateway(&servers("[]")).start().at("/servers/time/mcp");
    assert_eq!(other.opening().send().status, 404, "nobody may register there");
}

#[test]
fn a_token_is_read_again_and_a_refusal_is_told() {
    let gateway = gateway();
    let token = file("token", "wrong-key");
    let flags = format!(
        "--register http://127.0.0.1:{} --register-token-file {} --server-name com.example/time",
        gateway.address().port(),
        token.display()
    );
    let sidecar = Server::with().flags(&flags).start();
    sidecar.until_logged("it answers 401 Unauthorized");
    assert_eq!(sidecar.request("GET", "/readyz", &[], b"").status, 200);
    fs::write(&token, "far-key").expect("written");
    sidecar.until_logged("it answers 403 Forbidden: 127.0.0.1 is a loopback address");
    fs::write(&token, "tools-key").expect("written");
    until("the replica", || replicas(&gateway) == 1);
    let logged = sidecar.logged();
    assert!(!["wrong-key", "far-key", "tools-key"].iter().any(|key| logged.contains(key)), "{logged}");
}

#[test]
fn every_bad_registration_has_its_answer() {
    let gateway = gateway();
    let url = "http://127.0.0.1:9/mcp";
    let good = target("com.example/time", url);
    let put = |key: &str, target: &str, body: &str| {
        let response = send(&gateway, "PUT", key, target, body);
        let error = response.json()["error"].as_str().map(str::to_owned);
        (response.status, error.unwrap_or_default())
    };
    for (key, target, body, status, error) in [
        ("tools-key", target("time", url), "", 400, "the name is not NAMESPACE/NAME"),
        ("tools-key", target("com.example/a__b", url), "", 400, "the name is not NAMESPACE/NAME"),
        (
            "tools-key",
            target("com.example/time", "http://u:p@127.0.0.1/mcp"),
            "",
            400,
            "url is not an http or https URL without user",
        ),
        (
            "tools-key",
            target("com.example/time", "http://127.0.0.1/mcp?x"),
            "",
            400,
            "url is not an http or https URL without user",
        ),
        (
            "tools-key",
            target("com.example/time", "http://localhost:9/mcp"),
            "",
            400,
            "the host of url is not an IP address",
        ),
        (
            "tools-key",
            "/registrations/com.example/time".to_owned(),
            "",
            400,
            "the parameters are url and sequence",
        ),
        ("tools-key", format!("{good}&sequence=x"), "", 400, "the parameters are url and sequence"),
        ("tools-key", format!("{good}&lease=9999999"), "", 400, "the parameters are url and sequence"),
        ("tools-key", good.clone(), "[]", 400, "the body is not a card"),
        ("tools-key", good.clone(), "{", 400, "the body is not a card"),
        (
            "tools-key",
            good.clone(),
            r#"{"name": "com.example/more"}"#,
            400,
            "the card has another name than the path",
        ),
        ("ann-key", good.clone(), "", 403, "no rule allows api_key#ann to register com.example/time"),
        (
            "tools-key",
            target("org.example/time", url),
            "",
            403,
            "no rule allows api_key#tools to register org.example/time",
        ),
        (
            "tools-key",
            target("com.example/time", "http://10.0.0.1/mcp"),
            "",
            403,
            "no rule allows api_key#tools to register com.example/time at 10.0.0.1",
        ),
        ("far-key", good.clone(), "", 403, "127.0.0.1 is a loopback address"),
        (
            "tools-key",
            target("com.example/time", "http://169.254.169.254/"),
            "",
            403,
            "169.254.169.254 is a link-local address",
        ),
        ("tools-key", target("com.example/other", url), "", 409, "the file of servers has a server other"),
    ] {
        let (code, why) = put(key, &target, body);
        assert!(code == status && why.starts_with(error), "{key} {target} {body}: {code} {why}");
    }
    let long = format!(r#"{{"description": "{}"}}"#, "x".repeat(20_000));
    assert_eq!(put("tools-key", &good, &long).0, 413);
    assert_eq!(send(&gateway, "PUT", "other-key", &good, "").status, 401);
    assert_eq!(send(&gateway, "GET", "tools-key", &good, "").status, 405);
    assert_eq!(replicas(&gateway), 0);
    let answer = send(
        &gateway,
        "PUT",
        "tools-key",
        &format!("{good}&sequence=7"),
        r#"{"description": "Tells the time"}"#,
    );
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    assert_eq!(answer.json(), json!({"name": "com.example/time", "path": "/servers/time/mcp", "lease": 30}));
    let card = gateway.request("GET", "/servers/time/mcp/server-card", &[ANN], b"").json();
    assert_eq!(card["description"], "Tells the time");
    assert_eq!(put("tools-key", &format!("{good}&sequence=7"), "").0, 409, "a replay");
    assert_eq!(
        put("far-key", &target("com.example/time", "http://10.0.0.1/mcp"), "").0,
        409,
        "another caller"
    );
    assert_eq!(send(&gateway, "DELETE", "far-key", &good, "").status, 403);
    assert_eq!(send(&gateway, "DELETE", "tools-key", &good, "").status, 204);
    assert_eq!(send(&gateway, "DELETE", "tools-key", &good, "").status, 404);
    assert_eq!(replicas(&gateway), 0);
}

#[test]
fn registration_needs_rules_and_identified_callers() {
    let good = target("com.example/time", "http://127.0.0.1:9/mcp");
    let path = servers("[]");
    let gateway = gateway_of(&path, "");
    let refused = send(&gateway, "PUT", "tools-key", &good, "");
    assert_eq!(refused.status, 403);
    assert_eq!(
        refused.json()["error"],
        "registration is off: the file of servers has no rules for it (register)"
    );
    // Rules are followed like the servers.
    let next = path.with_extension("next");
    fs::write(&next, format!(r#"{{"mcpServers": {{}}, "register": {RULES}}}"#)).expect("a file");
    fs::rename(&next, &path).expect("a rename");
    until("the rules", || send(&gateway, "PUT", "tools-key", &good, "").status == 200);
    assert_eq!(replicas(&gateway), 1);
    fs::write(&next, r#"{"mcpServers": {}}"#).expect("a file");
    fs::rename(&next, &path).expect("a rename");
    until("no rules", || replicas(&gateway) == 0);
    let open = Server::with().gateway(&servers(RULES)).start();
    let refused = open.request("PUT", &good, &[], b"");
    assert_eq!(
        (refused.status, &refused.json()["error"]),
        (403, &json!("only identified callers may register"))
    );
    let (status, said) = Server::with().gateway(&servers(r#"[{"subject": "*"}]"#)).run();
    assert_eq!(status.code(), Some(64), "{said}");
    assert!(said.contains("subject of a rule of register is not ISSUER#SUBJECT"), "{said}");
}

#[test]
fn a_sidecar_must_know_its_own_url() {
    let (status, said) = Server::with().flags("--register http://gateway:8080 --listen 0.0.0.0:0").run();
    assert_eq!(status.code(), Some(64), "{said}");
    assert!(said.contains("--register: needs the URL by which the gateway reaches this server"), "{said}");
    let (status, said) = Server::with().flags("--register-url http://10.0.0.1:8080/mcp").run();
    assert_eq!(status.code(), Some(64), "{said}");
    assert!(said.contains("--register-url: has no effect without --register"), "{said}");
    let (status, said) =
        Server::with().gateway(&servers("[]")).flags("--register-url http://10.0.0.1:8080").run();
    assert!(status.code() == Some(64) && said.contains("--register-url: is a sidecar's"), "{said}");
}

#[test]
fn another_registry_is_mirrored() {
    use crate::support::upstream::Upstream;
    const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let remote = Upstream::saying(ANSWER);
    let entry = |name: &str, url: &str| {
        json!({"server": {"name": name, "description": "Mirrored", "version": "2.0.0",
                          "remotes": [{"type": "streamable-http", "url": url}]}})
    };
    let list = json!({
        "servers": [entry("com.example/Time", &remote.url()), entry("com.example/other", &remote.url())],
        "metadata": {"count": 2},
    });
    let body = list.to_string();
    let registry = Upstream::doing(move |_, stream| {
        use std::io::Write;
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    });
    let url = registry.url().replace("/mcp", "");
    let gateway =
        Server::with().gateway(&servers("[]")).env("TOOL_REGISTRY_URL", &url).start().at("/servers/time/mcp");
    until("the mirrored server", || {
        gateway.request("GET", "/servers/time/server-card", &[ANN], b"").status == 200
    });
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    assert_eq!(gateway.post(&[ANN], call).status, 200);
    let received = remote.last();
    assert!(received.body == call && received.header("authorization").is_none(), "{received:?}");
    let card = gateway.request("GET", "/servers/time/server-card", &[ANN], b"").json();
    assert_eq!((&card["name"], &card["description"]), (&json!("com.example/Time"), &json!("Mirrored")));
    let own = gateway.request("GET", "/servers/other/server-card", &[ANN], b"").json();
    assert_eq!(own["description"], "The server other", "the file comes first");
    assert!(registry.last().line.starts_with("GET /v0.1/servers?version=latest&limit=100 "));
    assert_eq!(gateway.metric("proxyrunner_mirrored_servers"), 2);
    let (status, said) = Server::with().gateway(&servers("[]")).env("TOOL_REGISTRY_URL", "nonsense").run();
    assert!(status.code() == Some(64) && said.contains("TOOL_REGISTRY_URL"), "{said}");
    // A gateway needs no file to serve the other registry.
    let mirror = Server::with().mirror(&url).start().at("/servers/other/mcp");
    until("the mirrored server", || mirror.post(&[], call).status == 200);
    assert_eq!(remote.last().body, call);
    let (status, said) = Server::with().mirror("nonsense").run();
    assert!(status.code() == Some(64) && !said.contains("--servers"), "{said}");
    // A sidecar has nothing to do with the variable.
    Server::with().env("TOOL_REGISTRY_URL", "nonsense").start();
}

#[test]
fn a_registered_server_sees_the_caller_and_takes_no_token_for_another_name() {
    let gateway = gateway();
    let issuer = format!("http://{}", gateway.address());
    let flags = format!("--auth-issuer {issuer} --auth-audience {issuer}/servers/time/mcp");
    let sidecar = sidecar(&gateway, &flags);
    until("the replica", || replicas(&gateway) == 1);
    let open = |path: &str| {
        let opening = gateway.opening();
        let headers =
            [("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream"), ANN];
        gateway.request("POST", path, &headers, opening.body().as_bytes())
    };
    until("a ready server", || open("/servers/time/mcp").status == 200);
    let direct = sidecar.opening().send();
    assert_eq!(direct.status, 401, "the server is for the gateway's callers only");
    // Who registers the address of somebody else's server cannot use it.
    let fake = target("com.example/fake", &format!("http://{}/mcp", sidecar.address()));
    assert_eq!(send(&gateway, "PUT", "tools-key", &fake, "").status, 200);
    let refused = open("/servers/fake/mcp");
    assert_eq!(refused.status, 502);
    assert!(refused.text().contains("refuses the credentials of the gateway"), "{}", refused.text());
}
