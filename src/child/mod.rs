//! One child process: how it is started and guarded, and the three tasks on its pipes. What its frames mean is the
//! router's.

pub mod guardian;
mod limits;
mod process;
mod reaper;
mod report;
mod spawn;
mod start_error;
mod stderr;
mod stdin;
mod stdout;

pub(crate) use limits::{Identity, Limits};
pub(crate) use process::{Process, Signaller};
pub(crate) use spawn::{Spawned, Spawner};
pub(crate) use start_error::StartError;
pub(crate) use stderr::{Lines, Tail};

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// What to start, and how long it may take to end.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program, searched in `PATH`.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// `--env`: added to, or with `env_clear` in place of, the environment of proxyrunner.
    pub env: Vec<(OsString, OsString)>,
    /// `--env-clear`
    pub env_clear: bool,
    /// `--cwd`
    pub cwd: Option<PathBuf>,
    /// What it may take, and as whom it runs.
    pub limits: Limits,
    /// `--child-log-rate`: lines of stderr, and of stdout that are no message, that are logged per second; 0 is all.
    pub log_rate: usize,
    /// `--expose-stderr`: whether clients and probes see the child's last lines of stderr.
    pub expose_stderr: bool,
    /// `--max-frame`, in bytes.
    pub max_frame: usize,
    /// `--start-timeout`: how long the handshake may take.
    pub start_timeout: Duration,
    /// `--close-grace`: after EOF on stdin, before SIGTERM.
    pub close_grace: Duration,
    /// `--terminate-grace`: after SIGTERM, before SIGKILL.
    pub terminate_grace: Duration,
}

pub(crate) use stderr::follow as follow_stderr;
pub(crate) use stdin::write as write_stdin;
pub(crate) use stdout::{Heard, Lines as StdoutLines, read as read_stdout};
