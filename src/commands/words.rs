//! The words of a command, and the environment that complements them.

use crate::config::{self, Exit};
use clap::{Arg, ArgMatches, Command};
use std::ffi::{OsStr, OsString};

/// The address that is probed and called unless another one is given or set.
pub(super) const USUAL: &str = "127.0.0.1:8080";
/// The prefix of a socket's path in `--connect`.
pub(super) const SCHEME: &str = "unix:";

/// Parses the words of a command, which begin with its name. `name` is the whole name, as in `probe call`.
pub(super) fn parse(name: &str, command: Command, words: &[OsString]) -> Result<ArgMatches, Exit> {
    let command = command.bin_name(format!("proxyrunner {name}")).max_term_width(110);
    command.try_get_matches_from(words).map_err(|error| Exit::of_clap(&error))
}

/// Returns a variable of the environment that is set and not empty.
pub(super) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| value != OsStr::new(""))
}

/// Returns the address that the first of these variables sets, or the usual one.
pub(super) fn listens(names: &[&str]) -> String {
    let set = names.iter().find_map(|name| variable(name));
    set.map_or(USUAL.to_owned(), |address| address.to_string_lossy().into_owned())
}

/// Returns the option for the longest time that a command takes.
pub(super) fn timeout() -> Arg {
    Arg::new("timeout")
        .long("timeout")
        .value_name("DURATION")
        .help("Maximum time to wait for the answer")
        .default_value("5s")
        .value_parser(config::duration)
}
