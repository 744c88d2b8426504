//! `relay unix:PATH`: the process that stands for a server behind `proxyrunner shim`. It copies its stdin to the socket
//! and the socket to its stdout, so that a server in another container is supervised like any other. `--connect`
//! starts it; people have no use for it. `relay handed:FD` does the same for a socket that it inherits: a gateway runs it
//! in place of the server that combines all servers.

use super::words::SCHEME;
use crate::backoff::Backoff;
use crate::config::Exit;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The shortest and the longest time between attempts to connect.
const LEAST_PAUSE: Duration = Duration::from_millis(20);
const MOST_PAUSE: Duration = Duration::from_millis(500);
/// Time after which the wait for the socket is reported.
const QUIET: Duration = Duration::from_secs(2);
/// The prefix of the number of an inherited socket.
const HANDED: &str = "handed:";
/// Maximum number of bytes copied at once.
const COPIED: usize = 64 * 1024;

/// Returns whether the words are those of `--connect`, and not of a server with this name.
pub(super) fn is_meant(words: &[OsString]) -> bool {
    matches!(words, [_, socket] if [SCHEME, HANDED].iter().any(|scheme| {
        socket.as_encoded_bytes().starts_with(scheme.as_bytes())
    }))
}

pub(super) fn run(words: &[OsString]) -> Result<ExitCode, Exit> {
    if let Some(socket) = words.get(1).and_then(inherited) {
        let _ = pass(socket)
            .map_err(|error| Exit::failed(format!("cannot use the inherited socket: {error}")))?;
        return Ok(ExitCode::SUCCESS);
    }
    let path = words.get(1).and_then(|word| word.to_str()?.strip_prefix(SCHEME));
    let path = path.ok_or_else(|| Exit::usage("proxyrunner: relay takes unix:PATH".to_owned()))?;
    let failed =
        |error: io::Error| Exit::failed(format!("cannot reach the server at {path} (--connect): {error}"));
    let socket = connect(Path::new(path)).map_err(failed)?;
    let (copied, is_closing) = pass(socket).map_err(failed)?;
    if is_closing {
        return Ok(ExitCode::SUCCESS);
    }
    let cause = copied.err().map(|error| format!(": {error}")).unwrap_or_default();
    Err(Exit::failed(format!(
        "the connection to the server at {path} (--connect) was closed{cause}; the log of `proxyrunner shim` has the reason"
    )))
}

/// Copies in both directions until the socket ends. Returns how it ended, and whether stdin had ended before.
fn pass(socket: UnixStream) -> io::Result<(io::Result<()>, bool)> {
    let sending = socket.try_clone()?;
    let is_closing = Arc::new(AtomicBool::new(false));
    let closing = Arc::clone(&is_closing);
    thread::spawn(move || {
        // Even if the socket is broken: the other direction tells.
        let copied = copy(&mut io::stdin(), &mut &sending);
        closing.store(copied.is_ok(), Ordering::SeqCst);
        let _ = sending.shutdown(Shutdown::Write);
    });
    let copied = copy(&mut &socket, &mut io::stdout());
    Ok((copied, is_closing.load(Ordering::SeqCst)))
}

/// Returns the socket that the word names, if it names one.
fn inherited(word: &OsString) -> Option<UnixStream> {
    let number: RawFd = word.to_str()?.strip_prefix(HANDED)?.parse().ok().filter(|number| *number > 2)?;
    fs::metadata(format!("/proc/self/fd/{number}")).ok().filter(|file| file.file_type().is_socket())?;
    // SAFETY: it is open, and nothing else in this process uses files that were inherited.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    Some(socket.into())
}

/// Connects to the socket as soon as a shim listens there. The supervisor limits the time (`--start-timeout`).
fn connect(path: &Path) -> io::Result<UnixStream> {
    let (begun, mut is_reported) = (Instant::now(), false);
    let mut pauses = Backoff::new(LEAST_PAUSE, MOST_PAUSE);
    loop {
        let error = match UnixStream::connect(path) {
            Ok(socket) => return Ok(socket),
            Err(error) => error,
        };
        // The shim has not started yet, or is starting again.
        let may_come = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused, io::ErrorKind::WouldBlock];
        if error.kind() == io::ErrorKind::PermissionDenied {
            return Err(io::Error::other(
                "permission denied; run both containers as the same user, or in the same group (fsGroup)",
            ));
        }
        if fs::metadata(path).is_ok_and(|file| !file.file_type().is_socket()) {
            return Err(io::Error::other("it is not a socket; give the path of `proxyrunner shim --socket`"));
        }
        if !may_come.contains(&error.kind()) {
            return Err(error);
        }
        if !is_reported && begun.elapsed() > QUIET {
            is_reported = true;
            let why = match error.kind() {
                io::ErrorKind::NotFound => "there is no such socket".to_owned(),
                io::ErrorKind::ConnectionRefused => "nothing listens on the socket".to_owned(),
                _ => error.to_string(),
            };
            eprintln!(
                "still waiting for `proxyrunner shim` at {} (--connect): {why}; is the other container running, and do \
                 both mount this folder?",
                path.display()
            );
        }
        thread::sleep(pauses.advance());
    }
}

/// Copies until EOF, and passes on each part at once.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; COPIED];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                to.write_all(&buffer[..length])?;
                to.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
