//! `probe live|ready|startup`: asks a running proxyrunner for its health, for images without curl.

use super::request::{Place, ask};
use super::words::{USUAL, certificate, listens, parse, required, timeout, tls_cert, variable};
use crate::config::{self, Exit};
use crate::telemetry::cut;
use crate::telemetry::logs::escaped;
use bytes::Bytes;
use clap::builder::PossibleValue;
use clap::{Arg, Command};
use http_body_util::Full;
use hyper::Request;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;

/// Maximum length of a shown answer in bytes.
const LONGEST_REASON: usize = 512;

const PROBES: [(&str, &str, &str); 3] = [
    ("live", "/health", "proxyrunner works"),
    ("ready", "/health/ready", "it serves clients"),
    ("startup", "/health/startup", "its server has started"),
];

pub(super) fn command() -> Command {
    let probes = PROBES.map(|(name, _, help)| PossibleValue::new(name).help(help));
    Command::new("probe")
        .about("Check a running proxyrunner: exit code 0, or 1 with the reason")
        .after_help("`proxyrunner probe call TOOL [JSON]` calls a tool.")
        .subcommand_negates_reqs(true)
        .args([
            required("probe", "PROBE", "What to check").value_parser(probes),
            Arg::new("address")
                .long("address")
                .value_name("ADDRESS")
                .help(format!(
                    "Where proxyrunner listens\n[env: PROXYRUNNER_ADMIN_LISTEN, PROXYRUNNER_LISTEN] [default: {USUAL}]"
                ))
                .value_parser(config::listen),
            tls_cert(),
            timeout(),
        ])
}

pub(super) fn run(words: &[OsString]) -> Result<ExitCode, Exit> {
    let matches = parse("probe", command(), words)?;
    let address = match matches.get_one::<SocketAddr>("address") {
        Some(address) => *address,
        None => listens(&["PROXYRUNNER_ADMIN_LISTEN", "PROXYRUNNER_LISTEN"])?,
    };
    let name = matches.get_one::<String>("probe").map(String::as_str).unwrap_or_default();
    let Some((_, path, _)) = PROBES.iter().find(|(probe, ..)| *probe == name) else {
        return Err(Exit::usage("proxyrunner: give a probe: live, ready or startup".to_owned()));
    };
    let request = Request::get(*path).header("host", "localhost").body(Full::new(Bytes::new()));
    let request = request.map_err(|error| Exit::failed(format!("proxyrunner: {error}")))?;
    let patience = matches.get_one("timeout").copied().unwrap_or_default();
    let certificate = certificate(&matches, || {
        let is_given = matches.get_one::<SocketAddr>("address").is_some();
        let listens = || listens(&["PROXYRUNNER_LISTEN"]).ok();
        if is_given { Some(address) == listens() } else { variable("PROXYRUNNER_ADMIN_LISTEN").is_none() }
    });
    let answer = ask(&Place::At(address), certificate.as_deref(), request, patience)
        .map_err(|why| Exit::failed(format!("proxyrunner: not {name}: {why}")))?;
    if answer.status.is_success() {
        return Ok(ExitCode::SUCCESS);
    }
    let text = String::from_utf8_lossy(&answer.body);
    let is_own = text.trim_start().starts_with('{');
    let hint = if is_own { String::new() } else { format!("; is proxyrunner the program at {address}?") };
    let why = format!("{} {}", answer.status.as_u16(), cut(text.trim(), LONGEST_REASON));
    Err(Exit::failed(escaped(&format!("proxyrunner: not {name}: {}{hint}", why.trim())).into_owned()))
}
