//! The remote address of a connection, as spans and the access log report it.

use std::net::SocketAddr;
use std::sync::Arc;

/// The remote end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Address and port.
    pub socket: SocketAddr,
    /// The address as text, formatted once per connection because every span includes it.
    ip: Arc<str>,
}

impl Peer {
    /// Returns the address as text.
    pub fn ip(&self) -> &str {
        &self.ip
    }
}

impl From<SocketAddr> for Peer {
    fn from(socket: SocketAddr) -> Self {
        Peer { socket, ip: socket.ip().to_string().into() }
    }
}
