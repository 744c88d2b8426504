//! Translation for clients of the legacy revisions in front of a child of 2026-07-28.

use crate::support::{Journal, Server, Session, tool_call};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

const VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

fn modern(flags: &str, child: &str) -> (Server, Journal) {
    let journal = Journal::new();
    let child = format!("{child} {}", journal.flag());
    let flags = format!("--child-era modern {flags}");
    (Server::with().flags(&flags).modern_child(&child).start(), journal)
}

fn frames(journal: &Journal, method: &str) -> Vec<Value> {
    let frames = journal.frames().into_iter().map(|read| read.message);
    frames.filter(|message| message["method"] == method).collect()
}

/// Returns an elicitation form in the syntax of modern children.
fn form() -> Value {
    let schema = json!({"type": "object", "properties": {"n": {"type": "string"}}});
    json!({"method": "elicitation/create", "params": {"mode": "form", "message": "m", "requestedSchema": schema}})
}

fn sample() -> Value {
    let message = json!({"role": "user", "content": {"type": "text", "text": "t"}});
    json!({"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": 1}})
}

fn rounds(rounds: Value) -> Value {
    json!({"rounds": rounds})
}

fn accept(session: &Session<'_>, question: &Value) {
    session.tell(json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"n": "x"}}}));
}

/// Returns the state and the answers that the child got in the last round.
fn told(answer: &Value) -> &Value {
    assert!(answer["result"]["structuredContent"].is_object(), "{answer}");
    &answer["result"]["structuredContent"]
}

#[test]
fn initialize_is_answered_in_each_legacy_revision() {
    let (server, journal) = modern("", "");
    for version in VERSIONS {
        let session = server.opening().version(version).open();
        let welcome = &session.welcome["result"];
        assert_eq!((session.version(), &welcome["instructions"]), (version, &json!("be modern")));
        assert_eq!(
            (&welcome["serverInfo"]["name"], &welcome["serverInfo"]["version"]),
            (&json!("modern"), &json!("2"))
        );
        assert_eq!(welcome["serverInfo"]["title"].is_string(), version >= "2025-06-18");
        assert_eq!(
            welcome["capabilities"]["extensions"],
            json!({"acme/extra": {}}),
            "the tasks extension is removed"
        );
        for unknown in ["resultType", "ttlMs", "supportedVersions", "_meta"] {
            assert!(welcome[unknown].is_null(), "{unknown}");
        }
    }
    assert_eq!(server.opening().version("1999-01-01").open().version(), "2025-11-25");
    assert!(frames(&journal, "initialize").is_empty());
    let (server, _) = modern("", "--nameless");
    let info = server.session().welcome["result"]["serverInfo"].clone();
    assert_eq!(info, json!({"name": "unnamed", "version": "unknown"}));
}

