//! Tests every way in which a setting can be given, and be wrong.

use super::*;
use crate::auth::{Algorithm, KeySource, TokenType};
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
    let args = ["proxyrunner"].iter().chain(args).map(OsString::from).collect();
    load(args, vars.iter().map(|(name, value)| (name.into(), value.into())).collect(), None)
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
            "proxyrunner: COMMAND: is missing; give the MCP server to run as the last words, e.g. -- python3 server.py".into(),
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
        let config =
            load(args.collect(), Vec::new(), Some(memory)).unwrap_or_else(|exit| panic!("{}", exit.text));
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
    assert_eq!(told.len(), 2, "the file may name a command: {told:?}");
    assert!(told[0].starts_with("proxyrunner: --config: \"no-such-directory/c.yaml\" cannot be read: "));
    assert!(told[1].starts_with("proxyrunner: --sse: "), "{told:?}");
    let malformed = Scratch::new("malformed", "a: [");
    assert_eq!(lines(&[&malformed.flag()], &[]).len(), 1);
    let read = Scratch::new("read", "children: x\n");
    let told = lines(&[&read.flag()], &[]);
    assert!(told.iter().any(|line| line.contains("COMMAND: is missing")), "{told:?}");
}

#[test]
fn check_shows_every_setting_once_with_its_source() {
    let shown = check(&["--path=/p", "server"], &[("PROXYRUNNER_SSE", "on")]);
    for setting in table::settings().filter(|setting| !table::NOT_IN_FILE.contains(&setting.flag)) {
        let key = format!("{}: ", setting.flag);
        let count = shown.lines().filter(|line| line.trim_start_matches("# ").starts_with(&key)).count();
        assert_eq!(count, 1, "{key}\n{shown}");
    }
    assert!(shown.contains("path: \"/p\"  # from the command line\n"), "{shown}");
    assert!(shown.contains("sse: true  # from PROXYRUNNER_SSE\n"), "{shown}");
    assert!(shown.contains("# sse-commit-after: null  # default: 5s; 250ms for 2025-11-25\n"), "{shown}");
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

/// A key set of one key.
const KEYS: &str =
    r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}"#;

#[test]
fn settings_that_have_no_effect_alone_are_refused() {
    let (keys, secret) =
        (Scratch::new("alone", KEYS), Scratch::new("alone-secret", "0123456789abcdef0123456789abcdef"));
    let (keys, secret) = (keys.0.display(), secret.0.display());
    for (flag, needs) in [
        ("--auth-audience=a".to_owned(), "without --auth-issuer or --auth-introspection"),
        ("--auth-scopes=a".to_owned(), "without --auth-issuer or --auth-introspection or --api-keys"),
        (format!("--auth-jwks={keys}"), "without --auth-issuer"),
        ("--require-keys-at-start".to_owned(), "without --auth-issuer"),
        ("--auth-keys-max-age=1h".to_owned(), "without --auth-issuer"),
        ("--auth-resource=https://a.example".to_owned(), "without --auth-issuer"),
        ("--tls-client-name=dns".to_owned(), "without --tls-client-ca"),
        ("--policy-server=a".to_owned(), "without --policy or --policy-url"),
        ("--policy-timeout=1s".to_owned(), "without --policy-url"),
        ("--audit-on-failure=block".to_owned(), "without --audit"),
        (format!("--audit-key-file={secret}"), "without --audit"),
        ("--on-env-change=ignore".to_owned(), "without --env-file"),
    ] {
        let told = lines(&[&flag, "server"], &[]);
        assert!(told.len() == 1 && told[0].contains(needs), "{flag}: {told:?}");
    }
    let told = lines(&["server"], &[("PROXYRUNNER_AUTH_AUDIENCE", "a"), ("PROXYRUNNER_AUTH_ISSUER", "")]);
    assert!(told[0].contains("(from PROXYRUNNER_AUTH_AUDIENCE) has no effect"), "{told:?}");
    loaded(
        &["--policy-timeout=2s", "--audit-on-failure=deny", "--require-keys-at-start=false", "server"],
        &[],
    );
}

#[test]
fn a_setting_without_a_value_in_a_file_is_refused() {
    let file = Scratch::new(
        "empty",
        "api-keys:\nlisten: ~\nauth-issuer: []\nauth-scopes: []\nallow-host: []\ncommand: [server]\n",
    );
    let told = lines(&[&file.flag()], &[]);
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told.iter().all(|line| line.contains("has no value; give one, or remove the line")), "{told:?}");
}

