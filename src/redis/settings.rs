//! The operator's settings of Redis.

use crate::outbound::Tls;
use std::path::PathBuf;

/// Where the primary is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At a host's port.
    Server(Host),
    /// Where Sentinels say that it is.
    Sentinel {
        /// The Sentinels.
        sentinels: Vec<Host>,
        /// The name of the primary among those that they watch.
        service: String,
    },
}

/// A host and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The name or the address, without brackets.
    pub name: String,
    /// The port.
    pub port: u16,
}

/// The settings of Redis.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--redis`: the primary.
    pub place: Place,
    /// The user in the URL.
    pub user: Option<String>,
    /// The number of the database in the URL.
    pub database: u32,
    /// `--redis-ca`, if the URL asks for TLS.
    pub tls: Option<Tls>,
    /// `--redis-password-file`; it is read for each connection.
    pub password_file: Option<PathBuf>,
    /// `--redis-prefix`: the begin of all keys.
    pub prefix: String,
    /// Whose limits the process shares: the name of its server, or `gateway`.
    pub scope: String,
}
