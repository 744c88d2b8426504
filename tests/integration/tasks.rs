//! Tools that a legacy child runs only as tasks, called by clients of 2026-07-28 that do not support tasks.

use crate::support::modern::{Asked, result};
use crate::support::{Journal, Server, scratch, until};
use serde_json::{Value, json};

fn tasks(flags: &str) -> (Server, Journal) {
    tasks_of(flags, "")
}

fn tasks_of(flags: &str, child: &str) -> (Server, Journal) {
    let journal = Journal::new();
    let child = format!("{child} {}", journal.flag());
    (Server::with().flags(flags).tasks_child(&child).start(), journal)
}

fn sent(journal: &Journal, method: &str) -> Vec<Value> {
    let frames = journal.frames().into_iter().map(|read| read.message);
    frames.filter(|message| message["method"] == method).collect()
}

#[test]
fn a_tasks_result_becomes_the_result_of_the_call() {
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
fn a_failed_task_becomes_the_error_of_the_call() {
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
fn a_disconnect_or_the_end_of_request_max_cancels_the_task() {
    let (server, journal) = tasks("--sse-commit-after 20ms");
    let events = server.modern().begin_call(1, "research", json!({"polls": 0, "end": "never"})).events();
    until("the task", || !sent(&journal, "tasks/get").is_empty());
    events.cut();
    until("the cancellation", || !sent(&journal, "tasks/cancel").is_empty());
    let (server, journal) = tasks("--request-timeout 300ms --request-max 400ms");
    let late = server.modern().call("research", json!({"polls": 0, "end": "never"}));
    assert_eq!(late.answer()["error"]["data"]["reason"], "timed_out");
    until("the cancellation", || !sent(&journal, "tasks/cancel").is_empty());
}

#[test]
fn a_task_may_take_longer_than_request_timeout_as_long_as_it_is_answered_to_be_working() {
    let (server, journal) = tasks("--request-timeout 400ms");
    let done = server.modern().call("research", json!({"polls": 14, "end": "completed"}));
    assert_eq!(done.answer()["result"]["resultType"], "complete");
    assert!(sent(&journal, "tasks/cancel").is_empty());
}

#[test]
fn a_clients_task_parameter_does_not_reach_a_legacy_child() {
    let journal = Journal::new();
    let server = Server::with().child(&journal.flag()).start();
    let params = json!({"name": "facts", "arguments": {}, "task": {"ttl": 1}});
    assert_eq!(server.modern().send("tools/call", params).status, 200);
    assert!(journal.call("facts").message["params"]["task"].is_null());
}

#[test]
fn a_tasks_progress_is_reported_until_the_call_ends() {
    let (server, journal) = tasks("");
    for client in [server.modern(), server.asked()] {
        let silent = client.call("research", json!({"polls": 1, "end": "completed", "progress": 2}));
        assert_eq!(silent.messages().len(), 1, "no progress was requested");
        let client = client.meta("progressToken", "mine");
        let told = client.call("research", json!({"polls": 1, "end": "completed", "progress": 2})).messages();
        let progress = |n: u64| json!({"progressToken": "mine", "progress": n});
        let params: Vec<&Value> = told[..4].iter().map(|message| &message["params"]).collect();
        assert_eq!(params, [&progress(0), &progress(1), &progress(0), &progress(1)]);
        assert_eq!(told[4]["result"]["resultType"], "complete", "the result comes last: {told:?}");
        assert_eq!(told.len(), 5);
    }
    assert!(sent(&journal, "tasks/cancel").is_empty());
}

#[test]
fn a_running_task_counts_as_in_flight() {
    let (server, journal) = tasks("--max-in-flight 1 --max-queued 0 --sse-commit-after 20ms");
    let events = server.modern().begin_call(1, "research", json!({"polls": 0, "end": "never"})).events();
    until("the task", || sent(&journal, "tasks/get").len() > 1);
    assert_eq!(server.metric("proxyrunner_in_flight"), 1);
    let refused = server.modern().call("research", json!({"polls": 0, "end": "completed"}));
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    events.cut();
    server.until_metric("proxyrunner_in_flight", 0);
    result(&server.modern().call("research", json!({"polls": 0, "end": "completed"})));
}

#[test]
fn a_child_is_not_leased_again_before_its_task_is_cancelled() {
    let gate = scratch("gate");
    let child = format!("--cancel-gate {}", gate.display());
    let (server, journal) = tasks_of("--sse-commit-after 20ms --principal-header x-user", &child);
    let client = server.asked().of("ann");
    let events = client.begin_call(1, "research", json!({"polls": 0, "end": "never"})).events();
    until("the task", || !sent(&journal, "tasks/get").is_empty());
    let taken = journal.call("research").pid;
    events.cut();
    until("the cancellation", || !sent(&journal, "tasks/cancel").is_empty());
    let run = || {
        result(&client.call("research", json!({"polls": 0, "end": "completed"})));
        journal.call("research").pid
    };
    assert_ne!(run(), taken, "the child may still ask a question");
    std::fs::write(&gate, "").expect("a file");
    until("the child is leased again", || {
        let arguments = json!({"polls": 0, "end": "input_required"});
        // Two concurrent calls, so that each needs its own child.
        let asked = [(); 2].map(|()| Asked::of(&client.call("research", arguments.clone())));
        for asked in &asked {
            result(&client.retry(
                "research",
                arguments.clone(),
                asked,
                asked.all(&json!({"action": "decline"})),
            ));
        }
        let asks =
            |read: &crate::support::Read| read.message["params"]["arguments"]["end"] == "input_required";
        journal.frames().iter().any(|read| read.pid == taken && asks(read))
    });
}

#[test]
fn a_task_whose_status_cannot_be_read_is_cancelled() {
    let (server, journal) = tasks("");
    let response = server.modern().call("research", json!({"polls": 0, "end": "broken"}));
    assert_eq!((response.status, response.code()), (200, -32603));
    until("the cancellation", || !sent(&journal, "tasks/cancel").is_empty());
    server.until_metric("proxyrunner_in_flight", 0);
}

#[test]
fn a_child_without_the_tasks_capability_gets_plain_calls() {
    let (server, journal) = tasks_of("", "--undeclared");
    result(&server.modern().call("research", json!({"polls": 0, "end": "completed"})));
    assert!(journal.call("research").message["params"]["task"].is_null());
}

#[test]
fn a_modern_servers_task_belongs_to_the_principal_that_began_it() {
    let server = Server::with().flags("--principal-header x-user").modern_child("").start();
    let created =
        r#"{"jsonrpc":"2.0","id":$ID,"result":{"resultType":"task","taskId":"t\u0031","status":"working"}}"#;
    let (ann, bob) = (server.modern().of("ann"), server.modern().of("bob"));
    assert_eq!(result(&ann.call("raw", json!({"line": created})))["taskId"], "t1");
    let about = |task: &str| json!({"taskId": task});
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        assert_eq!(result(&ann.send(method, about("t1")))["extra"], true, "{method}");
        let (foreign, unknown) = (bob.send(method, about("t1")), ann.send(method, about("t2")));
        assert_eq!((foreign.status, foreign.code()), (200, -32602), "{method}");
        assert_eq!(foreign.text(), unknown.text(), "{method}: another principal's id is as good as none");
    }
    let listen = |client: &crate::support::modern::Modern<'_>, tasks: Value| {
        client.begin_body(&client.body(
            1,
            "subscriptions/listen",
            json!({"notifications": {"taskIds": tasks}}),
        ))
    };
    let mut events = listen(&ann, json!(["t1"])).events();
    assert_eq!(events.message()["params"]["notifications"]["taskIds"], json!(["t1"]));
    for tasks in [json!(["t1"]), json!(["t2"]), json!("t1"), json!([1])] {
        assert_eq!(listen(&bob, tasks.clone()).response().code(), -32602, "{tasks}");
    }
}

#[test]
fn without_principals_a_modern_servers_tasks_pass() {
    let server = Server::with().modern_child("").start();
    assert_eq!(result(&server.modern().send("tasks/get", json!({"taskId": "any"})))["extra"], true);
}
