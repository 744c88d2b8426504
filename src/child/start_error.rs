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

    /// Refuses a program that is built for another architecture. The system would pass it to /bin/sh (execvp(3)).
    pub(super) fn of_architecture(settings: &Settings) -> Option<Self> {
        let name = architecture(machine(&first_bytes(&path(settings)?)?)?);
        let why = format!(
            "cannot start `{}`: it is built for {name}, and this machine is {}",
            Path::new(&settings.program).display(),
            std::env::consts::ARCH
        );
        (!runs(name)).then(|| StartError { why: why.into(), code: NOT_EXECUTABLE })
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
            let head = path(settings).and_then(|path| first_bytes(&path)).unwrap_or_default();
            match (interpreter(&head), machine(&head)) {
                (Some(name), _) => format!(
                    "cannot start `{program}`: the file exists, but its interpreter `{name}` (#! line) does not"
                ),
                (None, Some(_)) => format!(
                    "cannot start `{program}`: the file exists, but its interpreter (ELF header) does not"
                ),
                (None, None) => format!(
                    "cannot start `{program}`: it has no #! line, and there is no /bin/sh to run it as a script"
                ),
            }
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
fn interpreter(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let name = String::from_utf8_lossy(line).split_whitespace().next()?.to_owned();
    (!name.is_empty()).then_some(name)
}

/// Returns the architecture that a program is built for (elf(5), e_machine).
fn machine(head: &[u8]) -> Option<u16> {
    let number = head.get(18..20).filter(|_| head.starts_with(b"\x7fELF"))?;
    Some(u16::from_le_bytes([number[0], number[1]]))
}

/// Returns the name of an architecture, as Rust calls it.
fn architecture(machine: u16) -> &'static str {
    match machine {
        3 => "x86",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        _ => "another architecture",
    }
}

/// Returns whether the machine runs programs of this architecture.
fn runs(name: &str) -> bool {
    let own = std::env::consts::ARCH;
    let is_narrower = matches!((own, name), ("x86_64", "x86") | ("aarch64", "arm"));
    // An emulator may be registered (binfmt_misc).
    let emulates = || {
        let formats = std::fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten();
        formats.into_iter().any(|format| format.file_name().to_string_lossy().starts_with("qemu-"))
    };
    name == own || is_narrower || emulates()
}

/// Returns the beginning of a file.
fn first_bytes(path: &Path) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    std::fs::File::open(path).ok()?.take(256).read_to_end(&mut head).ok()?;
    Some(head)
}
