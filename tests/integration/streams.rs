//! Streams: the stream of each message, the order of messages, and resumption after a disconnect.

use crate::support::{Event, Journal, Server, Session, scratch, tool_call, until};
use serde_json::{Value, json};
use std::collections::HashSet;

/// Returns a call with a progress token.
fn progress_call(id: i64, token: &str, arguments: &Value) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"_meta":{{"progressToken":{token}}},"name":"progress","arguments":{arguments}}}}}"#
    )
}

fn changed(kind: &str) -> String {
    json!({"jsonrpc": "2.0", "method": format!("notifications/{kind}/list_changed")}).to_string()
}

/// Makes the child write lines by a call of this session.
fn emit(session: &Session<'_>, lines: &[String]) {
    session.result("emit", json!({"lines": lines}));
}

#[test]
fn progress_arrives_on_its_calls_stream_with_the_clients_token() {
    let server = Server::start("");
    let session = server.session();
    // Many clients number their requests alike and use the request id as the progress token.
    let calls: Vec<_> = ["1", "\"1\"", "0", "\"\"", "1", "99999999999999999999"]
        .iter()
        .map(|token| (*token, session.begin(progress_call(1, token, &json!({"n": 3})))))
        .collect();
    for (token, mut call) in calls {
        let response = call.response();
        assert!(
            response.text().contains(&format!(r#""progressToken":{token}"#).replace(':', ": ")),
            "{}",
            response.text()
        );
        let messages = response.messages();
        let (answer, steps) = messages.split_last().expect("an answer");
        assert_eq!((&answer["id"], &answer["result"]["n"]), (&json!(1), &json!(3)));
        let steps: Vec<_> =
            steps.iter().map(|step| step["params"]["progress"].as_u64().expect("a number")).collect();
        assert_eq!(steps, [0, 1, 2], "token {token}");
    }
}

#[test]
fn a_response_without_earlier_messages_is_plain_json() {
    let server = Server::start("--sse-commit-after 30s");
    let response = server.session().post(tool_call(1, "sleep", &json!({"ms": 300})));
    assert_eq!(response.header("content-type"), Some("application/json"));
}

#[test]
fn a_slow_call_commits_a_stream_with_keep_alive_comments() {
    let server = Server::start("--sse-commit-after 0 --sse-keep-alive 50ms");
    let session = server.session();
    let mut events = session.begin_call(1, "wait", json!({"name": "a"})).events();
    for (header, value) in [("cache-control", "no-cache, no-transform"), ("x-accel-buffering", "no")] {
        assert_eq!(events.head.header(header), Some(value));
    }
    let primer = events.next().expect("the priming event");
    assert_eq!((primer.data.as_str(), primer.id.is_some()), ("", true));
    for _ in 0..3 {
        assert_eq!(events.next().expect("a comment").comment.as_deref(), Some("keep-alive"));
    }
    session.result("release", json!({"name": "a"}));
    assert_eq!(events.message()["result"]["name"], "a");
    assert_eq!(events.rest(), Vec::<Value>::new(), "the answer ends the stream");
}

/// Before the handshake is complete, a client cannot resume its stream.
#[test]
fn a_handshake_stream_is_neither_primed_nor_closed_for_age() {
    let gate = scratch("gate");
    let child = format!("--gate {}", gate.display());
    let flags = "--sse-commit-after 0 --sse-max-age 1ms --sse-keep-alive 20ms";
    let server = Server::with().flags(flags).child(&child).start();
    let mut connection = server.connect();
    connection.post(&[], server.opening().version("2025-03-26").body());
    let mut events = connection.events();
    for _ in 0..3 {
        assert_eq!(events.next().expect("a comment").comment.as_deref(), Some("keep-alive"));
    }
    std::fs::write(&gate, "").expect("a scratch file");
    assert_eq!(events.message()["result"]["protocolVersion"], "2025-03-26");
    let id = events.head.header("mcp-session-id").expect("a session");
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    assert_eq!(server.post(&[("Mcp-Session-Id", id)], ping).status, 200);
}

#[test]
fn only_the_newest_revision_primes_its_streams() {
    let server = Server::start("--sse-commit-after 0");
    for (version, primes) in [("2025-11-25", true), ("2025-06-18", false), ("2025-03-26", false)] {
        let session = server.opening().version(version).open();
        let mut events = session.begin(progress_call(1, "1", &json!({"n": 1}))).events();
        let first = events.next().expect("an event");
        assert_eq!(first.data.is_empty(), primes, "{version}: {first:?}");
    }
}

#[test]
fn each_message_is_sent_on_one_stream_only() {
    let server = Server::start("");
    let session = server.opening().exclusive().open();
    let (mut older, mut newer) = (session.listen(), session.listen());
    emit(&session, &[changed("tools"), changed("prompts")]);
    assert_eq!(newer.message()["method"], "notifications/tools/list_changed");
    assert_eq!(newer.message()["method"], "notifications/prompts/list_changed");
    let logged = session.post(tool_call(1, "log", &json!({"n": 3}))).messages();
    assert_eq!(logged.len(), 4, "logs arrive on the stream of the running call: {logged:?}");
    session.delete();
    assert_eq!((older.rest(), newer.rest()), (vec![], vec![]));
}

#[test]
fn messages_wait_for_a_stream_and_repeats_are_merged() {
    let server = Server::start("");
    let session = server.opening().exclusive().open();
    emit(&session, &[changed("tools"), changed("tools"), changed("prompts")]);
    let mut events = session.listen();
    assert_eq!(events.message()["method"], "notifications/tools/list_changed");
    assert_eq!(
        events.message()["method"],
        "notifications/prompts/list_changed",
        "equal notifications are merged"
    );
}

#[test]
fn list_changed_from_a_shared_child_reaches_every_session() {
    let server = Server::start("");
    let sessions: Vec<_> = (0..3).map(|_| server.session()).collect();
    let streams: Vec<_> = sessions.iter().map(Session::listen).collect();
    emit(&sessions[0], &[changed("tools")]);
    for mut stream in streams {
        assert_eq!(stream.message(), json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
    }
}

#[test]
fn a_shared_child_stays_subscribed_until_the_last_session_leaves() {
    let server = Server::start("");
    let (one, two, other) = (server.session(), server.session(), server.session());
    let mut streams: Vec<_> = [&one, &two, &other].map(Session::listen).into();
    let uri = json!({"uri": "file:///a"});
    for session in [&one, &two, &one] {
        assert_eq!(session.ask("resources/subscribe", uri.clone())["result"], json!({}));
    }
    other.ask("resources/subscribe", json!({"uri": "file:///b"}));
    let updated = |uri: &str| json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}});
    emit(
        &one,
        &[
            updated("file:///a").to_string(),
            updated("file:///none").to_string(),
            updated("file:///b").to_string(),
        ],
    );
    assert_eq!(streams[0].message()["params"]["uri"], "file:///a");
    assert_eq!(streams[1].message()["params"]["uri"], "file:///a");
    assert_eq!(streams[2].message()["params"]["uri"], "file:///b", "updates of other resources are not sent");
    let heard = |method: &str| {
        one.child_read().iter().filter(|frame| frame["method"] == method && frame["params"] == uri).count()
    };
    assert_eq!(heard("resources/subscribe"), 1);
    assert_eq!(one.ask("resources/unsubscribe", uri.clone())["result"], json!({}));
    assert_eq!(heard("resources/unsubscribe"), 0);
    emit(&other, &[updated("file:///a").to_string()]);
    assert_eq!(streams[1].message()["params"]["uri"], "file:///a");
    two.delete();
    until("the child gets the unsubscribe request", || heard("resources/unsubscribe") == 1);
}

