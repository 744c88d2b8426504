//! Tests every way in which a setting can be given, and be wrong.

use super::*;
use std::path::Path;

/// A configuration file that is deleted at the end of the test.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("proxyrunner-{}-{name}.yaml", std::process::id()));
        std::fs::write(&path, text).expect("a scratch file");
        Scratch(path)
    }

    fn flag(&self) -> String {
        format!("--config={}", self.0.display())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn load_with(args: &[&str], vars: &[(&str, &str)]) -> Result<Config, Exit> {
    let args = ["proxyrunner"].iter().chain(args).map(OsString::from);
    load(args, vars.iter().map(|(name, value)| (name.into(), value.into())), None)
}

fn loaded(args: &[&str], vars: &[(&str, &str)]) -> Config {
    load_with(args, vars).unwrap_or_else(|exit| panic!("{}", exit.text))
}

fn lines(args: &[&str], vars: &[(&str, &str)]) -> Vec<String> {
    let exit = load_with(args, vars).err().expect("problems");
    assert_eq!(exit.code, Exit::USAGE);
    exit.text.lines().map(str::to_owned).collect()
}

fn check(args: &[&str], vars: &[(&str, &str)]) -> String {
    let exit = load_with(&[&["--check"], args].concat(), vars).err().expect("an answer");
    assert_eq!(exit.code, 0, "{}", exit.text);
    exit.text.to_owned()
}

#[test]
fn defaults() {
    let config = loaded(&["server", "-v"], &[]);
    assert_eq!(config.child.program, "server");
    assert_eq!(config.child.args, ["-v"]);
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.http.sse_commit_after, None);
    assert_eq!(config.upstream.max_in_flight, 4096);
    assert_eq!(config.session.idle, Duration::from_secs(1800));
    assert_eq!(config.max_buffered, 256 << 20);
    assert_eq!(config.drain_delay, Duration::ZERO);
}

#[test]
fn in_kubernetes_draining_waits_for_endpoints_by_default() {
    let kubernetes = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    assert_eq!(loaded(&["server"], &[kubernetes]).drain_delay, Duration::from_secs(5));
    assert_eq!(loaded(&["--drain-delay=0s", "server"], &[kubernetes]).drain_delay, Duration::ZERO);
}

#[test]
fn drain_timeout_defaults_to_the_rest_of_the_platforms_grace() {
    let kubernetes = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    for (args, vars, drain, fits) in [
        (&[][..], &[][..], 3, true),
        (&[], &[kubernetes], 17, true),
        (&["--drain-delay=0s"], &[kubernetes], 22, true),
        (&["--close-grace=10s"], &[kubernetes], 9, true),
        (&["--close-grace=1m"], &[], 1, false),
        (&["--drain-timeout=7s"], &[], 7, false),
    ] {
        let config = loaded(&[args, &["server"]].concat(), vars);
        assert_eq!(config.drain_timeout, Duration::from_secs(drain), "{args:?}");
        assert_eq!(config.warnings.is_empty(), fits, "{args:?}: {:?}", config.warnings);
    }
}

#[test]
fn flags_override_the_environment_and_the_environment_overrides_the_file() {
    let file = Scratch::new(
        "precedence",
        "path: /file\nmax-body: 1KiB\nchildren: 2\nallow-host: [file]\ncommand: [file]\n",
    );
    let vars = [("PROXYRUNNER_PATH", "/env"), ("PROXYRUNNER_MAX_BODY", "2KiB"), ("PROXYRUNNER_CHILDREN", "")];
    let config = loaded(&[&file.flag(), "--path=/flag", "--allow-host=flag"], &vars);
    assert_eq!(config.http.path, "/flag");
    assert_eq!(config.http.max_body, 2048);
    assert_eq!(config.upstream.children, 2);
    assert_eq!(config.http.allow_host, ["flag"]);
    assert_eq!(config.child.program, "file");
    assert_eq!(loaded(&[&file.flag(), "typed"], &[]).child.program, "typed");
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let file = Scratch::new("by-env", "path: /file\n");
    let path = file.0.to_str().expect("text");
    assert_eq!(loaded(&["server"], &[("PROXYRUNNER_CONFIG", path)]).http.path, "/file");
    assert_eq!(loaded(&["server"], &[("PROXYRUNNER_CONFIG", "")]).http.path, "/mcp");
}

#[test]
fn lists_from_the_environment() {
    let vars = [
        ("PROXYRUNNER_ALLOW_ORIGIN", "https://a.example, https://b.example\nhttps://c.example"),
        ("PROXYRUNNER_ENV", "A=1,2\n\nB= x \nHOME"),
        ("HOME", "/root"),
    ];
    let config = loaded(&["server"], &vars);
    assert_eq!(config.http.allow_origin, ["https://a.example", "https://b.example", "https://c.example"]);
    let pair = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
    assert_eq!(config.child.env, [pair("A", "1,2"), pair("B", " x "), pair("HOME", "/root")]);
}

