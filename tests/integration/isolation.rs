//! Who shares a child, who gets one of their own, and what happens when there are enough of them.

use crate::support::{Server, Session, until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn pid(session: &Session<'_>) -> i64 {
    session.result("facts", json!({}))["pid"].as_i64().expect("a pid")
}

/// The capabilities that the session's child was initialised with.
fn declared(session: &Session<'_>) -> Value {
    let read = session.child_read();
    let handshakes: Vec<_> = read.iter().filter(|frame| frame["method"] == "initialize").collect();
    assert_eq!(handshakes.len(), 1, "no child is initialised twice: {handshakes:?}");
    handshakes[0]["params"]["capabilities"].clone()
}

#[test]
fn who_can_be_asked_gets_a_child_and_everyone_else_shares() {
    let server = Server::start("");
    let with = |capabilities: Value| server.opening().capabilities(capabilities).open();
    let (plain, other) =
        (server.session(), with(json!({"experimental": {"x": {}}, "roots": {"listChanged": true}})));
    assert_eq!(pid(&plain), pid(&other));
    assert_eq!(declared(&plain), json!({}));
    let (sampling, elicitation) =
        (with(json!({"sampling": {}})), with(json!({"elicitation": {"form": {}}, "roots": {}})));
    let pids = [&plain, &sampling, &elicitation].map(pid);
    assert!(pids[0] != pids[1] && pids[1] != pids[2] && pids[0] != pids[2], "{pids:?}");
    assert_eq!(declared(&sampling), json!({"sampling": {}}));
    assert_eq!(declared(&elicitation), json!({"elicitation": {"form": {}}}), "roots are withheld");
    assert_eq!(declared(&plain), json!({}), "and nobody initialised the shared child again");
}

#[test]
fn a_child_that_asks_for_roots_unasked_gets_none() {
    let server = Server::start("");
    let session = server.opening().capabilities(json!({"roots": {}, "sampling": {}})).open();
    let answer = session.call("ask", json!({"method": "roots/list"}));
    assert_eq!(answer["result"]["answers"][0]["error"]["code"], -32601);
}

#[test]
fn roots_reach_the_child_only_if_the_operator_lets_them() {
    let server = Server::start("--forward-roots");
    let session = server.opening().capabilities(json!({"roots": {"listChanged": true}})).open();
    assert_eq!(declared(&session), json!({"roots": {"listChanged": true}}));
    assert_ne!(pid(&session), pid(&server.session()));
    let mut events = session.begin_call(1, "ask", json!({"method": "roots/list"})).events();
    let id = events.message()["id"].clone();
    session.tell(json!({"jsonrpc": "2.0", "id": id, "result": {"roots": []}}));
    assert_eq!(events.message()["result"]["answers"][0]["result"], json!({"roots": []}));
}

#[test]
fn nobody_is_asked_by_a_shared_child() {
    let server = Server::start("");
    let (session, other) = (server.session(), server.session());
    let mut listening = other.listen();
    for method in ["sampling/createMessage", "elicitation/create", "roots/list"] {
        let answers = session.result("ask", json!({"method": method}))["answers"].clone();
        assert_eq!(answers[0]["error"]["code"], -32601, "{answers}");
    }
    assert_eq!(session.result("ask", json!({"method": "ping"}))["answers"][0]["result"], json!({}));
    assert_eq!(server.metric("proxyrunner_withheld_messages_total"), 3);
    other.delete();
    assert_eq!(listening.rest(), Vec::<Value>::new());
}

#[test]
fn a_shared_childs_logs_and_tasks_cross_to_nobody() {
    let server = Server::start("");
    let (session, other) = (server.session(), server.session());
    let mut listening = other.listen();
    assert_eq!(session.welcome["result"]["capabilities"]["tasks"], Value::Null);
    assert!(session.welcome["result"]["capabilities"]["tools"].is_object());
    let logged = session.post(crate::support::tool_call(1, "log", &json!({"n": 4}))).messages();
    assert_eq!(logged.len(), 1, "{logged:?}");
    server.until_metric("proxyrunner_withheld_messages_total", 4);
    for method in ["tasks/list", "tasks/get", "tasks/result", "tasks/cancel"] {
        assert_eq!(session.ask(method, json!({"taskId": "t"}))["error"]["code"], -32601, "{method}");
    }
    let task =
        session.ask("tools/call", json!({"name": "sleep", "arguments": {"ms": 0}, "task": {"ttl": 1}}));
    assert_eq!(task["error"]["code"], -32602);
    assert_eq!(session.ask("logging/setLevel", json!({"level": "debug"}))["result"], json!({}));
    assert_eq!(session.ask("logging/setLevel", json!({"level": "loud"}))["error"]["code"], -32602);
    session.tell(json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}));
    let read = session.child_read();
    let crossed = |frame: &&Value| {
        let method = frame["method"].as_str().unwrap_or_default();
        method.starts_with("tasks/")
            || method.starts_with("logging/")
            || method.contains("roots")
            || frame["params"]["task"].is_object()
    };
    assert_eq!(read.iter().find(crossed), None);
    assert_eq!(read.iter().filter(|frame| frame["method"] == "notifications/initialized").count(), 1);
    other.delete();
    assert_eq!(listening.rest(), Vec::<Value>::new());
}

