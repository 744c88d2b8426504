//! Shutdown: its order and duration, and that no process is left behind.

use crate::support::{Server, Session, lives, tool_call, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

fn ready(server: &Server) -> u16 {
    server.request("GET", "/readyz", &[], b"").status
}

fn pid(session: &Session<'_>) -> i32 {
    i32::try_from(session.result("facts", json!({}))["pid"].as_i64().expect("a pid")).expect("a pid")
}

/// Kills a process that the server under test does not end itself.
struct Leftover(i32);

impl Drop for Leftover {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0), Signal::SIGKILL);
    }
}

#[test]
fn requests_are_served_during_drain_delay() {
    let server = Server::start("--drain-delay 2s");
    let session = server.session();
    let kept = server.connect();
    assert_eq!(ready(&server), 200);
    server.signal(Signal::SIGTERM);
    until("not ready", || ready(&server) == 503);
    assert_eq!(server.request("GET", "/livez", &[], b"").status, 200, "liveness does not fail");
    assert_eq!(session.call("sleep", json!({"ms": 0}))["result"]["ms"], 0, "old sessions are served");
    assert_eq!(pid(&server.session()), pid(&session), "new sessions are served, too");
    let response = session.post(r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#);
    assert_eq!((response.status, response.header("connection")), (200, Some("close")), "clients let it go");
    drop(kept);
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn requests_in_flight_finish_and_new_ones_are_refused() {
    let server = Server::start("--sse-commit-after 0");
    let session = server.opening().exclusive().open();
    let mut asking = session.begin_call(1, "ask", json!({"method": "elicitation/create"})).events();
    let question = asking.message()["id"].clone();
    let mut cut = session.begin_call(2, "wait", json!({"name": "a"})).events();
    let primer = cut.next().and_then(|event| event.id).expect("the priming event");
    let mut cancelled = session.begin_call(3, "hang", json!({})).events();
    server.until_metric("proxyrunner_in_flight", 3);
    cut.cut();

    server.signal(Signal::SIGTERM);
    until("refusing", || server.opening().send().status == 503);
    let refused = session.post(tool_call(9, "facts", &json!({})));
    assert_eq!((refused.status, refused.code(), refused.header("retry-after")), (503, -32603, Some("1")));
    assert_eq!(session.post(PING).status, 200, "a ping is not a new call");
    let mut resumed = session.resume(&primer);
    session.tell(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 3}}));
    assert_eq!(cancelled.message()["error"]["code"], -32800);
    session.tell(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}}));
    assert_eq!(resumed.message()["error"]["code"], -32800);
    session.tell(json!({"jsonrpc": "2.0", "id": question, "result": {"said": "yes"}}));
    let answer = asking.message();
    assert_eq!(answer["result"]["answers"][0]["result"]["said"], "yes");
}

#[test]
fn a_call_in_flight_gets_its_response() {
    let server = Server::start("");
    let session = server.session();
    let mut waiting = session.begin_call(1, "sleep", json!({"ms": 700}));
    server.until_metric("proxyrunner_in_flight", 1);
    server.signal(Signal::SIGTERM);
    assert_eq!(waiting.response().answer()["result"]["ms"], 700);
    let child = server.until_logged("server started");
    assert_eq!(server.exit_code(), 0, "{child}");
}

