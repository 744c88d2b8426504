//! Tests of the gate: which files it uses, and which clients it accepts.

use super::*;
use crate::telemetry::counters::{TLS_FAILED_RELOADS, TLS_RELOADS};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A certificate in PEM format, and its key.
struct Pair(String, String);

fn parameters(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap()
}

fn own(parameters: CertificateParams) -> Pair {
    let key = KeyPair::generate().unwrap();
    Pair(parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn valid(name: &str) -> Pair {
    own(parameters(&[name]))
}

fn within(from: i64, to: i64) -> Pair {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    let mut parameters = parameters(&["localhost"]);
    let at = |seconds: i64| {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(now + seconds).unwrap())
    };
    (parameters.not_before, parameters.not_after) = (at(from), at(to));
    own(parameters)
}

/// An authority that signs certificates of clients.
struct Authority(Issuer<'static, KeyPair>, String);

impl Authority {
    fn new(name: &str) -> Self {
        let mut parameters = parameters(&[]);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap().pem();
        Authority(Issuer::new(parameters, key), certificate)
    }

    fn client(&self, uri: &str) -> Pair {
        let mut parameters = parameters(&[]);
        parameters.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        let key = KeyPair::generate().unwrap();
        Pair(parameters.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// A folder that is removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("proxyrunner-tls-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn settings(&self, Pair(certificate, key): &Pair) -> Settings {
        Settings {
            certificate: self.write("tls.crt", certificate),
            key: self.write("tls.key", key),
            client_ca: None,
            client_name: NameKind::Spiffe,
            http2: true,
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn unusable_files_are_refused_with_their_option() {
    let folder = Folder::new("unusable");
    let good = valid("localhost");
    let settings = folder.settings(&good);
    assert_eq!(settings.check(), Ok(()));
    let refusal = |settings: &Settings| {
        let unusable = settings.check().expect_err("a refusal");
        (unusable.option, unusable.reason)
    };
    let with = |certificate: &str, key: &str| {
        refusal(&folder.settings(&Pair(certificate.to_owned(), key.to_owned())))
    };
    let Pair(certificate, key) = &good;
    let half = |text: &str| text[..text.len() / 2].to_owned();
    let Pair(_, other) = valid("localhost");
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let Pair(expired, its_key) = within(-7200, -3600);
    let Pair(future, future_key) = within(3600, 7200);
    for ((option, part), (said_option, reason)) in [
        (("--tls-cert", "PEM"), with(&half(certificate), key)),
        (("--tls-cert", "no certificate"), with("", key)),
        (("--tls-cert", "no certificate"), with(key, key)),
        (("--tls-key", "PEM"), with(certificate, &half(key))),
        (("--tls-key", "no private key"), with(certificate, "")),
        (("--tls-key", "encrypted"), with(certificate, encrypted)),
        (("--tls-key", "not the key of the certificate"), with(certificate, &other)),
        (("--tls-cert", "expired"), with(&expired, &its_key)),
        (("--tls-cert", "valid only"), with(&future, &future_key)),
        (
            ("--tls-client-ca", "no certificate"),
            refusal(&Settings { client_ca: Some(folder.write("ca", "x")), ..folder.settings(&good) }),
        ),
        (
            ("--tls-client-ca", "cannot be read"),
            refusal(&Settings { client_ca: Some("/nonexistent".into()), ..folder.settings(&good) }),
        ),
        (
            ("--tls-cert", "malformed"),
            with("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", key),
        ),
    ] {
        assert_eq!(said_option, option, "{reason}");
        assert!(reason.contains(part), "{reason}");
        assert!(!reason.contains("BEGIN"), "{reason}");
    }
}

fn client(identity: Option<&Pair>, trusted: &Path) -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&fs::read(trusted).unwrap()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match identity {
        None => config.with_no_client_auth(),
        Some(Pair(certificate, key)) => config
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap(),
    })
}

/// Connects, and returns what the gate makes of it.
async fn connect(
    gate: &Gate,
    config: Arc<rustls::ClientConfig>,
) -> Result<(Option<Peer>, tokio_util::sync::CancellationToken, bool), gate::Handshake> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let connecting =
        tokio_rustls::TlsConnector::from(config).connect(ServerName::try_from("localhost").unwrap(), far);
    let client = async {
        let Ok(mut stream) = connecting.await else { return false };
        let _ = stream.write_all(b"x").await;
        let mut answer = [0];
        let read = stream.read(&mut answer).await.unwrap_or(0);
        let is_resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        read == 1 && is_resumed
    };
    let server = async {
        let accepted = gate.accept(near, "127.0.0.1".parse().unwrap()).await?;
        let gate::Accepted { mut stream, peer, authorities, .. } = accepted;
        let _ = stream.read_u8().await;
        let _ = stream.write_all(b"y").await;
        let _ = stream.shutdown().await;
        Ok((peer, authorities))
    };
    let (is_resumed, accepted) = tokio::join!(client, server);
    accepted.map(|(peer, authorities)| (peer, authorities, is_resumed))
}

#[tokio::test]
async fn changed_files_are_used_only_when_they_pass_the_checks() {
    let folder = Folder::new("reload");
    let first = valid("localhost");
    let gate = Gate::open(folder.settings(&first)).unwrap();
    let certificate = folder.0.join("tls.crt");
    let trusts_first = client(None, &certificate);
    assert!(connect(&gate, Arc::clone(&trusts_first)).await.is_ok());

    let second = valid("localhost");
    let failed = TLS_FAILED_RELOADS.value();
    folder.write("tls.key", &second.1);
    gate.reload();
    gate.reload();
    assert_eq!(TLS_FAILED_RELOADS.value(), failed + 2, "each attempt counts");
    assert!(
        connect(&gate, Arc::clone(&trusts_first)).await.is_ok(),
        "the certificate of before stays in use"
    );

    let reloads = TLS_RELOADS.value();
    folder.write("tls.crt", &second.0);
    gate.reload();
    gate.reload();
    assert_eq!(TLS_RELOADS.value(), reloads + 1);
    assert_eq!(connect(&gate, trusts_first).await.unwrap_err(), gate::Handshake::Refused);
    assert!(connect(&gate, client(None, &certificate)).await.is_ok());

    fs::remove_file(&certificate).unwrap();
    gate.reload();
    folder.write("tls.crt", &second.0);
    gate.reload();
    assert_eq!(TLS_RELOADS.value(), reloads + 1, "the files are the ones in use");
}

#[tokio::test]
async fn a_link_through_a_renamed_folder_is_followed() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new("links");
    let put = |name: &str, Pair(certificate, key): &Pair| {
        fs::create_dir(folder.0.join(name)).unwrap();
        folder.write(&format!("{name}/tls.crt"), certificate);
        folder.write(&format!("{name}/tls.key"), key);
        symlink(name, folder.0.join("..new")).unwrap();
        fs::rename(folder.0.join("..new"), folder.0.join("..data")).unwrap();
    };
    put("..1", &valid("localhost"));
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), folder.0.join(name)).unwrap();
    }
    let settings = Settings {
        certificate: folder.0.join("tls.crt"),
        key: folder.0.join("tls.key"),
        client_ca: None,
        client_name: NameKind::Spiffe,
        http2: true,
    };
    let gate = Gate::open(settings).unwrap();
    put("..2", &valid("localhost"));
    gate.reload();
    assert!(connect(&gate, client(None, &folder.0.join("tls.crt"))).await.is_ok());
}

