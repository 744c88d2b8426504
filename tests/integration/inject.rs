//! `proxyrunner inject` and `-f` of the real binary: output, errors and exit codes.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const DEPLOYMENT: &str = r#"# The server.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: weather
spec:
  replicas: 2
  selector: {matchLabels: {app: weather}}
  template:
    metadata: {labels: {app: weather}}
    spec:
      containers:
      - name: server
        image: weather:1
        command: [python3]
        args: [server.py, "007"]
"#;
const SERVICE: &str = "---\napiVersion: v1\nkind: Service   # as it was\nmetadata: {name: &n weather}\nspec: {selector: {app: *n}}\n";
const LOCAL: &str = r#"config: {}
binds:
- port: 3000
  listeners:
  - name: default
    protocol: HTTP
    routes:
    - name: mcp
      matches:
      - path: {pathPrefix: /sse}
      - path: {pathPrefix: /mcp}
      backends:
      - weight: 100
        mcp:
          targets:
          - name: weather
            stdio: {cmd: python3, args: [server.py], env: {TOKEN: hunter2}}
"#;

/// Runs the binary with an empty environment.
fn run(args: &[&str], stdin: &str) -> Output {
    let mut process = Command::new(env!("CARGO_BIN_EXE_proxyrunner"))
        .args(args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    // It may have ended without reading.
    let _ = process.stdin.take().expect("a pipe").write_all(stdin.as_bytes());
    process.wait_with_output().expect("an exit")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// Returns stdout of a run that must succeed and print nothing to stderr.
fn printed(args: &[&str], stdin: &str) -> String {
    let output = run(args, stdin);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    text(&output.stdout).to_owned()
}

/// Returns stderr of a run that must fail with a code and print nothing to stdout.
fn refused(code: i32, args: &[&str], stdin: &str) -> String {
    let output = run(args, stdin);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(code), ""), "{}", text(&output.stderr));
    text(&output.stderr).to_owned()
}

fn file(name: &str, content: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, content).expect("a scratch file");
    path
}

#[test]
fn a_file_or_stdin_is_printed_with_the_wrapper() {
    let stream = format!("{DEPLOYMENT}{SERVICE}");
    let from_stdin = printed(&["inject"], &stream);
    assert!(from_stdin.starts_with("# The server.\napiVersion: apps/v1\n"), "{from_stdin}");
    assert!(from_stdin.ends_with(SERVICE), "{from_stdin}");
    for part in ["--copy-self", "        - \"007\"\n", "path: /health/startup", "  replicas: 2\n"] {
        assert!(from_stdin.contains(part), "{part}\nis not in\n{from_stdin}");
    }
    let path = file("inject.yaml", &stream);
    let path = path.to_str().expect("text");
    assert_eq!(printed(&["inject", "-f", path], ""), from_stdin);
    assert_eq!(printed(&["inject", "-f", "-"], &stream), from_stdin);
    assert_eq!(printed(&["inject"], &from_stdin), from_stdin, "injected documents are unchanged");
}

#[test]
fn options_choose_image_mode_port_and_command() {
    let bare = DEPLOYMENT.replace("        command: [python3]\n", "");
    let args =
        ["inject", "--image", "own:2", "--mode", "image-volume", "--port", "9000", "--command", "uv run"];
    let out = printed(&args, &bare);
    for part in ["reference: own:2\n", "containerPort: 9000\n", "- uv\n        - run\n        args:\n"] {
        assert!(out.contains(part), "{part}\nis not in\n{out}");
    }
    assert!(!out.contains("initContainers"), "{out}");
}

#[test]
fn refused_manifests_are_named_and_nothing_is_printed() {
    let two = DEPLOYMENT.replace("      - name: server\n", "      - {name: log}\n      - name: server\n");
    let told = refused(65, &["inject"], &two);
    assert!(told.starts_with(
        "proxyrunner: inject: stdin: line 1: Deployment \"weather\" has 2 containers (log, server)"
    ));
    let told = refused(65, &["inject"], &SERVICE.replace("Service ", "DaemonSet "));
    assert!(told.contains("contains nothing to inject, only DaemonSet (v1)"), "{told}");
    let bare = DEPLOYMENT.replace("        command: [python3]\n", "");
    assert!(refused(65, &["inject"], &bare).contains("entry point is not inherited"));
    let anchored = DEPLOYMENT.replace("name: weather\n", "name: &a weather\n");
    assert!(refused(65, &["inject"], &anchored).contains("contains an anchor in line 5"));
    // All problems of a stream are reported together.
    let told = refused(65, &["inject"], &format!("{two}---\n{bare}"));
    assert_eq!(told.lines().count(), 2, "{told}");
}

#[test]
fn bad_options_are_usage_errors_and_help_is_none() {
    assert!(refused(64, &["inject", "--imgae", "x"], "").contains("--image"));
    assert!(refused(64, &["inject", "-f", "no/such/file"], "").contains("cannot be read"));
    assert!(printed(&["inject", "--help"], "").contains("comments are lost"));
    // Only the first word is a command of proxyrunner's own.
    let shown = printed(&["--check", "--", "inject"], "");
    assert!(shown.contains("command: [\"inject\"]"), "{shown}");
}

#[test]
fn a_server_of_toolhive_becomes_objects() {
    let server =
        "apiVersion: toolhive.stacklok.io/v1alpha1\nkind: MCPServer\nmetadata: {name: a}\nspec: {image: i}\n";
    let out = printed(&["inject", "--command", "/server"], server);
    assert_eq!(out.matches("---\n").count(), 5, "{out}");
    assert_eq!(printed(&["inject"], &out), out);
    let told = refused(
        65,
        &["inject", "--command", "/server"],
        &server.replace("{image: i}", "{image: i, audit: {enabled: true}, x: 1}"),
    );
    assert!(told.contains("MCPServer \"a\": spec.audit is") && told.contains(": spec.x is"), "{told}");
}

#[test]
fn the_file_of_kmcp_gives_listener_command_and_variables() {
    let path = file("local.yaml", LOCAL);
    let shown = printed(&["-f", path.to_str().expect("text"), "--check"], "");
    for line in ["listen: \"[::]:3000\"", "sse: true", "path: \"/mcp\"", "env: [\"TOKEN=<redacted>\"]"] {
        assert!(shown.contains(line), "{line}\nis not in\n{shown}");
    }
    assert!(shown.contains("command: [\"python3\",\"server.py\"]"), "{shown}");
}

#[test]
fn other_files_than_those_of_kmcp_are_refused_by_name() {
    let path = file("local-sse.yaml", &LOCAL.replace("stdio: {cmd", "openapi: {cmd"));
    let told = refused(64, &["-f", path.to_str().expect("text")], "");
    assert!(told.contains("targets[0].openapi: ") && told.contains("is not supported"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
    assert!(!told.contains("COMMAND"), "the file may name it: {told}");
    let settings = file("settings.yaml", "children: 2\n");
    let told = refused(64, &["-f", settings.to_str().expect("text"), "x"], "");
    assert!(told.contains("-f: binds: ") && told.contains("--config"), "{told}");
    let both = ["-f", path.to_str().expect("text"), "--config", settings.to_str().expect("text"), "x"];
    assert!(refused(64, &both, "").contains("-f, --config: are given together"));
}

#[test]
fn the_deployment_of_the_page_is_injected() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/inject.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let (_, rest) = page.split_once("```yaml\n").expect("an example");
    let (example, _) = rest.split_once("```\n").expect("its end");
    let out = printed(&["inject"], example);
    assert!(out.contains("- --copy-self\n") && out.contains("- python3\n        - server.py\n"), "{out}");
}
