//! `subscriptions/listen` of modern clients in front of a legacy server.

use crate::support::modern::Modern;
use crate::support::{Connection, Journal, Server};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

fn listen(client: &Modern<'_>, id: impl Into<Value>, filter: Value) -> Connection {
    client.begin_body(&client.body(id, "subscriptions/listen", json!({"notifications": filter})))
}

fn emit(server: &Server, lines: &[&str]) {
    server.modern().result("emit", json!({"lines": lines}));
}

const TOOLS: &str = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
const RESOURCES: &str = r#"{"jsonrpc":"2.0","method":"notifications/resources/list_changed"}"#;
const A: &str = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a://x"}}"#;
const B: &str = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"b://x"}}"#;

#[test]
fn a_subscription_is_acknowledged_and_served_until_a_graceful_end() {
    let server = Server::start("");
    let client = server.modern();
    let filter =
        json!({"toolsListChanged": true, "promptsListChanged": true, "resourceSubscriptions": ["a://x"]});
    let mut one = listen(&client, "7", filter).events();
    let mut two = listen(&client, 7, json!({"resourcesListChanged": true})).events();
    let acknowledged = one.message();
    assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(acknowledged["params"]["_meta"], json!({SUBSCRIPTION: "7"}));
    let honored = json!({"toolsListChanged": true, "resourceSubscriptions": ["a://x"]});
    assert_eq!(acknowledged["params"]["notifications"], honored, "the server declares no changes of prompts");
    let acknowledged = two.message();
    assert_eq!(acknowledged["params"]["_meta"], json!({SUBSCRIPTION: 7}), "the id keeps its type");
    assert_eq!(acknowledged["params"]["notifications"], json!({"resourcesListChanged": true}));
    emit(&server, &[B, RESOURCES, A, TOOLS]);
    let heard = one.message();
    assert_eq!(heard["params"], json!({"uri": "a://x", "_meta": {SUBSCRIPTION: "7"}}));
    let heard = one.message();
    assert_eq!(
        (&heard["method"], &heard["params"]["_meta"][SUBSCRIPTION]),
        (&json!("notifications/tools/list_changed"), &json!("7"))
    );
    let heard = two.message();
    assert_eq!(
        (&heard["method"], &heard["params"]["_meta"][SUBSCRIPTION]),
        (&json!("notifications/resources/list_changed"), &json!(7))
    );
    server.signal(Signal::SIGTERM);
    for (events, id) in [(&mut one, json!("7")), (&mut two, json!(7))] {
        let result = events.message();
        assert_eq!((&result["id"], &result["result"]["resultType"]), (&id, &json!("complete")));
        assert_eq!(result["result"]["_meta"][SUBSCRIPTION], id);
        assert_eq!(events.next(), None, "the result ends the stream");
    }
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn the_child_stays_subscribed_until_the_last_watcher_leaves() {
    let journal = Journal::new();
    let server = Server::with().child(&journal.flag()).start();
    let heard =
        |method: &str| journal.frames().iter().filter(|read| read.message["method"] == method).count();
    let filter = json!({"resourceSubscriptions": ["a://x"]});
    let mut first = listen(&server.modern(), 1, filter.clone()).events();
    let mut second = listen(&server.modern(), 1, filter).events();
    first.message();
    second.message();
    assert_eq!(heard("resources/subscribe"), 1);
    first.cut();
    emit(&server, &[A]);
    assert_eq!(second.message()["params"]["uri"], "a://x");
    assert_eq!(heard("resources/unsubscribe"), 0, "one subscription is still open");
    second.cut();
    crate::support::until("the child is unsubscribed", || heard("resources/unsubscribe") == 1);
}

#[test]
fn an_invalid_filter_is_refused() {
    let server = Server::start("");
    let client = server.modern();
    let mut neighbor = listen(&client, 1, json!({"toolsListChanged": true})).events();
    neighbor.message();
    for filter in [
        json!(null),
        json!([]),
        json!({"toolsListChanged": 1}),
        json!({"resourceSubscriptions": "a"}),
        json!({"resourceSubscriptions": [1]}),
    ] {
        assert_eq!(listen(&client, 2, filter.clone()).response().code(), -32602, "{filter}");
    }
    let legacy = server.session();
    let mut standalone = legacy.listen();
    standalone.next();
    emit(&server, &[TOOLS]);
    assert_eq!(neighbor.message()["method"], "notifications/tools/list_changed");
    assert_eq!(
        standalone.message()["params"],
        Value::Null,
        "a legacy session gets the notification unchanged"
    );
}

/// A subscription is kept in memory as long as it is open, so its size is limited.
#[test]
fn oversized_subscriptions_are_refused_and_excess_resources_left_out() {
    let server = Server::start("");
    let long = |n: usize| format!("x:{n}{}", "y".repeat(2_000));
    let filter = |count: usize| json!({"resourceSubscriptions": Value::from_iter((0..count).map(long))});
    assert_eq!(listen(&server.modern(), 1, filter(20)).response().code(), -32602);
    let mut events = listen(&server.modern(), 1, filter(6)).events();
    let acknowledged = events.message();
    let honored = &acknowledged["params"]["notifications"]["resourceSubscriptions"];
    assert_eq!(honored.as_array().map(Vec::len), Some(4));
}

#[test]
fn subscriptions_are_limited_in_total_and_per_client() {
    let server = Server::start("--max-listens 8 --principal-header x-user");
    let open = |client: &Modern<'_>| {
        let mut events = listen(client, 1, json!({})).events();
        events.message();
        events
    };
    let refused = |client: &Modern<'_>| {
        let response = listen(client, 1, json!({})).response();
        assert_eq!(
            (response.status, response.code(), response.header("retry-after")),
            (503, -32603, Some("1"))
        );
        response.text()
    };
    let clients = ["a", "b", "c", "d", "e"].map(|name| server.modern().of(name));
    let mut opened = Vec::new();
    for client in &clients[..4] {
        opened.extend([open(client), open(client)]);
        assert!(refused(client).contains("a quarter of --max-listens"));
    }
    assert!(refused(&clients[4]).contains("--max-listens subscriptions are open"));
    assert_eq!(clients[4].result("echo", json!({"n": 1}))["n"], 1, "calls do not count as subscriptions");
    opened.remove(0).cut();
    crate::support::until("another subscription is accepted", || {
        let mut again = listen(&clients[4], 1, json!({}));
        again.response_head().header("content-type") == Some("text/event-stream")
    });
}
