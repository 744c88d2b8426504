//! What the child learns about its caller: `--child-identity`.

use crate::support::modern::{Asked, result};
use crate::support::{Journal, Server, Session, tool_call};
use serde_json::{Value, json};

const KEY: &str = "proxyrunner/identity";
/// A client's own values for the reserved keys, in spellings that a parser understands.
const FORGED: &str = r#""proxyrunner/identity":{"sub":"eve"},"\u0070roxyrunner\/identity":{"sub":"eve"},"proxyrunner/other":1,"#;

fn with_meta(journal: &Journal) -> Server {
    let flags = "--principal-header x-user --child-identity meta";
    Server::with().flags(flags).child(&journal.flag()).asked_nothing().start()
}

/// Returns the `_meta` of the last message of this method that the child has read.
fn meta_of(journal: &Journal, method: &str) -> Value {
    let frames = journal.frames();
    let last = frames.iter().rfind(|read| read.message["method"] == method);
    last.unwrap_or_else(|| panic!("no {method}")).message["params"]["_meta"].clone()
}

fn ann(server: &Server) -> Session<'_> {
    server.opening().header("X-User", "ann").open()
}

#[test]
fn each_message_of_a_legacy_client_names_its_caller() {
    let journal = Journal::new();
    let server = with_meta(&journal);
    let session = ann(&server);
    let identity = json!({"sub": "ann"});
    session.call("echo", json!({}));
    assert_eq!(meta_of(&journal, "tools/call"), json!({KEY: identity}));
    let forged = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"_meta":{{{FORGED}"a":1}},"name":"echo","arguments":{{"x" : 1.0}}}}}}"#
    );
    let echoed = session.post(forged).text();
    assert!(echoed.contains(r#""result":{"x" : 1.0}"#), "every other byte stays: {echoed}");
    assert_eq!(meta_of(&journal, "tools/call"), json!({KEY: identity, "a": 1}));
    session.tell(json!({"jsonrpc": "2.0", "method": "notifications/x", "params": {"_meta": {KEY: 7}}}));
    session.call("recall", json!({}));
    assert_eq!(meta_of(&journal, "notifications/x"), json!({KEY: identity}));
    session.ask("tools/list", Value::Null);
    assert_eq!(meta_of(&journal, "tools/list"), json!({KEY: identity}), "null params");
    let bob = server.opening().header("X-User", "bob").open();
    bob.call("echo", json!({}));
    assert_eq!(meta_of(&journal, "tools/call"), json!({KEY: {"sub": "bob"}}));
}

#[test]
fn an_exclusive_child_learns_the_caller_with_initialize() {
    let journal = Journal::new();
    let server = with_meta(&journal);
    let session = server.opening().header("X-User", "ann").exclusive().open();
    session.call("echo", json!({}));
    for method in ["initialize", "notifications/initialized", "tools/call"] {
        assert_eq!(meta_of(&journal, method), json!({KEY: {"sub": "ann"}}), "{method}");
    }
}

#[test]
fn batches_and_streams_of_2024_name_their_caller() {
    let journal = Journal::new();
    let server = with_meta(&journal);
    let session = server.opening().version("2025-03-26").header("X-User", "ann").open();
    let call = |id: u64| tool_call(id, "echo", &json!({"n": id}));
    let notification =
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/x","params":{{"_meta":{{{FORGED}"b":1}}}}}}"#);
    let answers = session.post(format!("[{},{notification},{}]", call(1), call(2))).json();
    assert_eq!(answers.as_array().map(Vec::len), Some(2), "{answers}");
    assert_eq!(meta_of(&journal, "tools/call"), json!({KEY: {"sub": "ann"}}));
    assert_eq!(meta_of(&journal, "notifications/x"), json!({KEY: {"sub": "ann"}, "b": 1}));
}

#[test]
fn calls_of_a_modern_client_and_their_retries_name_the_caller() {
    let journal = Journal::new();
    let server = with_meta(&journal);
    let client = server.asked().of("ann").meta(KEY, json!({"sub": "eve"}));
    let params = json!({"message": "m", "requestedSchema": {"type": "object", "properties": {}}});
    let arguments = json!({"method": "elicitation/create", "params": params});
    let asked = Asked::of(&client.call("ask", arguments.clone()));
    assert_eq!(
        meta_of(&journal, "tools/call"),
        json!({KEY: {"sub": "ann"}}),
        "translated for a legacy child"
    );
    let heard = client.retry("ask", arguments, &asked, asked.all(&json!({"action": "decline"})));
    assert_eq!(result(&heard)["answers"][0]["result"]["action"], "decline");
    let plain = server.modern().of("bob");
    plain.result("echo", json!({}));
    assert_eq!(meta_of(&journal, "tools/call"), json!({KEY: {"sub": "bob"}}));
}

#[test]
fn a_modern_child_learns_the_caller_of_both_eras() {
    let journal = Journal::new();
    let flags = "--principal-header x-user --child-identity meta --metrics=false";
    let server = Server::with().flags(flags).modern_child(&journal.flag()).start();
    server.modern().of("ann").meta("proxyrunner/x", 1).send("tools/list", json!({}));
    let meta = meta_of(&journal, "tools/list");
    assert_eq!((&meta[KEY], &meta["proxyrunner/x"]), (&json!({"sub": "ann"}), &Value::Null));
    let bob = server.opening().header("X-User", "bob").open();
    bob.ask("prompts/list", json!({"_meta": {KEY: "eve"}}));
    assert_eq!(meta_of(&journal, "prompts/list")[KEY], json!({"sub": "bob"}));
}

#[test]
fn lists_of_one_caller_are_not_told_to_another() {
    let journal = Journal::new();
    let server = with_meta(&journal);
    let asked = || journal.frames().iter().filter(|read| read.message["method"] == "tools/list").count();
    let (ann, bob) = (ann(&server), server.opening().header("X-User", "bob").open());
    for _ in 0..2 {
        ann.ask("tools/list", json!({}));
        bob.ask("tools/list", json!({}));
    }
    assert_eq!(asked(), 2, "one request for each caller");
}

#[test]
fn an_anonymous_caller_stays_anonymous() {
    let journal = Journal::new();
    let server = Server::with().flags("--child-identity meta").child(&journal.flag()).asked_nothing().start();
    let session = server.session();
    session.ask("tools/call", json!({"name": "facts", "_meta": {KEY: {"sub": "eve"}, "a": 1}}));
    assert_eq!(meta_of(&journal, "tools/call"), json!({"a": 1}));
    session.call("echo", json!({}));
    assert_eq!(meta_of(&journal, "tools/call"), Value::Null);
}

#[test]
fn without_the_setting_messages_pass_unchanged() {
    let journal = Journal::new();
    let server = Server::with().flags("--principal-header x-user").child(&journal.flag()).start();
    ann(&server).ask("tools/call", json!({"name": "facts", "_meta": {KEY: 7}}));
    assert_eq!(meta_of(&journal, "tools/call"), json!({KEY: 7}));
}

/// Returns the variables of an identity in the environment of the child that answered.
fn told(facts: &Value) -> Value {
    let env = facts["env"].as_object().or(facts["structuredContent"]["env"].as_object()).expect("variables");
    let told = env.iter().filter(|(name, _)| name.starts_with("MCP_IDENTITY_"));
    told.map(|(name, value)| (name.clone(), value.clone())).collect()
}

const ENV: &str = "--principal-header x-user --child-identity env --isolation session";

#[test]
fn a_sessions_own_child_learns_its_caller_at_the_start() {
    let server = Server::with().flags(ENV).env("MCP_IDENTITY_SUB", "eve").start();
    let (ann, bob) = (ann(&server), server.opening().header("X-User", "bob").open());
    assert_eq!(told(&ann.result("facts", json!({}))), json!({"MCP_IDENTITY_SUB": "ann"}));
    assert_eq!(told(&bob.result("facts", json!({}))), json!({"MCP_IDENTITY_SUB": "bob"}));
    let headers = [("X-User", "bob"), ("Mcp-Session-Id", ann.id.as_str())];
    let other = server.post(&headers, tool_call(1, "facts", &json!({})));
    assert_eq!(other.status, 404, "a session and its child stay with their principal");
}

#[test]
fn a_resumed_session_has_the_same_caller() {
    let server = Server::with().flags(ENV).flags("--resume-sessions --restart-backoff 10ms").start();
    let ann = ann(&server);
    let before = ann.result("facts", json!({}));
    ann.begin_call(1, "kill", json!({})).response();
    let after = ann.result("facts", json!({}));
    assert_ne!(before["pid"], after["pid"]);
    assert_eq!(told(&after), json!({"MCP_IDENTITY_SUB": "ann"}));
}

#[test]
fn every_call_of_a_named_modern_client_runs_in_a_child_of_its_own() {
    let server = Server::with().flags(ENV).start();
    for (principal, client) in [("ann", server.modern().of("ann")), ("bob", server.asked().of("bob"))] {
        let first = client.result("facts", json!({}));
        assert_eq!(told(&first), json!({"MCP_IDENTITY_SUB": principal}));
        assert_eq!(client.result("facts", json!({}))["pid"], first["pid"], "the child is leased again");
    }
    assert_ne!(server.modern().of("ann").child(), server.modern().of("bob").child());
}

#[test]
fn a_modern_child_of_one_caller_learns_who_it_is() {
    let server = Server::with().flags(ENV).modern_child("").start();
    let pid = |principal: &str| server.modern().of(principal).result("facts", json!({}));
    assert_eq!(told(&pid("ann")), json!({"MCP_IDENTITY_SUB": "ann"}));
    let session = server.opening().header("X-User", "bob").open();
    assert_eq!(told(&session.result("facts", json!({}))), json!({"MCP_IDENTITY_SUB": "bob"}));
}

#[test]
fn a_child_in_use_by_nobody_named_learns_nothing() {
    let server = Server::with()
        .flags("--child-identity env --isolation session")
        .env("MCP_IDENTITY_SUB", "eve")
        .start();
    assert_eq!(told(&server.session().result("facts", json!({}))), json!({}));
    assert_eq!(told(&server.modern().result("facts", json!({}))), json!({}));
}

#[test]
fn settings_under_which_a_child_would_serve_several_callers_are_refused() {
    for (flags, reason) in [
        ("--child-identity env", "is env without --isolation session"),
        ("--child-identity env --isolation shared", "is env without --isolation session"),
        ("--child-identity env --isolation session --warm 1", "is env with --warm"),
        ("--child-identity env --isolation session --env MCP_IDENTITY_SUB=x", "sets MCP_IDENTITY_SUB"),
        (
            "--child-identity env --isolation session --child-identity-claims a.b,a_b",
            "has two names for the same variable: a.b and a_b",
        ),
    ] {
        let (status, log) = Server::with().flags(flags).run();
        assert_eq!(status.code(), Some(64), "{flags}: {log}");
        assert!(log.contains(reason), "{flags}: {log}");
        assert_eq!(log.lines().count(), 1, "{log}");
    }
}