#[test]
fn each_request_carries_its_clients_envelope() {
    let (server, journal) = modern("", "");
    let declared = json!({"sampling": {}, "elicitation": {}, "roots": {"listChanged": true}, "tasks": {}});
    let session = server.opening().capabilities(declared).open();
    let meta = json!({"progressToken": "p", "io.modelcontextprotocol/clientInfo": "forged", "acme": 1});
    session.ask("tools/call", json!({"name": "echo", "arguments": {}, "_meta": meta}));
    let frame = frames(&journal, "tools/call").remove(0);
    let meta = &frame["params"]["_meta"];
    assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
    assert_eq!(meta["io.modelcontextprotocol/clientInfo"], json!({"name": "test", "version": "1"}));
    let capabilities = &meta["io.modelcontextprotocol/clientCapabilities"];
    assert_eq!(capabilities, &json!({"sampling": {}, "elicitation": {}}), "no roots, no tasks");
    assert!(meta["io.modelcontextprotocol/logLevel"].is_null());
    assert_eq!((&meta["progressToken"], &meta["acme"]), (&frame["id"], &json!(1)));
    for method in ["tools/list", "prompts/list", "resources/list", "completion/complete"] {
        assert!(session.ask(method, json!({}))["result"].is_object(), "{method}");
        let enveloped = frames(&journal, method).remove(0);
        assert_eq!(enveloped["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
    }
}

/// Each request repeats the capabilities, so they are kept in memory as long as the session.
#[test]
fn oversized_client_capabilities_are_refused() {
    let (server, _) = modern("", "");
    let declares = |bytes: usize| json!({"experimental": {"x": {"y": "x".repeat(bytes)}}});
    let refused = server.opening().capabilities(declares(100_000)).send();
    assert_eq!((refused.code(), refused.header("mcp-session-id")), (-32602, None));
    let session = server.opening().capabilities(declares(20_000)).open();
    assert!(session.call("facts", json!({}))["result"].is_object());
}

#[test]
fn methods_missing_in_the_modern_revision_do_not_reach_the_child() {
    let (server, journal) = modern("", "");
    let session = server.session();
    let before = journal.frames().len();
    assert_eq!(session.ask("ping", json!({}))["result"], json!({}));
    assert_eq!(session.ask("logging/setLevel", json!({"level": "loud"}))["error"]["code"], -32602);
    for method in ["tasks/get", "tasks/list", "server/discover", "subscriptions/listen"] {
        assert_eq!(session.ask(method, json!({"taskId": "t"}))["error"]["code"], -32601, "{method}");
    }
    session.tell(json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}));
    session.tell(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    let new: Vec<Value> =
        journal.frames().into_iter().skip(before).map(|read| read.message["method"].clone()).collect();
    let own = ["subscriptions/listen", "tools/list", "prompts/list"];
    assert!(new.iter().all(|method| own.iter().any(|own| method == own)), "{new:?}");
}

#[test]
fn a_question_is_sent_on_the_calls_stream_and_answered_in_the_next_round() {
    let (server, journal) = modern("", "");
    let session = server.opening().exclusive().open();
    let mut standalone = session.listen();
    let mut events =
        session.begin_call("c", "ask", rounds(json!([{"inputRequests": {"user_name": form()}}]))).events();
    let question = events.message();
    assert_eq!((&question["method"], &question["params"]), (&json!("elicitation/create"), &form()["params"]));
    accept(&session, &question);
    let answer = events.message();
    assert_eq!(answer["id"], "c");
    let given = json!({"user_name": {"action": "accept", "content": {"n": "x"}}});
    assert_eq!(told(&answer), &json!({"state": "1:é\"\\", "responses": given}));
    let calls = frames(&journal, "tools/call");
    assert_eq!((calls.len(), &calls[1]["params"]["arguments"]), (2, &calls[0]["params"]["arguments"]));
    assert_ne!(calls[0]["id"], calls[1]["id"]);
    accept(&session, &question);
    server.until_metric("proxyrunner_unmatched_client_answers_total", 1);
    session.delete();
    assert_eq!(standalone.rest(), Vec::<Value>::new());
}

#[test]
fn questions_of_a_round_may_be_answered_in_any_order() {
    let (server, _) = modern("", "");
    let session = server.opening().exclusive().open();
    let script = json!([{"inputRequests": {"a": form(), "b": sample()}}, {"requestState": "2:idle"}, {"inputRequests": {"c": form()}}]);
    let mut events = session.begin_call(1, "ask", rounds(script)).events();
    let (first, second) = (events.message(), events.message());
    assert_ne!(first["id"], second["id"]);
    let said = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "t"}});
    session.tell(json!({"jsonrpc": "2.0", "id": second["id"], "result": said}));
    accept(&session, &first);
    let third = events.message();
    accept(&session, &third);
    let answer = events.message();
    assert_eq!(told(&answer)["responses"], json!({"c": {"action": "accept", "content": {"n": "x"}}}));
    assert_eq!(told(&answer)["state"], "3:é\"\\");
}

#[test]
fn prompts_get_may_ask_questions() {
    let (server, _) = modern("", "");
    let session = server.opening().exclusive().open();
    let script = rounds(json!([{"inputRequests": {"a": form()}}])).to_string();
    let params = json!({"name": "ask", "arguments": {"script": script}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "prompts/get", "params": params});
    let mut events = session.begin(body.to_string()).events();
    accept(&session, &events.message());
    assert!(told(&events.message())["responses"]["a"].is_object());
}