#[test]
fn an_exclusive_child_has_everything() {
    let server = Server::start("--isolation session");
    let session = server.session();
    assert!(session.welcome["result"]["capabilities"]["tasks"].is_object());
    assert_eq!(session.ask("tasks/list", json!({}))["result"], json!({}));
    assert_eq!(session.ask("logging/setLevel", json!({"level": "debug"}))["result"], json!({}));
    let logged = session.post(crate::support::tool_call(1, "log", &json!({"n": 2}))).messages();
    assert_eq!(logged.len(), 3, "{logged:?}");
    let methods: Vec<_> = session.child_read().iter().map(|frame| frame["method"].clone()).collect();
    for forwarded in ["notifications/initialized", "tasks/list", "logging/setLevel"] {
        assert!(methods.iter().any(|method| method == forwarded), "{forwarded} is not in {methods:?}");
    }
    assert_ne!(pid(&session), pid(&server.session()));
}

#[test]
fn shared_mode_shares_with_those_who_can_be_asked_too() {
    let server = Server::start("--isolation shared");
    let (session, plain) = (server.opening().exclusive().open(), server.session());
    assert_eq!(pid(&session), pid(&plain));
    let answers = session.result("ask", json!({"method": "elicitation/create"}))["answers"].clone();
    assert_eq!(answers[0]["error"]["code"], -32601);
}

#[test]
fn sessions_spread_over_several_shared_children() {
    let server = Server::start("--children 3");
    let sessions: Vec<_> = (0..6).map(|_| server.session()).collect();
    let mut pids: Vec<_> = sessions.iter().map(pid).collect();
    pids.sort_unstable();
    assert_eq!((pids[0], pids[2], pids[4]), (pids[1], pids[3], pids[5]));
    pids.dedup();
    assert_eq!(pids.len(), 3);
}

#[test]
fn at_the_cap_an_idle_child_makes_room() {
    let server = Server::start("--max-children 2 --evict-after 300ms");
    let idle = server.opening().exclusive().open();
    // An open stream does not put it off: nothing is said on it.
    let mut listening = idle.listen();
    until("room", || {
        let newcomer = server.opening().exclusive().open();
        let shares = pid(&newcomer) == pid(&server.session());
        newcomer.delete();
        !shares
    });
    assert_eq!(idle.post(crate::support::tool_call(1, "facts", &json!({}))).status, 404);
    assert_eq!(listening.rest(), Vec::<Value>::new());
    assert_eq!(server.metric("proxyrunner_evicted_sessions_total"), 1);
}

/// A session that was seen to be idle took a request, which was lost when its child was closed for a newcomer.
#[test]
fn a_session_that_is_evicted_loses_no_request_that_it_took() {
    let server = Server::start("--max-children 2 --evict-after 1ms");
    for _ in 0..30 {
        let session = server.opening().exclusive().open();
        let call = crate::support::tool_call(1, "facts", &json!({}));
        let response = std::thread::scope(|scope| {
            let newcomer = scope.spawn(|| server.opening().exclusive().open().delete());
            let response = session.post(&call);
            newcomer.join().expect("no panic");
            response
        });
        if response.status != 404 {
            assert!(response.answer()["result"]["pid"].is_u64(), "{}", response.text());
            session.delete();
        }
    }
}

