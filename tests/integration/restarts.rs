//! Restarts of children that exit or hang: errors, surviving sessions, and the state that is restored.

use crate::support::{Journal, Read, Server, Session, lives, scratch, tool_call, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// A flag that makes the pause before a restart negligible.
const SOON: &str = "--restart-backoff 10ms";

fn pid(session: &Session<'_>) -> i32 {
    let pid = session.result("facts", json!({}))["pid"].as_i64().expect("a pid");
    i32::try_from(pid).expect("a pid")
}

/// Returns the process id reported by `modern.py`.
fn own_pid(session: &Session<'_>) -> i64 {
    session.result("facts", json!({}))["structuredContent"]["pid"].as_i64().expect("a pid")
}

fn crash(session: &Session<'_>) {
    let answer = session.call("leave", json!({"code": 3}));
    assert_eq!(answer["error"]["data"]["reason"], "child_ended", "{answer}");
}

fn freeze(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("a process");
}

fn ready(server: &Server) -> u16 {
    server.request("GET", "/readyz", &[], b"").status
}

#[test]
fn a_session_survives_the_restart_of_its_shared_child() {
    let server = Server::start(SOON);
    let session = server.session();
    let first = pid(&session);
    let lost = session.call("leave", json!({"code": 3, "stderr": "out of memory"}));
    assert_eq!(lost["error"]["data"]["exitCode"], 3);
    assert_eq!(lost["error"]["data"].get("stderr"), None, "clients get only the exit status");
    assert_ne!(first, pid(&session));
    assert_eq!(server.metric("proxyrunner_restarted_children_total"), 1);
    server.until_metric("proxyrunner_in_flight", 0);
    assert_eq!(server.metric("proxyrunner_children"), 1);
}

#[test]
fn waiting_requests_fail_at_once_and_new_ones_wait_for_the_next_child() {
    let server = Server::start("--restart-backoff 1s");
    let (one, two) = (server.session(), server.session());
    let mut waiting = two.begin_call("w", "hang", json!({}));
    let mut modern = server.modern().begin_call("m", "hang", json!({}));
    server.until_metric("proxyrunner_in_flight", 2);
    crash(&one);
    for lost in [waiting.response().answer(), modern.response().answer()] {
        assert_eq!(lost["error"]["data"]["reason"], "child_ended", "{lost}");
    }
    // The next child cannot have started yet: the pause is at least half a second.
    let mut meanwhile = one.begin_call(2, "facts", json!({}));
    let mut modern = server.modern().begin_call(3, "facts", json!({}));
    let mut newcomer = server.connect();
    newcomer.post(&[], server.opening().body());
    for served in [meanwhile.response(), modern.response(), newcomer.response()] {
        assert!(served.answer()["result"].is_object());
    }
}

#[test]
fn requests_beyond_restart_wait_get_503_with_retry_after() {
    // A request that waits for the next child does not commit a stream, so that a refusal can still have a status.
    let server = Server::start(
        "--restart-backoff 1h --restart-backoff-max 1h --restart-wait 300ms --sse-commit-after 20ms",
    );
    let session = server.session();
    crash(&session);
    let refused = session.post(tool_call(1, "facts", &json!({})));
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    assert_eq!(server.modern().call("facts", json!({})).status, 503);
    assert_eq!(server.opening().send().status, 503);
    assert_eq!(ready(&server), 503);
    assert_eq!(server.request("GET", "/livez", &[], b"").status, 200);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn proxyrunner_exits_with_the_childs_code_after_restart_limit() {
    let server = Server::start("--restart-backoff 10ms --restart-limit 2");
    for _ in 0..3 {
        crash(&server.session());
    }
    assert_eq!(server.exit_code(), 3);
}

#[test]
fn a_child_that_fails_its_first_start_is_retried() {
    let flaky = scratch("flaky");
    // With an unknown era, an exit on the probe would not count as a failure.
    let flags = format!("--child-era legacy {SOON}");
    let server = Server::with().flags(&flags).child(&format!("--flaky {}", flaky.display())).start();
    assert!(server.session().result("facts", json!({}))["pid"].is_number());
    assert_eq!(server.metric("proxyrunner_restarted_children_total"), 1);
}

#[test]
fn a_child_that_never_starts_sets_the_exit_code() {
    let (status, log) =
        Server::with().flags("--restart-limit 3 --restart-backoff 1ms").child("--die 4").run();
    assert_eq!(status.code(), Some(4));
    assert_eq!(log.matches("restarting it in").count(), 3, "{log}");
}

#[test]
fn a_missing_program_is_not_retried() {
    let (status, log) = Server::with().flags("--restart-backoff 1h").program(&["/no/such"]).run();
    assert_eq!(status.code(), Some(127), "{log}");
    assert!(log.contains("no such program"), "{log}");
}

#[test]
fn sessions_end_when_the_next_child_describes_itself_differently() {
    let told = scratch("told");
    let server = Server::with().flags(SOON).child(&format!("--told {}", told.display())).start();
    let session = server.session();
    let mut stream = session.listen();
    let filter = json!({"notifications": {"toolsListChanged": true}});
    let modern = server.modern();
    let mut listen = modern.begin_body(&modern.body(1, "subscriptions/listen", filter)).events();
    assert_eq!(listen.message()["method"], "notifications/subscriptions/acknowledged");
    std::fs::write(&told, "I am another").expect("a file");
    crash(&session);
    until("404", || session.post(tool_call(1, "facts", &json!({}))).status == 404);
    assert_eq!(stream.rest(), Vec::<Value>::new(), "the stream ends");
    assert_eq!(listen.message()["result"]["resultType"], "complete", "the subscription ends gracefully");
    let anew = server.session();
    assert_eq!(anew.welcome["result"]["instructions"], "I am another");
}

#[test]
fn subscriptions_are_renewed_and_clients_get_list_changed() {
    let journal = Journal::new();
    let server = Server::with().flags(SOON).child(&journal.flag()).start();
    let session = server.session();
    let mut stream = session.listen();
    session.ask("resources/subscribe", json!({"uri": "a://x"}));
    let filter = json!({"notifications": {"toolsListChanged": true, "resourceSubscriptions": ["b://x"]}});
    let modern = server.modern();
    let mut listen = modern.begin_body(&modern.body(1, "subscriptions/listen", filter)).events();
    assert_eq!(listen.message()["method"], "notifications/subscriptions/acknowledged");
    crash(&session);
    let next = pid(&session);
    let mut told: Vec<_> = (0..2).map(|_| stream.message()["method"].clone()).collect();
    told.sort_by_key(Value::to_string);
    assert_eq!(told, ["notifications/resources/list_changed", "notifications/tools/list_changed"]);
    assert_eq!(listen.message()["method"], "notifications/tools/list_changed");
    let subscribed: Vec<_> = journal
        .frames()
        .into_iter()
        .filter(|read| i64::from(next) == i64::try_from(read.pid).expect("a pid"))
        .filter(|read| read.message["method"] == "resources/subscribe")
        .map(|read| read.message["params"]["uri"].as_str().expect("a URI").to_owned())
        .collect();
    assert!(["a://x", "b://x"].iter().all(|uri| subscribed.iter().any(|it| it == uri)), "{subscribed:?}");
    for (uri, stream) in [("a://x", &mut stream), ("b://x", &mut listen)] {
        let line =
            json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}});
        session.result("emit", json!({"lines": [line.to_string()]}));
        assert_eq!(stream.message()["params"]["uri"], uri);
    }
}

