//! What proxyrunner's own commands share with the settings: values, the environment and the command line.

use super::parse::{DURATION, LISTEN, PATH};
use super::{args, otel, table};
use crate::export;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

/// Returns the command line for a server.
pub(crate) fn command_line() -> clap::Command {
    args::command()
}

/// Returns the options of these settings, for another command.
pub(crate) fn options(flags: &'static [&'static str]) -> impl Iterator<Item = clap::Arg> {
    flags.iter().filter_map(|flag| table::find(flag)).map(args::flag)
}

/// Parses an address to listen on.
///
/// # Errors
/// In words why it is none, and what to give.
pub(crate) fn listen(text: &str) -> Result<SocketAddr, String> {
    (LISTEN.parse)(text).map_err(|refusal| format!("{} ({})", refusal.reason, refusal.accepts))
}

/// Parses the URL path of the endpoint.
///
/// # Errors
/// As [`listen`].
pub(crate) fn path(text: &str) -> Result<String, String> {
    (PATH.parse)(text).map_err(|refusal| format!("{} ({})", refusal.reason, refusal.accepts))
}

/// Parses a duration.
///
/// # Errors
/// As [`listen`].
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    (DURATION.parse)(text).map_err(|refusal| format!("{} ({})", refusal.reason, refusal.accepts))
}

/// Returns the collectors that the environment names.
pub(crate) fn collectors(variables: impl IntoIterator<Item = (OsString, OsString)>) -> export::Settings {
    let variables: Vec<_> = variables.into_iter().collect();
    otel::read(|name| variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())).export
}
