//! `key new NAME`: creates an API key for `--api-keys`. The entry goes to stdout, for the file; the key, which is shown
//! once, to stderr, for its owner.

use super::words;
use crate::auth::NewKey;
use crate::config::Exit;
use clap::{ArgMatches, Command};
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

pub(super) fn command() -> Command {
    Command::new("key")
        .about("Create API keys for --api-keys")
        .subcommand_required(true)
        .subcommand(new_command())
}

fn new_command() -> Command {
    Command::new("new")
        .about("Print a new API key to stderr, and its entry for the file of --api-keys to stdout")
        .args([
            words::required("name", "NAME", "Name of the caller, the subject of its requests"),
            words::option("scope", "SCOPE", "Scope of the key; may repeat").action(clap::ArgAction::Append),
            words::option(
                "expires",
                "DATE",
                "End of the key's validity, such as 2027-01-31 or 2027-01-31T12:00:00Z",
            ),
        ])
}

pub(super) fn run(words: &[OsString]) -> Result<ExitCode, Exit> {
    let matches = words::parse("key", command(), words)?;
    match matches.subcommand() {
        Some(("new", matches)) => new(matches),
        _ => Err(Exit::usage("proxyrunner: key: give new NAME".to_owned())),
    }
}

fn new(matches: &ArgMatches) -> Result<ExitCode, Exit> {
    let name = matches.get_one::<String>("name").map(String::as_str).unwrap_or_default();
    let scopes: Vec<_> = matches.get_many::<String>("scope").unwrap_or_default().cloned().collect();
    let expires = matches.get_one::<String>("expires").map(String::as_str);
    let NewKey { key, entry } = NewKey::create(name, &scopes, expires)
        .map_err(|why| Exit::usage(format!("proxyrunner: key new: {why}")))?;
    eprintln!("{key}");
    let written = io::stdout().write_all(entry.as_bytes()).and_then(|()| io::stdout().flush());
    written.map_err(|error| Exit::failed(format!("proxyrunner: cannot write to stdout: {error}")))?;
    Ok(ExitCode::SUCCESS)
}
