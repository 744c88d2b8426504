//! `proxyrunner audit verify`: verifies audit logs offline.

use super::words;
use crate::audit::Key;
use crate::audit::verify::{self, Fault, Interruption, Summary, Verifier};
use crate::config::Exit;
use crate::sorted::sorted_by_key;
use clap::{ArgAction, Command};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Returns the command for the manual and the completions.
pub(super) fn command() -> Command {
    Command::new("audit").about("Verify audit logs").subcommand_required(true).subcommand(verify_command())
}

fn verify_command() -> Command {
    Command::new("verify")
        .about("Find the first altered line of an audit log, or prove that there is none")
        .args([
        words::file("key-file", "Key that signed the checkpoints; may repeat, for keys that were rotated")
            .action(ArgAction::Append),
        words::switch("running", "Accept that the last process is still running"),
        words::switch(
            "crashes",
            "Accept that processes have crashed, although their last lines may have been altered",
        ),
        words::option(
            "head",
            "HASH",
            "Head of a checkpoint, as the ordinary log told it, which must be in the audit log; may repeat",
        )
        .action(ArgAction::Append),
        words::required("files", "FILE", "Files of one log, in any order")
            .num_args(1..)
            .value_parser(clap::value_parser!(PathBuf)),
    ])
}

/// Runs the command, whose words begin with its name. The exit code is 0 if the log is proven, else 1.
pub(super) fn run(words: &[OsString]) -> Result<ExitCode, Exit> {
    let matches = words::parse("audit", command().no_binary_name(false), words)?;
    let Some(("verify", matches)) = matches.subcommand() else { return Ok(ExitCode::FAILURE) };
    let many =
        |name: &str| matches.get_many::<PathBuf>(name).into_iter().flatten().cloned().collect::<Vec<_>>();
    let mut keys = Vec::new();
    for path in many("key-file") {
        let key = Key::read(&path);
        keys.push(key.map_err(|reason| {
            Exit::usage(format!("proxyrunner: the key file {} {reason}", path.display()))
        })?);
    }
    let mut out = io::stdout().lock();
    let mut verifier = Verifier::new(&keys);
    for head in matches.get_many::<String>("head").into_iter().flatten() {
        let expected = verifier.expect(head);
        expected.map_err(|why| {
            Exit::usage(format!("proxyrunner: audit verify: --head: {head:?} is no hash; {why}"))
        })?;
    }
    let accepted = Accepted { running: matches.get_flag("running"), crashes: matches.get_flag("crashes") };
    let code = match report(&in_order(many("files")), verifier, keys.is_empty(), accepted) {
        Ok((text, is_proven)) => {
            let _ = writeln!(out, "{text}");
            if is_proven { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("proxyrunner: {error}");
            ExitCode::FAILURE
        }
    };
    Ok(code)
}

/// What is accepted although it proves nothing.
#[derive(Clone, Copy)]
struct Accepted {
    /// That the last process has not ended.
    running: bool,
    /// That processes ended without a checkpoint.
    crashes: bool,
}

/// Puts the files in the order of their first lines.
fn in_order(files: Vec<PathBuf>) -> Vec<PathBuf> {
    sorted_by_key(files, |path| {
        let mut number = None;
        if let Ok(file) = File::open(path) {
            let _ = verify::lines(&mut BufReader::new(file), |line, _| {
                number = verify::number_of(line);
                false
            });
        }
        number.unwrap_or(u64::MAX)
    })
}

/// Verifies files in their order. Returns the report, and whether the log is proven.
fn report(
    files: &[PathBuf],
    mut verifier: Verifier,
    is_keyless: bool,
    accepted: Accepted,
) -> Result<(String, bool), String> {
    // A fault of an incomplete line, unless the next line mentions it.
    let mut torn: Option<String> = None;
    let mut fault = None;
    for path in files {
        let broken = |error: io::Error| format!("{} cannot be read: {error}", path.display());
        let file = File::open(path).map_err(broken)?;
        let mut number = 0_u64;
        let read = verify::lines(&mut BufReader::new(file), |line, _| {
            number += 1;
            match verifier.line(line) {
                Ok(()) => torn = None,
                Err(Fault::NotALine) if torn.is_none() => {
                    torn = Some(describe(path, number, &Fault::NotALine));
                    verifier.skip(line.len() as u64);
                }
                Err(found) => fault = torn.take().or_else(|| Some(describe(path, number, &found))),
            }
            fault.is_none()
        });
        read.map_err(broken)?;
        if fault.is_some() {
            break;
        }
    }
    if let Some(fault) = fault {
        return Ok((fault, false));
    }
    let is_torn = torn.is_some();
    let summary = verifier.finish();
    let text = conclusion(&summary, torn, is_keyless);
    let ends_well = !is_torn && (summary.is_final || accepted.running);
    let is_proven = (ends_well && summary.interruption.is_none() || accepted.crashes) && summary.missing == 0;
    Ok((text, is_proven))
}

fn describe(path: &Path, line: u64, fault: &Fault) -> String {
    format!("{}:{line} {fault}", path.display())
}

fn conclusion(summary: &Summary, torn: Option<String>, is_keyless: bool) -> String {
    let Summary { first, last, lines, checkpoints, unproven, head, interruption, missing, .. } = summary;
    let mut text =
        format!("{lines} lines follow each other (seq {first} to {last}, {checkpoints} checkpoints)");
    text += &format!("\nhead {head}");
    if *first > 1 {
        text += &format!("\nthe log begins at seq {first}: the lines before it were not given");
    }
    if is_keyless {
        text +=
            "\nsignatures were not checked: give --key-file, or a log that was rewritten as a whole passes";
    }
    if let Some(torn) = torn {
        text += &format!("\n{torn}");
    }
    if let Some(Interruption { seq, unproven, count }) = interruption {
        text += &format!(
            "\n{count} processes started after one that did not stop cleanly, the first at seq {seq}: the {unproven} lines \
             before it may have been altered, and others there may be missing, whatever is signed later"
        );
    }
    if *missing > 0 {
        text += &format!(
            "\n{missing} of the lines that --head demands are not in the log: it was cut or written anew"
        );
    }
    if *lines == 0 {
        text += "\nthe log is empty";
    } else if *unproven > 0 {
        text += &format!(
            "\nthe log ends without a checkpoint: {unproven} lines after the last checkpoint are unproven, and later \
             ones may be missing"
        );
    } else if !summary.is_final {
        text +=
            "\nthe log ends with a checkpoint, but not with that of a clean stop: later lines may be missing";
    } else {
        text += "\nthe log is whole up to the checkpoint of a clean stop; compare its head with that of the last stop, \
                 since a log that was cut at an earlier one looks the same";
    }
    text
}
