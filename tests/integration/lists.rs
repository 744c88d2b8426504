//! Cached lists, which are served while they are fresh, and the parameter headers that are checked against tool lists.

use crate::support::modern::{Modern, result};
use crate::support::{Journal, Response, Server, until};
use serde_json::{Value, json};
use std::time::Duration;

fn legacy(flags: &str, child: &str) -> (Server, Journal) {
    let journal = Journal::new();
    let child = format!("{child} {}", journal.flag());
    (Server::with().asked_nothing().flags(flags).child(&child).start(), journal)
}

fn modern(flags: &str, child: &str) -> (Server, Journal) {
    let journal = Journal::new();
    let child = format!("{child} {}", journal.flag());
    (Server::with().asked_nothing().flags(flags).modern_child(&child).start(), journal)
}

fn asked(journal: &Journal, method: &str) -> usize {
    journal.frames().iter().filter(|read| read.message["method"] == method).count()
}

fn list(client: &Modern<'_>, method: &str) -> Value {
    result(&client.send(method, json!({})))
}

#[test]
fn a_legacy_childs_list_is_cached_until_list_changed() {
    let (server, journal) = legacy("", "--prompts");
    let (client, session) = (server.modern(), server.session());
    for _ in 0..3 {
        list(&client, "tools/list");
        assert!(session.ask("tools/list", json!({}))["result"]["tools"].is_array());
    }
    assert_eq!(asked(&journal, "tools/list"), 1, "for clients of both eras");
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    server.modern().result("emit", json!({"lines": [changed]}));
    // The call above fetched the tools, too.
    let before = asked(&journal, "tools/list");
    list(&client, "tools/list");
    assert_eq!(asked(&journal, "tools/list"), before + 1);
    for _ in 0..2 {
        list(&client, "prompts/list");
    }
    assert_eq!(asked(&journal, "prompts/list"), 2, "the child does not announce changes of prompts");
    assert!(server.metric("proxyrunner_cached_lists_total") >= 5);
}

#[test]
fn cache_lists_sets_how_long_lists_are_cached() {
    let (server, journal) = legacy("--cache-lists 1h", "--prompts");
    for _ in 0..3 {
        list(&server.modern(), "prompts/list");
    }
    assert_eq!(asked(&journal, "prompts/list"), 1);
    let (server, journal) = legacy("--cache-lists 50ms", "--prompts");
    list(&server.modern(), "prompts/list");
    std::thread::sleep(Duration::from_millis(60));
    list(&server.modern(), "prompts/list");
    assert_eq!(asked(&journal, "prompts/list"), 2);
}

#[test]
fn each_page_and_parameter_set_is_cached_separately() {
    let (server, journal) = legacy("", "");
    for other in ["a", "b", "a", "b"] {
        let params = json!({"cursor": "0", "other": other});
        assert_eq!(server.modern().send("resources/list", params).status, 200);
    }
    assert_eq!(asked(&journal, "resources/list"), 2);
}

#[test]
fn a_modern_childs_ttl_limits_how_long_its_lists_are_cached() {
    for (child, expected) in [("--ttl 0 --scope public", 2), ("--ttl 60000 --scope public", 1)] {
        let (server, journal) = modern("", child);
        let first = list(&server.modern(), "tools/list");
        let second = list(&server.modern(), "tools/list");
        assert_eq!(asked(&journal, "tools/list"), expected, "{child}");
        let ttl = |listed: &Value| listed["ttlMs"].as_u64().expect("a number");
        assert!(ttl(&second) <= ttl(&first) && ttl(&second) + 30_000 >= ttl(&first), "the remaining time");
        assert_eq!((&second["tools"], &second["cacheScope"]), (&first["tools"], &first["cacheScope"]));
        let session = server.opening().open();
        assert!(session.ask("tools/list", json!({}))["result"]["ttlMs"].is_null());
        list(&server.modern(), "server/discover");
        list(&server.modern(), "server/discover");
        assert_eq!(asked(&journal, "server/discover"), 1 + expected, "the first request is the probe");
    }
}

