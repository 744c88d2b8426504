//! The reasons why a program cannot be started, and the remedy for each.

use super::Settings;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The reason why a child could not be started, with the program's name.
#[derive(Clone, Debug)]
pub struct StartError(Arc<str>);

impl StartError {
    pub(super) fn new(text: impl Into<Arc<str>>) -> Self {
        StartError(text.into())
    }

    /// Explains the system's refusal to start the program.
    pub(super) fn refused(settings: &Settings, error: &io::Error) -> Self {
        StartError(describe(settings, error).into())
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// Returns the program's path, if it was given as a path. A relative path is resolved in `--cwd`.
fn path(settings: &Settings) -> Option<PathBuf> {
    let program = Path::new(&settings.program);
    let cwd = settings.cwd.as_deref().unwrap_or(Path::new("."));
    (program.components().count() > 1).then(|| cwd.join(program))
}

fn is_there(settings: &Settings) -> bool {
    path(settings).is_some_and(|path| path.is_file())
}

fn is_directory(settings: &Settings) -> bool {
    path(settings).is_some_and(|path| path.is_dir())
}

fn describe(settings: &Settings, error: &io::Error) -> String {
    let program = Path::new(&settings.program).display();
    let cwd_missing = settings.cwd.as_ref().filter(|cwd| !cwd.is_dir());
    match (error.kind(), cwd_missing) {
        (_, Some(cwd)) => {
            format!("cannot start `{program}`: --cwd {} is not a directory", cwd.display())
        }
        (io::ErrorKind::NotFound, _) if is_there(settings) => format!(
            "cannot start `{program}`: the file exists, but its interpreter (#! line or ELF header) does not"
        ),
        (io::ErrorKind::NotFound, _) if settings.program.to_string_lossy().contains(char::is_whitespace) => {
            format!(
                "cannot start `{program}`: no such program; give program and arguments as separate words, without quotes \
                 around all of them"
            )
        }
        (io::ErrorKind::NotFound, _) => format!(
            "cannot start `{program}`: no such program; give its full path, or check PATH and spelling"
        ),
        (io::ErrorKind::PermissionDenied, _) if is_directory(settings) => {
            format!("cannot start `{program}`: it is a directory; give the program in it")
        }
        _ if error.raw_os_error() == Some(nix::libc::EPERM) => format!(
            "cannot start `{program}`: not permitted; --child-nofile, --child-memory, --child-nice, --child-user or \
             --child-group asks for more than proxyrunner may give"
        ),
        (io::ErrorKind::PermissionDenied, _) => {
            format!("cannot start `{program}`: permission denied; is it executable?")
        }
        _ => format!("cannot start `{program}`: {error}"),
    }
}