#[test]
fn a_call_with_too_many_rounds_fails() {
    let (server, journal) = modern("", "");
    let session = server.session();
    let idle: Vec<Value> = (0..20).map(|n| json!({"requestState": format!("{}:idle", n + 1)})).collect();
    let answer = session.call("ask", rounds(json!(idle)));
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
    assert_eq!(journal.runs("ask"), 9);
}

#[test]
fn questions_that_a_client_cannot_answer_become_a_tool_error() {
    let (server, journal) = modern("", "");
    let script = |question: Value| rounds(json!([{"inputRequests": {"a": question}}]));
    let url = json!({"method": "elicitation/create", "params": {"mode": "url", "message": "m", "url": "https://a.example"}});
    let many = json!({"type": "object", "properties": {"n": {"type": "array", "items": {"enum": ["a"]}}}, "required": ["n"]});
    let choices =
        json!({"method": "elicitation/create", "params": {"message": "m", "requestedSchema": many}});
    for (version, declared, question) in [
        ("2025-11-25", json!({}), form()),
        ("2025-11-25", json!({"elicitation": {}}), sample()),
        ("2025-11-25", json!({"elicitation": {}}), url.clone()),
        ("2025-06-18", json!({"elicitation": {}}), url),
        ("2025-06-18", json!({"elicitation": {}}), choices),
        ("2025-03-26", json!({"elicitation": {}}), form()),
        ("2025-11-25", json!({"roots": {}}), json!({"method": "roots/list"})),
    ] {
        let session = server.opening().version(version).capabilities(declared).open();
        let answer = session.call("ask", script(question.clone()));
        assert_eq!(answer["result"]["isError"], true, "{answer}");
        let params = json!({"name": "ask", "arguments": {"script": script(question).to_string()}});
        assert_eq!(session.ask("prompts/get", params)["error"]["code"], -32603);
    }
    assert_eq!(journal.runs("ask"), 14, "no call had a second round");
}

#[test]
fn a_clients_error_fails_the_call_and_cancels_its_other_questions() {
    let (server, journal) = modern("", "");
    let session = server.opening().exclusive().open();
    let mut events =
        session.begin_call(1, "ask", rounds(json!([{"inputRequests": {"a": form(), "b": form()}}]))).events();
    let (first, second) = (events.message(), events.message());
    session.tell(json!({"jsonrpc": "2.0", "id": first["id"], "error": {"code": -1, "message": "no thanks"}}));
    let withdrawn = events.message();
    assert_eq!(
        (&withdrawn["method"], &withdrawn["params"]["requestId"]),
        (&json!("notifications/cancelled"), &second["id"])
    );
    let answer = events.message();
    assert_eq!(answer["result"]["isError"], true);
    assert!(answer["result"]["content"][0]["text"].as_str().expect("text").contains("no thanks"));
    assert_eq!(journal.runs("ask"), 1);
}

#[test]
fn malformed_questions_and_unknown_result_types_fail_only_the_request() {
    let (server, _) = modern("", "");
    let session = server.opening().exclusive().open();
    for result in [
        r#"{"resultType":"input_required"}"#,
        r#"{"resultType":"input_required","requestState":7}"#,
        r#"{"resultType":"input_required","inputRequests":{"a":{"method":"no/such"}}}"#,
        r#"{"resultType":"input_required","inputRequests":{"a":{"method":"roots/list"},"a":{"method":"roots/list"}}}"#,
        r#"{"resultType":"task","taskId":"t"}"#,
    ] {
        let line = format!(r#"{{"jsonrpc":"2.0","id":$ID,"result":{result}}}"#);
        let answer = session.call("raw", json!({"line": line}));
        assert_eq!(answer["error"]["code"], -32603, "{result}");
    }
    assert_eq!(session.result("echo", json!({"n": 1}))["structuredContent"], json!({"n": 1}));
}

#[test]
fn a_cancelled_call_sends_no_more_questions_or_results() {
    let (server, journal) = modern("--cancel-grace 0s", "");
    let session = server.opening().exclusive().open();
    let cancel = |id: &str| {
        session.tell(
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}),
        );
    };
    let asked = rounds(json!([{"inputRequests": {"a": form()}}]));
    let mut asking = session.begin_call("asking", "ask", asked).events();
    let question = asking.message();
    cancel("asking");
    assert_eq!(asking.message()["error"]["data"]["reason"], "cancelled");
    accept(&session, &question);
    let mut hanging = session.begin_call("hanging", "hang", json!({})).events();
    journal.until_called("hang");
    cancel("hanging");
    assert_eq!(hanging.message()["error"]["data"]["reason"], "cancelled");
    journal.until_cancelled("hang");
    server.until_metric("proxyrunner_in_flight", 0);
    assert_eq!(journal.runs("ask"), 1);
}

