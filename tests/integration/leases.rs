//! Leases: legacy children that serve one call of a modern client at a time, and the choice of the child for a call.

use crate::support::modern::{Asked, result};
use crate::support::{Journal, Read, Server, until};
use serde_json::{Value, json};

fn arguments() -> Value {
    let params = json!({"message": "m", "requestedSchema": {"type": "object", "properties": {}}});
    json!({"rounds": [[{"method": "elicitation/create", "params": params}]]})
}

#[test]
fn a_leased_child_stays_with_its_principal() {
    let server = Server::start("--principal-header x-user");
    let shared = server.modern().of("ann").child();
    assert_eq!(server.modern().of("bob").child(), shared, "clients without capabilities share");
    let ann = server.asked().of("ann").child();
    let bob = server.asked().of("bob").child();
    let carl = server.asked().of("carl").child();
    let different: std::collections::HashSet<u64> = [shared, ann, bob, carl].into();
    assert_eq!(different.len(), 4);
    for _ in 0..2 {
        assert_eq!(server.asked().of("ann").child(), ann);
        assert_eq!(server.asked().of("bob").child(), bob);
        assert_eq!(server.asked().of("carl").child(), carl);
    }
}

#[test]
fn concurrent_calls_get_a_child_each() {
    let journal = Journal::new();
    let server = Server::with().flags("--principal-header x-user").child(&journal.flag()).start();
    let client = server.asked().of("ann");
    let asked: Vec<Asked> = (0..3).map(|_| Asked::of(&client.call("interview", arguments()))).collect();
    let mut pids: Vec<u64> = journal
        .frames()
        .iter()
        .filter(|read| read.message["params"]["name"] == "interview")
        .map(|read| read.pid)
        .collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 3, "parked calls keep their children");
    for (n, asked) in asked.iter().enumerate().rev() {
        let answer = json!({"action": "accept", "content": {"n": n}});
        let heard = client.retry("interview", arguments(), asked, asked.all(&answer));
        assert_eq!(result(&heard)["heard"], json!([answer]), "each call gets its own answer");
    }
    assert!(pids.contains(&client.child()), "the children are free again");
    assert_eq!(server.metric("proxyrunner_children"), 4);
}

#[test]
fn a_child_that_never_answered_a_cancelled_call_is_not_leased_again() {
    let journal = Journal::new();
    let flags = "--cancel-grace 1s --principal-header x-user";
    let server = Server::with().flags(flags).child(&journal.flag()).start();
    let hanging = server.asked().of("ann").begin_call(1, "hang", json!({}));
    let hung = journal.until_called("hang").pid;
    hanging.cut();
    journal.until_cancelled("hang");
    assert_ne!(server.asked().of("ann").child(), hung, "the child may still answer");
    server.until_metric("proxyrunner_ended_children_total", 1);
    assert!(
        !crate::support::lives(i32::try_from(hung).expect("a pid")),
        "the child that did not answer is closed"
    );
}

#[test]
fn a_child_that_answered_a_cancelled_call_is_leased_again() {
    let journal = Journal::new();
    let flags = "--max-children 2 --at-cap refuse --principal-header x-user";
    let server = Server::with().flags(flags).child(&journal.flag()).start();
    let late = server.asked().of("ann").begin_call(1, "late", json!({}));
    let pid = journal.until_called("late").pid;
    late.cut();
    until("the child is leased again", || {
        let response = server.asked().of("ann").call("facts", json!({}));
        response.status == 200 && result(&response)["pid"] == pid
    });
}

/// Regression: a child logged and asked for a password one second after its call was answered, and the next client got
/// both messages.
#[test]
fn late_messages_of_a_child_reach_no_other_anonymous_client() {
    let journal = Journal::new();
    let server = Server::with().child(&journal.flag()).start();
    let file = crate::support::scratch("speak-now");
    let secret = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "error", "data": "secret"}});
    let password = json!({"jsonrpc": "2.0", "id": 7, "method": "elicitation/create", "params": {"message": "password?", "requestedSchema": {"type": "object", "properties": {}}}});
    let after = [secret.to_string(), password.to_string()];
    let wants = server.asked().meta("io.modelcontextprotocol/logLevel", "debug");
    wants.result("emit", json!({"lines": [], "after": after, "file": file}));
    let first = journal.call("emit").pid;
    let next = wants.begin_call(2, "progress", json!({"n": 0, "until": "released"}));
    assert_ne!(journal.until_called("progress").pid, first, "the child was leased to another client");
    std::fs::write(&file, "").expect("a scratch file");
    until("the child is closed", || !crate::support::lives(i32::try_from(first).expect("a pid")));
    assert_eq!(journal.answers(), Vec::<Value>::new());
    next.cut();
}

/// A warm child serves one anonymous client only, too. `--warm` starts children in advance to hide the start time.
#[test]
fn a_warm_child_used_by_an_anonymous_call_is_replaced() {
    let journal = Journal::new();
    let server = Server::with().flags("--warm 1").child(&journal.flag()).start();
    let mut seen = std::collections::HashSet::new();
    for started in 2..6 {
        server.until_metric("proxyrunner_started_children_total", started);
        until("the child is warm", || {
            let initialized = |read: &Read| read.message["method"] == "notifications/initialized";
            journal.frames().iter().filter(|read| initialized(read)).count() as u64 == started
        });
        let child = server.asked().child();
        assert!(journal.frames().iter().any(|read| read.pid == child));
        assert!(seen.insert(child), "the child served an anonymous client before");
    }
}

