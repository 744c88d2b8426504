//! Secrets that change while proxyrunner runs: the state key and the child's variables from files.

use crate::support::modern::{Asked, result};
use crate::support::{Journal, Server, lives, scratch, until};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const SOON: &str = "--reload-interval 50ms";

/// A folder as Kubernetes mounts a secret: its files are links into the folder to which `..data` links.
struct Secret {
    folder: PathBuf,
    generation: AtomicUsize,
}

impl Secret {
    fn new(files: &[(&str, &str)]) -> Secret {
        let folder = scratch("secret");
        std::fs::create_dir(&folder).expect("a folder");
        let secret = Secret { folder, generation: AtomicUsize::new(0) };
        secret.set(files);
        secret
    }

    fn set(&self, files: &[(&str, &str)]) {
        let generation = format!("..{}", self.generation.fetch_add(1, Ordering::Relaxed));
        let inner = self.folder.join(&generation);
        std::fs::create_dir(&inner).expect("a folder");
        for (name, text) in files {
            std::fs::write(inner.join(name), text).expect("a file");
            let _ = symlink(Path::new("..data").join(name), self.folder.join(name));
        }
        let next = self.folder.join("..next");
        symlink(generation, &next).expect("a link");
        std::fs::rename(next, self.folder.join("..data")).expect("a link");
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn question() -> Value {
    let params = json!({"message": "m", "requestedSchema": {"type": "object", "properties": {}}});
    json!({"method": "elicitation/create", "params": params})
}

#[test]
fn a_parked_call_survives_the_rotation_of_the_state_key() {
    let (old, new) = ("o".repeat(64), "n".repeat(64));
    let secret = Secret::new(&[("key", &old)]);
    let flags = format!("{SOON} --principal-header x-user --state-key-file {}", secret.path("key"));
    let server = Server::start(&flags);
    let client = server.asked().of("ann");
    let begun = || Asked::of(&client.call("ask", question()));
    let heard =
        |asked: &Asked| client.retry("ask", question(), asked, asked.all(&json!({"action": "decline"})));
    let (first, second) = (begun(), begun());
    secret.set(&[("key", &format!("{new}\n{old}\n"))]);
    server.until_logged("the state key has changed");
    assert_eq!(result(&heard(&first))["answers"][0]["result"]["action"], "decline");
    let third = begun();
    secret.set(&[("key", "short")]);
    server.until_logged("--state-key-file has changed, but is unusable: the file is shorter than 32 bytes");
    server.until_metric(r#"proxyrunner_failed_reloads_total{file="state_key"}"#, 1);
    let fourth = begun();
    secret.set(&[("key", &new)]);
    until("the old key is gone", || server.logged().matches("the state key has changed").count() == 2);
    assert_eq!(heard(&second).code(), -32602, "the key that sealed it is gone");
    for asked in [third, fourth] {
        assert_eq!(result(&heard(&asked))["answers"][0]["result"]["action"], "decline");
    }
    for key in [&old, &new] {
        assert!(!server.logged().contains(&**key), "a key was logged");
    }
}

fn variable(facts: &Value) -> String {
    let env = if facts["env"].is_object() { &facts["env"] } else { &facts["structuredContent"]["env"] };
    env["TOKEN"].as_str().unwrap_or("none").to_owned()
}

#[test]
fn variables_come_from_files_and_folders() {
    let secret = Secret::new(&[("TOKEN", "hunter2\n"), ("A", "folder")]);
    let lines = scratch("env");
    std::fs::write(&lines, "# a comment\nA=lines\nB=x=y\nC=file\n").expect("a file");
    let flags = format!("--env C=flag --env-file {} --env-file {}", secret.folder.display(), lines.display());
    let server = Server::start(&flags);
    let facts = server.session().result("facts", json!({}));
    let found = ["TOKEN", "A", "B", "C"].map(|name| facts["env"][name].clone());
    assert_eq!(found, ["hunter2", "lines", "x=y", "flag"]);
    assert!(!server.logged().contains("hunter2"));
}

#[test]
fn files_that_are_missing_or_malformed_at_the_start_are_one_clear_error() {
    let lines = scratch("env");
    std::fs::write(&lines, "A=1\nhunter2\n").expect("a file");
    let missing = scratch("missing");
    for (path, reason) in [
        (&missing, format!("is unusable: cannot read {}: No such file", missing.display())),
        (&lines, format!("is unusable: {}, line 2, is not NAME=VALUE", lines.display())),
    ] {
        let (status, log) = Server::with().flags(&format!("--env-file {}", path.display())).run();
        assert_eq!((status.code(), log.lines().count()), (Some(64), 1), "{log}");
        assert!(log.contains(&reason) && !log.contains("hunter2"), "{log}");
    }
}

/// Calls tools in a loop until told to stop; panics when a call is lost.
fn load(server: &Server, done: &AtomicBool) -> usize {
    let session = server.opening().header("X-User", "ann").open();
    let modern = server.modern().of("bob");
    let mut calls = 0;
    while !done.load(Ordering::Relaxed) {
        for ms in [0, 30] {
            assert_eq!(session.result("sleep", json!({"ms": ms}))["ms"], ms);
            assert_eq!(modern.result("sleep", json!({"ms": ms}))["ms"], ms);
            calls += 2;
        }
    }
    calls
}

#[test]
fn changed_variables_reach_running_children_without_a_lost_call() {
    let secret = Secret::new(&[("TOKEN", "one")]);
    let journal = Journal::new();
    let flags =
        format!("{SOON} --principal-header x-user --children 2 --env-file {}", secret.folder.display());
    let server = Server::with().flags(&flags).child(&journal.flag()).start();
    let session = server.opening().header("X-User", "ann").open();
    let before = session.result("facts", json!({}));
    assert_eq!(variable(&before), "one");
    let held = session.begin_call(7, "wait", json!({"name": "held"}));
    let serving = journal.until_called("wait").pid;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..2).map(|_| scope.spawn(|| load(&server, &done))).collect();
        secret.set(&[("TOKEN", "two")]);
        until("the next child serves", || variable(&session.result("facts", json!({}))) == "two");
        server.until_metric("proxyrunner_started_children_total", 4);
        done.store(true, Ordering::Relaxed);
        for client in clients {
            assert!(client.join().expect("no call was lost") > 0);
        }
    });
    assert!(lives(i32::try_from(serving).expect("a pid")), "a child with a call in flight stays");
    session.tell(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}));
    drop(held);
    until("the former children are gone", || server.metric("proxyrunner_ended_children_total") == 2);
    assert_eq!(server.metric("proxyrunner_restarted_children_total"), 0);
    assert_eq!(server.metric("proxyrunner_children"), 2);
}

