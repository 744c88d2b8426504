//! The command line, built from the table of settings and parsed by clap.
//!
//! Values stay unparsed here. clap sees neither the environment nor the defaults, so its result is the command
//! line alone and `reader` decides precedence in one place.

use super::exit::Exit;
use super::table::{Arity, SETTINGS, Setting, settings};
use clap::{Arg, ArgAction, Command};
use std::collections::HashMap;
use std::ffi::OsString;

/// What proxyrunner runs as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// In front of one stdio server.
    #[default]
    Sidecar,
    /// In front of many servers (`proxyrunner gateway`).
    Gateway,
}

/// The word that makes proxyrunner a gateway.
pub(super) const GATEWAY: &str = "gateway";

/// The parsed command line.
#[derive(Debug, Default)]
pub(super) struct Typed {
    /// Values by flag; flags that were not given are absent.
    pub(super) values: HashMap<&'static str, Vec<OsString>>,
    /// COMMAND and its arguments; empty if none was given.
    pub(super) command: Vec<OsString>,
    /// The file of `-f`.
    pub(super) local: Option<OsString>,
    /// What proxyrunner runs as.
    pub(super) mode: Mode,
}

/// Parses the command line, whose first word is the program's name.
///
/// # Errors
/// Returns an [`Exit`] for `--help`, for `--version` and for usage errors such as an unknown flag.
pub(super) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Typed, Exit> {
    let mut args: Vec<_> = args.into_iter().collect();
    let mode = if args.get(1).is_some_and(|word| word == GATEWAY) { Mode::Gateway } else { Mode::Sidecar };
    let mut command = command();
    if mode == Mode::Gateway {
        args.remove(1);
        command = command.override_usage("proxyrunner gateway [--servers FILE] [--register URL] [OPTIONS]");
    }
    let mut matches = command.try_get_matches_from(args).map_err(|error| Exit::of_clap(&error))?;
    let values = settings()
        .filter_map(|setting| Some((setting.flag, matches.remove_many(setting.flag)?.collect())))
        .collect();
    let command = matches.remove_many("command").map(Iterator::collect).unwrap_or_default();
    let local = matches.remove_one("local");
    Ok(Typed { values, command, local, mode })
}

/// Returns the command line for a server.
pub(super) fn command() -> Command {
    let groups = SETTINGS
        .iter()
        .flat_map(|group| group.settings.iter().map(|setting| flag(setting).help_heading(group.title)));
    Command::new("proxyrunner")
        .version(env!("CARGO_PKG_VERSION"))
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .override_usage("proxyrunner [OPTIONS] [--] COMMAND [ARGS]...")
        .after_help(
            "Own commands: gateway, connect, probe, probe call, inject, shim, policy, audit, key, completions, man (proxyrunner COMMAND --help). \
             A server with such a name is started by proxyrunner -- NAME. --copy-self PATH writes this program to a file.\n\
             Sizes: bytes, or 16KiB, 16MiB, 1GiB. Durations: 500ms, 30s, 5m, 1h30m, 7d.\n\
             Flags override environment variables, which override the file of --config.",
        )
        .next_line_help(true)
        .max_term_width(110)
        // An image's ENTRYPOINT may set a flag that its user sets again. The last value wins.
        .args_override_self(true)
        .args(groups)
        .arg(local())
        .arg(child_command())
}

/// Returns the flag by which the operator kmcp names its file. It has no variable, and no long form.
fn local() -> Arg {
    Arg::new("local")
        .short('f')
        .value_name("FILE")
        .help("Run the stdio server of a local.yaml that the operator kmcp wrote")
        .help_heading("Configuration")
        .value_parser(clap::value_parser!(OsString))
}

/// Returns the argument that takes COMMAND and every word after it, flags included.
fn child_command() -> Arg {
    Arg::new("command")
        .value_name("COMMAND")
        .help("Program of the stdio MCP server, followed by its arguments")
        .value_parser(clap::value_parser!(OsString))
        .num_args(0..)
        .trailing_var_arg(true)
}

/// Returns the option of a setting.
pub(super) fn flag(setting: &'static Setting) -> Arg {
    let mut notes = vec![format!("env: {}", setting.variable())];
    if let Some(default) = setting.default_words() {
        notes.push(format!("default: {default}"));
    }
    if matches!(setting.arity, Arity::Many { .. }) {
        notes.push("may repeat".to_owned());
    }
    let arg = Arg::new(setting.flag)
        .long(setting.flag)
        .value_name(setting.value)
        .help(format!("{}\n[{}]", setting.help, notes.join("] [")))
        .value_parser(clap::value_parser!(OsString));
    match setting.arity {
        Arity::One => arg.action(ArgAction::Set),
        Arity::Many { .. } => arg.action(ArgAction::Append),
        Arity::Switch => {
            arg.action(ArgAction::Set).num_args(0..=1).require_equals(true).default_missing_value("true")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(args: &[&str]) -> Typed {
        let args = ["proxyrunner"].iter().chain(args).map(OsString::from);
        parse(args).unwrap_or_else(|exit| panic!("{exit:?}"))
    }

    fn refused(args: &[&str]) -> String {
        let args = ["proxyrunner"].iter().chain(args).map(OsString::from);
        format!("{:?}", parse(args).expect_err("a usage error"))
    }

    #[test]
    fn clap_accepts_the_table() {
        command().debug_assert();
    }

    #[test]
    fn everything_after_the_command_is_the_childs() {
        for separator in [&["--sse"][..], &["--sse", "--"]] {
            let typed = typed(&[separator, &["python3", "-u", "--listen", "x", "--", "--help"]].concat());
            assert_eq!(typed.command, ["python3", "-u", "--listen", "x", "--", "--help"]);
            assert_eq!(typed.values.len(), 1);
        }
    }

    #[test]
    fn a_command_may_begin_with_a_hyphen_after_the_separator() {
        assert_eq!(typed(&["--", "--odd"]).command, ["--odd"]);
    }

    #[test]
    fn a_misspelled_flag_is_not_parsed_as_the_command() {
        assert!(refused(&["--session-idel", "5m", "python3"]).contains("--session-idle"));
    }

    #[test]
    fn the_value_of_a_misspelled_flag_is_not_shown() {
        assert!(!refused(&["--enw=TOKEN=hunter2", "python3"]).contains("hunter2"));
    }

    #[test]
    fn the_last_value_wins_and_lists_grow() {
        let typed =
            typed(&["--path", "/a", "--path", "/b", "--allow-host", "a", "--allow-host", "b", "server"]);
        assert_eq!(typed.values["path"], ["/b"]);
        assert_eq!(typed.values["allow-host"], ["a", "b"]);
    }

    #[test]
    fn a_switch_takes_its_value_only_after_an_equals_sign() {
        let typed = typed(&["--sse", "--env-clear=false", "server"]);
        assert_eq!(typed.values["sse"], ["true"]);
        assert_eq!(typed.values["env-clear"], ["false"]);
        assert_eq!(typed.command, ["server"]);
    }
}
