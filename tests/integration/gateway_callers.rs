//! Callers of `proxyrunner gateway`: who they are, what is kept of them, and how they connect; and servers by TLS.

use crate::support::http2::{Http2, in_time};
use crate::support::modern::result;
use crate::support::upstream::Upstream;
use crate::support::{Connection, JSON, Server, scratch, until};
use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

const CALL: &str =
    r#"{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"t","arguments":{"a":1}}}"#;
const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

fn file(name: &str, text: &str) -> PathBuf {
    let path = scratch(name);
    fs::write(&path, text).expect("a file");
    path
}

fn gateway_of(url: &str, flags: &str) -> Server {
    let servers = file("servers.json", &json!({"mcpServers": {"s": {"url": url}}}).to_string());
    Server::with().gateway(&servers).flags(flags).start().at("/servers/s/mcp")
}

#[test]
fn callers_are_identified_before_anything_passes() {
    use sha2::{Digest, Sha256};
    let upstream = Upstream::saying(ANSWER);
    let digest: String = Sha256::digest("ann-key").iter().map(|byte| format!("{byte:02x}")).collect();
    let keys = file("keys", &format!("- {{name: ann, sha256: {digest}}}\n"));
    let gateway = gateway_of(&upstream.url(), &format!("--api-keys {}", keys.display()));
    for (method, path) in
        [("POST", "/servers/s/mcp"), ("GET", "/servers/s/mcp"), ("POST", "/servers/none/mcp")]
    {
        assert_eq!(gateway.request(method, path, JSON, b"").status, 401, "{method} {path}");
    }
    assert_eq!(gateway.post(&[("Authorization", "Bearer other")], CALL).status, 401);
    assert!(upstream.received().is_empty());
    assert_eq!(gateway.post(&[("X-API-Key", "ann-key")], CALL).status, 200);
    let received = format!("{:?}", upstream.last());
    assert!(!received.contains("ann-key") && received.contains("Bearer "), "{received}");
}

#[test]
fn each_server_is_a_resource_of_its_own() {
    let upstream = Upstream::saying(ANSWER);
    let jwks = file(
        "jwks.json",
        r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
    );
    let flags = format!(
        "--auth-issuer https://idp.example --auth-jwks {} --auth-audience https://tools.example/servers/s/mcp \
         --public-url https://tools.example/base --allow-host localhost",
        jwks.display()
    );
    let gateway = gateway_of(&upstream.url(), &flags);
    let refused = gateway.post(&[], CALL);
    let metadata = "https://tools.example/.well-known/oauth-protected-resource/base/servers/s/mcp";
    let challenge = refused.header("www-authenticate").expect("a challenge");
    assert!(challenge.contains(metadata), "{challenge}");
    for path in ["/base/servers/s/mcp", "/servers/s/mcp"] {
        let path = format!("/.well-known/oauth-protected-resource{path}");
        let document = gateway.request("GET", &path, &[], b"");
        assert_eq!(document.status, 200, "{path}");
        assert_eq!(document.json()["resource"], "https://tools.example/base/servers/s/mcp");
        assert_eq!(document.json()["authorization_servers"], json!(["https://idp.example"]));
    }
    for (path, resource) in
        [("/mcp", "/base/mcp"), ("/base/mcp", "/base/mcp"), ("/discover", "/base/discover")]
    {
        let document =
            gateway.request("GET", &format!("/.well-known/oauth-protected-resource{path}"), &[], b"");
        assert_eq!(document.json()["resource"], format!("https://tools.example{resource}"), "{path}");
    }
    for path in ["", "/servers/s"] {
        let path = format!("/.well-known/oauth-protected-resource{path}");
        assert_eq!(gateway.request("GET", &path, &[], b"").status, 404, "{path}");
    }
}

