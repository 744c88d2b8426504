//! A server's process as proxyrunner sees it: its end to be waited for, and signals to be sent, through its guardian or
//! directly where there can be none.

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
        /// What was read so far of the guardian's last report.
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
    /// A server that a guardian has started.
    ///
    /// # Errors
    /// When the runtime can't take the socket.
    pub fn guarded(lineage: Lineage, socket: std::os::unix::net::UnixStream) -> io::Result<Self> {
        let signaller = Signaller(Arc::new(Target::Guarded(socket.try_clone()?)));
        socket.set_nonblocking(true)?;
        let socket = UnixStream::from_std(socket)?;
        let pid = lineage.server;
        Ok(Process { pid, way: Way::Guarded { lineage, socket, read: Vec::new() }, signaller })
    }

    /// A server that is proxyrunner's own child.
    pub fn direct(pid: i32, process: Child) -> Self {
        let signaller = Signaller(Arc::new(Target::Direct(Pid::from_raw(pid))));
        Process { pid, way: Way::Direct(process), signaller }
    }

    /// The server's process id, and that of its group.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// What tells its processes from all others, where a guardian sees to them.
    pub fn lineage(&self) -> Option<Lineage> {
        match &self.way {
            Way::Guarded { lineage, .. } => Some(lineage.clone()),
            Way::Direct(_) => None,
        }
    }

    /// For signals.
    pub fn signaller(&self) -> Signaller {
        self.signaller.clone()
    }

    /// Waits for the server's end. May be dropped and called again.
    ///
    /// # Errors
    /// When its guardian ended first, and it with that.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        match &mut self.way {
            Way::Direct(process) => process.wait().await,
            Way::Guarded { socket, read, .. } => loop {
                if let Ok(bytes) = <[u8; Report::LENGTH]>::try_from(read.as_slice()) {
                    return match Report::read(bytes) {
                        Some(Report::Ended(status)) => Ok(ExitStatus::from_raw(status)),
                        _ => Err(io::Error::other("its guardian does not say how it ended")),
                    };
                }
                let mut rest = [0; Report::LENGTH];
                let wanted = Report::LENGTH - read.len();
                match socket.read(&mut rest[..wanted]).await? {
                    0 => return Err(io::Error::other("its guardian was ended, and it with that")),
                    length => read.extend_from_slice(&rest[..length]),
                }
            },
        }
    }
}

impl Signaller {
    /// A signal to the server's process group; SIGKILL to everything that it ever started, as far as that is known.
    pub fn group(&self, signal: Signal) {
        match &*self.0 {
            Target::Guarded(socket) => order(socket, Instruction::Group(signal)),
            // A group that is gone already is fine.
            Target::Direct(pid) => drop(killpg(*pid, signal)),
        }
    }

    /// A signal to the server alone.
    pub fn server(&self, signal: Signal) {
        match &*self.0 {
            Target::Guarded(socket) => order(socket, Instruction::Server(signal)),
            Target::Direct(pid) => drop(kill(*pid, signal)),
        }
    }
}

/// Two bytes always have room; a guardian that is gone needs no orders.
fn order(mut socket: &std::os::unix::net::UnixStream, order: Instruction) {
    let _ = socket.write_all(&order.bytes());
}