#[test]
fn all_problems_are_reported_at_once_with_flag_source_and_remedy() {
    let file = Scratch::new("bad", "\nmax-frame: huge\nchildren: [1]\n");
    let told = lines(
        &[&file.flag(), "--path", "mcp", "--isolation=none", "--max-sessions=0"],
        &[("PROXYRUNNER_SESSION_IDLE", "5 parsecs")],
    );
    let file = file.0.display();
    assert_eq!(
        told,
        [
            format!("proxyrunner: children: (from {file}, line 3) is not a single value; give one COUNT"),
            "proxyrunner: --path: \"mcp\" does not begin with a slash; give e.g. /mcp".into(),
            "proxyrunner: COMMAND: is missing; give the MCP server to run, e.g. proxyrunner python3 server.py".into(),
            format!(
                "proxyrunner: --max-frame: \"huge\" (from {file}, line 2) is not a size; \
                 give bytes, or e.g. 16KiB, 16MiB, 1GiB"
            ),
            "proxyrunner: --isolation: \"none\" is not one of its values; give auto, shared, session".into(),
            "proxyrunner: --session-idle: \"5 parsecs\" (from PROXYRUNNER_SESSION_IDLE) is not a duration; \
             give e.g. 500ms, 30s, 5m, 1h30m"
                .into(),
            "proxyrunner: --max-sessions: \"0\" is out of range; give 1 to 1048576".into(),
        ]
    );
}

#[test]
fn messages_take_at_most_two_fifths_of_the_memory() {
    let with = |args: &[&str], memory: u64| {
        let args = ["proxyrunner"].iter().chain(args).chain(&["server"]).map(OsString::from);
        let config = load(args, [], Some(memory)).unwrap_or_else(|exit| panic!("{}", exit.text));
        (config.max_buffered, config.http.max_body, config.child.max_frame, config.session.replay_bytes)
    };
    let mebibytes =
        |[all, body, frame, replay]: [usize; 4]| (all << 20, body << 20, frame << 20, replay << 20);
    assert_eq!(with(&[], 4 << 30), mebibytes([256, 64, 64, 4]));
    assert_eq!(with(&[], 320 << 20), mebibytes([128, 64, 64, 4]));
    // No single message may be longer than the limit on all of them.
    assert_eq!(with(&[], 50 << 20), mebibytes([20, 20, 20, 4]));
    assert_eq!(with(&[], 1), mebibytes([1, 1, 1, 1]));
    assert_eq!(with(&["--max-buffered=2MiB"], 4 << 30), mebibytes([2, 2, 2, 2]));
    assert_eq!(with(&["--max-buffered=64MiB", "--max-body=32MiB"], 1), mebibytes([64, 32, 64, 4]));
}

#[test]
fn settings_that_contradict_each_other_are_reported() {
    let told = lines(&["--children=9", "--max-children=8", "--max-body=2GiB", "server"], &[]);
    assert_eq!(
        told,
        [
            "proxyrunner: --children: is more than --max-children; give at most 8",
            "proxyrunner: --max-body: is more than --max-buffered; give at most 268435456 bytes",
        ]
    );
    assert_eq!(
        lines(&["--request-timeout=2h", "server"], &[]),
        ["proxyrunner: --request-timeout: is more than --request-max; raise --request-max"]
    );
    // The default that replaces a bad setting is not compared with other settings.
    assert_eq!(lines(&["--children=50", "--max-children=many", "server"], &[]).len(), 1);
}

#[test]
fn a_variables_value_is_never_shown() {
    let args = ["--env", "hunter2", "--env", "=hunter2", "--env", "A=hunter2", "server"];
    let told = lines(&args, &[]);
    assert_eq!(told.len(), 2);
    assert!(!told.concat().contains("hunter2"), "{told:?}");
    let shown = check(&args[4..], &[]);
    assert!(shown.contains("env: [\"A=<redacted>\"]"), "{shown}");
}

/// A file can contain a NUL, and spawning would only fail later.
#[test]
fn a_nul_in_the_command_or_a_variable_is_a_problem() {
    let file = Scratch::new("nul", "command: [\"a\\0b\"]\nenv: {A: \"hunter\\0two\"}\n");
    let told = lines(&[&file.flag()], &[]);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("COMMAND: contains a NUL byte"), "{told:?}");
    assert!(told[1].contains("line 2) item 1 contains a NUL byte"), "{told:?}");
}

#[test]
fn an_unreadable_file_is_reported_with_the_other_problems() {
    let missing = Path::new("no-such-directory").join("c.yaml");
    let told = lines(&["--config", missing.to_str().expect("text"), "--sse=maybe"], &[]);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("proxyrunner: --config: \"no-such-directory/c.yaml\" cannot be read: "));
}

#[test]
fn check_shows_every_setting_once_with_its_source() {
    let shown = check(&["--path=/p", "server"], &[("PROXYRUNNER_SSE", "on")]);
    for setting in table::settings().filter(|setting| !table::NOT_IN_FILE.contains(&setting.flag)) {
        let key = format!("{}: ", setting.flag);
        assert_eq!(shown.lines().filter(|line| line.starts_with(&key)).count(), 1, "{key}\n{shown}");
    }
    assert!(shown.contains("path: \"/p\"  # from the command line\n"), "{shown}");
    assert!(shown.contains("sse: true  # from PROXYRUNNER_SSE\n"), "{shown}");
    assert!(shown.contains("sse-commit-after: null  # default: 5s; 250ms for 2025-11-25\n"), "{shown}");
}

#[test]
fn the_output_of_check_is_an_equivalent_configuration_file() {
    let without_sources = |text: String| -> Vec<String> {
        text.lines().map(|line| line.split("  # ").next().unwrap_or_default().to_owned()).collect()
    };
    let args = [
        "--listen=:80",
        "--max-body=1500",
        "--sse-commit-after=0s",
        "--evict-after=90s",
        "--allow-host=A.example",
        "--principal-header=X-User",
        "--log-level=off",
        "--forward-roots",
        "--at-cap=refuse",
        "--",
        "a \"b\"",
        "--c: #d",
    ];
    let shown = check(&args, &[]);
    let file = Scratch::new("again", &shown);
    assert_eq!(without_sources(check(&[&file.flag()], &[])), without_sources(shown));
}
