//! Tools that a legacy child runs as tasks only, called by clients of 2026-07-28, who know nothing of tasks.

mod support;

use serde_json::{Value, json};
use support::modern::{Asked, result};
use support::{Journal, Server, until};

fn tasks(flags: &str) -> (Server, Journal) {
    let journal = Journal::new();
    (Server::with().flags(flags).tasks_child(&journal.flag()).start(), journal)
}

fn sent(journal: &Journal, method: &str) -> Vec<Value> {
    let frames = journal.frames().into_iter().map(|read| read.message);
    frames.filter(|message| message["method"] == method).collect()
}

#[test]
fn a_task_is_waited_for_and_its_result_is_the_calls() {
    let (server, journal) = tasks("");
    let answered = result(&server.modern().call("research", json!({"polls": 2, "end": "completed"})));
    assert_eq!(answered["content"][0]["text"], "\"done\"");
    assert_eq!(answered["resultType"], "complete");
    assert_eq!(answered["_meta"]["acme"], 1);
    assert!(!answered.to_string().contains("related-task"), "{answered}");
    assert_eq!(sent(&journal, "tools/call")[0]["params"]["task"], json!({}));
    assert_eq!((sent(&journal, "tasks/get").len(), sent(&journal, "tasks/result").len()), (3, 1));
    assert!(sent(&journal, "tasks/cancel").is_empty());
    assert_eq!(server.metric("proxyrunner_in_flight"), 0);
}

#[test]
fn a_failed_task_is_the_calls_error() {
    let (server, _) = tasks("");
    let response = server.modern().call("research", json!({"polls": 0, "end": "failed"}));
    assert_eq!((response.status, response.code()), (200, -32603));
    assert_eq!(response.json()["id"], 1);
}

#[test]
fn a_task_that_needs_input_asks_the_client() {
    let (server, journal) = tasks("");
    let client = server.asked();
    let arguments = json!({"polls": 1, "end": "input_required"});
    let asked = Asked::of(&client.call("research", arguments.clone()));
    assert!(!asked.questions[0].1.to_string().contains("related-task"), "{:?}", asked.questions);
    let answers = asked.all(&json!({"action": "accept", "content": {}}));
    let done = result(&client.retry("research", arguments, &asked, answers));
    assert_eq!(done["content"][0]["text"], r#"{"action": "accept", "content": {}}"#);
    assert_eq!(sent(&journal, "tools/call").len(), 1);
}

#[test]
fn who_gives_up_cancels_the_task() {
    let (server, journal) = tasks("--sse-commit-after 20ms");
    let events = server.modern().begin_call(1, "research", json!({"polls": 0, "end": "never"})).events();
    until("the task", || !sent(&journal, "tasks/get").is_empty());
    events.cut();
    until("its end", || !sent(&journal, "tasks/cancel").is_empty());
    let (server, journal) = tasks("--request-timeout 300ms");
    let late = server.modern().call("research", json!({"polls": 0, "end": "never"}));
    assert_eq!(late.answer()["error"]["data"]["reason"], "timed_out");
    until("its end", || !sent(&journal, "tasks/cancel").is_empty());
}

#[test]
fn a_clients_own_wish_for_a_task_does_not_reach_a_legacy_child() {
    let journal = Journal::new();
    let server = Server::with().child(&journal.flag()).start();
    let params = json!({"name": "facts", "arguments": {}, "task": {"ttl": 1}});
    assert_eq!(server.modern().send("tools/call", params).status, 200);
    assert!(journal.call("facts").message["params"]["task"].is_null());
}
