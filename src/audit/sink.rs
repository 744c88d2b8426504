//! The destinations of lines: a file that may be rotated, stdout, or a collector.

use super::tail::{self, Tail};
use super::{Settings, Target};
use crate::telemetry::logs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time that a full pipe has to take a line.
const PATIENCE: u16 = 1_000;
/// Interval between checks whether the file was renamed.
const CHECK: Duration = Duration::from_secs(1);
/// The mode of the file.
const MODE: u32 = 0o600;

/// A destination of lines.
#[derive(Debug)]
pub(super) enum Sink {
    /// A file, or a named pipe.
    File(Box<LogFile>),
    /// stdout.
    Stdout(Rest),
    /// The collector of log records.
    Collector,
}

/// The part of lines that was not written, because a write ended within them. It precedes the next line.
#[derive(Debug, Default)]
pub(super) struct Rest(Vec<u8>);

/// The fate of the lines of a write.
#[derive(Debug)]
pub(super) enum Written {
    /// They are written, or a part of them is and the rest is kept for the next write.
    Taken(io::Result<()>),
    /// No byte of them was written.
    Refused(io::Error),
}

impl Sink {
    /// Opens the destination, and returns the end of the log that is continued.
    ///
    /// # Errors
    /// When a file cannot be opened, or belongs to another process. A named pipe without a reader is opened later.
    pub fn open(settings: &Settings) -> io::Result<(Sink, Tail)> {
        match &settings.target {
            Target::Stdout => Ok((Sink::Stdout(Rest::default()), Tail::Empty)),
            Target::Collector => Ok((Sink::Collector, Tail::Empty)),
            Target::File(path) => {
                let mut file = LogFile {
                    path: path.clone(),
                    opened: None,
                    rest: Rest::default(),
                    settings: settings.into(),
                    checked: Instant::now(),
                };
                match file.open() {
                    Err(error) if error.raw_os_error() == Some(nix::libc::ENXIO) => {}
                    opened => opened?,
                }
                let tail = file.tail()?;
                if let Tail::Ends { is_open: true, .. } | Tail::Unreadable { torn: 1.. } = tail {
                    file.rest.0.push(b'\n');
                }
                Ok((Sink::File(Box::new(file)), tail))
            }
        }
    }

    /// Returns the number of bytes that one write may have, unless it is a single line.
    pub fn room(&self) -> usize {
        match self {
            Sink::Collector => 0,
            Sink::Stdout(_) => usize::MAX,
            Sink::File(file) => file.room(),
        }
    }

    /// Writes a line, or several of at most [`room`](Self::room) bytes, after what is left of the line before.
    pub fn write(&mut self, line: &str) -> Written {
        match self {
            Sink::Collector if logs::put_audit_line(line.trim_end()) => Written::Taken(Ok(())),
            Sink::Collector => Written::Refused(io::Error::other("the queue of log records is full")),
            Sink::Stdout(rest) => rest.write(line.as_bytes(), &mut io::stdout().lock()),
            Sink::File(file) => file.write(line.as_bytes()),
        }
    }

    /// Writes what is left of the last line.
    pub fn complete(&mut self) -> io::Result<()> {
        match self {
            Sink::Collector => Ok(()),
            Sink::Stdout(rest) => rest.complete(&mut io::stdout().lock()),
            Sink::File(file) => file.complete(),
        }
    }

    /// Returns whether a part of the last line is not written yet.
    pub fn has_rest(&self) -> bool {
        match self {
            Sink::Collector => false,
            Sink::Stdout(rest) => !rest.0.is_empty(),
            Sink::File(file) => !file.rest.0.is_empty(),
        }
    }

    /// Waits until all lines are on the disk.
    pub fn sync(&mut self) -> io::Result<()> {
        match self {
            Sink::File(file) => file.sync(),
            Sink::Stdout(_) | Sink::Collector => Ok(()),
        }
    }
}

impl Rest {
    fn complete(&mut self, out: &mut impl Write) -> io::Result<()> {
        while !self.0.is_empty() {
            let written = write_once(out, &self.0)?;
            self.0.drain(..written);
        }
        Ok(())
    }

    /// Writes a line with one call of the system, unless that ends within the line.
    fn write(&mut self, line: &[u8], out: &mut impl Write) -> Written {
        if let Err(error) = self.complete(out) {
            return Written::Refused(error);
        }
        match write_once(out, line) {
            Ok(written) if written == line.len() => Written::Taken(Ok(())),
            Ok(written) => {
                self.0.extend_from_slice(&line[written..]);
                Written::Taken(self.complete(out))
            }
            Err(error) => Written::Refused(error),
        }
    }
}

fn write_once(out: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match out.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A line is not complete before it has left stdout's buffer.
            done => return done.and_then(|written| out.flush().map(|()| written)),
        }
    }
}

/// The settings of a file.
#[derive(Clone, Copy, Debug)]
struct Rotation {
    max_size: Option<u64>,
    keep: usize,
}

impl From<&Settings> for Rotation {
    fn from(settings: &Settings) -> Self {
        Rotation { max_size: settings.max_size, keep: settings.keep }
    }
}

/// A file that is appended to. It is opened again when it was renamed or removed, and rotated when it is too long.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    opened: Option<Opened>,
    rest: Rest,
    settings: Rotation,
    checked: Instant,
}

#[derive(Debug)]
struct Opened {
    file: File,
    /// Device and inode.
    identity: (u64, u64),
    size: u64,
    is_regular: bool,
}

