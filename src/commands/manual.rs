//! `man` and `completions SHELL`: the manual page and the completions of shells, made from the table of settings.

use super::words::parse;
use crate::config::{self, Exit};
use clap::{Arg, Command};
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use std::ffi::OsString;
use std::io::{self, Write as _};
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
    let _ = write_page(whole, &mut text);
    Ok(config::print(&text))
}

/// Writes one page for all commands.
fn write_page(mut whole: Command, text: &mut Vec<u8>) -> io::Result<()> {
    whole.build();
    let man = Man::new(whole.clone());
    man.render_title(text)?;
    man.render_name_section(text)?;
    man.render_synopsis_section(text)?;
    man.render_options_section(text)?;
    man.render_extra_section(text)?;
    write_commands(&whole, text)
}

/// Writes a section for each subcommand that does something.
fn write_commands(parent: &Command, text: &mut Vec<u8>) -> io::Result<()> {
    for command in parent.get_subcommands().filter(|command| command.get_name() != "help") {
        if !command.is_subcommand_required_set() {
            let name = command.get_bin_name().unwrap_or(command.get_name()).to_uppercase();
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let mut own = Vec::new();
            let man = Man::new(command.clone());
            man.render_synopsis_section(&mut own)?;
            man.render_options_section(&mut own)?;
            writeln!(text, ".SH \"{name}\"\n{}", Roff::new().text([roman(about)]).to_roff().trim_end())?;
            for line in String::from_utf8_lossy(&own).lines() {
                match line.strip_prefix(".SH ") {
                    // Its sections are parts of one.
                    Some(title) => writeln!(text, ".SS {title}")?,
                    // The definition of an apostrophe, which the page has already.
                    None if line.starts_with(".ie ") || line.starts_with(".el ") => {}
                    None => writeln!(text, "{line}")?,
                }
            }
        }
        write_commands(command, text)?;
    }
    Ok(())
}

pub(super) fn completions(words: &[OsString], mut whole: Command) -> Result<ExitCode, Exit> {
    let matches = parse("completions", completions_command(), words)?;
    let mut text = Vec::new();
    if let Some(shell) = matches.get_one::<Shell>("shell") {
        generate(*shell, &mut whole, "proxyrunner", &mut text);
    }
    Ok(config::print(&text))
}
