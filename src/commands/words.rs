//! The words of a command, and the environment that complements them.

use crate::config::{self, Exit};
use clap::{Arg, ArgMatches, Command};
use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// The address that is probed and called unless another one is given or set.
pub(super) const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
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

/// Returns the value of a variable that is set and not empty, read by `parse`. An error names the variable.
pub(super) fn set<T>(name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, Exit> {
    let Some(value) = variable(name) else { return Ok(None) };
    let value = value.to_string_lossy();
    let read = parse(&value).map_err(|why| Exit::usage(format!("proxyrunner: {name}: {value:?} {why}")))?;
    Ok(Some(read))
}

/// Returns the address that the first of these variables sets, or the usual one.
pub(super) fn listens(names: &[&str]) -> Result<SocketAddr, Exit> {
    for name in names {
        if let Some(address) = set(name, config::listen)? {
            return Ok(address);
        }
    }
    Ok(USUAL)
}

/// Returns an option with a value. It is not inlined, since clap's builders move much data.
#[inline(never)]
pub(super) fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

/// Returns an option that names a file.
#[inline(never)]
pub(super) fn file(name: &'static str, help: &'static str) -> Arg {
    option(name, "FILE", help).value_parser(clap::value_parser!(PathBuf))
}

/// Returns an option without a value.
#[inline(never)]
pub(super) fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(clap::ArgAction::SetTrue)
}

/// Returns a required argument.
#[inline(never)]
pub(super) fn required(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).value_name(value).help(help).required(true)
}

/// Returns the option for the certificate of a listener that speaks TLS.
pub(super) fn tls_cert() -> Arg {
    file(
        "tls-cert",
        "Speak TLS, and trust only the certificate in this file\n[env: PROXYRUNNER_TLS_CERT, at the address of PROXYRUNNER_LISTEN]",
    )
}

/// Returns the certificate of that option; without it, the one of the environment if `listens` says that the address
/// is that of `--listen`.
pub(super) fn certificate(matches: &ArgMatches, listens: impl FnOnce() -> bool) -> Option<PathBuf> {
    let given = matches.get_one::<PathBuf>("tls-cert").cloned();
    given.or_else(|| variable("PROXYRUNNER_TLS_CERT").filter(|_| listens()).map(PathBuf::from))
}

/// Returns the option for the longest time that a command takes.
pub(super) fn timeout() -> Arg {
    option("timeout", "DURATION", "Maximum time to wait for the answer")
        .default_value("5s")
        .value_parser(config::duration)
}