#[test]
fn calls_get_an_error_after_drain_timeout() {
    let server = Server::start("--drain-timeout 300ms");
    let session = server.session();
    let mut listening = session.listen();
    let mut hanging = session.begin_call("h", "hang", json!({}));
    server.until_metric("proxyrunner_in_flight", 1);
    server.signal(Signal::SIGTERM);
    let messages = hanging.response().messages();
    assert_eq!((messages.len(), &messages[0]["id"]), (1, &json!("h")));
    assert_eq!(messages[0]["error"]["data"]["reason"], "shutting_down");
    assert_eq!(listening.rest(), Vec::<Value>::new());
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn children_end_when_their_stdin_is_closed() {
    let server = Server::start("");
    let children = [pid(&server.session()), pid(&server.opening().exclusive().open())];
    server.signal(Signal::SIGTERM);
    server.until_logged("end of stdin");
    assert_eq!(server.exit_code(), 0);
    assert!(!children.iter().any(|pid| lives(*pid)));
}

#[test]
fn a_child_that_ignores_eof_and_sigterm_is_killed() {
    let graces = "--close-grace 200ms --terminate-grace 200ms";
    let server = Server::with().flags(graces).child("--ignore-eof --ignore-sigterm").start();
    let child = pid(&server.session());
    server.signal(Signal::SIGTERM);
    let logged = server.until_logged("was killed by signal");
    assert!(logged.contains("SIGKILL"), "{logged}");
    assert!(server.logged().contains("SIGTERM ignored"), "SIGTERM was sent first");
    assert_eq!(server.exit_code(), 0);
    assert!(!lives(child));
}

#[test]
fn a_second_signal_exits_at_once() {
    let server = Server::with().flags("--drain-timeout 1h").child("--ignore-eof --ignore-sigterm").start();
    let session = server.session();
    let child = pid(&session);
    let _hanging = session.begin_call(1, "hang", json!({}));
    server.until_metric("proxyrunner_in_flight", 1);
    server.signal(Signal::SIGTERM);
    until("refusing", || server.opening().send().status == 503);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 128 + 15);
    until("the child's end", || !lives(child));
}

/// With `setsid`, the grandchild keeps the pipes open and gets no signals to the group.
#[test]
fn a_grandchild_that_holds_the_pipes_does_not_delay_the_exit() {
    for setsid in [false, true] {
        let server = Server::start("--close-grace 1h");
        let grandchild = server.session().result("grandchild", json!({"setsid": setsid}))["pid"].as_i64();
        let grandchild = Leftover(i32::try_from(grandchild.expect("a pid")).expect("a pid"));
        server.signal(Signal::SIGTERM);
        assert_eq!(server.exit_code(), 0);
        if !setsid {
            until("the exit", || !lives(grandchild.0));
        }
    }
}

#[test]
fn a_grandchild_that_holds_the_pipes_does_not_hide_its_parents_exit() {
    let server = Server::start("--restart-limit 0");
    let session = server.session();
    let grandchild = session.result("grandchild", json!({"setsid": true}))["pid"].as_i64().expect("a pid");
    let _grandchild = Leftover(i32::try_from(grandchild).expect("a pid"));
    let answer = session.call("leave", json!({"code": 5}));
    assert_eq!(answer["error"]["data"]["exitCode"], 5);
    assert_eq!(server.exit_code(), 5);
}

#[test]
fn an_idle_proxyrunner_exits_without_waiting() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let server = Server::start("--drain-timeout 1h --close-grace 1h --terminate-grace 1h");
        let session = server.session();
        let _listening = session.listen();
        let _idle = server.connect();
        server.signal(signal);
        assert_eq!(server.exit_code(), 0, "{signal}");
    }
}

#[test]
fn a_signal_during_startup_exits() {
    let server = Server::with().child("--mute").start();
    server.until_logged("server started");
    let mut early = server.connect();
    early.post(&[], server.opening().body());
    // Connections are accepted in order, so this response means that the earlier connection was accepted.
    assert_eq!(ready(&server), 503);
    server.signal(Signal::SIGTERM);
    let refused = early.response();
    assert_eq!((refused.status, refused.code(), &refused.json()["id"]), (503, -32603, &json!(0)));
    assert_eq!(server.exit_code(), 0);
}

/// Requests that wait for a starting child are answered although the shutdown has begun.
#[test]
fn a_start_in_progress_completes_after_a_signal() {
    let gate = crate::support::scratch("gate");
    let child = format!("--gate {}", gate.display());
    let server = Server::with().flags("--drain-delay 2s").child(&child).start();
    server.until_logged("server started");
    server.signal(Signal::SIGTERM);
    server.until_logged("shutting down");
    std::fs::write(&gate, "").expect("a scratch file");
    assert_eq!(server.session().call("sleep", json!({"ms": 0}))["result"]["ms"], 0);
}

/// Even after SIGKILL, no child is left behind.
#[test]
fn children_end_when_proxyrunner_is_killed() {
    let server = Server::with().child("--ignore-eof --ignore-sigterm").start();
    let children = [pid(&server.session()), pid(&server.opening().exclusive().open())];
    server.signal(Signal::SIGKILL);
    until("their exit", || !children.iter().any(|pid| lives(*pid)));
}

