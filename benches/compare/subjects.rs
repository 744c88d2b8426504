//! What is measured: each subject is started afresh for each measurement, and everything below it ends with it.

use super::job::{Era, Target};
use super::paths;
use super::peers::{self, Peer};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Time in which a subject must listen.
const START: Duration = Duration::from_secs(180);

/// A subject of the measurements.
#[derive(Clone, Copy)]
pub enum Subject {
    /// The load generator at the child's pipes.
    Direct,
    /// The least that a bridge can do.
    Floor,
    Proxyrunner,
    Peer(&'static Peer),
}

impl Subject {
    /// Returns all subjects in the order of the tables.
    pub fn all() -> Vec<Subject> {
        let own = [Subject::Direct, Subject::Floor, Subject::Proxyrunner];
        own.into_iter().chain(peers::ALL.iter().map(Subject::Peer)).collect()
    }

    /// Returns the name in commands and tables.
    pub fn name(self) -> &'static str {
        match self {
            Subject::Direct => "direct",
            Subject::Floor => "floor",
            Subject::Proxyrunner => "proxyrunner",
            Subject::Peer(peer) => peer.name,
        }
    }

    /// Returns whether a failure is a result and not a fault of the benchmark.
    pub fn may_fail(self) -> bool {
        matches!(self, Subject::Peer(_))
    }

    /// Returns whether the subject takes part in one round only.
    pub fn is_slow(self) -> bool {
        matches!(self, Subject::Peer(peer) if peer.is_slow)
    }

    /// Returns the command that serves the port, in front of a child of this era.
    pub fn command(self, port: u16, era: Era, flags: &[&str]) -> Command {
        let own = paths::own();
        let mut child = vec![own.clone(), "child".to_owned()];
        if era == Era::Modern {
            child.push("--modern".to_owned());
        }
        let listen = format!("127.0.0.1:{port}");
        let mut command;
        match self {
            Subject::Direct => unreachable!("has no server"),
            Subject::Floor => {
                command = Command::new(own);
                command.args(["floor", "--listen", &listen, "--"]).args(child);
            }
            Subject::Proxyrunner => {
                command = Command::new(paths::proxyrunner());
                // It would warn about a variable that it does not know.
                command.env_remove("PROXYRUNNER_BIN");
                command.args(["--listen", &listen]).args(flags).arg("--").args(child);
            }
            Subject::Peer(peer) => command = peer.command(port, era, &child),
        }
        command
    }

    /// Installs a peer, unless that was done before.
    pub fn prepare(self) -> Result<(), String> {
        match self {
            Subject::Peer(peer) => peer.install(),
            _ => Ok(()),
        }
    }

    /// Starts the subject and waits until it listens. A peer is installed first.
    pub fn start(self, era: Era, flags: &[&str]) -> Result<Running, String> {
        self.prepare()?;
        let address = free_address();
        self.launch(self.command(address.port(), era, flags), address)
    }

    /// Starts the command, and waits until the address is listened to.
    pub fn launch(self, mut command: Command, address: SocketAddr) -> Result<Running, String> {
        let log = File::create(paths::log(self.name())).map_err(|error| format!("log: {error}"))?;
        let output = log.try_clone().map_err(|error| format!("log: {error}"))?;
        command.stdin(Stdio::null()).stdout(output).stderr(log).process_group(0);
        end_with_driver(&mut command);
        let process = command.spawn().map_err(|error| format!("start: {error}"))?;
        let (path, prefix) = match self {
            Subject::Peer(peer) => (peer.path, peer.prefix),
            _ => ("/mcp", ""),
        };
        let target = Target { address, path: path.into(), prefix: prefix.into(), process: process.id() };
        let mut running = Running { process, target };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Ok(Some(status)) = running.process.try_wait() {
                return Err(format!("ended at start: {status}"));
            }
            if begun.elapsed() > START {
                return Err("does not listen".to_owned());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(running)
    }
}

/// A subject that listens. Dropping it ends all of its processes.
pub struct Running {
    process: Child,
    /// Where it listens.
    pub target: Target,
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.process.id() as i32);
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.process.wait();
    }
}

/// Has the kernel end the process when this one is killed.
fn end_with_driver(command: &mut Command) {
    // SAFETY: the call between fork and exec is a system call, which is allowed there.
    unsafe {
        command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
    }
}

/// Returns an address on loopback that is free at present.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}
