//! Connections that speak another protocol than HTTP, in clear text or by TLS.

use super::resolve::resolve;
use super::tls::{BadTls, Tls};
use rustls::pki_types::ServerName;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A connection, in clear text or by TLS.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// Connects to the hosts of one service.
#[derive(Clone)]
pub(crate) struct Dialer(Option<TlsConnector>);

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dialer").field(&self.0.is_some()).finish()
    }
}

impl Dialer {
    /// Creates a dialer that speaks TLS, or clear text without `tls`.
    ///
    /// # Errors
    /// When the certificates are unusable.
    pub(crate) fn new(tls: Option<&Tls>) -> Result<Self, BadTls> {
        let connector = tls.map(|tls| tls.client().map(|config| TlsConnector::from(Arc::new(config))));
        Ok(Dialer(connector.transpose()?))
    }

    /// Connects to the first address of a host that accepts a connection. The host's name is that of its certificate.
    ///
    /// # Errors
    /// When no address accepts one, or the handshake fails.
    pub(crate) async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Duplex>> {
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => resolve(host).await?,
        };
        let mut connected = Err(io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address")));
        for address in addresses {
            connected = TcpStream::connect(SocketAddr::new(address, port)).await;
            if connected.is_ok() {
                break;
            }
        }
        let stream = connected?;
        stream.set_nodelay(true)?;
        let Some(connector) = &self.0 else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{host} is no host name")))?;
        Ok(Box::new(connector.connect(name, stream).await?))
    }
}
