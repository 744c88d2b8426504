//! Other bridges from stdio to HTTP, in pinned versions, installed from their registries below `target/tools/`.

use super::paths;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where a peer comes from.
#[derive(Clone, Copy, PartialEq)]
pub enum Registry {
    Cargo,
    Npm,
    PyPI,
}

/// Another bridge.
pub struct Peer {
    /// The name in commands and tables.
    pub name: &'static str,
    pub package: &'static str,
    pub version: &'static str,
    pub registry: Registry,
    /// The path of its endpoint.
    pub path: &'static str,
    /// Text that it puts before the names of tools.
    pub prefix: &'static str,
}

/// The peers in the order of the tables.
pub static ALL: [Peer; 0] = [];

impl Peer {
    /// Returns the command that serves the port.
    pub fn command(&self, port: u16, child: &[String]) -> Command {
        let _ = (port, child);
        todo!()
    }
}
