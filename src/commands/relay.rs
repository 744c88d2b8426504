//! `relay unix:PATH`: the process that stands for a server behind `proxyrunner shim`. It copies its stdin to the socket
//! and the socket to its stdout, so that a server in another container is supervised like any other. `--connect`
//! starts it; people have no use for it.

use super::words::SCHEME;
use crate::backoff::Backoff;
use crate::config::Exit;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// The shortest and the longest time between attempts to connect.
const LEAST_PAUSE: Duration = Duration::from_millis(20);
const MOST_PAUSE: Duration = Duration::from_millis(500);
/// Time after which the wait for the socket is reported.
const QUIET: Duration = Duration::from_secs(5);
/// Maximum number of bytes copied at once.
const COPIED: usize = 64 * 1024;

/// Returns whether the words are those of `--connect`, and not of a server with this name.
pub(super) fn is_meant(words: &[OsString]) -> bool {
    matches!(words, [_, socket] if socket.as_encoded_bytes().starts_with(SCHEME.as_bytes()))
}

pub(super) fn run(words: &[OsString]) -> Result<ExitCode, Exit> {
    let path = words.get(1).and_then(|word| word.to_str()?.strip_prefix(SCHEME));
    let path = path.ok_or_else(|| Exit::usage("proxyrunner: relay takes unix:PATH".to_owned()))?;
    let failed =
        |error: io::Error| Exit::failed(format!("cannot reach the server at {path} (--connect): {error}"));
    let socket = connect(Path::new(path)).map_err(failed)?;
    let sending = socket.try_clone().map_err(failed)?;
    thread::spawn(move || {
        // Even if the socket is broken: the other direction tells.
        let _ = copy(&mut io::stdin(), &mut &sending);
        let _ = sending.shutdown(Shutdown::Write);
    });
    copy(&mut &socket, &mut io::stdout()).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
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
        if !may_come.contains(&error.kind()) {
            return Err(error);
        }
        if !is_reported && begun.elapsed() > QUIET {
            is_reported = true;
            eprintln!("still waiting for `proxyrunner shim` at {} (--connect): {error}", path.display());
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
