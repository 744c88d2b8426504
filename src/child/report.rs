//! The messages between a guardian and proxyrunner. Each kind has a fixed length.

use nix::sys::signal::Signal;
use std::io::Write;
use std::os::unix::net::UnixStream;

/// A guardian's message: first whether the server started, at last how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The server runs under this process id.
    Started(i32),
    /// The server could not be executed, with this error number of the system.
    Failed(i32),
    /// The server ended with this wait(2) status.
    Ended(i32),
}

impl Report {
    /// The length of a report, in bytes.
    pub const LENGTH: usize = 5;

    /// Sends the report. If proxyrunner is gone, it is dropped.
    pub fn send(self, mut socket: &UnixStream) {
        let (tag, value) = match self {
            Report::Started(pid) => (b'S', pid),
            Report::Failed(errno) => (b'F', errno),
            Report::Ended(status) => (b'E', status),
        };
        let [a, b, c, d] = value.to_le_bytes();
        let _ = socket.write_all(&[tag, a, b, c, d]);
    }

    /// Decodes a report; `None` if it is malformed.
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

/// proxyrunner's message to a guardian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Send this signal to the server's process group; SIGKILL goes to every descendant.
    Group(Signal),
    /// Send this signal to the server alone.
    Server(Signal),
}

impl Instruction {
    /// Encodes the instruction.
    pub fn bytes(self) -> [u8; 2] {
        let (tag, signal) = match self {
            Instruction::Group(signal) => (b'G', signal),
            Instruction::Server(signal) => (b'S', signal),
        };
        // Signal numbers are at most 31.
        [tag, signal as u8]
    }

    /// Takes the complete instructions out of the bytes read so far.
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
    fn reports_arrive_unchanged() {
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
    fn instructions_are_read_in_pieces_and_malformed_ones_are_skipped() {
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
