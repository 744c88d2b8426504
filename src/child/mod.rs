//! One child process: starting it, guarding it, and the three tasks on its pipes. The router interprets its frames.

mod env_files;
pub mod guardian;
mod limits;
mod process;
mod program;
mod reaper;
mod report;
mod spawn;
mod start_error;
mod stderr;
mod stdin;
mod stdout;

pub(crate) use env_files::{EnvFiles, parse as parse_env_files};
pub(crate) use limits::{Identity, Limits};
pub(crate) use process::{Process, Signaller};
pub(crate) use spawn::{Spawned, Spawner};
pub(crate) use start_error::StartError;
pub(crate) use stderr::{Lines, Tail};

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// The program to start, and its limits.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program, looked up in `PATH`.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// `--env`: variables added to proxyrunner's environment, or, with `env_clear`, the only ones.
    pub env: Vec<(OsString, OsString)>,
    /// `--env-file`: variables that change while proxyrunner runs; those of `env` win.
    pub env_files: EnvFiles,
    /// `--child-identity env`: variables with the names of an identity are not inherited.
    pub tells_identity: bool,
    /// `--env-clear`: the child does not inherit proxyrunner's environment.
    pub env_clear: bool,
    /// `--cwd`: the working directory.
    pub cwd: Option<PathBuf>,
    /// Resource limits and identity.
    pub limits: Limits,
    /// `--child-log-rate`: lines logged per second, of stderr and of stdout lines that are no messages (0: all).
    pub log_rate: usize,
    /// `--expose-stderr`: clients and probes see the child's last lines of stderr.
    pub expose_stderr: bool,
    /// `--max-frame`: the longest frame, in bytes.
    pub max_frame: usize,
    /// `--start-timeout`: the longest handshake.
    pub start_timeout: Duration,
    /// `--close-grace`: time between EOF on stdin and SIGTERM.
    pub close_grace: Duration,
    /// `--terminate-grace`: time between SIGTERM and SIGKILL.
    pub terminate_grace: Duration,
}

pub(crate) use process::describe;
pub(crate) use stderr::follow as follow_stderr;
pub(crate) use stdin::write as write_stdin;
pub(crate) use stdout::{Heard, Lines as StdoutLines, read as read_stdout};
