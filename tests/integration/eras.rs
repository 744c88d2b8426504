//! Which era a child is found to be of, how it is spoken to before that, and which processes of it there are.

use crate::support::modern::result;
use crate::support::{Journal, Server, scratch, until};
use serde_json::{Value, json};

/// In front of `children/modern.py`, and what its processes read.
fn modern(flags: &str, child: &str) -> (Server, Journal) {
    let journal = Journal::new();
    let child = format!("{child} {}", journal.flag());
    (Server::with().asked_nothing().flags(flags).modern_child(&child).start(), journal)
}

/// What each process read, by method, in the order in which they were started.
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

/// Which process serves a client, and how it is spoken to.
fn facts(answer: &Value) -> (u64, String) {
    let facts = &answer["structuredContent"];
    (facts["pid"].as_u64().expect("a pid"), facts["era"].as_str().expect("an era").to_owned())
}

#[test]
fn a_modern_child_is_asked_once_and_never_initialized() {
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
fn a_legacy_child_is_initialized_on_the_same_pipe() {
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
        until("what it reads", || read(&journal).first().is_some_and(|read| read.len() == expected.len()));
        assert_eq!(read(&journal), [expected], "{child}");
        assert_eq!(result(&server.modern().call("facts", json!({})))["structuredContent"]["era"], "legacy");
        assert_eq!(read(&journal).len(), 1, "one process serves both eras");
    }
}

#[test]
fn a_legacy_child_that_exits_over_the_question_is_started_again() {
    let (server, journal) = modern("", "--legacy exit");
    until_ready(&server);
    let initialized = vec!["initialize".to_owned(), "notifications/initialized".to_owned()];
    until("what it reads", || read(&journal).get(1) == Some(&initialized));
    assert_eq!(read(&journal), [vec!["server/discover".to_owned()], initialized]);
}

#[test]
fn a_slow_starter_is_not_misjudged_and_not_started_twice() {
    let gate = scratch("gate");
    let child = format!("--gate {}", gate.display());
    let (server, journal) = modern("--probe-timeout 20ms", &child);
    server.until_logged("server started");
    assert_eq!(server.request("GET", "/readyz", &[], b"").status, 503);
    // Both questions are on the pipe before it reads the first.
    std::thread::sleep(std::time::Duration::from_millis(100));
    std::fs::write(&gate, "").expect("a scratch file");
    until_ready(&server);
    assert_eq!(read(&journal)[0][..2], ["server/discover", "initialize"]);
    let (_, era) = facts(&server.modern().result("facts", json!({})));
    assert_eq!((era.as_str(), read(&journal).len()), ("modern", 1));
}

#[test]
fn a_late_answer_tells_that_it_is_modern() {
    let gate = scratch("discover");
    let child = format!("--discover-gate {}", gate.display());
    let (server, journal) = modern("--probe-timeout 20ms", &child);
    until("both questions", || journal.frames().len() >= 2);
    std::fs::write(&gate, "").expect("a scratch file");
    until_ready(&server);
    assert_eq!(facts(&server.modern().result("facts", json!({}))).1, "modern");
    assert_eq!(read(&journal).len(), 1);
}

#[test]
fn a_slow_server_of_both_eras_is_still_one_process() {
    let gate = scratch("gate");
    let child = format!("--dual --gate {}", gate.display());
    let (server, journal) = modern("--probe-timeout 20ms", &child);
    server.until_logged("server started");
    // It reads nothing, so that the journal can't tell when both questions are on the pipe.
    std::thread::sleep(std::time::Duration::from_millis(100));
    std::fs::write(&gate, "").expect("a scratch file");
    until_ready(&server);
    assert_eq!(read(&journal), [["server/discover", "initialize"]], "it says -32022 to the second");
    assert_eq!(facts(&server.modern().result("facts", json!({}))).1, "modern");
    assert_eq!(facts(&server.session().result("facts", json!({}))).1, "legacy");
    assert_eq!(read(&journal).len(), 2, "the second one for the session");
}

