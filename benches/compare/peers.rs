//! Other bridges from stdio to HTTP, in pinned versions, installed from their registries below `target/tools/`, and run
//! with their default settings, except where they need a flag to serve the child at all.

use super::job::Era;
use super::paths;
use std::path::PathBuf;
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
    /// It takes part in one round only, since its numbers are far from the others.
    pub is_slow: bool,
    /// Maximum number of sessions that it opens with its default settings, if that is little.
    pub most_sessions: usize,
    /// Returns the arguments that serve the port in front of a child of this era.
    pub arguments: fn(u16, Era, &[String]) -> Vec<String>,
}

/// The peers in the order of the tables.
pub static ALL: [Peer; 5] = [
    Peer {
        name: "mcp-proxy-rust",
        package: "mcp-proxy",
        version: "0.6.0",
        registry: Registry::Cargo,
        path: "/",
        prefix: "b/",
        is_slow: false,
        most_sessions: usize::MAX,
        arguments: |port, _, child| vec!["--config".to_owned(), write_config(port, child)],
    },
    Peer {
        name: "supergateway",
        package: "supergateway",
        version: "4.0.0",
        registry: Registry::Npm,
        path: "/mcp",
        prefix: "",
        is_slow: true,
        // Each has a child.
        most_sessions: 100,
        arguments: |port, _, child| {
            let port = port.to_string();
            let fixed = ["--outputTransport", "streamableHttp", "--stateful", "--port", &port, "--stdio"];
            fixed.into_iter().map(str::to_owned).chain([child.join(" ")]).collect()
        },
    },
    Peer {
        name: "mcp-proxy-npm",
        package: "mcp-proxy",
        version: "6.7.19",
        registry: Registry::Npm,
        path: "/mcp",
        prefix: "",
        is_slow: true,
        most_sessions: usize::MAX,
        arguments: |port, era, child| match era {
            Era::Modern => after_port(&["--host", "127.0.0.1", "--upstreamProtocol", "modern"], port, child),
            _ => after_port(&["--host", "127.0.0.1"], port, child),
        },
    },
    Peer {
        name: "mcp-proxy-pypi",
        package: "mcp-proxy",
        version: "0.13.0",
        registry: Registry::PyPI,
        path: "/mcp",
        prefix: "",
        is_slow: true,
        most_sessions: usize::MAX,
        arguments: |port, _, child| after_port(&[], port, child),
    },
    Peer {
        name: "mcp-stdio",
        package: "mcp-stdio",
        version: "0.45.2",
        registry: Registry::PyPI,
        path: "/mcp",
        prefix: "",
        is_slow: true,
        // Each has a child.
        most_sessions: 100,
        arguments: |port, _, child| after_port(&["serve"], port, child),
    },
];

impl Peer {
    /// Returns the package, its version and its registry.
    pub fn origin(&self) -> String {
        let registry = match self.registry {
            Registry::Cargo => "Cargo",
            Registry::Npm => "npm",
            Registry::PyPI => "PyPI",
        };
        format!("{} {} ({registry})", self.package, self.version)
    }

    /// Returns the command that serves the port in front of a child of this era.
    pub fn command(&self, port: u16, era: Era, child: &[String]) -> Command {
        let mut command = Command::new(self.program(self.package));
        command.args((self.arguments)(port, era, child));
        command
    }

    /// Installs the peer, unless that was done before.
    pub fn install(&self) -> Result<(), String> {
        if self.program(self.package).exists() {
            return Ok(());
        }
        eprintln!("installing {} {}", self.package, self.version);
        let folder = self.folder();
        let folder = folder.to_str().ok_or("a path that is not UTF-8")?;
        match self.registry {
            Registry::Cargo => {
                let package = format!("{}@{}", self.package, self.version);
                run("cargo", &["install", "--quiet", "--locked", "--root", folder, &package])
            }
            Registry::Npm => {
                let package = format!("{}@{}", self.package, self.version);
                run("npm", &["install", "--silent", "--no-fund", "--no-audit", "--prefix", folder, &package])
            }
            Registry::PyPI => {
                run("python3", &["-m", "venv", folder])?;
                let package = format!("{}=={}", self.package, self.version);
                run(&format!("{folder}/bin/pip"), &["install", "--quiet", &package])
            }
        }
    }

    fn folder(&self) -> PathBuf {
        paths::tools().join(format!("{}-{}", self.name, self.version))
    }

    /// Returns the path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        let below = match self.registry {
            Registry::Npm => "node_modules/.bin",
            Registry::Cargo | Registry::PyPI => "bin",
        };
        self.folder().join(below).join(name)
    }
}

/// Returns the port and the child's command after the other arguments.
fn after_port(first: &[&str], port: u16, child: &[String]) -> Vec<String> {
    let mut arguments: Vec<String> = first.iter().map(|word| (*word).to_owned()).collect();
    arguments.extend(["--port".to_owned(), port.to_string(), "--".to_owned()]);
    arguments.extend_from_slice(child);
    arguments
}

/// Writes the file that the Rust mcp-proxy wants instead of flags. Returns its path.
fn write_config(port: u16, child: &[String]) -> String {
    let file = paths::log("mcp-proxy-rust").with_extension("toml");
    let arguments: Vec<String> = child[1..].iter().map(|word| format!("{word:?}")).collect();
    let text = format!(
        "[proxy]\nname = \"compare\"\n\n[proxy.listen]\nhost = \"127.0.0.1\"\nport = {port}\n\n[[backends]]\nname = \"b\"\ntransport = \"stdio\"\ncommand = {:?}\nargs = [{}]\n",
        child[0],
        arguments.join(", ")
    );
    std::fs::write(&file, text).expect("a configuration");
    file.to_str().expect("a path in UTF-8").to_owned()
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("installation: {program}: {status}")),
        Err(error) => Err(format!("installation: {program}: {error}")),
    }
}
