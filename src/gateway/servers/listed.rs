//! What a file says of its servers.

use super::super::directory::Description;
use super::super::replica::Endpoint;
use super::rules::Rule;
use std::fmt;
use std::path::PathBuf;

/// All that a file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Content {
    /// The servers, in the order of their segments.
    pub servers: Vec<Entry>,
    /// Who may register which servers.
    pub rules: Vec<Rule>,
}

/// One server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// What callers and requests need to know.
    pub about: Description,
    /// Where the server is.
    pub source: Source,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Its replicas; at least one.
    Urls(Vec<Endpoint>),
    /// An endpoint whose host is a name; every address of the name is a replica.
    Dns(Endpoint),
    /// A program that the gateway starts.
    Command(Command),
}

/// A program on stdin and stdout.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Command {
    /// The program, looked up in `PATH`.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its variables. They are secrets.
    pub env: Vec<(String, String)>,
    /// Its working directory.
    pub cwd: Option<PathBuf>,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({:?}, …)", self.program)
    }
}
