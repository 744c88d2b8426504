//! stdin and stdout of a command that serves a client over stdio. Each has a thread, since both may block.

use crate::budget::Charged;
use crate::framing::{Framed, Framer};
use bytes::BufMut as _;
use std::io::{self, Read as _, Write as _};
use std::thread;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Bytes read from stdin at once.
const READ: usize = 64 * 1024;

/// Reads frames of at most `longest` bytes from stdin. Cancels `ended` at its end.
///
/// # Errors
/// When the system refuses a thread.
pub(super) fn read_stdin(longest: usize, ended: CancellationToken) -> io::Result<mpsc::Receiver<Framed>> {
    let (found, frames) = mpsc::channel(1);
    thread::Builder::new().name("stdin".into()).spawn(move || {
        let _ends = ended.drop_guard();
        let mut framer = Framer::new(longest);
        let mut stdin = io::stdin().lock();
        let mut part = vec![0; READ];
        loop {
            let read = match stdin.read(&mut part) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            framer.buffer().put_slice(&part[..read]);
            while let Some(framed) = framer.next() {
                if found.blocking_send(framed).is_err() {
                    return;
                }
            }
        }
        if let Some(framed) = framer.finish() {
            let _ = found.blocking_send(framed);
        }
    })?;
    Ok(frames)
}

/// Writes messages to stdout until there is no sender. The receiver that is returned ends then.
///
/// # Errors
/// When the system refuses a thread.
pub(super) fn write_stdout(mut said: mpsc::Receiver<Charged>) -> io::Result<std::sync::mpsc::Receiver<()>> {
    let (ends, ended) = std::sync::mpsc::channel();
    thread::Builder::new().name("stdout".into()).spawn(move || {
        let _ends = ends;
        let mut stdout = io::stdout().lock();
        while let Some(message) = said.blocking_recv() {
            let written = stdout.write_all(&message).and_then(|()| stdout.write_all(b"\n"));
            if written.and_then(|()| stdout.flush()).is_err() {
                return;
            }
        }
    })?;
    Ok(ended)
}
