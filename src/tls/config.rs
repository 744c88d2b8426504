//! Makes the configuration of new connections from the files, after checks.

use super::certificate;
use super::files::{Content, Contents, Unusable};
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, version};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The protocols of a connection, in the order of preference.
const H2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";
/// Sessions that clients may resume. With client certificates there are none: a resumed session would keep an identity
/// that was verified against authorities of before.
const SESSIONS: usize = 1024;

/// A configuration of new connections.
#[derive(Debug)]
pub(super) struct Loaded {
    pub config: Arc<ServerConfig>,
    /// The end of the certificate's period, in seconds since the Unix epoch.
    pub expires: u64,
}

/// Makes a configuration.
///
/// # Errors
/// When a file cannot be parsed, the key belongs to another certificate, or the certificate is not valid now.
pub(super) fn load(contents: &Contents, http2: bool) -> Result<Loaded, Unusable> {
    let Contents { certificate, key, client_ca } = contents;
    let chain = certificates(certificate)?;
    let expires = check_period(certificate, &chain[0])?;
    let private = private_key(key)?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|error| certificate.unusable(error.to_string(), "report this as a bug"))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let unusable = |error: &dyn std::fmt::Display| {
                file.unusable(
                    format!("has an unusable certificate: {error}"),
                    "give the certificates of authorities",
                )
            };
            let mut roots = RootCertStore::empty();
            for root in certificates(file)? {
                roots.add(root).map_err(|error| unusable(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| unusable(&error))?)
        }
    };
    let mut config = builder.with_single_cert(chain, private).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            key.unusable("is not the key of the certificate in --tls-cert", "give the pair")
        }
        rustls::Error::InvalidCertificate(error) => {
            certificate.unusable(format!("has an unusable certificate: {error}"), "issue it again")
        }
        error => {
            key.unusable(format!("has an unusable key: {error}"), "use RSA, ECDSA (P-256, P-384) or Ed25519")
        }
    })?;
    if http2 {
        config.alpn_protocols.push(H2.to_vec());
    }
    config.alpn_protocols.push(HTTP_1.to_vec());
    if client_ca.is_some() {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    } else {
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        config.send_tls13_tickets = 1;
    }
    Ok(Loaded { config: Arc::new(config), expires })
}

/// Returns the certificates of a file, at least one.
fn certificates(file: &Content) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let remedy = "give a file in PEM format that is written completely";
    let parsed: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(file.bytes()).collect();
    match parsed {
        Ok(chain) if chain.is_empty() => Err(file.unusable("holds no certificate", remedy)),
        Ok(chain) => match chain.iter().all(|certificate| certificate::read(certificate).is_some()) {
            true => Ok(chain),
            false => Err(file.unusable("holds a malformed certificate", remedy)),
        },
        // The error may quote a line of the file, so it is not shown.
        Err(_) => Err(file.unusable("is not valid PEM", remedy)),
    }
}

fn private_key(file: &Content) -> Result<PrivateKeyDer<'static>, Unusable> {
    PrivateKeyDer::from_pem_slice(file.bytes()).map_err(|error| {
        let is_encrypted = file.bytes().windows(9).any(|word| word == b"ENCRYPTED");
        match error {
            _ if is_encrypted => file.unusable("is encrypted", "give a key without a passphrase"),
            pem::Error::NoItemsFound => {
                file.unusable("holds no private key", "give a file in PEM format that is written completely")
            }
            _ => file.unusable("is not valid PEM", "give a file in PEM format that is written completely"),
        }
    })
}

/// Checks that a certificate is valid now, and returns the end of its period.
fn check_period(file: &Content, certificate: &[u8]) -> Result<u64, Unusable> {
    let fields = certificate::read(certificate).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    if fields.not_after < now {
        let reason = format!("holds a certificate that expired at {}", certificate::shown(fields.not_after));
        return Err(file.unusable(reason, "renew it"));
    }
    if fields.not_before > now {
        let reason =
            format!("holds a certificate that is valid only from {}", certificate::shown(fields.not_before));
        return Err(file.unusable(reason, "check the clocks"));
    }
    Ok(u64::try_from(fields.not_after).unwrap_or(0))
}
