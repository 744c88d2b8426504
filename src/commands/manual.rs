//! `man` and `completions SHELL`: the manual page and the completions of shells, made from the table of settings.

use super::words::parse;
use crate::config::Exit;
use clap::{Arg, Command};
use clap_complete::{Shell, generate};
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

pub(super) fn page_command() -> Command {
    Command::new("man").about("Print the manual page (roff)")
}

pub(super) fn completions_command() -> Command {
    let shell = Arg::new("shell").value_name("SHELL").required(true).help("Shell to complete in");
    Command::new("completions")
        .about("Print the completions of a shell")
        .arg(shell.value_parser(clap::value_parser!(Shell)))
}

pub(super) fn page(words: &[OsString], whole: Command) -> Result<ExitCode, Exit> {
    parse("man", page_command(), words)?;
    let mut text = Vec::new();
    // Writing to memory cannot fail.
    let _ = clap_mangen::Man::new(whole).render(&mut text);
    print(&text)
}

pub(super) fn completions(words: &[OsString], mut whole: Command) -> Result<ExitCode, Exit> {
    let matches = parse("completions", completions_command(), words)?;
    let mut text = Vec::new();
    if let Some(shell) = matches.get_one::<Shell>("shell") {
        generate(*shell, &mut whole, "proxyrunner", &mut text);
    }
    print(&text)
}

fn print(text: &[u8]) -> Result<ExitCode, Exit> {
    let written = io::stdout().write_all(text).and_then(|()| io::stdout().flush());
    written.map_err(|error| Exit::failed(format!("proxyrunner: cannot write to stdout: {error}")))?;
    Ok(ExitCode::SUCCESS)
}
