//! `--copy-self PATH`: writes this program to a file. An init container from an image without a shell passes
//! proxyrunner to another container in this way.

use super::files::replace;
use crate::config::Exit;
use clap::{Arg, ValueHint};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

/// The running program.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Returns the option for the manual and the completions.
pub(super) fn option() -> Arg {
    Arg::new("copy-self")
        .long("copy-self")
        .value_name("PATH")
        .value_hint(ValueHint::FilePath)
        .help("Write this program to a file, for init containers without a shell")
        .help_heading("Configuration")
}

pub(super) fn run(words: &[OsString]) -> Result<ExitCode, Exit> {
    let path = target(words).ok_or_else(|| {
        Exit::usage(
            "proxyrunner: --copy-self takes one PATH, the file to write, and nothing else; give e.g. --copy-self \
             /shared/proxyrunner"
                .to_owned(),
        )
    })?;
    let copied = replace(&path, 0o755, |file| io::copy(&mut File::open(OWN_PROGRAM)?, file).map(|_| ()));
    copied.map_err(|why| {
        Exit::failed(format!("proxyrunner: cannot write {} (--copy-self): {why}", path.display()))
    })?;
    Ok(ExitCode::SUCCESS)
}

fn target(words: &[OsString]) -> Option<PathBuf> {
    let path = match words {
        [word] => OsStr::from_bytes(word.as_bytes().strip_prefix(b"--copy-self=")?),
        // An option would become a file with a strange name.
        [_, path] if !path.as_bytes().starts_with(b"-") => path,
        _ => return None,
    };
    (!path.is_empty()).then(|| path.into())
}