#[test]
fn limits_and_the_audit_log_apply() {
    let upstream = Upstream::saying(ANSWER);
    let limits = file("limits.yaml", "perUser: {maxTokens: 2, refillPeriod: 1h}\n");
    let log = scratch("audit");
    let flags =
        format!("--principal-header x-user --rate-limits {} --audit {}", limits.display(), log.display());
    let gateway = gateway_of(&upstream.url(), &flags);
    let call = |user: &str| gateway.post(&[("X-User", user)], CALL).status;
    assert_eq!([call("ann"), call("ann"), call("ann"), call("bob")], [200, 200, 429, 200]);
    assert_eq!(upstream.received().len(), 3);
    let mut lines: Vec<Value> = Vec::new();
    until("four lines", || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        lines = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        lines.retain(|line| line["type"] == "mcp_tool_call");
        lines.len() == 4
    });
    let of = |line: &Value| {
        let extra = &line["metadata"]["extra"];
        (line["subjects"]["user"].clone(), extra["backend_name"].clone(), line["outcome"].clone())
    };
    assert_eq!(of(&lines[0]), ("ann".into(), "s".into(), "success".into()));
    assert_eq!(of(&lines[3]), ("bob".into(), "s".into(), "success".into()));
    assert_eq!(lines[0]["target"]["name"], "t");
    assert_eq!(lines[0]["target"]["endpoint"], "/servers/s/mcp");
    assert_ne!(of(&lines[2]).2, "success");
    let counted = |result: &str| {
        gateway.metric(&format!("proxyrunner_gateway_requests_total{{server=\"s\",result=\"{result}\"}}"))
    };
    assert_eq!((counted("ok"), counted("client_error")), (3, 0), "what is refused here never passes");
    assert_eq!(gateway.metric("proxyrunner_gateway_latency_seconds_count{server=\"s\"}"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_by_http_2_are_served_and_see_what_breaks_off() {
    let breaks = Upstream::doing(|request, stream| {
        use std::io::Write;
        if request.body.contains("break") {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345")?;
            return Err(std::io::Error::other("broken"));
        }
        stream.write_all(ANSWER.as_bytes())
    });
    let gateway = gateway_of(&breaks.url(), "");
    let mut client = Http2::open(&gateway).await;
    for (body, is_whole) in [(CALL.to_owned(), true), (CALL.replace("\"t\"", "\"break\""), false)] {
        let request = client.request("POST", gateway.path(), JSON);
        let mut asked = client.send(request, false).await;
        asked.body.send_data(Bytes::from(body), true).expect("a stream");
        let response = asked.head().await;
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        let mut ended = Ok(());
        while ended.is_ok()
            && let Some(part) = in_time(body.data()).await
        {
            ended = part.map(|part| body.flow_control().release_capacity(part.len()).expect("capacity"));
        }
        assert_eq!(ended.is_ok(), is_whole, "{ended:?}");
    }
}

#[test]
fn servers_are_reached_by_tls_and_verified() {
    let authority = KeyPair::generate().expect("a key");
    let mut parameters = CertificateParams::new([]).expect("parameters");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = file("ca.crt", &parameters.self_signed(&authority).expect("a certificate").pem());
    let issuer = Issuer::new(parameters, authority);
    let mut parameters = CertificateParams::new([]).expect("parameters");
    parameters.subject_alt_names.push(SanType::DnsName("localhost".try_into().expect("a name")));
    let key = KeyPair::generate().expect("a key");
    let certificate = parameters.signed_by(&key, &issuer).expect("a certificate").pem();
    let (certificate, key) = (file("tls.crt", &certificate), file("tls.key", &key.serialize_pem()));
    let flags = format!("--tls-cert {} --tls-key {}", certificate.display(), key.display());
    let replica = Server::start(&flags);
    let url = |host: &str| format!("https://{host}:{}/mcp", replica.address().port());
    let trusting = format!("--servers-ca {}", ca.display());
    let gateway = gateway_of(&url("localhost"), &trusting);
    let echoed = result(&gateway.modern().call("echo", json!({"n": 1})));
    assert_eq!(echoed["n"], 1);
    for (host, flags) in [("localhost", ""), ("127.0.0.1", &*trusting)] {
        let refused = gateway_of(&url(host), flags).modern().send("tools/list", json!({}));
        assert_eq!(refused.status, 503, "{host} {flags}");
    }
    let mut connection = Connection::open(gateway.address());
    connection.request("POST", "/other", &Connection::post_headers(&[]), CALL.as_bytes());
    assert_eq!(connection.response().status, 404);
}