#[test]
fn files_of_authentication_are_read_before_the_start() {
    let bad = Scratch::new("bad", "- {}\n");
    let (path, audience) = (bad.0.display(), "--auth-audience=a");
    for (args, told) in [
        (vec![format!("--api-keys={path}")], "--api-keys: "),
        (
            vec![format!("--auth-issuer=https://a.example jwks={path}"), audience.into()],
            "(jwks) is no key set",
        ),
        (
            vec![format!("--auth-issuer=https://a.example ca={path}"), audience.into()],
            "(ca) is unusable: there is no cert",
        ),
        (
            vec!["--auth-issuer=https://a.example token-file=/nonexistent".into(), audience.into()],
            "\"/nonexistent\" (token-file) is unusable",
        ),
        (
            vec!["--auth-introspection=https://a.example client=c secret=hunter2".into(), audience.into()],
            "--auth-introspection: (secret) is unusable: No such file",
        ),
        (
            vec![format!("--auth-ca={path}"), "--auth-issuer=https://a.example".into(), audience.into()],
            "--auth-ca: ",
        ),
        (vec!["--audit=/nonexistent/audit.log".into()], "is in /nonexistent, which is no directory"),
        (vec!["--audit=/tmp".into()], "is a directory"),
        (vec!["--tls-cert=/tmp".into(), format!("--tls-key={path}")], "--tls-cert: \"/tmp\" is a directory"),
    ] {
        let args: Vec<_> = args.iter().map(String::as_str).chain(["server"]).collect();
        let lines = lines(&args, &[]);
        assert!(lines.len() == 1 && lines[0].contains(told), "{lines:?} instead of {told}");
        assert!(!lines[0].contains("hunter2"), "{lines:?}");
    }
}

#[test]
fn tokens_need_an_issuer_and_an_audience() {
    let (keys, own) = (Scratch::new("keys", KEYS), Scratch::new("own-keys", KEYS));
    let config = loaded(
        &[
            "--auth-issuer=https://a.example typ=jwt",
            &format!("--auth-issuer=https://b.example algorithms=ES256 jwks={}", own.0.display()),
            &format!("--auth-jwks={}", keys.0.display()),
            "--auth-algorithms=RS256",
            "--auth-scopes=call",
            "server",
        ],
        &[("PROXYRUNNER_AUTH_AUDIENCE", "https://mcp.example/mcp, mcp")],
    );
    let [a, b] = &config.auth.issuers[..] else { panic!("{:?}", config.auth) };
    assert_eq!(
        (a.keys.clone(), b.keys.clone()),
        (KeySource::File(keys.0.clone()), KeySource::File(own.0.clone()))
    );
    assert_eq!(
        (a.algorithms.as_slice(), b.algorithms.as_slice()),
        (&[Algorithm::Rs256][..], &[Algorithm::Es256][..])
    );
    assert_eq!((a.token_type, b.token_type), (TokenType::Jwt, TokenType::AccessToken));
    assert_eq!(config.auth.audiences, ["https://mcp.example/mcp", "mcp"]);
    assert_eq!(config.http.auth.issuers, ["https://a.example", "https://b.example"]);
    assert_eq!(config.http.auth.scopes, ["call"]);
    assert_eq!(config.auth.claims.scope, ["scope", "scp"]);
    let config = loaded(&["--auth-issuer=http://localhost:1", "--auth-audience=a", "server"], &[]);
    assert_eq!(config.auth.issuers[0].keys, KeySource::Discovery);
    assert_eq!(config.auth.issuers[0].algorithms, Algorithm::ALL);
    assert!(!loaded(&["server"], &[]).auth.is_used());
}

#[test]
fn settings_of_tokens_are_checked_together() {
    let audience = "--auth-audience=a";
    let (secret, keys) = (Scratch::new("secret", "s"), Scratch::new("one-set", KEYS));
    let opaque = format!("--auth-introspection=https://a.example client=c secret={}", secret.0.display());
    let (opaque, keys) = (opaque.as_str(), &*format!("--auth-jwks={}", keys.0.display()));
    for (args, why) in [
        (&["--auth-issuer=https://a.example"][..], "--auth-issuer: needs --auth-audience"),
        (&[opaque], "--auth-introspection: needs --auth-audience"),
        (&["--auth-issuer=https://a.example", "--auth-issuer=https://a.example", audience], "is given twice"),
        (
            &["--auth-issuer=https://a.example", "--auth-issuer=https://b.example", keys, audience],
            "--auth-jwks: is for one issuer",
        ),
        (&["--auth-issuer=http://a.example", audience], "\"http://a.example\" is a plain http URL"),
        (
            &["--auth-issuer=https://a.example jwks=http://b.example/k", audience],
            "\"http://b.example/k\" is a plain",
        ),
        (&["--api-keys=/does/not/exist"], "--api-keys: \"/does/not/exist\" is not a file"),
    ] {
        let lines = lines(&[args, &["server"]].concat(), &[]);
        assert!(lines.len() == 1 && lines[0].contains(why), "{lines:?}");
    }
    let args = ["--auth-issuer=http://a.example", audience, "--auth-insecure-http", "server"];
    assert!(loaded(&args, &[]).auth.issuers[0].insecure);
    let config = loaded(&["--auth-issuer=https://a.example", opaque, audience, "server"], &[]);
    assert_eq!(config.auth.introspection.expect("set").issuer, "https://a.example");
    let config = loaded(&[opaque, audience, "server"], &[]);
    assert_eq!(config.auth.introspection.expect("set").issuer, "https://a.example");
}
