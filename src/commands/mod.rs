//! proxyrunner's own commands. Their names stand where a server's program would: `proxyrunner probe ready`. A server
//! with such a name is started by `proxyrunner -- probe`.

mod audit;
mod call;
#[cfg(feature = "gateway")]
mod connect;
mod copy_self;
mod files;
mod headers;
mod key;
mod manual;
#[cfg(feature = "policy")]
mod policy;
mod probe;
mod relay;
mod request;
mod shim;
#[cfg(feature = "gateway")]
mod stdio;
mod words;

use crate::config::Exit;
use clap::Command;
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the command that the words name, which begin with the program's name. `None` if they name none.
pub fn run(words: &[OsString]) -> Option<ExitCode> {
    let (_, words) = words.split_first()?;
    let done = match words.first()?.to_str()? {
        "audit" => audit::run(words),
        "connect" => connect(words),
        "completions" => manual::completions(words, whole()),
        "man" => manual::page(words, whole()),
        "inject" => crate::inject::run(words[1..].to_vec()).map_err(|error| Exit::of_clap(&error)),
        "policy" => policy(words),
        "key" => key::run(words),
        "probe" if words.get(1).is_some_and(|word| word == "call") => call::run(&words[1..]),
        "probe" => probe::run(words),
        "shim" => shim::run(words),
        "relay" if relay::is_meant(words) => relay::run(words),
        "--copy-self" => copy_self::run(words),
        word if word.starts_with("--copy-self=") => copy_self::run(words),
        _ => return None,
    };
    Some(done.unwrap_or_else(|exit| exit.report()))
}

#[cfg(feature = "policy")]
fn policy(words: &[OsString]) -> Result<ExitCode, Exit> {
    policy::run(words)
}

#[cfg(not(feature = "policy"))]
fn policy(_: &[OsString]) -> Result<ExitCode, Exit> {
    let why = "proxyrunner: policy is not part of this build (cargo feature policy); use the default build";
    Err(Exit::usage(why.to_owned()))
}

#[cfg(feature = "gateway")]
fn connect(words: &[OsString]) -> Result<ExitCode, Exit> {
    connect::run(words)
}

#[cfg(not(feature = "gateway"))]
fn connect(_: &[OsString]) -> Result<ExitCode, Exit> {
    let why = "proxyrunner: connect is not part of this build (cargo feature gateway); use the default build";
    Err(Exit::usage(why.to_owned()))
}

/// Returns the whole command line, for the manual and the completions.
fn whole() -> Command {
    let line = crate::config::command_line().arg(copy_self::option());
    #[cfg(feature = "policy")]
    let line = line.subcommand(policy::command());
    #[cfg(feature = "gateway")]
    let line = line.subcommand(connect::command());
    line.subcommands([
        Command::new("gateway")
            .about("Serve many servers, each at /servers/NAME/mcp; takes the same options"),
        probe::command().subcommand(call::command()),
        audit::command(),
        shim::command(),
        key::command(),
        crate::inject::command(),
        manual::completions_command(),
        manual::page_command(),
    ])
    // `proxyrunner help` would start a server with this name.
    .disable_help_subcommand(true)
}
