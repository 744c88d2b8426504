//! Replicas of one sidecar without session affinity (`--forward-sessions`): each passes requests of the others' sessions on.

use crate::support::modern::{Asked, result};
use crate::support::upstream::Upstream;
use crate::support::{JSON, Server, Session, scratch, tool_call, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const PING: &str = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;
const FORWARD: &str = "--forward-sessions 127.0.0.1";

fn key_file(text: &str) -> PathBuf {
    let path = scratch("state-key");
    fs::write(&path, text).expect("a file");
    path
}

fn flags(key: &Path, more: &str) -> String {
    format!("{FORWARD} --state-key-file {} {more}", key.display())
}

/// Starts replicas that share a key.
fn replicas<const N: usize>(more: &str) -> [Server; N] {
    let key = key_file(&"k".repeat(64));
    [(); N].map(|()| {
        let server = Server::start(&flags(&key, more));
        until("the replica is ready", || server.request("GET", "/readyz", &[], b"").status == 200);
        server
    })
}

fn forwarded(server: &Server, result: &str) -> u64 {
    server.metric(&format!("proxyrunner_forwarded_requests_total{{result=\"{result}\"}}"))
}

fn accepted(server: &Server) -> u64 {
    server.metric(r#"proxyrunner_sibling_requests_total{result="accepted"}"#)
}

fn pid(session: &Session<'_>) -> u64 {
    session.result("facts", json!({}))["pid"].as_u64().expect("a pid")
}

/// Checks that a session does not exist for a replica.
fn unknown(session: &Session<'_>) {
    let response = session.post(PING);
    assert_eq!((response.status, response.code()), (404, -32001), "{}", response.text());
    assert_eq!(response.json()["id"], 7);
}

fn question() -> Value {
    let params = json!({"message": "m", "requestedSchema": {"type": "object", "properties": {}}});
    json!({"method": "elicitation/create", "params": params})
}

#[test]
fn every_replica_serves_every_session() {
    let [a, b, c] = replicas("");
    let session = a.session();
    let own = pid(&session);
    assert!(session.id.len() < 256 && session.id.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
    for replica in [&b, &c, &a, &b] {
        assert_eq!(pid(&session.through(replica)), own);
    }
    assert_eq!(session.through(&b).result("echo", json!({"a": "\u{a0}\u{3000}é"}))["a"], "\u{a0}\u{3000}é");
    let large = "x".repeat(1 << 20);
    assert_eq!(session.through(&c).result("echo", json!({"a": large}))["a"], large.as_str(), "a long body");
    session.through(&c).tell(json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}));
    b.until_metric(r#"proxyrunner_forwarded_requests_total{result="ok"}"#, 3);
    assert_eq!(forwarded(&a, "ok"), 0);
    assert_eq!((accepted(&a), accepted(&b)), (6, 0));
    assert_ne!(pid(&b.session()), own, "each replica opens sessions of its own");
    assert_eq!(session.through(&b).delete().status, 204);
    for replica in [&a, &b, &c] {
        unknown(&session.through(replica));
    }
}

#[test]
fn questions_and_their_answers_pass_by_different_replicas() {
    let [a, b, c] = replicas("");
    let session = a.opening().exclusive().open();
    let (by_b, by_c) = (session.through(&b), session.through(&c));
    let mut stream = by_b.listen();
    let call = by_c.begin_call(5, "ask", json!({"method": "sampling/createMessage"}));
    let mut events = call.events();
    let asked = events.message();
    assert_eq!(asked["method"], "sampling/createMessage", "{asked}");
    by_b.tell(json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"role": "user"}}));
    assert_eq!(events.message()["id"], 5);
    session.result(
        "emit",
        json!({"lines": [r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#]}),
    );
    assert_eq!(stream.message()["method"], "notifications/tools/list_changed");
    assert_eq!(by_c.delete().status, 204);
    assert_eq!(stream.next(), None, "the session's stream ends with it");
}

#[test]
fn a_stream_is_resumed_by_another_replica() {
    let [a, b, c] = replicas("--sse-commit-after 0s");
    let session = a.session();
    let mut events = session.through(&b).begin_call(1, "wait", json!({"name": "a"})).events();
    let primed = events.next().expect("an event").id.expect("an id");
    events.cut();
    b.until_metric(r#"proxyrunner_forwarded_requests_total{result="cancelled"}"#, 1);
    session.through(&c).result("release", json!({"name": "a"}));
    assert_eq!(session.through(&c).resume(&primed).message()["id"], 1);
}

#[test]
fn a_cancellation_reaches_the_call_by_any_replica() {
    let [a, b, c] = replicas("");
    let session = a.session();
    let _call = session.through(&b).begin_call("x", "wait", json!({"name": "never"}));
    a.until_metric("proxyrunner_in_flight", 1);
    session
        .through(&c)
        .tell(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "x"}}));
    let is_told = || session.child_read().iter().any(|read| read["method"] == "notifications/cancelled");
    until("the child is told", is_told);
}

