//! TLS on the listening side (`--tls-cert`): the certificate, its renewal, and the identity of clients.
//!
//! One shared pointer holds the configuration of new connections ([`Gate`]). [`watch`](Gate::watch) replaces it when
//! the files change and pass the checks of [`config`]; a connection keeps the configuration that it began with.
//! [`certificate`] reads the few fields of a certificate that rustls does not show, and [`identity`] takes the name of
//! a client from them.

mod certificate;
mod config;
mod der;
mod examined;
mod files;
mod gate;
mod identity;
mod pinned;
#[cfg(test)]
mod tests;

pub use examined::names_in;
pub use files::Unusable;
pub use gate::{Gate, Handshake, Stream};
pub use identity::{NameKind, Peer};
pub use pinned::client_config;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::PathBuf;

/// The settings of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `--tls-cert`: the certificate chain.
    pub certificate: PathBuf,
    /// `--tls-key`: its private key.
    pub key: PathBuf,
    /// `--tls-client-ca`: the authorities whose clients are accepted; without it, clients present no certificate.
    pub client_ca: Option<PathBuf>,
    /// `--tls-client-name`: the part of a client's certificate that names it.
    pub client_name: NameKind,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
}

/// Returns the first DNS name of the first certificate in PEM. A host stands for the `*` of a wildcard.
pub fn dns_name(pem: &[u8]) -> Option<String> {
    let certificate = CertificateDer::from_pem_slice(pem).ok()?;
    let name = certificate::read(&certificate)?.dns.into_iter().next()?;
    Some(name.replacen('*', "replica", 1))
}

impl Settings {
    /// Checks the files.
    ///
    /// # Errors
    /// The first file that cannot be used, and why.
    pub fn check(&self) -> Result<(), Unusable> {
        let contents = files::Contents::of(self, files::mounted(self).read())?;
        config::load(&contents, self.http2).map(drop)
    }
}
