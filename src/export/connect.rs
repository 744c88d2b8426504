//! Connections to collectors: name resolution, TCP and TLS.

use super::endpoint::{Endpoint, Protocol, Tls};
use super::resolve::Resolver;
use super::unusable::Unusable;
use crate::tasks;
use hyper::rt::Executor;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::Duration;
use tonic::body::Body;

/// Timeout for establishing a connection.
const CONNECTING: Duration = Duration::from_secs(5);
/// Idle time before a connection is closed: exports are more frequent, or so rare that they need no open connection.
const IDLE: Duration = Duration::from_secs(30);

/// An HTTP client for requests to a collector.
pub type Sender = Client<HttpsConnector<HttpConnector<Resolver>>, Body>;

/// Starts hyper's tasks.
#[derive(Clone, Copy, Debug)]
struct Tasks;

impl<F> Executor<F> for Tasks
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, task: F) {
        tasks::spawn(task);
    }
}

/// Creates a client for an endpoint: HTTP/1.1, or HTTP/2 for gRPC.
///
/// # Errors
/// When the certificates are unusable.
pub fn sender(endpoint: &Endpoint) -> Result<Sender, Unusable> {
    let mut tcp = HttpConnector::new_with_resolver(Resolver);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECTING));
    let https = HttpsConnectorBuilder::new().with_tls_config(tls(&endpoint.tls)?).https_or_http();
    let grpc = endpoint.protocol == Protocol::Grpc;
    let connector = if grpc {
        https.enable_http2().wrap_connector(tcp)
    } else {
        https.enable_http1().wrap_connector(tcp)
    };
    Ok(Client::builder(Tasks)
        .http2_only(grpc)
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build(connector))
}

fn tls(tls: &Tls) -> Result<ClientConfig, Unusable> {
    let unusable = |what: &str, error: &dyn std::fmt::Display| Unusable(format!("{what}: {error}"));
    let mut roots = RootCertStore::empty();
    match &tls.authorities {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            let what = "OTEL_EXPORTER_OTLP_CERTIFICATE";
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| unusable(what, &error))?;
                roots.add(certificate).map_err(|error| unusable(what, &error))?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("TLS", &error))?
        .with_root_certificates(roots);
    match &tls.identity {
        None => Ok(config.with_no_client_auth()),
        Some((certificate, key)) => {
            let what = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE, OTEL_EXPORTER_OTLP_CLIENT_KEY";
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
            let chain = chain.map_err(|error| unusable(what, &error))?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| unusable(what, &error))?;
            config.with_client_auth_cert(chain, key).map_err(|error| unusable(what, &error))
        }
    }
}
