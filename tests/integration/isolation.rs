//! Sharing of children: which clients share a child or get an exclusive one, and the behavior at `--max-children`.

use crate::support::{Server, Session, until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn pid(session: &Session<'_>) -> i64 {
    session.result("facts", json!({}))["pid"].as_i64().expect("a pid")
}

/// Returns the capabilities with which the session's child was initialized.
fn declared(session: &Session<'_>) -> Value {
    let read = session.child_read();
    let handshakes: Vec<_> = read.iter().filter(|frame| frame["method"] == "initialize").collect();
    assert_eq!(handshakes.len(), 1, "no child is initialized twice: {handshakes:?}");
    handshakes[0]["params"]["capabilities"].clone()
}

#[test]
fn clients_with_elicitation_or_sampling_get_their_own_child() {
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
    assert_eq!(declared(&plain), json!({}), "the shared child was not initialized again");
}

#[test]
fn roots_requests_are_refused_by_default() {
    let server = Server::start("");
    let session = server.opening().capabilities(json!({"roots": {}, "sampling": {}})).open();
    let answer = session.call("ask", json!({"method": "roots/list"}));
    assert_eq!(answer["result"]["answers"][0]["error"]["code"], -32601);
}

#[test]
fn forward_roots_passes_roots_to_the_child() {
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
fn a_shared_childs_questions_are_refused() {
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
fn a_shared_childs_logs_and_tasks_are_withheld() {
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
fn an_exclusive_child_has_tasks_and_logging() {
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
fn isolation_shared_gives_every_client_the_shared_child() {
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
fn at_the_cap_an_idle_child_is_evicted() {
    let server = Server::start("--max-children 2 --evict-after 300ms");
    let idle = server.opening().exclusive().open();
    // An open stream without messages does not prevent the eviction.
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

/// Regression: a session chosen for eviction accepted a request, which was lost when its child was closed.
#[test]
fn eviction_loses_no_accepted_request() {
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
fn at_the_cap_one_idle_child_is_evicted_per_newcomer() {
    // Each child takes a while to end, so that all newcomers wait at the same time.
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
fn at_the_cap_a_busy_child_is_kept_and_the_newcomer_shares() {
    let server = Server::start("--max-children 2 --evict-after 1ms");
    let busy = server.opening().exclusive().open();
    let mut waiting = busy.begin_call(1, "wait", json!({"name": "a"}));
    server.until_metric("proxyrunner_in_flight", 1);
    let newcomer = server.opening().exclusive().open();
    assert_eq!(pid(&newcomer), pid(&server.session()));
    assert_eq!(server.metric("proxyrunner_shared_at_cap_total"), 1);
    let answers = newcomer.result("ask", json!({"method": "sampling/createMessage"}))["answers"].clone();
    assert_eq!(answers[0]["error"]["code"], -32601, "a shared child's questions are refused");
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
fn at_the_cap_newcomers_are_refused_where_sharing_is_not_allowed() {
    for flags in ["--at-cap refuse --max-children 2", "--isolation session --at-cap share --max-children 1"] {
        let server = Server::start(flags);
        server.until_logged("ready");
        // With --isolation session, the child of the startup check occupies a place until it has ended.
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

/// Regression: one client could take all processes and keep them by an occasional message.
#[test]
fn at_the_cap_the_client_with_most_children_gives_way() {
    let server =
        Server::start("--isolation session --max-children 3 --evict-after 1h --principal-header x-user");
    let open = |principal: &str| server.opening().header("X-User", principal).open();
    let refused = |principal: &str| server.opening().header("X-User", principal).send().status == 503;
    server.until_logged("ready");
    let anns = [open("ann"), open("ann"), open("ann")];
    assert!(refused("ann"), "a client does not give way to itself");
    let bob = open("bob");
    let alive =
        |session: &Session<'_>| session.post(crate::support::tool_call(1, "facts", &json!({}))).status;
    assert_eq!(anns.each_ref().map(alive), [404, 200, 200]);
    assert_eq!(alive(&bob), 200);
    assert!(refused("bob"), "both have their share");
}
