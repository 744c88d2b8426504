//! `policy check FILES…` and `policy explain`: what policies say, without running a server.

use super::words::parse;
use crate::config::Exit;
use crate::identity::{Identity, Means, Principal};
use crate::policy::{Asker, Explanation, Feature, Hints, Loaded, Outcome, Request, hints_of};
use clap::{Arg, ArgMatches, Command, value_parser};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The methods that policies decide on, and the features that they use.
const METHODS: [(&str, Feature); 3] =
    [("tools/call", Feature::Tool), ("prompts/get", Feature::Prompt), ("resources/read", Feature::Resource)];

pub(super) fn command() -> Command {
    Command::new("policy")
        .about("Check policies, or explain a decision")
        .subcommand_required(true)
        .subcommands([check_command(), explain_command()])
}

fn check_command() -> Command {
    Command::new("check").about("Parse and validate policies: exit code 0, or 1 with every fault").arg(
        Arg::new("files")
            .value_name("FILES")
            .help("Files or directories as for --policy")
            .required(true)
            .num_args(1..)
            .value_parser(value_parser!(PathBuf)),
    )
}

fn explain_command() -> Command {
    let option = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    Command::new("explain")
        .about("Say what would be decided on a request, and by which policies: exit code 0 if it is allowed, else 1")
        .arg(
            option("policy", "PATH")
                .help("File or directory as for --policy")
                .required(true)
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            option("claims", "JSON")
                .help("Claims of the caller, a JSON object with sub, or @FILE")
                .required(true),
        )
        .arg(option("annotations", "JSON").help("Annotations of the tool, a JSON object").default_value("{}"))
        .arg(option("policy-server", "NAME").help("Name of the server as for --policy-server"))
        .arg(
            Arg::new("method")
                .value_name("METHOD")
                .help("Method of the request")
                .required(true)
                .value_parser(METHODS.map(|(method, _)| method)),
        )
        .arg(Arg::new("name").value_name("NAME").help("Name of the tool or prompt, or URI").required(true))
        .arg(Arg::new("arguments").value_name("JSON").help("Arguments, a JSON object").default_value("{}"))
}

pub(super) fn run(words: &[OsString]) -> Result<ExitCode, Exit> {
    let matches = parse("policy", command(), words)?;
    match matches.subcommand() {
        Some(("check", matches)) => check(matches),
        Some(("explain", matches)) => explain(matches),
        _ => Err(Exit::usage("proxyrunner: give check or explain".to_owned())),
    }
}

fn check(matches: &ArgMatches) -> Result<ExitCode, Exit> {
    let mut faults = Vec::new();
    for path in matches.get_many::<PathBuf>("files").into_iter().flatten() {
        match Loaded::read(path, None) {
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    tell(&format!("{}: warning: {warning}", path.display()));
                }
                let policies = if loaded.count() == 1 { "policy" } else { "policies" };
                tell(&format!("{}: {} {policies}", path.display(), loaded.count()));
            }
            Err(found) => faults.extend(found.iter().map(ToString::to_string)),
        }
    }
    if faults.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(Exit::failed(faults.join("\n"))) }
}

fn explain(matches: &ArgMatches) -> Result<ExitCode, Exit> {
    let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let path = matches.get_one::<PathBuf>("policy").cloned().unwrap_or_default();
    let server = matches.get_one::<String>("policy-server").map(String::as_str);
    let loaded = Loaded::read(&path, server).map_err(|faults| {
        Exit::failed(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })?;
    let identity = caller(&text("claims"))?;
    let (name, arguments) = (text("name"), text("arguments"));
    // They are decided on as they are written.
    object("the arguments", &arguments)?;
    let arguments = arguments.trim();
    let tool = json!({"annotations": object("the annotations", &text("annotations"))?}).to_string();
    let method = text("method");
    let feature =
        METHODS.iter().find(|(known, _)| *known == method).map_or(Feature::Tool, |(_, feature)| *feature);
    let hints = match feature {
        Feature::Tool => hints_of(tool.as_bytes(), &(0..tool.len())),
        _ => Hints::default(),
    };
    let request =
        Request { server: None, feature, name: &name, arguments: Some(arguments.as_bytes()), hints };
    let explained = loaded.set.explain(&Asker::new(&identity), &request);
    let explained = explained.map_err(|why| Exit::failed(format!("proxyrunner: {why}")))?;
    tell(shown(&explained).trim_end());
    Ok(if explained.decision.outcome == Outcome::Allow { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes a line to stdout. A reader that has gone, such as `head`, wants no more.
fn tell(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Returns the caller with these claims.
fn caller(given: &str) -> Result<Identity, Exit> {
    let text = match given.strip_prefix('@') {
        Some(file) => fs::read_to_string(Path::new(file))
            .map_err(|error| Exit::failed(format!("proxyrunner: {file} cannot be read: {error}")))?,
        None => given.to_owned(),
    };
    let Value::Object(claims) = object("the claims", &text)? else { unreachable!("checked above") };
    let mut identity = Identity::named(Principal::anonymous(), Means::Token);
    identity.claims = claims;
    Ok(identity)
}

fn object(what: &str, text: &str) -> Result<Value, Exit> {
    serde_json::from_str(text)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| Exit::usage(format!("proxyrunner: {what} are not a JSON object")))
}

fn shown(explained: &Explanation) -> String {
    let decision = &explained.decision;
    let [principal, action, resource] = &explained.request;
    let mut text = decision.outcome.name().to_owned();
    if !decision.policies.is_empty() {
        let _ = write!(text, " by {}", decision.policies.join(", "));
    }
    if !decision.why.is_empty() {
        let _ = write!(text, ": {}", decision.why);
    }
    explained.errors.iter().for_each(|error| text += &format!("\n{error}"));
    let _ = writeln!(text, "\nprincipal: {principal}\naction: {action}\nresource: {resource}");
    for (name, value) in [("context", &explained.context), ("entities", &explained.entities)] {
        let _ = writeln!(text, "{name}: {value:#}");
    }
    text
}