#[test]
fn a_batch_passes() {
    let [a, b] = replicas("");
    let session = a.opening().version("2025-03-26").open();
    let batch = format!("[{PING},{}]", tool_call(8, "echo", &json!({"a": 1})));
    let answers = session.through(&b).post(batch).json();
    assert_eq!(answers.as_array().map(Vec::len), Some(2), "{answers}");
}

#[test]
fn a_parked_call_goes_on_where_it_waits() {
    let [a, b, c] = replicas("");
    let client = a.asked();
    let asked = Asked::of(&client.call("ask", question()));
    let heard = client.through(&b).retry("ask", question(), &asked, asked.all(&json!({"action": "decline"})));
    assert_eq!(result(&heard)["answers"][0]["result"]["action"], "decline");
    let again = client.through(&c).retry("ask", question(), &asked, asked.all(&json!({"action": "decline"})));
    assert_eq!(again.code(), -32602, "a state is used once");
    let asked = Asked::of(&client.call("ask", question()));
    let client = client.through(&b);
    drop(a);
    let lost = client.retry("ask", question(), &asked, asked.all(&json!({"action": "decline"})));
    assert_eq!(lost.code(), -32602);
    assert!(lost.text().contains("repeat the original call"), "{}", lost.text());
    assert_eq!(forwarded(&b, "owner_gone"), 1);
}

#[test]
fn sessions_end_with_their_owner_and_clients_begin_anew() {
    let [a, b] = replicas("");
    let session = a.session();
    let by_b = session.through(&b);
    pid(&by_b);
    drop(a);
    unknown(&by_b);
    assert_eq!(by_b.request("GET", &[]).response().status, 404);
    assert_eq!(by_b.delete().status, 404);
    assert_eq!(forwarded(&b, "owner_gone"), 3);
    let long =
        json!({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"_meta": {"a": "x".repeat(1 << 17)}}});
    assert_eq!(by_b.post(long.to_string()).status, 404, "a long body");
    // A client with a stale id opens a session where it asks for one.
    let opening = b.opening().header("Mcp-Session-Id", &by_b.id);
    let answer = opening.send();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_ne!(answer.header("mcp-session-id"), Some(by_b.id.as_str()));
}

#[test]
fn a_session_that_is_opened_beside_a_living_one_is_opened_here() {
    let [a, b] = replicas("");
    let session = a.session();
    let answer = b.opening().header("Mcp-Session-Id", &session.id).send();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((accepted(&a), accepted(&b)), (0, 0));
    pid(&session);
}

#[test]
fn a_call_whose_owner_dies_is_answered_and_not_repeated() {
    let [a, b, c] = replicas("--sse-commit-after 1h");
    let session = a.session();
    let (by_b, by_c) = (session.through(&b), session.through(&c));
    let call = by_b.begin_call(9, "wait", json!({"name": "never"}));
    a.until_metric("proxyrunner_in_flight", 1);
    drop(a);
    let mut call = call;
    let response = call.response();
    assert_eq!(response.status, 502, "{}", response.text());
    assert_eq!(response.json()["id"], 9);
    assert!(response.text().contains("may have been carried out"), "{}", response.text());
    assert_eq!(forwarded(&b, "broken"), 1);
    unknown(&by_b);
    unknown(&by_c);
}

