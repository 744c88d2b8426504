//! Eras of children: detection by probing, the messages sent before the era is known, and the number of processes.

use crate::support::modern::result;
use crate::support::{Journal, Server, scratch, until};
use serde_json::{Value, json};

/// Starts proxyrunner in front of `children/modern.py`; returns the journal of the child processes, too.
fn modern(flags: &str, child: &str) -> (Server, Journal) {
    let journal = Journal::new();
    let child = format!("{child} {}", journal.flag());
    (Server::with().asked_nothing().flags(flags).modern_child(&child).start(), journal)
}

/// Returns the methods that each process read, in the order in which the processes were started.
fn read(journal: &Journal) -> Vec<Vec<String>> {
    let mut pids: Vec<(u64, Vec<String>)> = Vec::new();
    for frame in journal.frames() {
        let method = frame.message["method"].as_str().unwrap_or("an answer").to_owned();
        match pids.iter_mut().find(|(pid, _)| *pid == frame.pid) {
            Some((_, methods)) => methods.push(method),
            None => pids.push((frame.pid, vec![method])),
        }
    }
    pids.into_iter().map(|(_, methods)| methods).collect()
}

fn until_ready(server: &Server) {
    until("readiness", || server.request("GET", "/readyz", &[], b"").status == 200);
}

/// Returns the id of the process that serves a client, and its era.
fn facts(answer: &Value) -> (u64, String) {
    let facts = &answer["structuredContent"];
    (facts["pid"].as_u64().expect("a pid"), facts["era"].as_str().expect("an era").to_owned())
}

/// Waits until both the probe and, after `--probe-timeout`, `initialize` are sent to a server that reads neither.
fn until_both_asked(server: &Server) {
    server.until_metric("proxyrunner_exchanges_total", 2);
}

