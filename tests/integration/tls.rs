//! TLS on the listening side: the certificates of both sides, their renewal, and clients that do not speak it.

use crate::support::http2::{Http2, in_time};
use crate::support::{Connection, Server, scratch};
use h2::client::Builder;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use serde_json::json;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"test","version":"1"}}}"#;
const H2: &str = "h2";
const HTTP_1: &str = "http/1.1";

/// An authority, in a folder with the files that it has issued.
struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate and its key in PEM format.
struct Pair(String, String);

impl Authority {
    fn new(name: &str) -> Self {
        let folder = scratch(name);
        fs::create_dir_all(&folder).expect("a folder");
        let mut parameters = CertificateParams::new([]).expect("parameters");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate").pem();
        let authority = Authority { folder, issuer: Issuer::new(parameters, key), certificate };
        fs::write(authority.path("ca.crt"), &authority.certificate).expect("a file");
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn pair(&self, name: SanType) -> Pair {
        let mut parameters = CertificateParams::new([]).expect("parameters");
        parameters.subject_alt_names.push(name);
        let key = KeyPair::generate().expect("a key");
        Pair(parameters.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }

    fn client(&self, id: &str) -> Pair {
        self.pair(SanType::URI(id.try_into().expect("a URI")))
    }

    /// Writes a new certificate of the server, and returns the flags that name it.
    fn issue(&self) -> String {
        let Pair(certificate, key) = self.pair(SanType::DnsName("localhost".try_into().expect("a name")));
        let (at, under) = (self.path("tls.crt"), self.path("tls.key"));
        for (path, text) in [(&at, certificate), (&under, key)] {
            let part = path.with_extension("part");
            fs::write(&part, text).expect("a file");
            fs::rename(&part, path).expect("a file");
        }
        format!("--tls-cert {} --tls-key {}", at.display(), under.display())
    }

    fn start(&self, flags: &str) -> Server {
        Server::start(&format!("{} {flags}", self.issue()))
    }

    /// Returns the configuration of a client that trusts this authority.
    fn trusting(
        &self,
        identity: Option<&Pair>,
        protocol: &str,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("PEM")).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
        let config = config.expect("versions").with_root_certificates(roots);
        let mut config = match identity {
            None => config.with_no_client_auth(),
            Some(Pair(certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
                config.with_client_auth_cert(chain, key).expect("a pair")
            }
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Arc::new(config)
    }

    fn plain(&self, protocol: &str) -> Arc<ClientConfig> {
        self.trusting(None, protocol, rustls::DEFAULT_VERSIONS)
    }
}

async fn connect(server: &Server, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(server.address()).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    in_time(TlsConnector::from(config).connect(name, stream)).await
}

async fn http2(server: &Server, config: Arc<ClientConfig>) -> Http2 {
    let stream = connect(server, config).await.expect("a handshake");
    Http2::over(stream, &Builder::new(), "https://localhost".to_owned()).await
}

/// Sends a request by HTTP/1.1 and returns the response, whose end is the end of the connection.
async fn ask(stream: &mut TlsStream<TcpStream>, path: &str) -> io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    in_time(stream.read_to_end(&mut answer)).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Returns a metric, read by TLS.
async fn metric(server: &Server, authority: &Authority, name: &str) -> u64 {
    let mut stream = connect(server, authority.plain(HTTP_1)).await.expect("a handshake");
    let text = ask(&mut stream, "/metrics").await.expect("an answer");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the metric");
    line.trim().parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn both_protocols_are_served_by_both_versions() {
    let authority = Authority::new("tls-versions");
    let server = authority.start("");
    for versions in [&[&version::TLS13], &[&version::TLS12]] {
        let mut stream =
            connect(&server, authority.trusting(None, HTTP_1, versions)).await.expect("a handshake");
        let answer = ask(&mut stream, "/health").await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let mut client = http2(&server, authority.trusting(None, H2, versions)).await;
        let call = client.modern(&server, "tools/call", json!({"name": "echo", "arguments": {"n": 1}})).await;
        assert_eq!(call.whole().await.json()["result"]["n"], 1);
    }
    let foreign = connect(&server, authority.plain("http/0.9")).await.expect_err("a refusal");
    assert!(foreign.to_string().contains("NoApplicationProtocol"), "{foreign}");
    assert_eq!(
        metric(&server, &authority, "proxyrunner_tls_handshakes_total{result=\"incompatible\"}").await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_not_offered_if_it_is_disabled() {
    let authority = Authority::new("tls-http1");
    let server = authority.start("--max-streams 0");
    assert!(connect(&server, authority.plain(H2)).await.is_err());
    let mut stream = connect(&server, authority.plain(HTTP_1)).await.expect("a handshake");
    assert!(ask(&mut stream, "/health").await.expect("an answer").starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_used_again() {
    let authority = Authority::new("tls-idle");
    let server = authority.start("");
    let mut stream = connect(&server, authority.plain(HTTP_1)).await.expect("a handshake");
    for _ in 0..2 {
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
        let mut head = [0; 12];
        in_time(stream.read_exact(&mut head)).await.expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 200");
        let mut rest = Vec::new();
        while !rest.ends_with(b"}") {
            rest.push(in_time(stream.read_u8()).await.expect("a byte"));
        }
        // Its buffers are dropped meanwhile.
        tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clear_text_and_tls_are_told_apart() {
    let authority = Authority::new("tls-clear");
    let server = authority.start("");
    let mut clear = Connection::open(server.address());
    clear.request("GET", "/health", &[], b"");
    let refused = clear.response();
    assert_eq!((refused.status, refused.code()), (400, -32600));
    assert!(refused.text().contains("https://"), "{}", refused.text());
    assert!(clear.is_closed());
    server.until_logged("speaks clear text");

    let server = Server::start("");
    assert!(connect(&server, authority.plain(H2)).await.is_err());
    server.until_logged("a client speaks TLS, which is not enabled");
}

#[test]
fn unusable_files_prevent_the_start() {
    let authority = Authority::new("tls-unusable");
    let flags = authority.issue();
    let refusal = |flags: &str| {
        let (status, log) = Server::with().flags(flags).run();
        assert_eq!(status.code(), Some(64), "{log}");
        assert_eq!(log.trim().lines().count(), 1, "{log}");
        log
    };
    assert!(refusal(&format!("{flags} --tls-client-name cn")).contains("--tls-client-name"));
    let key = fs::read_to_string(authority.path("tls.key")).expect("a key");
    fs::write(authority.path("tls.key"), &key[..key.len() / 2]).expect("a file");
    assert!(refusal(&flags).starts_with("proxyrunner: --tls-key: "));
    let other = KeyPair::generate().expect("a key").serialize_pem();
    fs::write(authority.path("tls.key"), other).expect("a file");
    assert!(refusal(&flags).contains("is not the key of the certificate"));
    fs::remove_file(authority.path("tls.crt")).expect("a file");
    assert!(refusal(&flags).starts_with("proxyrunner: --tls-cert: "));
    assert!(refusal("--tls-cert x").contains("--tls-cert: is given without --tls-key"));
    assert!(refusal("--tls-client-ca x").contains("without --tls-cert"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_under_load_without_a_failed_request() {
    let authority = Authority::new("tls-renewal");
    let server = Arc::new(authority.start(""));
    let is_over = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for reuses in [true, false] {
        let (server, is_over, config) = (Arc::clone(&server), Arc::clone(&is_over), authority.plain(H2));
        clients.push(tokio::spawn(async move {
            let mut client = http2(&server, Arc::clone(&config)).await;
            let mut answered = 0;
            while !is_over.load(Ordering::Relaxed) {
                if !reuses {
                    client = http2(&server, Arc::clone(&config)).await;
                }
                let arguments = json!({"name": "echo", "arguments": {"n": answered}});
                let answer = client.modern(&server, "tools/call", arguments).await.whole().await;
                assert_eq!(answer.json()["result"]["n"], answered);
                answered += 1;
            }
            answered
        }));
    }
    let served = async || {
        let stream = connect(&server, authority.plain(HTTP_1)).await.expect("a handshake");
        let chain = stream.get_ref().1.peer_certificates().expect("a certificate");
        chain[0].to_vec()
    };
    let first = served().await;
    for renewals in 1..=2 {
        authority.issue();
        while metric(&server, &authority, "proxyrunner_tls_reloads_total").await < renewals {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
    is_over.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.await.expect("no failed request") > 0);
    }
    assert_ne!(served().await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_need_a_certificate_of_an_authority_that_is_trusted_now() {
    let (authority, other) = (Authority::new("tls-clients"), Authority::new("tls-others"));
    let server = authority
        .start(&format!("--admin-listen 127.0.0.1:0 --tls-client-ca {}", authority.path("ca.crt").display()));
    // Sessions belong to the principal that a certificate names.
    let agent = authority.client("spiffe://cluster.local/ns/a/sa/agent");
    let second = authority.client("spiffe://cluster.local/ns/a/sa/other");
    let unnamed = authority.client("https://example.com/");
    let mut statuses = Vec::new();
    let mut session = None::<String>;
    for identity in [&agent, &second, &unnamed, &agent] {
        let config = authority.trusting(Some(identity), H2, rustls::DEFAULT_VERSIONS);
        let mut client = http2(&server, config).await;
        let whole = match &session {
            None => client.post(&[], INITIALIZE).await.whole().await,
            Some(id) => {
                client
                    .post(&[("mcp-session-id", id)], crate::support::tool_call(1, "echo", &json!({})))
                    .await
                    .whole()
                    .await
            }
        };
        if session.is_none() {
            session = Some(whole.headers["mcp-session-id"].to_str().expect("text").to_owned());
        }
        statuses.push(whole.status);
    }
    assert_eq!(statuses, [200, 404, 403, 200]);
    let trusted = authority.trusting(Some(&agent), H2, rustls::DEFAULT_VERSIONS);
    let mut client = http2(&server, Arc::clone(&trusted)).await;
    let call = client.modern(&server, "tools/call", json!({"name": "echo", "arguments": {"n": 1}})).await;
    assert_eq!(call.whole().await.json()["result"]["n"], 1);

    let stranger = other.client("spiffe://cluster.local/x");
    for refused in [None, Some(&stranger)] {
        let config = authority.trusting(refused, HTTP_1, rustls::DEFAULT_VERSIONS);
        // By TLS 1.3, a client sees the refusal only when it reads.
        let answer = match connect(&server, config).await {
            Ok(mut stream) => ask(&mut stream, "/health").await,
            Err(error) => Err(error),
        };
        assert!(answer.is_err(), "{answer:?}");
    }

    fs::write(authority.path("ca.crt"), &other.certificate).expect("a file");
    let _ =
        in_time(client.driver).await.expect("the connection of a client that is not trusted any more ends");
    let welcome = authority.trusting(Some(&stranger), H2, rustls::DEFAULT_VERSIONS);
    let mut client = http2(&server, welcome).await;
    assert_eq!(client.get("/health", &[]).await.whole().await.status, 200);
}

#[test]
fn probes_trust_the_configured_certificate() {
    let authority = Authority::new("tls-probes");
    let server = authority.start("");
    let probe = |certificate: Option<PathBuf>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_proxyrunner"));
        command.args(["probe", "live"]).env("PROXYRUNNER_LISTEN", server.address().to_string());
        if let Some(path) = certificate {
            command.env("PROXYRUNNER_TLS_CERT", path);
        }
        command.output().expect("the binary runs")
    };
    let known = probe(Some(authority.path("tls.crt")));
    assert_eq!(known.status.code(), Some(0), "{known:?}");
    for unknown in [None, Some(authority.path("ca.crt"))] {
        assert_eq!(probe(unknown).status.code(), Some(1));
    }
}

#[cfg(feature = "gateway")]
#[tokio::test(flavor = "multi_thread")]
async fn replicas_know_each_other_by_their_certificates() {
    let authority = Authority::new("tls-siblings");
    let ca = authority.path("ca.crt").display().to_string();
    let key = authority.path("state");
    fs::write(&key, "k".repeat(64)).expect("a file");
    let flags = format!(
        "{} --tls-client-ca {ca} --forward-sessions 127.0.0.1 --state-key-file {}",
        authority.issue(),
        key.display()
    );
    let [a, b] = [(); 2].map(|()| Server::start(&format!("{flags} --servers-ca {ca}")));
    let other = Authority::new("tls-other").path("ca.crt");
    let distrustful = Server::start(&format!("{flags} --servers-ca {}", other.display()));
    let client =
        authority.trusting(Some(&authority.client("spiffe://a/client")), HTTP_1, rustls::DEFAULT_VERSIONS);
    let post = async |server: &Server, session: &str, body: &str| {
        let mut stream = connect(server, Arc::clone(&client)).await.expect("a handshake");
        let request = format!(
            "POST /mcp HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\naccept: application/json, \
             text/event-stream\r\n{session}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        in_time(stream.read_to_end(&mut answer)).await.expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    };
    let opened = post(&a, "", INITIALIZE).await;
    let session = opened.lines().find(|line| line.starts_with("mcp-session-id: ")).expect("a session");
    let session = format!("{session}\r\n");
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for server in [&a, &b] {
        let answer = post(server, &session, ping).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let answer = post(&distrustful, &session, ping).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    distrustful.until_logged("could not be passed on");
    // Another client has another name, to which the session does not exist.
    let stranger =
        authority.trusting(Some(&authority.client("spiffe://a/stranger")), HTTP_1, rustls::DEFAULT_VERSIONS);
    let client = stranger;
    let mut stream = connect(&b, client).await.expect("a handshake");
    let request = format!("DELETE /mcp HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{session}\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    in_time(stream.read_to_end(&mut answer)).await.expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 404"));
}