#[test]
fn cached_lists_are_fetched_again() {
    let journal = Journal::new();
    let server = Server::with().asked_nothing().flags(SOON).child(&journal.flag()).start();
    let session = server.session();
    let listed = || journal.frames().iter().filter(|read| read.message["method"] == "tools/list").count();
    session.ask("tools/list", json!({}));
    session.ask("tools/list", json!({}));
    assert_eq!(listed(), 1, "the list is cached");
    crash(&session);
    session.ask("tools/list", json!({}));
    assert_eq!(listed(), 2);
}

#[test]
fn subscriptions_are_reopened_at_a_modern_child() {
    let journal = Journal::new();
    let flags = format!("--child-era modern {SOON}");
    let server = Server::with().flags(&flags).modern_child(&journal.flag()).start();
    let modern = server.modern();
    let filter = json!({"notifications": {"toolsListChanged": true, "resourceSubscriptions": ["a:"]}});
    let mut passed = modern.begin_body(&modern.body("L", "subscriptions/listen", filter)).events();
    assert_eq!(passed.message()["method"], "notifications/subscriptions/acknowledged");
    let session = server.session();
    let mut stream = session.listen();
    assert!(session.ask("resources/subscribe", json!({"uri": "a:"}))["result"].is_object());
    crash(&session);
    let again = passed.message();
    assert_eq!(again["method"], "notifications/tools/list_changed", "no second acknowledgment");
    assert_eq!(again["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "L");
    let next = own_pid(&session);
    until("the union", || {
        let listens = journal.frames().into_iter().filter(|read| i64::try_from(read.pid) == Ok(next));
        listens.filter(|read| read.message["method"] == "subscriptions/listen").count() == 2
    });
    session.result("touch", json!({"uri": "a:"}));
    assert_eq!(passed.message()["params"]["uri"], "a:");
    until("the update", || stream.message()["params"]["uri"] == "a:");
}

#[test]
fn an_idle_child_that_hangs_is_replaced() {
    let server = Server::start(
        "--ping-interval 200ms --ping-timeout 200ms --terminate-grace 100ms --restart-backoff 10ms",
    );
    let session = server.session();
    let first = pid(&session);
    freeze(first);
    server.until_metric("proxyrunner_hung_children_total", 1);
    assert_ne!(pid(&session), first);
    until("the exit", || !lives(first));
    until("ready", || ready(&server) == 200);
}

#[test]
fn readiness_fails_while_an_unusable_child_still_runs() {
    let graces = "--close-grace 1h --terminate-grace 1h";
    let server = Server::start(&format!("--ping-interval 100ms --ping-timeout 200ms {graces}"));
    let hung = pid(&server.session());
    freeze(hung);
    until("not ready", || ready(&server) == 503);
    assert!(lives(hung), "the process still runs");
    kill(Pid::from_raw(hung), Signal::SIGKILL).expect("a process");
    until("ready", || ready(&server) == 200);

    let server = Server::with().flags(graces).child("--ignore-eof --ignore-sigterm").start();
    let session = server.session();
    let mute = pid(&session);
    let mut call = session.begin_call(1, "close_stdout", json!({}));
    until("not ready", || ready(&server) == 503);
    assert!(lives(mute), "the process still runs");
    kill(Pid::from_raw(mute), Signal::SIGKILL).expect("a process");
    assert!(call.response().answer()["error"].is_object());
    until("ready", || ready(&server) == 200);
}

#[test]
fn hung_leased_children_are_ended_and_hung_warm_ones_replaced() {
    let soon = "--ping-interval 200ms --ping-timeout 1s --terminate-grace 100ms";
    let journal = Journal::new();
    let server = Server::with()
        .flags(&format!("{soon} --warm 1 --principal-header x-user"))
        .child(&journal.flag())
        .start();
    // A second ping means that the first was answered, so that later silence is taken as a hang.
    let until_pinged_twice = |pid: u64| {
        let is_ping = |read: &&Read| read.pid == pid && read.message["method"] == "ping";
        until("an answered ping", || journal.frames().iter().filter(is_ping).count() > 1);
    };
    let asked = server.asked().of("ann");
    let leased = asked.child();
    until_pinged_twice(leased);
    freeze(i32::try_from(leased).expect("a pid"));
    server.until_metric("proxyrunner_hung_children_total", 1);
    assert_ne!(asked.child(), leased);
    // Find the warm child, which waits to be leased.
    let told = |words: &str| server.logged().matches(words).count();
    until("the warm child's handshake", || told("server started") == 4 && told("legacy protocol era") == 4);
    // The hung child may still be exiting.
    let shared = pid(&server.opening().header("x-user", "ann").open());
    let others = [u64::try_from(shared).expect("a pid"), asked.child(), leased];
    let started_pids: Vec<u64> = server
        .logged()
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|line| line["fields"]["pid"].as_u64())
        .collect();
    let warm = started_pids.into_iter().find(|pid| !others.contains(pid)).expect("a warm child");
    until_pinged_twice(warm);
    freeze(i32::try_from(warm).expect("a pid"));
    server.until_metric("proxyrunner_hung_children_total", 2);
    until("another in its place", || told("server started") == 5);
}

#[test]
fn a_hung_modern_child_is_replaced_despite_an_open_subscription() {
    let flags = "--child-era modern --ping-interval 200ms --ping-timeout 1s --terminate-grace 100ms";
    let server = Server::with().flags(&format!("{flags} {SOON}")).modern_child("").start();
    let modern = server.modern();
    let filter = json!({"notifications": {"toolsListChanged": true}});
    let mut listen = modern.begin_body(&modern.body(1, "subscriptions/listen", filter)).events();
    assert_eq!(listen.message()["method"], "notifications/subscriptions/acknowledged");
    let session = server.session();
    let first = own_pid(&session);
    freeze(i32::try_from(first).expect("a pid"));
    server.until_metric("proxyrunner_hung_children_total", 1);
    assert_ne!(own_pid(&session), first);
}

#[test]
fn a_synchronous_child_is_not_replaced_during_a_call() {
    let server = Server::with().flags("--ping-interval 50ms --ping-timeout 50ms").child("--serial").start();
    let session = server.session();
    assert_eq!(session.result("sleep", json!({"ms": 1000}))["ms"], 1000);
    assert_eq!(server.metric("proxyrunner_hung_children_total"), 0);
}

#[test]
fn a_hung_busy_child_is_replaced_after_its_requests_time_out() {
    let flags = "--request-timeout 300ms --cancel-grace 1h --ping-interval 50ms --ping-timeout 1h";
    let server = Server::start(&format!("{flags} --terminate-grace 100ms --cancel-grace 200ms {SOON}"));
    let session = server.session();
    let first = pid(&session);
    freeze(first);
    let refused = session.call("facts", json!({}));
    assert_eq!(refused["error"]["data"]["reason"], "timed_out", "{refused}");
    until("another", || {
        let answer = session.call("facts", json!({}));
        answer["result"]["pid"].as_i64().is_some_and(|pid| pid != i64::from(first))
    });
}

#[test]
fn a_child_that_reads_nothing_is_replaced_even_if_it_writes() {
    let flags = "--request-timeout 300ms --cancel-grace 200ms --ping-interval 50ms --terminate-grace 100ms";
    let server = Server::start(&format!("{flags} {SOON}"));
    let session = server.session();
    let first = pid(&session);
    session.result("stop_reading", json!({"until": scratch("never-reads-again")}));
    // The call exceeds the capacity of a pipe.
    let answer = session.call("release", json!({"name": "", "big": "x".repeat(300_000)}));
    assert_eq!(answer["error"]["data"]["reason"], "timed_out", "{answer}");
    server.until_metric("proxyrunner_hung_children_total", 1);
    server.until_logged("has read nothing");
    until("another", || {
        let answer = session.call("facts", json!({}));
        answer["result"]["pid"].as_i64().is_some_and(|pid| pid != i64::from(first))
    });
}

#[test]
fn a_child_that_never_answers_pings_is_replaced_only_once() {
    let flags = "--ping-interval 100ms --ping-timeout 100ms --terminate-grace 100ms";
    let server = Server::with().flags(&format!("{flags} {SOON}")).child("--deaf").start();
    server.until_logged("does not answer pings");
    assert_eq!(server.metric("proxyrunner_hung_children_total"), 1);
    let session = server.session();
    let second = pid(&session);
    let mut looked = 0;
    until("some more pings", || {
        looked += 1;
        looked > 100
    });
    assert_eq!(pid(&session), second);
}

#[test]
fn a_session_ends_with_its_exclusive_child() {
    let server = Server::start(SOON);
    let session = server.opening().exclusive().open();
    crash(&session);
    until("404", || session.post(tool_call(1, "facts", &json!({}))).status == 404);
    assert_eq!(server.metric("proxyrunner_restarted_children_total"), 0);
}

#[test]
fn resume_sessions_continues_a_session_at_its_next_child() {
    let journal = Journal::new();
    let flags = format!("--resume-sessions {SOON}");
    let server = Server::with().flags(&flags).child(&journal.flag()).start();
    let session = server.opening().exclusive().open();
    session.ask("logging/setLevel", json!({"level": "debug"}));
    session.ask("resources/subscribe", json!({"uri": "a://x"}));
    session.ask("resources/subscribe", json!({"uri": "b://x"}));
    session.ask("resources/unsubscribe", json!({"uri": "b://x"}));
    let first = pid(&session);
    crash(&session);
    let next = pid(&session);
    assert_ne!(first, next);
    let frames = journal.frames().into_iter().filter(|read| i64::try_from(read.pid) == Ok(next.into()));
    let frames: Vec<Value> = frames.map(|read| read.message).collect();
    let methods: Vec<_> = frames.iter().map(|frame| frame["method"].as_str().expect("a method")).collect();
    let handshake =
        ["initialize", "notifications/initialized", "logging/setLevel", "resources/subscribe", "tools/call"];
    assert_eq!(methods, handshake);
    assert_eq!(frames[0]["params"]["capabilities"], json!({"sampling": {}, "elicitation": {}}));
    assert_eq!(frames[2]["params"]["level"], "debug");
    assert_eq!(frames[3]["params"]["uri"], "a://x");
    // Questions of the first child do not count as open questions of the next child.
    session.delete();
    server.until_metric("proxyrunner_children", 1);
}

#[test]
fn remembered_handshakes_are_bounded_and_charged() {
    let server = Server::start(&format!("--resume-sessions --evict-after 1h {SOON}"));
    let open = |bytes| server.opening().exclusive().padded(bytes).open();
    let (long, other, short) = (open(1 << 20), open(1 << 20), open(20_000));
    until("only the short one is charged", || {
        (20_000..40_000).contains(&server.metric("proxyrunner_buffered_bytes"))
    });
    server.until_logged("cannot be resumed");
    assert_eq!(server.logged().matches("cannot be resumed").count(), 1, "logged once");
    let first = pid(&short);
    for session in [&long, &short] {
        crash(session);
    }
    assert_ne!(pid(&short), first);
    until("404", || long.post(tool_call(1, "facts", &json!({}))).status == 404);
    assert!(pid(&other) > 0);
}

#[test]
fn subscriptions_of_a_resumable_session_are_limited() {
    let server = Server::start("--resume-sessions");
    let session = server.opening().exclusive().open();
    let long = |n: usize| json!({"uri": format!("x:{n}{}", "y".repeat(2_000))});
    for n in 0..4 {
        assert!(session.ask("resources/subscribe", long(n))["result"].is_object());
    }
    assert_eq!(session.ask("resources/subscribe", long(4))["error"]["code"], -32602);
    assert!(session.ask("resources/unsubscribe", long(0))["result"].is_object());
    assert!(session.ask("resources/subscribe", long(4))["result"].is_object());
}

#[test]
fn a_resumed_session_ends_if_the_next_child_describes_itself_differently() {
    let told = scratch("told");
    let flags = format!("--resume-sessions {SOON}");
    let server = Server::with().flags(&flags).child(&format!("--told {}", told.display())).start();
    let session = server.opening().exclusive().open();
    std::fs::write(&told, "I am another").expect("a file");
    crash(&session);
    until("404", || session.post(tool_call(1, "facts", &json!({}))).status == 404);
    server.until_metric("proxyrunner_children", 1);
}

#[test]
fn the_other_shared_children_serve_while_one_is_replaced() {
    let server =
        Server::start("--children 2 --restart-backoff 1h --restart-backoff-max 1h --restart-wait 50ms");
    let (one, two) = (server.session(), server.session());
    assert_ne!(pid(&one), pid(&two));
    crash(&one);
    assert_eq!(ready(&server), 200);
    assert!(pid(&two) > 0);
    assert_eq!(one.post(tool_call(1, "facts", &json!({}))).status, 503);
    assert!(pid(&server.session()) > 0, "a new session uses the running child");
}

#[test]
fn the_child_of_the_other_era_is_restarted_too() {
    let server = Server::with().flags(SOON).modern_child("--dual").start();
    let (modern, session) = (server.modern(), server.session());
    let first = modern.result("facts", json!({}))["structuredContent"]["pid"].clone();
    let other = own_pid(&session);
    assert_ne!(first, other);
    crash(&session);
    assert_ne!(own_pid(&session), other);
    assert_eq!(
        modern.result("facts", json!({}))["structuredContent"]["pid"],
        first,
        "the other child still runs"
    );
}

#[test]
fn a_child_being_replaced_keeps_its_place_under_max_children() {
    let server = Server::start(&format!("--max-children 2 --at-cap refuse {SOON}"));
    let (shared, own) = (server.session(), server.opening().exclusive().open());
    crash(&shared);
    assert_eq!(server.opening().exclusive().send().status, 503);
    assert!(pid(&shared) > 0 && pid(&own) > 0);
    assert_eq!(server.metric("proxyrunner_children"), 2);
}
