//! The reasons why a program cannot be started, and the remedy for each.

use super::{Settings, program};
use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
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
            Some(
                nix::libc::EACCES
                | nix::libc::ENOEXEC
                | nix::libc::EISDIR
                | nix::libc::ENOTDIR
                | nix::libc::ELOOP
                | nix::libc::ENAMETOOLONG,
            ) => NOT_EXECUTABLE,
            _ => OTHER,
        };
        StartError { why: describe(settings, error).into(), code }
    }

    /// Refuses a file that is empty or built for another architecture. The system would pass it to /bin/sh
    /// (execvp(3)).
    pub(super) fn of_content(settings: &Settings) -> Option<Self> {
        let path = path(settings).filter(|path| path.is_file())?;
        let head = first_bytes(&path)?;
        let why =
            if head.is_empty() && path.metadata().is_ok_and(|file| file.len() == 0 && is_executable(&file)) {
                "the file is empty; copy the program again".to_owned()
            } else {
                let name = architecture(machine(&head)?);
                if runs(name) {
                    return None;
                }
                format!("it is built for {name}, and this machine is {}", std::env::consts::ARCH)
            };
        let why = format!("cannot start `{}`: {why}", Path::new(&settings.program).display());
        Some(StartError { why: why.into(), code: NOT_EXECUTABLE })
    }

    /// Returns whether the program itself is unusable, so that another attempt is useless.
    pub fn is_permanent(&self) -> bool {
        self.code != OTHER
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

fn is_executable(file: &std::fs::Metadata) -> bool {
    file.mode() & 0o111 != 0
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
                _ if has_windows_line_end(&head) => format!(
                    "cannot start `{program}`: its #! line ends as on Windows (CR LF); save the script with Unix line \
                     ends (LF)"
                ),
                (Some(name), _) => format!(
                    "cannot start `{program}`: the file exists, but its interpreter `{name}` (#! line) does not"
                ),
                (None, Some(_)) => format!(
                    "cannot start `{program}`: the file exists, but its interpreter (ELF header) does not; use a static \
                     build, or one for the C library of this system"
                ),
                (None, None) => format!(
                    "cannot start `{program}`: it has no #! line, and there is no /bin/sh to run it as a script"
                ),
            }
        }
        (io::ErrorKind::NotFound, _) if path(settings).is_some_and(|path| path.is_symlink()) => {
            format!("cannot start `{program}`: it is a link to a file that does not exist; correct the link")
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
            let found = path(settings).filter(|path| path.metadata().is_ok_and(|file| is_executable(&file)));
            let used = found.and_then(|path| interpreter(&first_bytes(&path)?));
            match used {
                Some(name)
                    if !Path::new(&name)
                        .metadata()
                        .is_ok_and(|file| file.is_file() && is_executable(&file)) =>
                {
                    format!(
                        "cannot start `{program}`: its interpreter `{name}` (#! line) is not an executable file; correct \
                         the line, or give the interpreter as COMMAND"
                    )
                }
                _ => format!(
                    "cannot start `{program}`: permission denied; make it executable (chmod +x), and its folders \
                     accessible for the user"
                ),
            }
        }
        (io::ErrorKind::NotADirectory, _) => {
            format!("cannot start `{program}`: a part of its path is a file, not a folder; correct the path")
        }
        _ if error.raw_os_error() == Some(nix::libc::ELOOP) => {
            format!("cannot start `{program}`: it is a link that leads back to itself; correct the link")
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

/// Returns whether the #! line ends with CR LF: the system takes the CR as a part of the interpreter's name.
fn has_windows_line_end(head: &[u8]) -> bool {
    let line = head.strip_prefix(b"#!").and_then(|rest| rest.split(|&byte| byte == b'\n').next());
    line.is_some_and(|line| line.ends_with(b"\r"))
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
