//! Who sent something, as spans and the access log say it.

use std::net::SocketAddr;
use std::sync::Arc;

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address and port.
    pub socket: SocketAddr,
    /// Its address as text, which every span has: written once for a connection.
    ip: Arc<str>,
}

impl Peer {
    /// Its address as text.
    pub fn ip(&self) -> &str {
        &self.ip
    }
}

impl From<SocketAddr> for Peer {
    fn from(socket: SocketAddr) -> Self {
        Peer { socket, ip: socket.ip().to_string().into() }
    }
}
