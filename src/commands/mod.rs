//! proxyrunner's own commands. Their names stand where a server's program would: `proxyrunner probe ready`. A server
//! with such a name is started by `proxyrunner -- probe`.

mod call;
mod copy_self;
mod manual;
mod probe;
mod relay;
mod request;
mod shim;
mod words;

use clap::Command;
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the command that the words name, which begin with the program's name. `None` if they name none.
pub fn run(words: &[OsString]) -> Option<ExitCode> {
    let (_, words) = words.split_first()?;
    let done = match words.first()?.to_str()? {
        "completions" => manual::completions(words, whole()),
        "man" => manual::page(words, whole()),
        "inject" => Ok(crate::inject::run(words[1..].to_vec())),
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

/// Returns the whole command line, for the manual and the completions.
fn whole() -> Command {
    crate::config::command_line().subcommands([
        probe::command().subcommand(call::command()),
        shim::command(),
        crate::inject::command(),
        manual::completions_command(),
        manual::page_command(),
    ])
}
