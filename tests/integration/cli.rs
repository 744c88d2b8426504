//! The command line of the real binary: its output on stdout and stderr, and its exit codes.

use proxyrunner::internals::config::table;
use std::path::PathBuf;
use std::process::{Command, Output};

/// Runs the binary with only these environment variables.
fn run(args: &[&str], vars: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_proxyrunner"))
        .args(args)
        .env_clear()
        .envs(vars.iter().copied())
        .output()
        .expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// Returns stderr of a run that must print nothing to stdout and exit with the code for bad usage.
fn refused(args: &[&str], vars: &[(&str, &str)]) -> String {
    let output = run(args, vars);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert_eq!(text(&output.stdout), "");
    text(&output.stderr).to_owned()
}

/// Returns stdout of a run that must succeed and print nothing to stderr.
fn answered(args: &[&str], vars: &[(&str, &str)]) -> String {
    let output = run(args, vars);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stderr), "");
    text(&output.stdout).to_owned()
}

fn file(name: &str, content: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, content).expect("a scratch file");
    path
}

#[test]
fn all_invalid_settings_are_reported_together() {
    let path = file("cli-bad.yaml", "sse-max-age: forever\nsse_keep_alive: 1s\n");
    let path = path.to_str().expect("text");
    let told = refused(
        &["--config", path, "--listen", "nowhere", "--children", "0"],
        &[("PROXYRUNNER_SESSION_IDLE", "5 parsecs"), ("PROXYRUNNER_MAX_BODY", "big")],
    );
    let expected = [
        format!("sse_keep_alive: (from {path}, line 2) is not a setting; give sse-keep-alive"),
        "--listen: \"nowhere\" is not an address; give e.g. 127.0.0.1:8080, :8080, [::1]:8080".to_owned(),
        "--max-body: \"big\" (from PROXYRUNNER_MAX_BODY) is not a size; give bytes, or e.g. 16KiB, 16MiB, 1GiB"
            .to_owned(),
        format!(
            "--sse-max-age: \"forever\" (from {path}, line 1) is not a duration; give e.g. 500ms, 30s, 5m, 1h30m"
        ),
        "COMMAND: is missing; give the MCP server to run as the last words, e.g. -- python3 server.py".to_owned(),
        "--children: \"0\" is out of range; give 1 to 1048576".to_owned(),
        "--session-idle: \"5 parsecs\" (from PROXYRUNNER_SESSION_IDLE) is not a duration; \
         give e.g. 500ms, 30s, 5m, 1h30m"
            .to_owned(),
    ];
    let lines: Vec<_> = told.lines().map(|line| line.strip_prefix("proxyrunner: ").expect(line)).collect();
    assert_eq!(lines, expected);
}

#[test]
fn flags_override_the_environment_which_overrides_the_file() {
    let path =
        file("cli-precedence.yaml", "path: /file\nmax-frame: 1KiB\nevict-after: 2m\ncommand: [from, file]\n");
    let vars =
        [("PROXYRUNNER_PATH", "/env"), ("PROXYRUNNER_MAX_FRAME", "2KiB"), ("PROXYRUNNER_EVICT_AFTER", "")];
    let args = ["--check", "--config", path.to_str().expect("text"), "--path", "/flag"];
    let meant = answered(&args, &vars);
    for line in [
        "path: \"/flag\"  # from the command line".to_owned(),
        "max-frame: \"2KiB\"  # from PROXYRUNNER_MAX_FRAME".to_owned(),
        format!("evict-after: \"2m\"  # from {}, line 3", path.display()),
        "at-cap: \"share\"".to_owned(),
        "command: [\"from\",\"file\"]".to_owned(),
    ] {
        assert!(meant.lines().any(|meant| meant == line), "{line}\nis not in\n{meant}");
    }
}

#[test]
fn help_lists_every_flag_with_its_variable_and_default() {
    let help = answered(&["--help"], &[]);
    for setting in table::settings() {
        let flag = format!("      --{}", setting.flag);
        let mut lines = help
            .lines()
            .skip_while(|line| line.strip_prefix(&flag).is_none_or(|rest| !rest.starts_with([' ', '['])));
        assert!(lines.next().is_some(), "{flag} is not in\n{help}");
        let entry: Vec<_> = lines.take_while(|line| !line.is_empty() && !line.contains("  --")).collect();
        let entry = entry.join(" ");
        assert!(entry.contains(&format!("[env: {}]", setting.variable())), "{flag}: {entry}");
        if let Some(default) = setting.default_words() {
            assert!(entry.contains(&format!("[default: {default}]")), "{flag}: {entry}");
        }
    }
}

#[test]
fn version_is_printed_to_stdout() {
    assert_eq!(answered(&["--version"], &[]), concat!("proxyrunner ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_missing_command_is_a_usage_error() {
    for args in [&[][..], &["--"], &["--sse"], &[""]] {
        assert!(refused(args, &[]).contains("COMMAND: is missing"), "{args:?}");
    }
}

#[test]
fn an_unknown_flag_is_a_usage_error_with_a_suggestion() {
    let told = refused(&["--session-idel=5m", "server"], &[]);
    assert!(told.starts_with("proxyrunner: unexpected argument '--session-idel'"), "{told}");
    assert!(told.contains("--session-idle"), "{told}");
}

#[test]
fn an_unreadable_file_is_a_usage_error() {
    let told = refused(&["--config", "no-such-directory/c.yaml", "server"], &[]);
    assert!(told.contains("--config: \"no-such-directory/c.yaml\" cannot be read"), "{told}");
    let broken = file("cli-broken.yaml", "path: /a\nenv: {TOKEN: hunter2\n");
    let told = refused(&["--config", broken.to_str().expect("text"), "server"], &[]);
    assert!(told.contains("is not valid YAML or JSON"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn the_childs_arguments_are_not_interpreted() {
    let meant = answered(&["--check", "server", "--help", "--", "--path", "x", ""], &[]);
    assert!(meant.contains("command: [\"server\",\"--help\",\"--\",\"--path\",\"x\",\"\"]\n"), "{meant}");
}

/// A closed pipe, as in `proxyrunner --help | head -1`, must not cause a panic.
#[test]
fn help_into_a_closed_pipe_does_not_panic() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_proxyrunner"))
        .arg("--help")
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn misspelled_variables_cause_warnings_and_levels_ignore_case() {
    let vars = [
        ("PROXYRUNNER_LISTN", "hunter2"),
        ("PROXYRUNNER_LOG_LEVEL", "INFO"),
        ("PROXYRUNNER_LOG_FORMAT", "Json"),
    ];
    let meant = answered(&["--check", "server"], &vars);
    assert!(
        meant.contains("PROXYRUNNER_LISTN is not a setting and is ignored; did you mean PROXYRUNNER_LISTEN?"),
        "{meant}"
    );
    assert!(meant.contains("log-level: \"info\"") && meant.contains("log-format: \"json\""), "{meant}");
    assert!(!meant.contains("hunter2"), "{meant}");
}