#[test]
fn a_call_in_flight_is_answered_by_the_child_that_has_it() {
    let secret = Secret::new(&[("TOKEN", "one")]);
    let server = Server::start(&format!("{SOON} --env-file {}", secret.folder.display()));
    let session = server.session();
    let mut slow = session.begin_call(7, "sleep", json!({"ms": 1500}));
    secret.set(&[("TOKEN", "two")]);
    until("the next child serves", || variable(&session.result("facts", json!({}))) == "two");
    assert_eq!(slow.response().answer()["result"], json!({"ms": 1500}));
}

#[test]
fn sessions_at_a_shared_child_stay_and_hear_of_changed_lists() {
    let secret = Secret::new(&[("TOKEN", "one")]);
    let server = Server::start(&format!("{SOON} --env-file {}", secret.folder.display()));
    let session = server.session();
    let mut listening = session.listen();
    secret.set(&[("TOKEN", "two")]);
    assert_eq!(listening.message()["method"], "notifications/tools/list_changed");
    assert_eq!(variable(&session.result("facts", json!({}))), "two");
}

#[test]
fn a_modern_child_is_replaced_too() {
    let secret = Secret::new(&[("TOKEN", "one")]);
    let flags = format!("{SOON} --env-file {}", secret.folder.display());
    let server = Server::with().flags(&flags).modern_child("").start();
    let session = server.session();
    assert_eq!(variable(&session.result("facts", json!({}))), "one");
    secret.set(&[("TOKEN", "two")]);
    until("the next child serves", || variable(&server.modern().result("facts", json!({}))) == "two");
    assert_eq!(variable(&session.result("facts", json!({}))), "two");
}

#[test]
fn a_sessions_own_child_is_replaced_once_it_is_quiet() {
    let secret = Secret::new(&[("TOKEN", "one")]);
    let flags = format!("{SOON} --isolation session --env-file {}", secret.folder.display());
    let server = Server::start(&flags);
    let session = server.session();
    let mut slow = session.begin_call(7, "wait", json!({"name": "held"}));
    secret.set(&[("TOKEN", "two")]);
    server.until_logged("the variables of the server have changed");
    assert_eq!(variable(&session.result("facts", json!({}))), "one", "it is busy");
    session.call("release", json!({"name": "held"}));
    assert_eq!(slow.response().answer()["result"]["name"], "held");
    until("the session ends", || session.post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).status == 404);
    assert_eq!(variable(&server.session().result("facts", json!({}))), "two");
}

#[test]
fn a_session_that_may_be_resumed_stays() {
    let secret = Secret::new(&[("TOKEN", "one")]);
    let flags = format!(
        "{SOON} --isolation session --resume-sessions --restart-backoff 10ms --env-file {}",
        secret.folder.display()
    );
    let server = Server::start(&flags);
    let session = server.session();
    assert_eq!(variable(&session.result("facts", json!({}))), "one");
    secret.set(&[("TOKEN", "two")]);
    until("the next child serves", || variable(&session.result("facts", json!({}))) == "two");
}