#[test]
fn at_cap_decides_between_sharing_and_refusing() {
    for at_cap in ["share", "refuse"] {
        let journal = Journal::new();
        let flags = format!("--max-children 2 --at-cap {at_cap} --principal-header x-user");
        let server = Server::with().flags(&flags).child(&journal.flag()).start();
        let shared = server.modern().of("ann").child();
        let ann = server.asked().of("ann");
        let asked = Asked::of(&ann.call("interview", arguments()));
        let bob = server.asked().of("bob").call("facts", json!({}));
        if at_cap == "share" {
            assert_eq!(result(&bob)["pid"], shared);
            assert_eq!(server.metric("proxyrunner_shared_at_cap_total"), 1);
            let unasked = server.asked().of("bob").result("interview", arguments());
            assert_eq!(unasked["heard"], json!([null]), "a shared child's questions are refused");
        } else {
            assert_eq!((bob.status, bob.code(), bob.header("retry-after")), (503, -32603, Some("1")));
        }
        let answers = asked.all(&json!({"action": "decline"}));
        let heard = ann.retry("interview", arguments(), &asked, answers);
        assert_eq!(
            result(&heard)["heard"],
            json!([{"action": "decline"}]),
            "the other client is not affected"
        );
        let taken = journal.call("interview").pid;
        let bobs = server.asked().of("bob").child();
        assert!(
            bobs != taken && bobs != shared,
            "an idle child is evicted rather than leased to another principal"
        );
    }
}

#[test]
fn warm_children_are_replaced_when_leased() {
    let journal = Journal::new();
    let flags = "--warm 2 --principal-header x-user";
    let server = Server::with().flags(flags).child(&journal.flag()).start();
    server.until_metric("proxyrunner_children", 3);
    let before = server.metric("proxyrunner_started_children_total");
    let warm: Vec<u64> = journal.frames().iter().map(|read| read.pid).collect();
    let ann = server.asked().of("ann").child();
    assert!(warm.contains(&ann), "the child was started in advance");
    server.until_metric("proxyrunner_started_children_total", before + 1);
    assert_ne!(server.asked().of("bob").child(), ann);
}

#[test]
fn a_leased_child_gets_the_log_level_of_the_request() {
    let journal = Journal::new();
    let server = Server::with().flags("--principal-header x-user").child(&journal.flag()).start();
    let wants = server.asked().of("ann").meta("io.modelcontextprotocol/logLevel", "warning");
    for _ in 0..2 {
        let messages = wants.begin_call(1, "log", json!({"n": 1})).events().rest();
        assert_eq!(messages.first().expect("a message")["method"], "notifications/message");
    }
    let levels = || {
        let set = journal.frames().into_iter().filter(|read| read.message["method"] == "logging/setLevel");
        set.map(|read| read.message["params"]["level"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(levels(), ["warning"], "the level is set once");
    let quiet = server.asked().of("ann").call("log", json!({"n": 1}));
    assert!(quiet.json()["result"].is_object(), "the response is plain JSON");
}

#[test]
fn roots_are_requested_only_with_forward_roots() {
    for (flags, asked) in [("", false), ("--forward-roots", true)] {
        let server = Server::start(flags);
        let client = server.modern().capabilities(json!({"roots": {}, "sampling": {}}));
        let response = client.call("ask", json!({"method": "roots/list"}));
        let answer = response.answer();
        assert_eq!(answer["result"]["resultType"] == "input_required", asked, "{answer}");
    }
}

#[test]
fn a_replica_with_the_same_key_recognizes_a_misrouted_retry() {
    let key = crate::support::scratch("key");
    std::fs::write(&key, "0123456789abcdef0123456789abcdef").expect("a scratch file");
    let flags = format!("--state-key-file {}", key.display());
    let (one, two, stranger) = (Server::start(&flags), Server::start(&flags), Server::start(""));
    let arguments =
        json!({"method": "elicitation/create", "params": {"message": "m", "requestedSchema": {}}});
    let asked = crate::support::modern::Asked::of(&one.asked().call("ask", arguments.clone()));
    for (server, words) in [(&two, "another replica"), (&stranger, "unknown")] {
        let answers = asked.all(&json!({"action": "cancel"}));
        let response = server.asked().retry("ask", arguments.clone(), &asked, answers);
        assert_eq!(response.code(), -32602);
        assert!(response.text().contains(words), "{}", response.text());
    }
    std::fs::write(&key, "brief").expect("a scratch file");
    let (status, log) = Server::with().flags(&flags).run();
    assert_eq!(status.code(), Some(64), "{log}");
    assert!(log.contains("state-key-file") && !log.contains("brief"), "{log}");
}

#[test]
fn the_client_with_most_leased_children_gives_way() {
    let journal = Journal::new();
    let flags = "--max-children 4 --at-cap refuse --principal-header x-user";
    let server = Server::with().flags(flags).child(&journal.flag()).start();
    let hung = |count: usize| {
        let is_call = |read: &&Read| read.message["params"]["name"] == "hang";
        until("the calls", || journal.frames().iter().filter(is_call).count() == count);
    };
    let ann = server.asked().of("ann");
    let calls: Vec<_> = (1..=3)
        .map(|number| {
            let call = ann.begin_call(number, "hang", json!({}));
            hung(number);
            call
        })
        .collect();
    assert_eq!(ann.call("facts", json!({})).status, 503, "a client does not give way to itself");
    let _bobs = server.asked().of("bob").begin_call(1, "hang", json!({}));
    hung(4);
    let mut calls = calls.into_iter();
    let lost = calls.next().expect("the oldest").response();
    assert!(lost.text().contains("error"), "{}", lost.text());
    assert_eq!(ann.call("facts", json!({})).status, 503, "the other calls still run");
    assert_eq!(server.metric("proxyrunner_children"), 4);
}