#[test]
fn a_modern_child_is_probed_once_and_never_initialized() {
    for flags in ["", "--child-era modern"] {
        let (server, journal) = modern(flags, "");
        until_ready(&server);
        assert_eq!(read(&journal), [["server/discover"]], "{flags}");
        let first = &journal.frames()[0].message["params"]["_meta"];
        assert_eq!(first["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
        assert_eq!(first["io.modelcontextprotocol/clientCapabilities"], json!({}));
    }
}

#[test]
fn a_legacy_child_is_initialized_in_the_probed_process() {
    for (flags, child, expected) in [
        ("", "--legacy error", vec!["server/discover", "initialize", "notifications/initialized"]),
        ("--child-era legacy", "--legacy error", vec!["initialize", "notifications/initialized"]),
        (
            "--probe-timeout 50ms",
            "--legacy mute",
            vec!["server/discover", "initialize", "notifications/initialized"],
        ),
    ] {
        let (server, journal) = modern(flags, child);
        until_ready(&server);
        until("the frames", || read(&journal).first().is_some_and(|read| read.len() == expected.len()));
        assert_eq!(read(&journal), [expected], "{child}");
        assert_eq!(result(&server.modern().call("facts", json!({})))["structuredContent"]["era"], "legacy");
        assert_eq!(read(&journal).len(), 1, "one process serves both eras");
    }
}

#[test]
fn a_legacy_child_that_exits_on_the_probe_is_restarted() {
    let (server, journal) = modern("", "--legacy exit");
    until_ready(&server);
    let initialized = vec!["initialize".to_owned(), "notifications/initialized".to_owned()];
    until("the frames", || read(&journal).get(1) == Some(&initialized));
    assert_eq!(read(&journal), [vec!["server/discover".to_owned()], initialized]);
}

#[test]
fn a_slow_modern_child_is_recognized_and_started_once() {
    let gate = scratch("gate");
    let child = format!("--gate {}", gate.display());
    let (server, journal) = modern("--probe-timeout 20ms", &child);
    server.until_logged("server started");
    assert_eq!(server.request("GET", "/readyz", &[], b"").status, 503);
    until_both_asked(&server);
    std::fs::write(&gate, "").expect("a scratch file");
    until_ready(&server);
    assert_eq!(read(&journal)[0][..2], ["server/discover", "initialize"]);
    let (_, era) = facts(&server.modern().result("facts", json!({})));
    assert_eq!((era.as_str(), read(&journal).len()), ("modern", 1));
}

#[test]
fn a_late_probe_response_identifies_a_modern_child() {
    let gate = scratch("discover");
    let child = format!("--discover-gate {}", gate.display());
    let (server, journal) = modern("--probe-timeout 20ms", &child);
    until("both requests", || journal.frames().len() >= 2);
    std::fs::write(&gate, "").expect("a scratch file");
    until_ready(&server);
    assert_eq!(facts(&server.modern().result("facts", json!({}))).1, "modern");
    assert_eq!(read(&journal).len(), 1);
}

#[test]
fn a_slow_server_of_both_eras_is_probed_in_one_process() {
    let gate = scratch("gate");
    let child = format!("--dual --gate {}", gate.display());
    let (server, journal) = modern("--probe-timeout 20ms", &child);
    server.until_logged("server started");
    until_both_asked(&server);
    std::fs::write(&gate, "").expect("a scratch file");
    until_ready(&server);
    assert_eq!(read(&journal), [["server/discover", "initialize"]], "the child answers -32022 to the second");
    assert_eq!(facts(&server.modern().result("facts", json!({}))).1, "modern");
    assert_eq!(facts(&server.session().result("facts", json!({}))).1, "legacy");
    assert_eq!(read(&journal).len(), 2, "the second process serves the session");
}

#[test]
fn a_late_probe_response_of_a_legacy_process_is_ignored() {
    let gate = scratch("discover");
    let child = format!("--dual --loose --discover-gate {}", gate.display());
    let (server, journal) = modern("--probe-timeout 20ms", &child);
    until_ready(&server);
    assert_eq!(read(&journal)[0][..2], ["server/discover", "initialize"]);
    let session = server.session();
    let (first, era) = facts(&session.result("facts", json!({})));
    assert_eq!(era, "legacy", "the answer to initialize came first");
    std::fs::write(&gate, "").expect("a scratch file");
    server.modern().result("facts", json!({}));
    assert_eq!(facts(&session.result("facts", json!({}))), (first, "legacy".to_owned()));
    assert_eq!(server.metric("proxyrunner_unknown_answers_total"), 0);
}

#[test]
fn a_modern_child_that_exits_on_initialize_is_restarted_without_it() {
    let gate = scratch("gate");
    let child = format!("--fragile --gate {}", gate.display());
    let (server, journal) = modern("--probe-timeout 20ms", &child);
    server.until_logged("server started");
    until_both_asked(&server);
    std::fs::write(&gate, "").expect("a scratch file");
    until_ready(&server);
    assert_eq!(read(&journal), [vec!["server/discover", "initialize"], vec!["server/discover"]]);
    assert_eq!(facts(&server.modern().result("facts", json!({}))).1, "modern");
}

#[test]
fn a_child_without_a_common_revision_fails_to_start() {
    let run = Server::with().modern_child("--versions 2027-01-01").run();
    assert_eq!(run.0.code(), Some(1), "{}", run.1);
    assert!(run.1.contains("the server supports only 2027-01-01"), "{}", run.1);
    let run = Server::with().flags("--child-era modern").modern_child("--legacy error").run();
    assert!(run.1.contains("is --child-era modern right?"), "{}", run.1);
    let run = Server::with().flags("--child-era legacy").modern_child("").run();
    assert!(run.1.contains("the server refused to initialize"), "{}", run.1);
}

#[test]
fn a_server_of_both_eras_runs_one_process_per_era_on_demand() {
    for child in ["--dual", "--dual --loose"] {
        let (server, journal) = modern("", child);
        until_ready(&server);
        assert_eq!(read(&journal), [["server/discover"]], "no client of the other era has connected");
        let (first, era) = facts(&server.modern().result("facts", json!({})));
        assert_eq!(era, "modern");
        let session = server.session();
        let (second, era) = facts(&session.result("facts", json!({})));
        assert_eq!(era, "legacy");
        assert_ne!(first, second);
        assert_eq!(
            facts(&server.session().result("facts", json!({}))).0,
            second,
            "the next session shares it"
        );
        assert_eq!(facts(&server.modern().result("facts", json!({}))).0, first);
        assert_eq!(read(&journal)[1][0], "initialize");
    }
}

#[test]
fn a_client_with_sampling_gets_its_own_child_of_its_era() {
    let (server, journal) = modern("", "--dual");
    let session = server.opening().exclusive().open();
    assert_eq!(facts(&session.result("facts", json!({}))).1, "legacy");
    let other = server.opening().exclusive().open();
    assert_ne!(facts(&session.result("facts", json!({}))).0, facts(&other.result("facts", json!({}))).0);
    assert_eq!(read(&journal).len(), 3);
}

#[test]
fn clients_are_translated_if_a_second_process_is_not_allowed() {
    let (server, journal) = modern("--max-children 1", "--dual");
    for opening in [server.opening(), server.opening().exclusive()] {
        let session = opening.open();
        assert_eq!(facts(&session.result("facts", json!({}))).1, "modern");
    }
    assert_eq!(read(&journal).len(), 1);
}

#[test]
fn clients_are_translated_if_the_second_process_fails_to_start() {
    for child in ["", "--fragile"] {
        for exclusive in [false, true] {
            let (server, journal) = modern("", child);
            let opening = if exclusive { server.opening().exclusive() } else { server.opening() };
            let session = opening.open();
            assert_eq!(facts(&session.result("facts", json!({}))).1, "modern", "{child:?} {exclusive}");
            assert_eq!(read(&journal).len(), 2, "a second process was tried");
            server.session();
            server.opening().exclusive().open();
            assert_eq!(read(&journal).len(), 2, "no third process is tried");
        }
    }
}

#[test]
fn isolation_session_works_with_modern_children() {
    let (server, journal) = modern("--isolation session", "");
    until_ready(&server);
    let (one, two) = (server.session(), server.session());
    let (first, second) = (facts(&one.result("facts", json!({}))), facts(&two.result("facts", json!({}))));
    assert_ne!(first.0, second.0);
    assert_eq!((first.1.as_str(), second.1.as_str()), ("modern", "modern"));
    one.delete();
    until("the exit", || !crate::support::lives(first.0 as i32));
    assert!(crate::support::lives(second.0 as i32));
    let initialized = read(&journal).iter().filter(|read| read[0] == "initialize").count();
    assert_eq!(initialized, 1, "only the first session caused a legacy attempt");
}