#[test]
fn a_first_signal_after_the_childs_exit_does_not_count_as_the_second() {
    let server = Server::start("--restart-limit 0 --cancel-grace 100ms");
    let (shared, own) = (server.session(), server.opening().exclusive().open());
    let mut call = own.begin_call(1, "wait", json!({"name": "a"}));
    server.until_metric("proxyrunner_in_flight", 1);
    assert_eq!(shared.call("leave", json!({"code": 3}))["error"]["data"]["exitCode"], 3);
    // The child's exit starts the shutdown; the signal follows.
    server.until_logged("\"ERROR\"");
    server.signal(Signal::SIGTERM);
    server.until_logged("another signal exits immediately");
    until("refusals", || own.post(crate::support::tool_call(3, "echo", &json!({}))).status == 503);
    let release = own.post(crate::support::tool_call(2, "release", &json!({"name": "a"})));
    assert_eq!(release.status, 503, "new calls are refused");
    own.tell(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}));
    assert_eq!(call.response().answer()["error"]["data"]["reason"], "cancelled");
    assert_eq!(server.exit_code(), 3);
}

/// The shutdown does not wait for requests that were cancelled, timed out or abandoned.
#[test]
fn finished_requests_do_not_delay_the_exit() {
    let flags = "--cancel-grace 1h --drain-timeout 1h --request-timeout 300ms";
    for modern_child in [false, true] {
        let start = Server::with().flags(flags);
        let server = if modern_child { start.modern_child("").start() } else { start.start() };
        let session = server.session();
        let timed_out = session.call("hang", json!({}));
        assert_eq!(timed_out["error"]["data"]["reason"], "timed_out");
        let mut cancelled = session.begin_call("c", "hang", json!({}));
        let cancel =
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "c"}});
        // A cancellation that overtakes its request has no effect, so it is repeated.
        until("cancellation", || {
            session.tell(cancel.clone());
            cancelled.is_answered()
        });
        assert!(cancelled.response().answer()["error"].is_object());
        drop(server.modern().begin_call(1, "hang", json!({})));
        let gone = server.session();
        drop(gone.begin_call(2, "hang", json!({})));
        gone.delete();
        server.signal(Signal::SIGTERM);
        assert_eq!(server.exit_code(), 0);
    }
}

/// Waiting clients get their errors before the child is stopped, however long that takes.
#[test]
fn clients_get_errors_before_a_stubborn_child_is_stopped() {
    let flags = "--drain-timeout 100ms --close-grace 1h";
    let server = Server::with().flags(flags).child("--ignore-eof").start();
    let session = server.session();
    let mut call = session.begin_call(1, "hang", json!({}));
    server.until_metric("proxyrunner_in_flight", 1);
    server.signal(Signal::SIGTERM);
    assert_eq!(call.response().messages()[0]["error"]["data"]["reason"], "shutting_down");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 128 + 15);
}

/// The platform kills after 10 s, of which 9 s are used; a loaded machine may take longer.
#[test]
fn a_long_call_and_a_stubborn_child_end_within_the_default_grace_of_the_platform() {
    let server = Server::with().child("--ignore-eof --ignore-sigterm").start();
    let child = pid(&server.session());
    let session = server.session();
    let mut call = session.begin_call(1, "hang", json!({}));
    server.until_metric("proxyrunner_in_flight", 1);
    let begun = std::time::Instant::now();
    server.signal(Signal::SIGTERM);
    assert_eq!(call.response().messages()[0]["error"]["data"]["reason"], "shutting_down");
    assert!(lives(child), "clients get errors before the child is killed");
    assert_eq!(server.exit_code(), 0);
    let took = begun.elapsed();
    assert!(took < std::time::Duration::from_secs(20), "{took:?}");
    assert!(!lives(child));
}

#[test]
fn settings_that_exceed_the_platforms_grace_period_cause_a_warning() {
    let server = Server::start("--drain-timeout 30s");
    let warning = server.until_logged("stopping may take 36 s, but Docker kills after 10 s");
    assert!(warning.contains("\"WARN\"") && warning.contains("give it 37 s"), "{warning}");
    let kubernetes = Server::with().env("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    kubernetes.flags("--close-grace 20s").start().until_logged("Kubernetes kills after 30 s");
    let server = Server::start("");
    server.session();
    assert!(!server.logged().contains("WARN"), "the defaults fit the grace period: {}", server.logged());
}
