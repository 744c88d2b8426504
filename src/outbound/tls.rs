//! Certificates for connections to other services.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::sync::Arc;

/// TLS certificates in PEM.
#[derive(Clone, Default)]
pub struct Tls {
    /// Trusted authorities instead of the built-in ones.
    pub authorities: Option<Vec<u8>>,
    /// proxyrunner's own certificate and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The name that a certificate must have, in place of the URL's host.
    pub name: Option<String>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (authorities, identity) = (self.authorities.is_some(), self.identity.is_some());
        f.debug_struct("Tls").field("authorities", &authorities).field("identity", &identity).finish()
    }
}

/// An unusable certificate, with the reason.
#[derive(Debug)]
pub enum BadTls {
    /// The authorities.
    Authorities(String),
    /// The own certificate or its key.
    Identity(String),
    /// TLS itself.
    Protocol(String),
}

impl fmt::Display for BadTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadTls::Authorities(why) | BadTls::Identity(why) | BadTls::Protocol(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for BadTls {}

impl Tls {
    /// Returns the configuration of a client.
    ///
    /// # Errors
    /// When a certificate is unusable.
    pub(super) fn client(&self) -> Result<ClientConfig, BadTls> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| BadTls::Protocol(error.to_string()))?
            .with_root_certificates(self.roots()?);
        match &self.identity {
            None => Ok(config.with_no_client_auth()),
            Some((certificate, key)) => {
                let unusable = |error: &dyn fmt::Display| BadTls::Identity(error.to_string());
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
                let chain = chain.map_err(|error| unusable(&error))?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| unusable(&error))?;
                config.with_client_auth_cert(chain, key).map_err(|error| unusable(&error))
            }
        }
    }

    /// Returns the name that certificates must have, unless it is the URL's host.
    ///
    /// # Errors
    /// When it is no name.
    pub(super) fn server_name(&self) -> Result<Option<ServerName<'static>>, BadTls> {
        let name = self.name.clone().map(ServerName::try_from).transpose();
        name.map_err(|error| BadTls::Protocol(error.to_string()))
    }

    fn roots(&self) -> Result<RootCertStore, BadTls> {
        let mut roots = RootCertStore::empty();
        let Some(pem) = &self.authorities else {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            return Ok(roots);
        };
        let unusable = |error: &dyn fmt::Display| BadTls::Authorities(error.to_string());
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| unusable(&error))?;
            roots.add(certificate).map_err(|error| unusable(&error))?;
        }
        if roots.is_empty() {
            return Err(BadTls::Authorities("there is no certificate in it".to_owned()));
        }
        Ok(roots)
    }
}
