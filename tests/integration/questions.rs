//! Questions of a child to its client (sampling and elicitation), and the way of the answers back.

use crate::support::{Server, scratch};
use serde_json::{Value, json};
use std::collections::HashSet;

#[test]
fn a_question_is_sent_on_its_calls_stream_and_answered() {
    let server = Server::start("");
    let session = server.opening().exclusive().open();
    let mut listening = session.listen();
    let mut ids = HashSet::new();
    for (method, childs_id) in [
        ("sampling/createMessage", json!(0)),
        ("elicitation/create", json!("x")),
        ("sampling/createMessage", json!(0)),
    ] {
        let mut events = session
            .begin_call(5, "ask", json!({"method": method, "id": childs_id, "params": {"p": 1}}))
            .events();
        let question = events.message();
        assert_eq!((&question["method"], &question["params"]), (&json!(method), &json!({"p": 1})));
        let id = question["id"].clone();
        assert!(ids.insert(id.to_string()), "{id} was used before");
        let stranger = server.opening().exclusive().open();
        stranger.tell(json!({"jsonrpc": "2.0", "id": id, "result": {"from": "a stranger"}}));
        session.tell(json!({"jsonrpc": "2.0", "id": "no such", "result": {}}));
        session.tell(json!({"jsonrpc": "2.0", "id": id, "result": {"said": "yes"}}));
        session.tell(json!({"jsonrpc": "2.0", "id": id, "result": {"said": "twice"}}));
        let answer = events.message();
        let heard = json!([{"jsonrpc": "2.0", "id": childs_id, "result": {"said": "yes"}}]);
        assert_eq!((&answer["id"], &answer["result"]["answers"]), (&json!(5), &heard));
        stranger.delete();
    }
    assert_eq!(server.metric("proxyrunner_unmatched_client_answers_total"), 9);
    session.delete();
    assert_eq!(listening.rest(), Vec::<Value>::new(), "the other stream got no message");
}

#[test]
fn an_error_answers_a_question() {
    let server = Server::start("");
    let session = server.opening().exclusive().open();
    let mut events = session.begin_call(5, "ask", json!({"method": "elicitation/create"})).events();
    let id = events.message()["id"].clone();
    session.tell(json!({"jsonrpc": "2.0", "id": id, "error": {"code": -1, "message": "no"}}));
    assert_eq!(events.message()["result"]["answers"][0]["error"], json!({"code": -1, "message": "no"}));
}

#[test]
fn a_question_outside_any_call_is_sent_on_the_standalone_stream() {
    let server = Server::start("");
    let session = server.opening().exclusive().open();
    let (mut listening, file) = (session.listen(), scratch("ask-now"));
    let question = json!({"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage"}).to_string();
    session.result("emit", json!({"lines": [], "after": [question], "file": file}));
    std::fs::write(&file, "").expect("a scratch file");
    let asked = listening.message();
    assert_eq!(asked["method"], "sampling/createMessage");
    session.tell(json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"x": 1}}));
    let heard = json!({"jsonrpc": "2.0", "id": "q", "result": {"x": 1}});
    assert_eq!(session.child_read().last(), Some(&heard));
}

#[test]
fn a_childs_cancellation_of_a_question_reaches_the_client() {
    let server = Server::start("");
    let session = server.opening().exclusive().open();
    let question = json!({"jsonrpc": "2.0", "id": 9, "method": "sampling/createMessage", "params": {}});
    let other = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 8}});
    let back = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 9, "reason": "r"}});
    let lines = [question.to_string(), other.to_string(), back.to_string()];
    let messages = session.begin_call(1, "emit", json!({"lines": lines})).response().messages();
    assert_eq!(messages.len(), 3, "{messages:?}");
    let expected = json!({"requestId": messages[0]["id"], "reason": "r"});
    assert_eq!(messages[1]["params"], expected);
    session.tell(json!({"jsonrpc": "2.0", "id": messages[0]["id"], "result": {}}));
    assert!(
        !session.child_read().iter().any(|frame| frame["id"] == 9),
        "an answer to a cancelled question is dropped"
    );
}

#[test]
fn a_clients_progress_reaches_the_child_with_the_childs_token() {
    let server = Server::start("");
    let session = server.opening().exclusive().open();
    let params = json!({"_meta": {"progressToken": "child's"}});
    let mut events =
        session.begin_call(1, "ask", json!({"method": "sampling/createMessage", "params": params})).events();
    let question = events.message();
    let token = &question["params"]["_meta"]["progressToken"];
    for stray in [token.clone(), json!("child's"), json!(4711)] {
        session.tell(json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": stray, "progress": 1}}));
    }
    session.tell(json!({"jsonrpc": "2.0", "id": question["id"], "result": {}}));
    assert!(events.message()["result"]["answers"].is_array());
    let read = session.child_read();
    let progress: Vec<Value> = read
        .iter()
        .filter(|frame| frame["method"] == "notifications/progress")
        .map(|frame| frame["params"].clone())
        .collect();
    assert_eq!(progress, [json!({"progressToken": "child's", "progress": 1})]);
}