#[test]
fn a_private_list_is_cached_per_principal() {
    let (server, journal) = modern("--principal-header x-user", "--ttl 60000 --scope private");
    let client = server.modern();
    for (principal, expected) in [("ann", 1), ("ann", 1), ("bob", 2), ("ann", 2), ("bob", 2)] {
        list(&client.clone().of(principal), "tools/list");
        assert_eq!(asked(&journal, "tools/list"), expected, "{principal}");
    }
    let (server, journal) = modern("", "--ttl 60000 --scope private");
    for expected in [1, 2] {
        list(&server.modern(), "tools/list");
        assert_eq!(
            asked(&journal, "tools/list"),
            expected,
            "without principals, private lists are not cached"
        );
    }
}

#[test]
fn lists_are_cached_per_client_capabilities() {
    let (server, journal) = modern("", "--ttl 60000 --scope public");
    list(&server.modern(), "tools/list");
    list(&server.asked(), "tools/list");
    assert_eq!(asked(&journal, "tools/list"), 2);
}

#[test]
fn list_changed_evicts_a_modern_childs_list_before_its_ttl() {
    let (server, journal) = modern("", "--ttl 60000 --scope public");
    let client = server.modern();
    list(&client, "tools/list");
    until("the subscription", || asked(&journal, "subscriptions/listen") == 1);
    client.result("touch", json!({"kind": "tools"}));
    let before = asked(&journal, "tools/list");
    list(&client, "tools/list");
    assert_eq!(asked(&journal, "tools/list"), before + 1);
}

fn called(client: Modern<'_>, arguments: Value) -> (u16, i64) {
    let response: Response = client.call("echo", arguments);
    (response.status, if response.json()["error"].is_null() { 0 } else { response.code() })
}

#[test]
fn parameter_headers_must_match_the_body() {
    let (server, journal) = modern("", "");
    let client = || server.modern();
    let both = || client().header("Mcp-Param-Region", "eu").header("Mcp-Param-Count", "7");
    const MISMATCH: (u16, i64) = (400, -32020);
    let arguments = || json!({"region": "eu", "count": 7});
    for (client, arguments, expected) in [
        (both(), arguments(), (200, 0)),
        (
            client().header("mcp-param-REGION", "  eu ").header("Mcp-Param-Count", "7.0"),
            arguments(),
            (200, 0),
        ),
        (
            client().header("Mcp-Param-Region", "=?base64?ZXU=?=").header("Mcp-Param-Count", "7"),
            arguments(),
            (200, 0),
        ),
        (client(), json!({}), (200, 0)),
        (client().header("Mcp-Param-Unknown", "x"), json!({"region": null}), (200, 0)),
        (client().header("Mcp-Param-Count", "7"), arguments(), MISMATCH),
        (both(), json!({"region": "us", "count": 7}), MISMATCH),
        (both(), json!({"region": "eu", "count": 8}), MISMATCH),
        (both(), json!({"region": "eu"}), MISMATCH),
        (both(), json!({"region": "eu", "count": null}), MISMATCH),
        (both().header("Mcp-Param-Region", "eu"), arguments(), MISMATCH),
        (
            client().header("Mcp-Param-Region", "=?base64?ZXU?=").header("Mcp-Param-Count", "7"),
            arguments(),
            MISMATCH,
        ),
        (client().header("Mcp-Param-Region", "EU").header("Mcp-Param-Count", "7"), arguments(), MISMATCH),
    ] {
        let before = journal.runs("echo");
        assert_eq!(called(client, arguments.clone()), expected, "{arguments}");
        assert_eq!(journal.runs("echo") - before, usize::from(expected.0 == 200), "{arguments}");
    }
    assert_eq!(asked(&journal, "tools/list"), 1, "the list was fetched once");
    server.modern().result("touch", json!({"kind": "tools"}));
    called(both(), arguments());
    assert_eq!(asked(&journal, "tools/list"), 2, "the list was fetched again after a change");
}
