//! A server's process: waiting for its end and sending it signals, through its guardian, or directly where there is
//! none.

use super::reaper::Lineage;
use super::report::{Instruction, Report};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::Child;

/// A server's process. Dropping it ends the server.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    way: Way,
    signaller: Signaller,
}

#[derive(Debug)]
enum Way {
    Guarded {
        lineage: Lineage,
        socket: UnixStream,
        /// The bytes of the guardian's last report that have arrived.
        read: Vec<u8>,
    },
    Direct(Child),
}

/// Sends signals to one server; clones share it.
#[derive(Clone, Debug)]
pub struct Signaller(Arc<Target>);

#[derive(Debug)]
enum Target {
    Guarded(std::os::unix::net::UnixStream),
    Direct(Pid),
}

impl Process {
    /// Creates the handle of a server that was started by a guardian.
    ///
    /// # Errors
    /// When the runtime cannot register the socket.
    pub fn guarded(lineage: Lineage, socket: std::os::unix::net::UnixStream) -> io::Result<Self> {
        let signaller = Signaller(Arc::new(Target::Guarded(socket.try_clone()?)));
        socket.set_nonblocking(true)?;
        let socket = UnixStream::from_std(socket)?;
        let pid = lineage.server;
        Ok(Process { pid, way: Way::Guarded { lineage, socket, read: Vec::new() }, signaller })
    }

    /// Creates the handle of a server that is a direct child of proxyrunner.
    pub fn direct(pid: i32, process: Child) -> Self {
        let signaller = Signaller(Arc::new(Target::Direct(Pid::from_raw(pid))));
        Process { pid, way: Way::Direct(process), signaller }
    }

    /// Returns the id of the server's process and process group.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Identifies the server's processes, if it has a guardian.
    pub fn lineage(&self) -> Option<Lineage> {
        match &self.way {
            Way::Guarded { lineage, .. } => Some(lineage.clone()),
            Way::Direct(_) => None,
        }
    }

    /// Returns a handle that sends signals to the server.
    pub fn signaller(&self) -> Signaller {
        self.signaller.clone()
    }

    /// Waits for the server's end. Cancel-safe.
    ///
    /// # Errors
    /// When the guardian ended first, and the server with it.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        match &mut self.way {
            Way::Direct(process) => process.wait().await,
            Way::Guarded { socket, read, .. } => loop {
                if let Ok(bytes) = <[u8; Report::LENGTH]>::try_from(read.as_slice()) {
                    return match Report::read(bytes) {
                        Some(Report::Ended(status)) => Ok(ExitStatus::from_raw(status)),
                        _ => Err(io::Error::other("its guardian did not report how it ended")),
                    };
                }
                let mut rest = [0; Report::LENGTH];
                let wanted = Report::LENGTH - read.len();
                match socket.read(&mut rest[..wanted]).await? {
                    0 => return Err(io::Error::other("its guardian was killed, and the server with it")),
                    length => read.extend_from_slice(&rest[..length]),
                }
            },
        }
    }
}

impl Signaller {
    /// Sends a signal to the server's process group. SIGKILL is sent to every known descendant.
    pub fn group(&self, signal: Signal) {
        match &*self.0 {
            Target::Guarded(socket) => order(socket, Instruction::Group(signal)),
            // The group may have ended already.
            Target::Direct(pid) => drop(killpg(*pid, signal)),
        }
    }

    /// Sends a signal to the server alone.
    pub fn server(&self, signal: Signal) {
        match &*self.0 {
            Target::Guarded(socket) => order(socket, Instruction::Server(signal)),
            Target::Direct(pid) => drop(kill(*pid, signal)),
        }
    }
}

/// Sends an instruction. Two bytes always fit, and a guardian that has ended needs no instructions.
fn order(mut socket: &std::os::unix::net::UnixStream, order: Instruction) {
    let _ = socket.write_all(&order.bytes());
}

/// Describes the end of a process, and returns the exit code that a shell would report.
pub(crate) fn describe(status: ExitStatus) -> (String, i32) {
    match (status.code(), status.signal()) {
        (Some(code), _) => (format!("exited with code {code}"), code),
        (None, Some(signal)) => {
            let name =
                Signal::try_from(signal).map_or_else(|_| "unknown".into(), |signal| signal.to_string());
            (format!("was killed by signal {signal} ({name})"), 128 + signal)
        }
        (None, None) => ("ended".into(), 1),
    }
}