#[test]
fn an_unanswered_question_fails_the_call_after_park_timeout() {
    let (server, _) = modern("--park-timeout 300ms --request-timeout 10s", "");
    let session = server.opening().exclusive().open();
    let mut events = session.begin_call(1, "ask", rounds(json!([{"inputRequests": {"a": form()}}]))).events();
    let question = events.message();
    let withdrawn = events.message();
    assert_eq!(withdrawn["params"]["requestId"], question["id"]);
    assert_eq!(events.message()["error"]["data"]["reason"], "question_unanswered");
}

#[test]
fn request_timeout_is_paused_while_the_client_is_asked() {
    let (server, _) = modern("--request-timeout 2s", "");
    let session = server.opening().exclusive().open();
    let mut events = session.begin_call(1, "ask", rounds(json!([{"inputRequests": {"a": form()}}]))).events();
    let question = events.message();
    std::thread::sleep(Duration::from_millis(2_200));
    accept(&session, &question);
    assert!(told(&events.message())["responses"]["a"].is_object());
}

#[test]
fn a_disconnect_does_not_cancel_and_a_resumed_stream_gets_questions() {
    let (server, _) = modern("", "");
    let session = server.opening().exclusive().open();
    let asked = rounds(json!([{"inputRequests": {"a": form()}}, {"inputRequests": {"b": form()}}]));
    let mut events = session.begin_call(1, "ask", asked).events();
    let first = events.next_event();
    events.cut();
    accept(&session, &first.json());
    let mut resumed = session.resume(first.id.as_deref().expect("an id"));
    let second = resumed.message();
    accept(&session, &second);
    assert!(told(&resumed.message())["responses"]["b"].is_object());
}

#[test]
fn results_and_errors_are_translated_to_the_revision() {
    let (server, _) = modern("", "--ttl 5");
    for version in VERSIONS {
        let session = server.opening().version(version).open();
        let answer = session.call("echo", json!({"n": 1}));
        let result = answer["result"].as_object().expect("a result");
        assert!(!result.contains_key("resultType") && !result.contains_key("_meta"), "{answer}");
        assert_eq!(result.contains_key("structuredContent"), version >= "2025-06-18", "{version}");
        let listed = session.ask("tools/list", json!({}))["result"].clone();
        assert!(listed["ttlMs"].is_null() && listed["cacheScope"].is_null());
        assert!(
            listed["tools"][0]["outputSchema"].is_null(),
            "a schema of another type than object is removed"
        );
        let missing = session.ask("resources/read", json!({"uri": "missing:"}));
        assert_eq!(
            (&missing["error"]["code"], &missing["error"]["data"]["uri"]),
            (&json!(-32002), &json!("missing:"))
        );
        let failed = session.call("fail", json!({"code": -32021, "data": {"k": 1}}));
        assert_eq!(failed["error"]["data"]["original"], json!({"code": -32021, "data": {"k": 1}}));
        assert_eq!(failed["error"]["code"], -32603);
    }
    // The metrics of each side have the error code of that side.
    let metrics = server.request("GET", "/metrics", &[], b"").text();
    let codes = |side: &str| {
        let prefix = format!("mcp_{side}_operation_duration_seconds_count{{");
        let reads = metrics
            .lines()
            .filter(|line| line.starts_with(&prefix) && line.contains("mcp_method_name=\"resources/read\""));
        let code = |line: &str| Some(line.split_once("error_type=\"")?.1.split('"').next()?.to_owned());
        reads.map(|line| code(line).unwrap_or_else(|| panic!("{line}"))).collect::<BTreeSet<_>>()
    };
    assert_eq!(codes("server"), BTreeSet::from(["-32002".to_owned()]));
    assert_eq!(codes("client"), BTreeSet::from(["-32602".to_owned()]));
}