impl Opened {
    /// Returns what somebody else did to the file, if that lost lines. To rename it is harmless.
    fn harm(&mut self) -> Option<&'static str> {
        let now = self.file.metadata().ok().filter(|_| self.is_regular)?;
        let is_cut = now.len() < self.size;
        self.size = now.len();
        if now.nlink() == 0 { Some("was removed") } else { is_cut.then_some("was cut") }
    }
}

impl LogFile {
    fn open(&mut self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        // Without O_NONBLOCK, a named pipe without a reader would block the writer forever.
        options.append(true).create(true).mode(MODE).custom_flags(nix::libc::O_NONBLOCK);
        let file = options.open(&self.path)?;
        let metadata = file.metadata()?;
        let is_regular = metadata.is_file();
        if is_regular {
            if let Err(error) = file.try_lock() {
                return Err(match error {
                    fs::TryLockError::WouldBlock => {
                        io::Error::other("another process writes to it; give each its own file")
                    }
                    fs::TryLockError::Error(error) => error,
                });
            }
            if metadata.mode() & 0o077 != 0 {
                tracing::warn!(path = %self.path.display(), "the audit log is accessible by other users; set its mode to 0600");
            }
        }
        let identity = (metadata.dev(), metadata.ino());
        self.opened = Some(Opened { file, identity, size: metadata.len(), is_regular });
        self.checked = Instant::now();
        Ok(())
    }

    /// Returns the end of the log: that of the file, else that of the file that was rotated last.
    fn tail(&self) -> io::Result<Tail> {
        if !self.opened.as_ref().is_some_and(|opened| opened.is_regular) {
            return Ok(Tail::Empty);
        }
        match tail::read(&self.path)? {
            Tail::Empty => match tail::read(&numbered(&self.path, 1)) {
                Ok(Tail::Ends { head, .. }) => Ok(Tail::Ends { head, torn: 0, is_open: false }),
                Ok(Tail::Unreadable { .. }) | Err(_) => Ok(Tail::Unreadable { torn: 0 }),
                Ok(Tail::Empty) => Ok(Tail::Empty),
            },
            tail => Ok(tail),
        }
    }

    /// Returns the number of bytes that fit into the file before it is rotated.
    fn room(&self) -> usize {
        let (Some(most), Some(opened)) = (self.settings.max_size, &self.opened) else { return usize::MAX };
        if opened.is_regular { most.saturating_sub(opened.size) as usize } else { usize::MAX }
    }

    fn write(&mut self, line: &[u8]) -> Written {
        if let Err(error) = self.complete().and_then(|()| self.prepare(line.len() as u64)) {
            return Written::Refused(error);
        }
        let Some(opened) = &mut self.opened else { return Written::Refused(io::ErrorKind::NotFound.into()) };
        let written = self.rest.write(line, &mut Patient(&mut opened.file));
        if let Written::Taken(_) = &written {
            opened.size += line.len() as u64;
        }
        written
    }

    fn complete(&mut self) -> io::Result<()> {
        match &mut self.opened {
            Some(opened) => self.rest.complete(&mut Patient(&mut opened.file)),
            None => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        match &self.opened {
            Some(opened) if opened.is_regular => opened.file.sync_data(),
            _ => Ok(()),
        }
    }

    /// Opens the file if it is not open or was renamed, and rotates it if a line of this length would make it too
    /// long.
    fn prepare(&mut self, length: u64) -> io::Result<()> {
        if let Some(opened) = &mut self.opened
            && self.checked.elapsed() >= CHECK
        {
            self.checked = Instant::now();
            if let Some(harm) = opened.harm() {
                tracing::error!(path = %self.path.display(), "the audit log {harm}: its lines until now are lost");
            }
            let found = fs::metadata(&self.path).map(|found| (found.dev(), found.ino()));
            if found.ok() != Some(opened.identity) {
                self.sync()?;
                self.opened = None;
            }
        }
        if let (Some(opened), Some(most)) = (&self.opened, self.settings.max_size)
            && opened.is_regular
            && opened.size > 0
            && opened.size + length > most
        {
            self.sync()?;
            self.rotate()?;
            self.opened = None;
        }
        if self.opened.is_none() { self.open() } else { Ok(()) }
    }

    /// Renames the file to `FILE.1`, and each older one to the next number. The oldest is replaced.
    fn rotate(&self) -> io::Result<()> {
        for number in (0..self.settings.keep).rev() {
            let from = if number == 0 { self.path.clone() } else { numbered(&self.path, number) };
            match fs::rename(from, numbered(&self.path, number + 1)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed?,
            }
        }
        Ok(())
    }
}

/// Returns the name of a rotated file.
fn numbered(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// A file whose writes wait a moment for the reader of a pipe.
struct Patient<'a>(&'a mut File);

impl Write for Patient<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)];
                poll(&mut polled, PollTimeout::from(PATIENCE))?;
                self.0.write(bytes)
            }
            done => done,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_cut_or_removed_is_noticed_once() {
        let path = std::env::temp_dir().join(format!("proxyrunner-audit-harm-{}", std::process::id()));
        fs::write(&path, "one\ntwo\n").expect("written");
        let file = OpenOptions::new().append(true).open(&path).expect("a file");
        let mut opened = Opened { file, identity: (0, 0), size: 8, is_regular: true };
        assert_eq!(opened.harm(), None);
        opened.file.set_len(4).expect("cut");
        assert_eq!((opened.harm(), opened.harm(), opened.size), (Some("was cut"), None, 4));
        let renamed = path.with_extension("1");
        fs::rename(&path, &renamed).expect("renamed");
        assert_eq!(opened.harm(), None);
        fs::remove_file(&renamed).expect("removed");
        assert_eq!(opened.harm(), Some("was removed"));
    }
}
