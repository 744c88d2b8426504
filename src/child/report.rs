//! What a guardian and proxyrunner say to each other over their socket, each message of one fixed length.

use nix::sys::signal::Signal;
use std::io::Write;
use std::os::unix::net::UnixStream;

/// What a guardian says: first whether the server started, at last how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// It runs; its process id.
    Started(i32),
    /// It could not be executed; the system's error number.
    Failed(i32),
    /// It ended; the status as wait(2) gives it.
    Ended(i32),
}

impl Report {
    /// The length of each, in bytes.
    pub const LENGTH: usize = 5;

    /// Says it. Whoever is gone needs no report.
    pub fn send(self, mut socket: &UnixStream) {
        let (tag, value) = match self {
            Report::Started(pid) => (b'S', pid),
            Report::Failed(errno) => (b'F', errno),
            Report::Ended(status) => (b'E', status),
        };
        let [a, b, c, d] = value.to_le_bytes();
        let _ = socket.write_all(&[tag, a, b, c, d]);
    }

    /// What was said; `None` if nobody says so.
    pub fn read([tag, a, b, c, d]: [u8; Self::LENGTH]) -> Option<Self> {
        let value = i32::from_le_bytes([a, b, c, d]);
        Some(match tag {
            b'S' => Report::Started(value),
            b'F' => Report::Failed(value),
            b'E' => Report::Ended(value),
            _ => return None,
        })
    }
}

/// What proxyrunner asks of a guardian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// A signal to the server's process group; SIGKILL to everything that it ever started.
    Group(Signal),
    /// A signal to the server alone.
    Server(Signal),
}

impl Instruction {
    /// As it is written.
    pub fn bytes(self) -> [u8; 2] {
        let (tag, signal) = match self {
            Instruction::Group(signal) => (b'G', signal),
            Instruction::Server(signal) => (b'S', signal),
        };
        // There are 31 of them.
        [tag, signal as u8]
    }

    /// Takes the whole orders from what was read so far.
    pub fn take_all(read: &mut Vec<u8>) -> Vec<Self> {
        let whole = read.len() / 2 * 2;
        let orders = read.drain(..whole).collect::<Vec<_>>();
        orders.chunks_exact(2).filter_map(|order| Self::read(order[0], order[1])).collect()
    }

    fn read(tag: u8, signal: u8) -> Option<Self> {
        let signal = Signal::try_from(i32::from(signal)).ok()?;
        match tag {
            b'G' => Some(Instruction::Group(signal)),
            b'S' => Some(Instruction::Server(signal)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn reports_arrive_as_they_were_sent() {
        let (one, mut other) = UnixStream::pair().unwrap();
        for report in [Report::Started(1 << 20), Report::Failed(2), Report::Ended(0x8b), Report::Ended(-1)] {
            report.send(&one);
            let mut bytes = [0; Report::LENGTH];
            other.read_exact(&mut bytes).unwrap();
            assert_eq!(Report::read(bytes), Some(report));
        }
        assert_eq!(Report::read(*b"?...."), None);
    }

    #[test]
    fn orders_are_read_though_they_come_in_pieces_and_nonsense_is_skipped() {
        let (one, two) = (Instruction::Group(Signal::SIGKILL), Instruction::Server(Signal::SIGHUP));
        let mut read: Vec<u8> = one.bytes().to_vec();
        read.extend([b'?', 9, b'G', 255]);
        read.push(two.bytes()[0]);
        assert_eq!(Instruction::take_all(&mut read), [one]);
        read.push(two.bytes()[1]);
        assert_eq!(Instruction::take_all(&mut read), [two]);
        assert!(read.is_empty());
    }
}