#[test]
fn a_late_answer_of_a_process_that_is_legacy_by_now_disturbs_nobody() {
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
fn a_modern_child_that_initialize_ends_is_started_again_without() {
    let gate = scratch("gate");
    let child = format!("--fragile --gate {}", gate.display());
    let (server, journal) = modern("--probe-timeout 20ms", &child);
    server.until_logged("server started");
    std::thread::sleep(std::time::Duration::from_millis(100));
    std::fs::write(&gate, "").expect("a scratch file");
    until_ready(&server);
    assert_eq!(read(&journal), [vec!["server/discover", "initialize"], vec!["server/discover"]]);
    assert_eq!(facts(&server.modern().result("facts", json!({}))).1, "modern");
}

#[test]
fn a_child_of_no_revision_in_common_does_not_start() {
    let run = Server::with().modern_child("--versions 2027-01-01").run();
    assert_eq!(run.0.code(), Some(1), "{}", run.1);
    assert!(run.1.contains("the server speaks only 2027-01-01"), "{}", run.1);
    let run = Server::with().flags("--child-era modern").modern_child("--legacy error").run();
    assert!(run.1.contains("is --child-era modern right?"), "{}", run.1);
    let run = Server::with().flags("--child-era legacy").modern_child("").run();
    assert!(run.1.contains("the server refused to initialize"), "{}", run.1);
}

#[test]
fn a_server_of_both_eras_is_run_once_for_each_when_its_clients_come() {
    for child in ["--dual", "--dual --loose"] {
        let (server, journal) = modern("", child);
        until_ready(&server);
        assert_eq!(read(&journal), [["server/discover"]], "nobody of the other era has come");
        let (first, era) = facts(&server.modern().result("facts", json!({})));
        assert_eq!(era, "modern");
        let session = server.session();
        let (second, era) = facts(&session.result("facts", json!({})));
        assert_eq!(era, "legacy");
        assert_ne!(first, second);
        assert_eq!(facts(&server.session().result("facts", json!({}))).0, second, "the next one shares it");
        assert_eq!(facts(&server.modern().result("facts", json!({}))).0, first);
        assert_eq!(read(&journal)[1][0], "initialize");
    }
}

#[test]
fn a_client_that_can_be_asked_has_its_own_child_of_its_era() {
    let (server, journal) = modern("", "--dual");
    let session = server.opening().exclusive().open();
    assert_eq!(facts(&session.result("facts", json!({}))).1, "legacy");
    let other = server.opening().exclusive().open();
    assert_ne!(facts(&session.result("facts", json!({}))).0, facts(&other.result("facts", json!({}))).0);
    assert_eq!(read(&journal).len(), 3);
}

#[test]
fn where_the_second_process_is_not_allowed_clients_are_translated_for() {
    let (server, journal) = modern("--max-children 1", "--dual");
    for opening in [server.opening(), server.opening().exclusive()] {
        let session = opening.open();
        assert_eq!(facts(&session.result("facts", json!({}))).1, "modern");
    }
    assert_eq!(read(&journal).len(), 1);
}

#[test]
fn where_the_second_process_does_not_start_clients_are_translated_for() {
    for child in ["", "--fragile"] {
        for exclusive in [false, true] {
            let (server, journal) = modern("", child);
            let opening = if exclusive { server.opening().exclusive() } else { server.opening() };
            let session = opening.open();
            assert_eq!(facts(&session.result("facts", json!({}))).1, "modern", "{child:?} {exclusive}");
            assert_eq!(read(&journal).len(), 2, "it was tried");
            server.session();
            server.opening().exclusive().open();
            assert_eq!(read(&journal).len(), 2, "and is not tried again");
        }
    }
}

#[test]
fn a_child_for_each_session_can_be_modern_too() {
    let (server, journal) = modern("--isolation session", "");
    until_ready(&server);
    let (one, two) = (server.session(), server.session());
    let (first, second) = (facts(&one.result("facts", json!({}))), facts(&two.result("facts", json!({}))));
    assert_ne!(first.0, second.0);
    assert_eq!((first.1.as_str(), second.1.as_str()), ("modern", "modern"));
    one.delete();
    until("its end", || !crate::support::lives(first.0 as i32));
    assert!(crate::support::lives(second.0 as i32));
    let initialized = read(&journal).iter().filter(|read| read[0] == "initialize").count();
    assert_eq!(initialized, 1, "tried for the first session only");
}