#[test]
fn a_session_that_sets_a_log_level_gets_its_own_log_messages() {
    let (server, journal) = modern("", "");
    let (session, quiet) = (server.session(), server.session());
    assert_eq!(session.ask("logging/setLevel", json!({"level": "info"}))["result"], json!({}));
    let messages = session.begin_call(1, "log", json!({})).events().rest();
    assert_eq!((&messages[0]["method"], messages.len()), (&json!("notifications/message"), 2));
    assert_eq!(journal.call("log").message["params"]["_meta"]["io.modelcontextprotocol/logLevel"], "info");
    assert!(quiet.call("log", json!({}))["result"].is_object());
}

/// Regression: a child leased to one anonymous session for a call was then leased to another session.
#[test]
fn a_child_that_logged_for_a_session_is_not_leased_to_another() {
    let (server, journal) = modern("", "");
    let called_by = |session: &crate::support::Session<'_>| {
        session.ask("logging/setLevel", json!({"level": "info"}));
        session.begin_call(1, "log", json!({})).events().rest();
        journal.call("log").pid
    };
    let (ann, bob) = (server.session(), server.session());
    let anns = called_by(&ann);
    assert_ne!(called_by(&bob), anns, "late messages would reach the other session");
    assert_eq!(called_by(&ann), anns, "the session gets its child again");
}

#[test]
fn a_crash_without_a_restart_fails_a_call_that_is_asking() {
    let (server, _) = modern("--drain-timeout 100ms --restart-limit 0", "");
    let session = server.opening().exclusive().open();
    let mut events = session.begin_call(1, "ask", rounds(json!([{"inputRequests": {"a": form()}}]))).events();
    assert_eq!(events.message()["method"], "elicitation/create");
    let left = session.call("leave", json!({}));
    assert_eq!(left["error"]["data"]["reason"], "child_ended");
    let rest = events.rest();
    assert!(rest.last().expect("an answer")["error"]["code"].is_i64(), "{rest:?}");
}

#[test]
fn a_call_that_is_asking_continues_at_the_restarted_child() {
    let (server, _) = modern("--restart-backoff 10ms", "");
    let session = server.opening().exclusive().open();
    let asking = json!([{"inputRequests": {"a": form()}}]);
    let mut events = session.begin_call(1, "ask", rounds(asking)).events();
    let question = events.message();
    assert_eq!(question["method"], "elicitation/create");
    assert_eq!(session.call("leave", json!({}))["error"]["data"]["reason"], "child_ended");
    session.tell(json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "decline"}}));
    let answer = events.rest().pop().expect("an answer");
    assert!(answer["result"].is_object(), "{answer}");
}

#[test]
fn calls_in_a_batch_may_ask_questions() {
    let (server, _) = modern("", "");
    let session = server.opening().version("2025-03-26").capabilities(json!({"sampling": {}})).open();
    let ask = tool_call("a", "ask", &rounds(json!([{"inputRequests": {"s": sample()}}])));
    let batch = format!("[{},{ask}]", tool_call("e", "echo", &json!({})));
    let mut events = session.begin(batch).events();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let message = events.message();
        if message["method"] == "sampling/createMessage" {
            let said = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "t"}});
            session.tell(json!({"jsonrpc": "2.0", "id": message["id"], "result": said}));
        } else {
            seen.push(message["id"].as_str().expect("an id").to_owned());
        }
    }
    seen.sort();
    assert_eq!(seen, ["a", "e"]);
}
