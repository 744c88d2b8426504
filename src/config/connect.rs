//! `--connect`: the server runs in another container, behind `proxyrunner shim`.

use super::problem::InvalidValue;
use super::reader::Reader;
use std::ffi::OsString;

/// Settings of the server's process, which the shim starts.
const OF_SHIM: [&str; 11] = [
    "env",
    "env-clear",
    "env-file",
    "on-env-change",
    "cwd",
    "child-memory",
    "child-nofile",
    "child-nice",
    "child-user",
    "child-group",
    "no-new-privileges",
];

/// Returns the command of the process that stands for the server behind a socket.
pub(super) fn relay(socket: String) -> Vec<OsString> {
    let program = std::env::current_exe().map_or("proxyrunner".into(), OsString::from);
    vec![program, "relay".into(), socket.into()]
}

/// Refuses settings that would not reach the server.
pub(super) fn cross_check(reader: &mut Reader) {
    if !reader.is_given("connect") {
        return;
    }
    for flag in OF_SHIM {
        let refusal = InvalidValue::new(
            "is given beside --connect, and would not reach the server",
            "give it to `proxyrunner shim`, which starts the server",
        );
        reader.cross_check(!reader.is_given(flag), &[flag, "connect"], refusal);
    }
}
