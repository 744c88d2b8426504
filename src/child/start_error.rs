//! The reasons why a program cannot be started, and the remedy for each.

use super::{Settings, program};
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The reason why a child could not be started, with the program's name.
#[derive(Clone, Debug)]
pub struct StartError {
    why: Arc<str>,
    code: i32,
}

/// The exit codes of shells, when a program does not exist or cannot be executed; and otherwise.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;
const OTHER: i32 = 1;

impl StartError {
    pub(super) fn new(why: impl Into<Arc<str>>) -> Self {
        StartError { why: why.into(), code: OTHER }
    }

    /// Explains the system's refusal to start the program.
    pub(super) fn refused(settings: &Settings, error: &io::Error) -> Self {
        let code = match error.raw_os_error() {
            _ if settings.cwd.as_ref().is_some_and(|cwd| !cwd.is_dir()) => OTHER,
            Some(nix::libc::ENOENT) => NOT_FOUND,
            Some(nix::libc::EACCES | nix::libc::ENOEXEC | nix::libc::EISDIR) => NOT_EXECUTABLE,
            _ => OTHER,
        };
        StartError { why: describe(settings, error).into(), code }
    }

    /// Returns the exit code for it.
    pub fn code(&self) -> i32 {
        self.code
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for StartError {}

/// Returns the program's path, if it was given as a path or is in PATH. A relative path is resolved in `--cwd`.
fn path(settings: &Settings) -> Option<PathBuf> {
    let program = program::find(settings);
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
        (io::ErrorKind::NotFound, _) if is_there(settings) => {
            let interpreter = path(settings).and_then(|path| interpreter(&path));
            let named = interpreter.map_or("(#! line or ELF header)".to_owned(), |name| format!("`{name}` (#! line)"));
            format!("cannot start `{program}`: the file exists, but its interpreter {named} does not")
        }
        _ if error.raw_os_error() == Some(nix::libc::ENOEXEC) => {
            format!("cannot start `{program}`: {}", alien(settings))
        }
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

/// Returns the interpreter that a script names.
fn interpreter(path: &Path) -> Option<String> {
    let line = first_bytes(path)?;
    let line = line.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let name = String::from_utf8_lossy(line).split_whitespace().next()?.to_owned();
    (!name.is_empty()).then_some(name)
}

/// Explains why the system cannot execute a file.
fn alien(settings: &Settings) -> String {
    let head = path(settings).and_then(|path| first_bytes(&path)).unwrap_or_default();
    // The machine is a little-endian number at offset 18 (elf(5), e_machine).
    let machine = match head.get(18..20) {
        Some(number) if head.starts_with(b"\x7fELF") => u16::from_le_bytes([number[0], number[1]]),
        _ => return "it is neither a program for this system nor a script with a #! line".to_owned(),
    };
    let name = match machine {
        3 => "x86",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        _ => "another architecture",
    };
    format!("it is built for {name}, and this machine is {}", std::env::consts::ARCH)
}

/// Returns the beginning of a file.
fn first_bytes(path: &Path) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    std::fs::File::open(path).ok()?.take(256).read_to_end(&mut head).ok()?;
    Some(head)
}
