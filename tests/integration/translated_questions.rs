//! Questions of a child of 2026-07-28 to legacy clients: concurrent sessions at one process, translation to each
//! client's revision, and invalid answers.

use crate::support::{Events, Journal, Server, Session, tool_call, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::HashSet;

fn modern(flags: &str) -> (Server, Journal) {
    let journal = Journal::new();
    let flags = format!("--child-era modern {flags}");
    (Server::with().flags(&flags).modern_child(&journal.flag()).start(), journal)
}

fn elicit(params: Value) -> Value {
    json!({"method": "elicitation/create", "params": params})
}

fn form() -> Value {
    elicit(
        json!({"mode": "form", "message": "m", "requestedSchema": {"type": "object", "properties": {"n": {"type": "string"}}}}),
    )
}

/// Begins a call with one round, which asks this question under the key `a`.
fn begin_asking(session: &Session<'_>, id: &str, question: Value) -> Events {
    session.begin_call(id, "ask", json!({"rounds": [{"inputRequests": {"a": question}}]})).events()
}

fn accepting(question: &Value, said: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"n": said}}})
}

/// Returns the id of a call's response, and the answer that its child got.
fn told(answer: &Value) -> (&Value, &Value) {
    let said = answer.pointer("/result/structuredContent/responses/a/content/n");
    (&answer["id"], said.unwrap_or_else(|| panic!("{answer}")))
}

#[test]
fn sessions_sharing_a_process_get_and_answer_only_their_questions() {
    let (server, journal) = modern("");
    let (one, two) = (server.opening().exclusive().open(), server.opening().exclusive().open());
    let stranger = server.opening().exclusive().open();
    let mut ones = begin_asking(&one, "c", form());
    let mut twos = begin_asking(&two, "c", form());
    let (first, second) = (ones.message(), twos.message());
    stranger.tell(accepting(&first, "a stranger"));
    stranger.tell(accepting(&second, "a stranger"));
    two.tell(accepting(&second, "two"));
    assert_eq!(told(&twos.message()), (&json!("c"), &json!("two")));
    // The session has no open question; the answer must not reach the other session's question.
    two.tell(accepting(&first, "two"));
    one.tell(accepting(&first, "one"));
    assert_eq!(told(&ones.message()), (&json!("c"), &json!("one")));
    assert_eq!(server.metric("proxyrunner_unmatched_client_answers_total"), 3);
    let processes: HashSet<u64> = journal.frames().iter().map(|read| read.pid).collect();
    assert_eq!(processes.len(), 1);
}

#[test]
fn asking_calls_do_not_count_in_flight_and_a_drain_waits_for_answers() {
    let (server, _) = modern("--max-in-flight 1 --drain-delay 0s --drain-timeout 30s");
    let (asked, other) = (server.opening().exclusive().open(), server.session());
    let mut streams: Vec<Events> = (0..3).map(|n| begin_asking(&asked, &n.to_string(), form())).collect();
    let questions: Vec<Value> = streams.iter_mut().map(Events::message).collect();
    assert_eq!(server.metric("proxyrunner_parked"), 3);
    assert_eq!(server.metric("proxyrunner_in_flight"), 0);
    assert!(other.call("facts", json!({}))["result"].is_object());
    server.signal(Signal::SIGTERM);
    until("new calls are refused", || other.post(tool_call(1, "facts", &json!({}))).status == 503);
    for ((n, events), question) in streams.iter_mut().enumerate().zip(&questions) {
        asked.tell(accepting(question, "x"));
        assert_eq!(told(&events.message()), (&json!(n.to_string()), &json!("x")));
    }
    drop((asked, other));
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn questions_of_a_sessions_calls_use_separate_streams_and_ids() {
    let (server, _) = modern("");
    let session = server.opening().exclusive().open();
    let mut streams: Vec<(String, Events)> =
        (0..8).map(|n| n.to_string()).map(|n| (n.clone(), begin_asking(&session, &n, form()))).collect();
    let questions: Vec<Value> = streams.iter_mut().map(|(_, events)| events.message()).collect();
    let ids: HashSet<String> = questions.iter().map(|question| question["id"].to_string()).collect();
    assert_eq!(ids.len(), 8);
    for ((n, events), question) in streams.iter_mut().zip(&questions).rev() {
        session.tell(accepting(question, n));
        assert_eq!(told(&events.message()), (&json!(n), &json!(n)));
    }
}

#[test]
fn forms_are_translated_to_the_revision() {
    let (server, _) = modern("");
    let choice = json!({"type": "string", "title": "T", "oneOf": [{"const": "a", "title": "A"}, {"const": "b", "title": "B"}]});
    let several = json!({"type": "array", "items": {"type": "string", "enum": ["x"]}});
    let schema = json!({"type": "object", "properties": {"c": choice, "s": several}, "required": ["c"]});
    let params = json!({"mode": "form", "message": "m", "requestedSchema": schema});
    let older = json!({"type": "string", "title": "T", "enum": ["a", "b"], "enumNames": ["A", "B"]});
    let older = json!({"message": "m", "requestedSchema": {"type": "object", "properties": {"c": older}, "required": ["c"]}});
    for (version, expected) in [("2025-11-25", &params), ("2025-06-18", &older)] {
        let session = server.opening().version(version).exclusive().open();
        let mut events = begin_asking(&session, "c", elicit(params.clone()));
        let question = events.message();
        assert_eq!(&question["params"], expected, "{version}");
        session.tell(accepting(&question, "x"));
        assert_eq!(told(&events.message()).1, "x");
    }
}

#[test]
fn url_elicitations_get_unique_ids() {
    let (server, _) = modern("");
    let opening = server.opening().capabilities(json!({"elicitation": {"form": {}, "url": {}}}));
    let session = opening.open();
    let params = json!({"mode": "url", "message": "m", "url": "https://a.example/?q=%20"});
    let mut ids = HashSet::new();
    for _ in 0..2 {
        let mut events = begin_asking(&session, "c", elicit(params.clone()));
        let mut question = events.message();
        let id = question["params"].as_object_mut().expect("parameters").remove("elicitationId");
        assert!(ids.insert(id.expect("an id").as_str().expect("text").to_owned()));
        assert_eq!(question["params"], params);
        session.tell(json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}));
        let answer = events.message();
        assert_eq!(
            answer["result"]["structuredContent"]["responses"],
            json!({"a": {"action": "accept"}}),
            "{answer}"
        );
    }
}

