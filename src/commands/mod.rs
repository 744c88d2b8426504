//! proxyrunner's own commands. Their names stand where a server's program would: `proxyrunner probe ready`. A server
//! with such a name is started by `proxyrunner -- probe`.

mod call;
mod copy_self;
mod manual;
mod probe;
mod relay;
mod request;
mod shim;

use crate::config::Exit;
use clap::Command;
use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

/// The address that is probed and called unless another one is given or set.
const USUAL: &str = "127.0.0.1:8080";

/// Runs the command that the words name, which begin with the program's name. `None` if they name none.
pub fn run(words: &[OsString]) -> Option<ExitCode> {
    let (_, words) = words.split_first()?;
    let done = match words.first()?.to_str()? {
        "completions" => manual::completions(words),
        "man" => manual::page(words),
        "probe" if words.get(1).is_some_and(|word| word == "call") => call::run(&words[1..]),
        "probe" => probe::run(words),
        "shim" => shim::run(words),
        "relay" => relay::run(words),
        "--copy-self" => copy_self::run(words),
        word if word.starts_with("--copy-self=") => copy_self::run(words),
        _ => return None,
    };
    Some(done.unwrap_or_else(|exit| exit.report()))
}

/// Returns the whole command line, for the manual and the completions.
fn whole() -> Command {
    crate::config::command_line().subcommands([
        probe::command().subcommand(call::command()),
        shim::command(),
        manual::completions_command(),
        manual::page_command(),
    ])
}

/// Parses the words of a command, which begin with its name. `name` is the whole name, as in `probe call`.
fn parse(name: &str, command: Command, words: &[OsString]) -> Result<clap::ArgMatches, Exit> {
    let command = command.bin_name(format!("proxyrunner {name}")).max_term_width(110);
    command.try_get_matches_from(words).map_err(|error| Exit::of_clap(&error))
}

/// Returns a variable of the environment that is set and not empty.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| value != OsStr::new(""))
}