#[test]
fn a_leased_child_is_not_leased_again() {
    let secret = Secret::new(&[("TOKEN", "one")]);
    let flags = format!("{SOON} --warm 1 --principal-header x-user --env-file {}", secret.folder.display());
    let server = Server::start(&flags);
    let client = server.asked().of("ann");
    let asked = Asked::of(&client.call("ask", question()));
    assert_eq!(variable(&client.result("facts", json!({}))), "one");
    secret.set(&[("TOKEN", "two")]);
    server.until_logged("the variables of the server have changed");
    assert_eq!(variable(&client.result("facts", json!({}))), "two");
    let heard = client.retry("ask", question(), &asked, asked.all(&json!({"action": "decline"})));
    assert_eq!(result(&heard)["answers"][0]["result"]["action"], "decline", "the parked call goes on");
    assert_eq!(variable(&client.result("facts", json!({}))), "two");
}

#[test]
fn a_server_that_does_not_start_with_its_changed_variables_is_not_stopped() {
    let secret = Secret::new(&[("TOKEN", "one")]);
    let flags = format!("{SOON} --env-file {}", secret.folder.display());
    let start = r#"test "$TOKEN" != bad && exec python3 "$0" "$@""#;
    let scripted = format!("{}/tests/children/scripted.py", env!("CARGO_MANIFEST_DIR"));
    let server = Server::with().flags(&flags).program(&["sh", "-c", start, &scripted]).start();
    let session = server.session();
    secret.set(&[("TOKEN", "bad")]);
    server.until_logged("the running one continues with the previous values");
    assert_eq!(variable(&session.result("facts", json!({}))), "one");
    secret.set(&[("TOKEN", "three")]);
    until("the next child serves", || variable(&session.result("facts", json!({}))) == "three");
}

#[test]
fn with_ignore_only_new_children_get_changed_variables() {
    let secret = Secret::new(&[("TOKEN", "one")]);
    let flags = format!(
        "{SOON} --on-env-change ignore --principal-header x-user --env-file {}",
        secret.folder.display()
    );
    let server = Server::start(&flags);
    let session = server.opening().header("X-User", "ann").open();
    secret.set(&[("TOKEN", "two")]);
    server.until_logged("new processes get them");
    assert_eq!(variable(&session.result("facts", json!({}))), "one");
    assert_eq!(variable(&server.asked().of("ann").result("facts", json!({}))), "two");
}

#[test]
fn a_malformed_or_missing_file_keeps_the_previous_values() {
    let file = scratch("env");
    std::fs::write(&file, "TOKEN=one\n").expect("a file");
    let server = Server::start(&format!("{SOON} --env-file {}", file.display()));
    let session = server.session();
    std::fs::write(&file, "TOKEN=two\nhunter2\n").expect("a file");
    server.until_logged("--env-file has changed, but is unusable");
    std::fs::remove_file(&file).expect("a file");
    server.until_logged("No such file");
    server.until_metric(r#"proxyrunner_failed_reloads_total{file="env"}"#, 2);
    std::fs::write(&file, "TOKEN=one\n").expect("a file");
    let pid = session.result("facts", json!({}))["pid"].clone();
    std::fs::write(&file, "TOKEN=two\n").expect("a file");
    until("the next child serves", || variable(&session.result("facts", json!({}))) == "two");
    assert_ne!(session.result("facts", json!({}))["pid"], pid);
    assert_eq!(
        server.metric("proxyrunner_started_children_total"),
        2,
        "only a changed value replaces children"
    );
    assert_eq!(server.logged().matches("is unusable").count(), 2, "logged once for each fault");
    assert!(!server.logged().contains("hunter2"));
}

#[test]
fn a_server_that_runs_only_once_is_stopped_before_the_next_one_starts() {
    for is_told in [true, false] {
        let secret = Secret::new(&[("TOKEN", "one")]);
        let told = if is_told { "--max-children 1" } else { "" };
        let flags = format!("{SOON} {told} --restart-backoff 10ms --env-file {}", secret.folder.display());
        let start =
            format!(r#"exec 9>{}; flock -n 9 || exit 3; exec python3 "$0" "$@""#, scratch("lock").display());
        let scripted = format!("{}/tests/children/scripted.py", env!("CARGO_MANIFEST_DIR"));
        let server = Server::with().flags(&flags).program(&["sh", "-c", &start, &scripted]).start();
        let session = server.session();
        assert_eq!(variable(&session.result("facts", json!({}))), "one");
        if !is_told {
            let exclusive = server.opening().exclusive().open();
            assert_eq!(variable(&exclusive.result("facts", json!({}))), "one", "it shares the only process");
        }
        let mut slow = session.begin_call(7, "sleep", json!({"ms": 1000}));
        secret.set(&[("TOKEN", "two")]);
        server.until_logged("the variables of the server have changed");
        assert_eq!(slow.response().answer()["result"], json!({"ms": 1000}));
        until("the next child serves", || {
            let answer = session.call("facts", json!({}));
            answer["result"].is_object() && variable(&answer["result"]) == "two"
        });
        assert!(!server.logged().contains("does not start"), "the next one never ran beside it");
    }
}