#[test]
fn a_hanging_subscription_stalls_no_other_and_can_be_cancelled() {
    let server = Server::start("");
    let (session, other) = (server.session(), server.session());
    let subscribe =
        json!({"jsonrpc": "2.0", "id": 1, "method": "resources/subscribe", "params": {"uri": "hang:"}});
    let mut hanging = session.begin(subscribe.to_string());
    server.until_metric("proxyrunner_in_flight", 1);
    assert_eq!(other.ask("resources/subscribe", json!({"uri": "file:///b"}))["result"], json!({}));
    session.tell(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}));
    assert_eq!(hanging.response().answer()["error"]["code"], -32800);
}

/// Returns the id and the message of an event.
fn next_with_id(event: Event) -> (String, Value) {
    (event.id.clone().expect("an id"), event.json())
}

#[test]
fn a_disconnected_client_resumes_its_stream() {
    let server = Server::start("");
    let session = server.session();
    let mut other = session.begin(progress_call(2, "\"other\"", &json!({"n": 2, "until": "b"}))).events();
    let mut events = session.begin(progress_call(1, "\"mine\"", &json!({"n": 3, "until": "a"}))).events();
    let (first, message) = next_with_id(events.next_event());
    assert_eq!(message["params"]["progress"], 0);
    let mut ids = HashSet::from([first.clone()]);
    ids.extend([next_with_id(other.next_event()).0, next_with_id(other.next_event()).0]);
    assert_eq!(ids.len(), 3, "ids are unique in the session");
    events.cut();
    session.result("release", json!({"name": "a"}));
    for _ in 0..2 {
        // Resume twice, because delivered events may have been lost on the way.
        let mut resumed = session.resume(&first);
        let messages = resumed.rest();
        let progress: Vec<_> =
            messages[..2].iter().map(|message| message["params"]["progress"].clone()).collect();
        assert_eq!(progress, [1, 2]);
        assert!(
            messages[..2].iter().all(|message| message["params"]["progressToken"] == "mine"),
            "{messages:?}"
        );
        assert_eq!((&messages[2]["id"], messages.len()), (&json!(1), 3));
    }
    session.result("release", json!({"name": "b"}));
    assert_eq!(other.rest().len(), 1, "the other stream is not affected");
}

