//! `--copy-self PATH`: writes this program to a file. An init container from an image without a shell passes
//! proxyrunner to another container in this way.

use crate::config::Exit;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The running program.
const OWN_PROGRAM: &str = "/proc/self/exe";

pub(super) fn run(words: &[OsString]) -> Result<ExitCode, Exit> {
    let path = target(words).ok_or_else(|| {
        Exit::usage("proxyrunner: --copy-self takes one PATH, the file to write, and nothing else".to_owned())
    })?;
    match write(&path) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            Err(Exit::failed(format!("proxyrunner: cannot write {} (--copy-self): {error}", path.display())))
        }
    }
}

fn target(words: &[OsString]) -> Option<PathBuf> {
    let path = match words {
        [word] => OsStr::from_bytes(word.as_bytes().strip_prefix(b"--copy-self=")?),
        [_, path] => path,
        _ => return None,
    };
    (!path.is_empty()).then(|| path.into())
}

/// Writes the program to a file beside `path`, and then renames it: an incomplete program is never executed.
fn write(path: &Path) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
    name.push(format!(".{}", std::process::id()));
    let part = path.with_file_name(name);
    let written = (|| {
        let mut file = File::create(&part)?;
        io::copy(&mut File::open(OWN_PROGRAM)?, &mut file)?;
        file.set_permissions(Permissions::from_mode(0o755))?;
        file.sync_all()?;
        fs::rename(&part, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}