#[test]
fn at_the_cap_as_many_idle_children_make_room_as_newcomers_come_at_once() {
    // Each of them takes a while to end, so that all the newcomers wait at the same time.
    let flags = "--max-children 4 --evict-after 1ms --at-cap refuse --close-grace 500ms";
    let server = Server::with().flags(flags).child("--ignore-eof").start();
    let idle: Vec<_> = (0..3).map(|_| server.opening().exclusive().open()).collect();
    let since = Instant::now();
    until("all are idle for long enough", || since.elapsed() > Duration::from_millis(1));
    let body = server.opening().exclusive().body();
    let mut newcomers: Vec<_> = (0..3).map(|_| server.connect()).collect();
    newcomers.iter_mut().for_each(|newcomer| newcomer.post(&[], &body));
    for newcomer in &mut newcomers {
        let welcome = newcomer.response();
        assert_eq!(welcome.status, 200, "{}", welcome.text());
    }
    assert_eq!(server.metric("proxyrunner_evicted_sessions_total"), 3);
    assert!(
        idle.iter()
            .all(|session| session.post(crate::support::tool_call(1, "facts", &json!({}))).status == 404)
    );
}

#[test]
fn at_the_cap_a_busy_child_stays_and_the_newcomer_shares() {
    let server = Server::start("--max-children 2 --evict-after 1ms");
    let busy = server.opening().exclusive().open();
    let mut waiting = busy.begin_call(1, "wait", json!({"name": "a"}));
    server.until_metric("proxyrunner_in_flight", 1);
    let newcomer = server.opening().exclusive().open();
    assert_eq!(pid(&newcomer), pid(&server.session()));
    assert_eq!(server.metric("proxyrunner_shared_at_cap_total"), 1);
    let answers = newcomer.result("ask", json!({"method": "sampling/createMessage"}))["answers"].clone();
    assert_eq!(answers[0]["error"]["code"], -32601, "what it declared is withheld");
    busy.result("release", json!({"name": "a"}));
    assert_eq!(waiting.response().answer()["result"]["name"], "a");
}

#[test]
fn a_child_with_an_open_question_is_not_idle() {
    let server = Server::start("--max-children 2 --evict-after 1ms --at-cap refuse");
    let asked = server.opening().exclusive().open();
    let question =
        json!({"jsonrpc": "2.0", "id": 7, "method": "elicitation/create", "params": {}}).to_string();
    let mut listening = asked.listen();
    let file = crate::support::scratch("ask-now");
    asked.result("emit", json!({"lines": [], "after": [question], "file": file}));
    std::fs::write(&file, "").expect("a scratch file");
    let id = listening.message()["id"].clone();
    assert_eq!(server.opening().exclusive().send().status, 503);
    asked.tell(json!({"jsonrpc": "2.0", "id": id, "result": {}}));
    until("room", || server.opening().exclusive().send().status == 200);
}

#[test]
fn at_the_cap_a_newcomer_is_refused_if_the_operator_says_so() {
    for flags in ["--at-cap refuse --max-children 2", "--isolation session --at-cap share --max-children 1"] {
        let server = Server::start(flags);
        server.until_logged("ready");
        // The child that was only to show that it starts holds its place until it is gone.
        until("a place", || server.metric("proxyrunner_children") == u64::from(!flags.contains("session")));
        let first = server.opening().exclusive().open();
        let refused = server.opening().exclusive().send();
        assert_eq!(
            (refused.status, refused.code(), refused.header("retry-after")),
            (503, -32603, Some("1")),
            "{flags}"
        );
        assert!(refused.text().contains("--max-children"), "{}", refused.text());
        first.delete();
        until("room", || server.opening().exclusive().send().status == 200);
    }
}

/// One client took all processes, and kept them by a message now and then.
#[test]
fn at_the_cap_a_client_with_most_children_gives_way_to_another() {
    let server =
        Server::start("--isolation session --max-children 3 --evict-after 1h --principal-header x-user");
    let open = |principal: &str| server.opening().header("X-User", principal).open();
    let refused = |principal: &str| server.opening().header("X-User", principal).send().status == 503;
    server.until_logged("ready");
    let anns = [open("ann"), open("ann"), open("ann")];
    assert!(refused("ann"), "not to itself");
    let bob = open("bob");
    let alive =
        |session: &Session<'_>| session.post(crate::support::tool_call(1, "facts", &json!({}))).status;
    assert_eq!(anns.each_ref().map(alive), [404, 200, 200]);
    assert_eq!(alive(&bob), 200);
    assert!(refused("bob"), "both have their share");
}