/// The priming event allows resumption however early the connection breaks.
#[test]
fn a_stream_cut_before_any_message_resumes_at_the_priming_event() {
    let server = Server::start("--sse-commit-after 0");
    let session = server.session();
    let mut events = session.begin_call(8, "wait", json!({"name": "a"})).events();
    let primer = events.next().and_then(|event| event.id).expect("the priming event");
    events.cut();
    let mut resumed = session.resume(&primer);
    session.result("release", json!({"name": "a"}));
    assert_eq!(resumed.message()["id"], 8);
}

#[test]
fn a_disconnect_cancels_nothing() {
    let server = Server::start("--sse-commit-after 30s");
    let session = server.session();
    let call = session.begin_call(1, "wait", json!({"name": "a"}));
    server.until_metric("proxyrunner_in_flight", 1);
    call.cut();
    session.result("release", json!({"name": "a"}));
    server.until_metric("proxyrunner_in_flight", 0);
    assert!(!session.child_read().iter().any(|frame| frame["method"] == "notifications/cancelled"));
}

#[test]
fn a_session_can_resume_only_its_own_events() {
    let server = Server::start("");
    let (session, other) = (server.session(), server.session());
    let mut events = session.begin(progress_call(1, "1", &json!({"n": 1}))).events();
    let id = events.next_event().id.expect("an id");
    events.rest();
    assert_eq!(session.resume(&id).rest().len(), 1);
    assert_eq!(other.request("GET", &[("Last-Event-ID", &id)]).response().status, 400);
    for unknown in ["0", "1-", "-1", "1-999", "999-0", "x-y", "1-1-1", "18446744073709551616-0"] {
        let refused = session.request("GET", &[("Last-Event-ID", unknown)]).response();
        assert_eq!((refused.status, refused.code()), (400, -32600), "{unknown:?}");
    }
}

#[test]
fn a_stream_at_sse_max_age_is_closed_and_the_call_continues() {
    let server = Server::start("--sse-commit-after 0 --sse-max-age 200ms");
    let session = server.session();
    let mut events = session.begin_call(3, "wait", json!({"name": "a"})).events();
    let primer = events.next().and_then(|event| event.id).expect("the priming event");
    let mut retry = None;
    while let Some(event) = events.next() {
        retry = event.retry.or(retry);
        assert_eq!(event.data, "");
    }
    assert_eq!(retry, Some(500));
    session.result("release", json!({"name": "a"}));
    assert_eq!(session.resume(&primer).message()["id"], 3);
    let older = server.opening().version("2025-06-18").open();
    let mut events = older.begin_call(4, "sleep", json!({"ms": 600})).events();
    assert_eq!(events.message()["id"], 4, "a client that can't resume is not cut off");
}