#[test]
fn a_stream_whose_owner_dies_breaks_off() {
    let [a, b] = replicas("");
    let session = a.session();
    let mut stream = session.through(&b).listen();
    session.result(
        "emit",
        json!({"lines": [r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#]}),
    );
    assert_eq!(stream.message()["method"], "notifications/tools/list_changed");
    let by_b = session.through(&b);
    drop(a);
    b.until_metric(r#"proxyrunner_forwarded_requests_total{result="broken"}"#, 1);
    unknown(&by_b);
}

#[test]
fn while_the_owner_drains_calls_finish_and_new_ones_begin_elsewhere() {
    let [a, b] = replicas("--isolation session --drain-delay 60s --drain-timeout 60s");
    let session = a.opening().exclusive().open();
    let (by_b, direct) = (session.through(&b), session.through(&a));
    let asking = by_b.begin_call(5, "ask", json!({"method": "sampling/createMessage"}));
    let mut events = asking.events();
    let asked = events.message();
    a.signal(Signal::SIGTERM);
    until("it is not ready", || a.request("GET", "/readyz", &[], b"").status == 503);
    unknown(&by_b);
    assert_eq!(by_b.post(PING).header("proxyrunner-draining"), None, "only the owner ends");
    assert_eq!(by_b.request("GET", &[]).response().status, 404, "no new stream");
    pid(&direct);
    by_b.tell(json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"role": "user"}}));
    assert_eq!(events.message()["id"], 5, "the call in progress gets its answer");
    pid(&b.session());
}

#[test]
fn a_replica_that_drains_waits_for_what_it_has_passed_on() {
    let [a, b] = replicas("--drain-delay 0s --drain-timeout 60s");
    let session = a.session();
    let mut call = session.through(&b).begin_call(5, "wait", json!({"name": "slow"}));
    a.until_metric("proxyrunner_in_flight", 1);
    b.signal(Signal::SIGTERM);
    until("it refuses requests", || b.modern().send("tools/list", json!({})).status == 503);
    let refused = session.through(&b).post(PING);
    assert_eq!(refused.status, 503, "{}", refused.text());
    session.result("release", json!({"name": "slow"}));
    assert_eq!(call.response().answer()["id"], 5);
    assert_eq!(b.exit_code(), 0);
}

#[test]
fn the_caller_is_the_one_that_the_first_replica_has_identified() {
    let log = scratch("audit");
    let key = key_file(&"k".repeat(64));
    let flags = flags(&key, "--principal-header x-user");
    let a = Server::start(&format!("{flags} --audit {} --child-identity meta", log.display()));
    let other = scratch("audit");
    let b = Server::start(&format!("{flags} --audit {}", other.display()));
    let session = a.opening().header("x-user", "ann").open();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "echo", "arguments": {}, "_meta": {"traceparent": format!("00-{trace}-b7ad6b7169203331-01")}},
    });
    let by_b = session.through(&b);
    assert_eq!(by_b.post(call.to_string()).status, 200);
    let read = session.child_read();
    let call = read.iter().find(|read| read["params"]["name"] == "echo").expect("the call");
    assert!(call.to_string().contains(r#""sub":"ann""#), "{call}");
    // To another caller, the session does not exist.
    let headers = [JSON, &[("Mcp-Session-Id", session.id.as_str()), ("x-user", "bob")]].concat();
    let foreign = b.request("POST", "/mcp", &headers, PING.as_bytes());
    assert_eq!((foreign.status, foreign.code()), (404, -32001));
    assert_eq!(b.post(&[("Mcp-Session-Id", &session.id)], PING).status, 400, "the proxy names nobody");
    assert_eq!(accepted(&a), 1);
    by_b.delete();
    let lines = |path: &Path| -> Vec<Value> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let calls = |path: &Path| -> Vec<Value> {
        lines(path)
            .into_iter()
            .filter(|line| line["type"] == "mcp_tool_call" && line["target"]["name"] == "echo")
            .collect()
    };
    until("the session has ended in the log", || {
        lines(&log).iter().any(|line| line["type"] == "session_end")
    });
    let recorded = calls(&log);
    assert_eq!(recorded.len(), 1, "{recorded:?}");
    assert_eq!((&recorded[0]["subjects"]["user"], &recorded[0]["trace_id"]), (&json!("ann"), &json!(trace)));
    b.signal(Signal::SIGTERM);
    assert_eq!(b.exit_code(), 0);
    let at_b = lines(&other);
    assert_eq!(calls(&other), Vec::<Value>::new(), "the owner records the call");
    let visits: Vec<_> = at_b.iter().filter(|line| line["type"] == "http_request").collect();
    assert_eq!(visits.len(), 1, "the request that named nobody: {visits:?}");
}

#[test]
fn ids_that_are_forged_foreign_or_cut_are_unknown_and_nothing_is_dialled() {
    let [a, b] = replicas("");
    let stranger = Server::start(&flags(&key_file(&"s".repeat(64)), ""));
    let (session, foreign) = (a.session(), stranger.session());
    let id = &session.id;
    let changed = format!("{}{}", &id[..id.len() - 1], if id.ends_with('A') { 'B' } else { 'A' });
    for id in [
        &foreign.id,
        &id[..id.len() - 1],
        &id[..8],
        &changed,
        &format!("{id}A"),
        "x",
        &"A".repeat(200),
        &"A".repeat(5000),
    ] {
        let response = b.post(&[("Mcp-Session-Id", id)], PING);
        assert_eq!((response.status, response.code()), (404, -32001), "{id}");
    }
    assert_eq!((accepted(&a), forwarded(&b, "owner_gone"), forwarded(&b, "ok")), (0, 0, 0));
}

#[test]
fn a_request_that_was_passed_on_is_never_passed_on_again() {
    let [a, b, c] = replicas("");
    let session = a.session();
    let address = a.address();
    let (by_b, by_c) = (session.through(&b), session.through(&c));
    drop(a);
    // Somebody else gets the owner's address, and with it requests that are meant for the owner.
    let taker = Upstream::at(
        address,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
    );
    unknown(&by_b);
    let taken = taker.received();
    let ticket = taken[0].header("x-proxyrunner-sibling").expect("a ticket").to_owned();
    assert_eq!(taken[0].header("mcp-session-id"), Some(by_b.id.as_str()));
    let with = |session: &str, body: &str| {
        let headers = [JSON, &[("Mcp-Session-Id", session), ("X-Proxyrunner-Sibling", &ticket)]].concat();
        c.request("POST", "/mcp", &headers, body.as_bytes())
    };
    let again = with(&by_c.id, PING);
    assert_eq!((again.status, again.code()), (404, -32001), "{}", again.text());
    assert_eq!(taker.received().len(), 1, "not passed on again");
    for (session, body) in [(by_c.id.as_str(), "{}"), (&c.session().id, PING)] {
        let misused = with(session, body);
        assert_eq!(misused.status, 403, "{}", misused.text());
    }
    let forged = c.post(&[("Mcp-Session-Id", &by_c.id), ("X-Proxyrunner-Sibling", "forged")], PING);
    assert_eq!(forged.status, 403);
    assert_eq!(c.metric(r#"proxyrunner_sibling_requests_total{result="refused"}"#), 2);
    assert_eq!(forwarded(&c, "owner_gone"), 0);
}

#[test]
fn without_the_setting_ids_are_plain_and_tickets_mean_nothing() {
    let server = Server::start(&format!("--state-key-file {}", key_file(&"k".repeat(64)).display()));
    let session = server.session();
    assert_eq!(session.id.len(), 32);
    let headers = [("Mcp-Session-Id", session.id.as_str()), ("X-Proxyrunner-Sibling", "x")];
    assert_eq!(server.post(&headers, PING).status, 200);
}

#[test]
fn the_key_is_rotated_without_losing_sessions() {
    let (old, new) = ("o".repeat(64), "n".repeat(64));
    let key = key_file(&old);
    let flags = flags(&key, "--reload-interval 50ms");
    let [a, b] = [(); 2].map(|()| Server::start(&flags));
    let first = a.session();
    let mut changes = 0;
    let mut set = |text: &str| {
        fs::write(&key, text).expect("a file");
        changes += 1;
        for server in [&a, &b] {
            until("the key is read", || {
                server.logged().matches("the state key has changed").count() == changes
            });
        }
    };
    // First every replica learns the new key, then it seals, then the old one goes.
    set(&format!("{old}\n{new}\n"));
    pid(&first.through(&b));
    set(&format!("{new}\n{old}\n"));
    pid(&first.through(&b));
    let second = a.session();
    pid(&second.through(&b));
    set(&new);
    pid(&second.through(&b));
    unknown(&first.through(&b));
    pid(&first);
}

#[test]
fn unusable_settings_are_refused() {
    let key = key_file(&"k".repeat(64));
    let with_key = |more: &str| format!("--state-key-file {} {more}", key.display());
    for (flags, reason) in [
        (FORWARD.to_owned(), "has no effect without --state-key-file"),
        (with_key("--forward-sessions 0.0.0.0"), "is not the address of one host"),
        (with_key("--forward-sessions 10.0.0.1:80"), "is not an IP address"),
        (with_key("--forward-sessions 10.0.0.1"), "cannot be reached at --listen"),
        ("--servers-ca /ca.pem".to_owned(), "is a gateway's"),
    ] {
        let (status, logged) = Server::with().flags(&flags).run();
        assert!(!status.success() && logged.contains(reason), "{flags}: {logged}");
    }
}
