//! `--header-file`: headers of requests, which may be secrets. No error shows a value.

use crate::config::Exit;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Maximum size of the file in bytes.
const LONGEST_HEADERS: u64 = 64 * 1024;
/// Headers that delimit the message or belong to the connection.
const FRAMING: [HeaderName; 6] = [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, EXPECT, TE, UPGRADE];

/// Reads the file's text. It may be a pipe, which may stay silent.
fn text_of(path: &Path, patience: Duration) -> Result<String, String> {
    let (ends, ended) = mpsc::channel::<()>();
    let path = path.to_owned();
    let reading = thread::spawn(move || {
        let _ends = ends;
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(LONGEST_HEADERS + 1).read_to_string(&mut text));
        read.map(|_| text)
    });
    if ended.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
        return Err(format!("was not read within {} s (--timeout)", patience.as_secs_f64()));
    }
    match reading.join().map_err(|_| "cannot be read".to_owned())? {
        Ok(text) if text.len() as u64 > LONGEST_HEADERS => {
            Err(format!("is larger than {LONGEST_HEADERS} bytes; give a file of headers"))
        }
        Ok(text) => Ok(text),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::NotFound => "does not exist".to_owned(),
            io::ErrorKind::PermissionDenied => {
                format!("is not readable for user {}", nix::unistd::geteuid())
            }
            io::ErrorKind::IsADirectory => "is a directory; give a file".to_owned(),
            io::ErrorKind::InvalidData => "is not text in UTF-8".to_owned(),
            _ => error.to_string(),
        }),
    }
}

/// Adds the headers of the file to those that `command` sets itself.
///
/// # Errors
/// When the file cannot be read, has a line that is no header, or sets one of those headers.
pub(super) fn add(
    path: &Path,
    patience: Duration,
    command: &str,
    headers: &mut HeaderMap,
) -> Result<(), Exit> {
    let unusable = |why: String| Exit::usage(format!("proxyrunner: --header-file {}: {why}", path.display()));
    let text = text_of(path, patience).map_err(unusable)?;
    let mut given = HeaderMap::new();
    for (at, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        // The value may be a secret, so no error shows it.
        let header = line.split_once(':').and_then(|(name, value)| {
            let mut value = HeaderValue::from_str(value.trim()).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, value))
        });
        let (name, value) = header.ok_or_else(|| unusable(format!("line {at} is not NAME: VALUE")))?;
        // `Host` may be set, for an ingress.
        if name != HOST && (headers.contains_key(&name) || FRAMING.contains(&name)) {
            return Err(unusable(format!(
                "line {at} sets {name}, which `{command}` sets itself; remove the line"
            )));
        }
        given.insert(name, value);
    }
    for (name, value) in given.drain().filter_map(|(name, value)| Some((name?, value))) {
        headers.insert(name, value);
    }
    Ok(())
}
