//! The files that are watched for changes, and the variables in `--env-file`.

use super::parse::ANY_PATH;
use super::problem::{InvalidValue, Problem};
use super::reader::Reader;
use crate::audit;
use crate::child::{self, EnvFiles, parse_env_files};
use crate::mounted::{self, Mounted};
use crate::telemetry::counters::{FAILED_RELOADS, Reloaded};
use std::path::PathBuf;
use std::time::Duration;

/// The files that are watched for changes.
#[derive(Clone, Debug)]
pub struct Mounts {
    /// `--reload-interval`: the interval between checks.
    pub interval: Duration,
    /// `--state-key-file`
    pub state_keys: Option<Mounted>,
    /// `--env-file`
    pub env: Option<EnvMount>,
}

/// The files and folders of `--env-file`.
#[derive(Clone, Debug)]
pub struct EnvMount {
    /// The paths as given.
    pub paths: Vec<PathBuf>,
    /// Tells changes.
    pub mounted: Mounted,
    /// Whether the variables of an identity are refused.
    pub is_reserved: bool,
    /// `--on-env-change restart`: running children are replaced.
    pub restarts: bool,
}

impl EnvMount {
    /// Keeps the variables of `--env-file` current. Calls `changed` when a value differs.
    pub async fn watch(self, current: EnvFiles, changed: impl Fn()) {
        let EnvMount { paths, mounted, is_reserved, .. } = self;
        mounted::watch(mounted, move |read| {
            let read = read.map_err(|unreadable| unreadable.to_string());
            match read.and_then(|files| parse_env_files(&paths, &files, is_reserved)) {
                Ok(variables) => {
                    if current.replace(variables) {
                        changed();
                    }
                }
                Err(reason) => note_unusable(Reloaded::Env, "--env-file", &reason),
            }
            true
        })
        .await;
    }
}

/// Records that a changed file was not applied. `reason` contains no content of the file.
pub fn note_unusable(what: Reloaded, flag: &str, reason: &str) {
    FAILED_RELOADS.increment(what as usize);
    audit::not_reloaded(flag, reason);
    tracing::error!("{flag} has changed, but is unusable: {reason}; the previous values stay in use");
}

/// Reads `--env-file` and its files into the child's settings.
pub(super) fn read_env(
    reader: &mut Reader,
    child: &mut child::Settings,
    is_reserved: bool,
) -> Option<EnvMount> {
    let paths = reader.list("env-file", ANY_PATH);
    let restarts = reader.choice("on-env-change", &[("restart", true), ("ignore", false)]);
    if paths.is_empty() {
        return None;
    }
    let mut mounted = Mounted::new(&paths);
    let read = mounted.read().map_err(|unreadable| unreadable.to_string());
    match read.and_then(|files| parse_env_files(&paths, &files, is_reserved)) {
        Ok(variables) => child.env_files = EnvFiles::new(variables),
        Err(reason) => {
            let accepts =
                "give a readable file of NAME=VALUE lines, or a folder with one file for each variable";
            reader.note(Problem::general(
                "--env-file",
                InvalidValue::new(format!("is unusable: {reason}"), accepts),
            ));
        }
    }
    Some(EnvMount { paths, mounted, is_reserved, restarts })
}