#[test]
fn an_invalid_answer_fails_the_call() {
    let (server, journal) = modern("");
    let session = server.opening().exclusive().open();
    for result in [json!(7), json!([]), json!("x")] {
        let mut events = begin_asking(&session, "c", form());
        let question = events.message();
        session.tell(json!({"jsonrpc": "2.0", "id": question["id"], "result": result}));
        let answer = events.message();
        assert_eq!((&answer["id"], &answer["result"]["isError"]), (&json!("c"), &json!(true)), "{result}");
    }
    assert_eq!(journal.runs("ask"), 3, "no call had a second round");
}

#[test]
fn a_round_without_a_state_is_answered_without_one() {
    let (server, journal) = modern("");
    let session = server.opening().exclusive().open();
    let rounds = json!({"rounds": [{"inputRequests": {"a": form()}, "requestState": null}]});
    let mut events = session.begin_call("c", "ask", rounds).events();
    session.tell(accepting(&events.message(), "x"));
    // Without a state, the child starts with the first round again.
    let again = events.message();
    assert_eq!(again["method"], "elicitation/create");
    let params = &journal.call("ask").message["params"];
    assert!(params.get("requestState").is_none(), "{params}");
    assert_eq!(params["inputResponses"]["a"]["content"], json!({"n": "x"}));
    session.tell(json!({"jsonrpc": "2.0", "id": again["id"], "error": {"code": -1, "message": "no"}}));
    assert_eq!(events.message()["result"]["isError"], true);
}

#[test]
fn progress_has_the_clients_token_in_every_round() {
    let (server, journal) = modern("");
    let session = server.opening().exclusive().open();
    let call = |tool: &str, arguments: Value| {
        let params = json!({"name": tool, "arguments": arguments, "_meta": {"progressToken": "p"}});
        session
            .begin(json!({"jsonrpc": "2.0", "id": "c", "method": "tools/call", "params": params}).to_string())
    };
    let messages = call("progress", json!({"n": 3})).events().rest();
    let tokens: Vec<&Value> = messages.iter().map(|message| &message["params"]["progressToken"]).collect();
    assert_eq!(tokens, [&json!("p"), &json!("p"), &json!("p"), &Value::Null]);
    let mut events = call("ask", json!({"rounds": [{"inputRequests": {"a": form()}}]})).events();
    session.tell(accepting(&events.message(), "x"));
    told(&events.message());
    let frames = journal.frames();
    let rounds = frames.iter().filter(|read| read.message["params"]["name"] == "ask");
    let tokens: HashSet<String> = rounds
        .map(|read| {
            assert_eq!(read.message["params"]["_meta"]["progressToken"], read.message["id"]);
            read.message["id"].to_string()
        })
        .collect();
    assert_eq!(tokens.len(), 2);
}

#[test]
fn structured_content_that_is_not_an_object_is_removed() {
    let (server, _) = modern("");
    let session = server.session();
    let content = json!([{"type": "text", "text": "[1,2]"}]);
    for structured in [json!([1, 2]), json!(7), json!(null), json!("x")] {
        let result = json!({"content": content, "structuredContent": structured, "resultType": "complete"});
        let line = format!(r#"{{"jsonrpc":"2.0","id":$ID,"result":{result}}}"#);
        assert_eq!(session.result("raw", json!({"line": line})), json!({"content": content}), "{structured}");
    }
}

#[test]
fn a_disconnect_during_a_call_does_not_cancel_it() {
    let (server, journal) = modern("");
    let session = server.session();
    let mut events = session.begin_call("c", "wait", json!({"name": "g"})).events();
    let priming = events.next().expect("the priming event");
    journal.until_called("wait");
    events.cut();
    session.result("release", json!({"name": "g"}));
    let answer = session.resume(priming.id.as_deref().expect("an id")).message();
    assert_eq!(answer["result"]["content"][0]["text"], "waited");
    assert!(!journal.is_cancelled("wait"));
}
