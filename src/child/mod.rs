//! One child: its settings.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// What to spawn, and how it ends. Not `Debug`, since variables hold secrets.
#[derive(Clone)]
pub struct Settings {
    /// The program, looked up in `PATH`.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables set for it.
    pub env: Vec<(OsString, OsString)>,
    /// Whether it starts without proxyrunner's own variables.
    pub env_clear: bool,
    /// Its working directory.
    pub cwd: Option<PathBuf>,
    /// The largest frame accepted from it, in bytes.
    pub max_frame: usize,
    /// How long it may take to answer `initialize`.
    pub start_timeout: Duration,
    /// After EOF on its stdin, the wait before SIGTERM.
    pub close_grace: Duration,
    /// After SIGTERM, the wait before SIGKILL.
    pub terminate_grace: Duration,
}