#[test]
fn a_cancellation_reaches_the_child_with_the_childs_id() {
    let server = Server::start("");
    let session = server.session();
    let mut cancelled = session.begin_call("c", "hang", json!({}));
    let mut other = session.begin_call("d", "wait", json!({"name": "a"}));
    server.until_metric("proxyrunner_in_flight", 2);
    session.tell(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "c", "reason": "bored", "x": 1}}));
    let messages = cancelled.response().messages();
    assert_eq!(
        (messages.len(), &messages[0]["id"], &messages[0]["error"]["code"]),
        (1, &json!("c"), &json!(-32800))
    );
    let read = session.child_read();
    let call = read.iter().find(|frame| frame["params"]["name"] == "hang").expect("the call");
    let told = read.iter().filter(|frame| frame["method"] == "notifications/cancelled").collect::<Vec<_>>();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["params"], json!({"requestId": call["id"], "reason": "bored", "x": 1}));
    session.result("release", json!({"name": "a"}));
    assert_eq!(other.response().answer()["id"], "d");
}

#[test]
fn a_cancellation_carries_only_allowed_baggage() {
    let server = Server::start("--allow-baggage kept --cancel-grace 100ms");
    let session = server.session();
    for (id, baggage, told) in [
        ("a", "kept=1,password=x", json!({"baggage": "kept=1", "x": 1})),
        ("b", "password=x,", json!({"x": 1})),
        ("c", "kept=1", json!({"baggage": "kept=1", "x": 1})),
    ] {
        let mut call = session.begin_call(id, "hang", json!({}));
        server.until_metric("proxyrunner_in_flight", 1);
        let meta = json!({"baggage": baggage, "x": 1});
        session.tell(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id, "_meta": meta}}));
        assert_eq!(call.response().answer()["error"]["code"], -32800);
        let mut read = session.child_read().into_iter();
        let cancellation = read.rfind(|frame| frame["method"] == "notifications/cancelled");
        assert_eq!(cancellation.expect("a cancellation")["params"]["_meta"], told);
        server.until_metric("proxyrunner_in_flight", 0);
    }
}

#[test]
fn an_ambiguous_or_unknown_cancellation_cancels_nothing() {
    let server = Server::start("");
    let (session, stranger) = (server.session(), server.session());
    let mut calls = [
        session.begin_call(1, "wait", json!({"name": "a"})),
        session.begin_call(1, "wait", json!({"name": "a"})),
    ];
    server.until_metric("proxyrunner_in_flight", 2);
    let cancel = |id: Value| json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
    session.tell(cancel(json!(1)));
    assert_eq!(server.metric("proxyrunner_ambiguous_cancellations_total"), 1);
    session.tell(cancel(json!("1")));
    stranger.tell(cancel(json!(1)));
    session.tell(json!({"jsonrpc": "2.0", "method": "notifications/cancelled"}));
    session.result("release", json!({"name": "a"}));
    for call in &mut calls {
        assert_eq!(call.response().answer()["result"]["name"], "a");
    }
    assert!(!session.child_read().iter().any(|frame| frame["method"] == "notifications/cancelled"));
}

#[test]
fn an_unanswered_subscription_delays_no_other() {
    let server = Server::start("");
    let (stuck, other) = (server.session(), server.session());
    let subscribe = |uri: &str| json!({"jsonrpc": "2.0", "id": 1, "method": "resources/subscribe", "params": {"uri": uri}});
    let mut hanging = stuck.begin(subscribe("hang:").to_string());
    server.until_metric("proxyrunner_in_flight", 1);
    assert_eq!(other.ask("resources/subscribe", json!({"uri": "file:///a"}))["result"], json!({}));
    let mut behind = other.begin(subscribe("hang:").to_string());
    stuck.delete();
    assert_eq!(hanging.response().answer()["error"]["data"]["reason"], "session_ended");
    server.until_metric("proxyrunner_in_flight", 2);
    other.delete();
    assert_eq!(behind.response().answer()["error"]["data"]["reason"], "session_ended");
}

/// Regression: an unsubscribe request that the child never answered blocked all others, which accumulated.
#[test]
fn unused_subscriptions_are_ended_concurrently() {
    let journal = Journal::new();
    let server = Server::with().child(&journal.flag()).start();
    let session = server.session();
    for n in 0..4 {
        let subscribed = session.ask("resources/subscribe", json!({"uri": format!("keep:{n}")}));
        assert!(subscribed["result"].is_object(), "{subscribed}");
    }
    session.delete();
    let ended = |read: &crate::support::Read| read.message["method"] == "resources/unsubscribe";
    until("the child has read all", || journal.frames().iter().filter(|read| ended(read)).count() == 4);
}