#[tokio::test]
async fn clients_are_named_by_their_certificate_and_distrusted_with_their_authority() {
    let folder = Folder::new("clients");
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let mut settings = folder.settings(&valid("localhost"));
    settings.client_ca = Some(folder.write("ca.crt", &old.1));
    let gate = Gate::open(settings).unwrap();
    let certificate = folder.0.join("tls.crt");
    let agent = old.client("spiffe://cluster.local/ns/a/sa/agent");
    let trusted = client(Some(&agent), &certificate);

    let (peer, authorities, _) = connect(&gate, Arc::clone(&trusted)).await.unwrap();
    let peer = peer.unwrap();
    assert_eq!(peer.name.as_deref(), Some("spiffe://cluster.local/ns/a/sa/agent"));
    let (_, _, is_resumed) = connect(&gate, Arc::clone(&trusted)).await.unwrap();
    assert!(!is_resumed, "a resumed session would not be verified again");
    let refused = connect(&gate, client(None, &certificate)).await.unwrap_err();
    assert_eq!(refused, gate::Handshake::NoCertificate);
    let stranger = client(Some(&new.client("spiffe://cluster.local/x")), &certificate);
    assert_eq!(connect(&gate, Arc::clone(&stranger)).await.unwrap_err(), gate::Handshake::BadCertificate);

    folder.settings(&valid("localhost"));
    gate.reload();
    assert!(!authorities.is_cancelled(), "only the certificate changed");
    folder.write("ca.crt", &new.1);
    gate.reload();
    assert!(authorities.is_cancelled());
    let trusted = client(Some(&agent), &certificate);
    assert_eq!(connect(&gate, trusted).await.unwrap_err(), gate::Handshake::BadCertificate);
    let welcome = client(Some(&new.client("spiffe://cluster.local/x")), &certificate);
    assert!(connect(&gate, welcome).await.is_ok());
}

#[tokio::test]
async fn a_session_without_an_identity_can_be_resumed_until_the_files_change() {
    let folder = Folder::new("resume");
    let pair = valid("localhost");
    let gate = Gate::open(folder.settings(&pair)).unwrap();
    let config = client(None, &folder.0.join("tls.crt"));
    assert!(!connect(&gate, Arc::clone(&config)).await.unwrap().2);
    assert!(connect(&gate, config).await.unwrap().2);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_stops_is_ended() {
    let folder = Folder::new("slow");
    let gate = Gate::open(folder.settings(&valid("localhost"))).unwrap();
    let (near, mut far) = tokio::io::duplex(1024);
    far.write_all(&[0x16, 3, 1, 1]).await.unwrap();
    assert_eq!(gate.accept(near, "127.0.0.1".parse().unwrap()).await.unwrap_err(), gate::Handshake::Timeout);
}

#[tokio::test]
async fn the_probe_trusts_the_certificate_in_the_file_and_no_other() {
    let folder = Folder::new("pinned");
    let pair = valid("some.name.example");
    let gate = Gate::open(folder.settings(&pair)).unwrap();
    let pinned = client_config(&folder.0.join("tls.crt")).unwrap();
    assert!(connect(&gate, pinned).await.is_ok());
    let other = folder.write("other.crt", &valid("some.name.example").0);
    assert_eq!(connect(&gate, client_config(&other).unwrap()).await.unwrap_err(), gate::Handshake::Refused);
}
