//! Cached lists while they change, and while no request can be admitted: no client gets a stale list.

use crate::support::modern::{Modern, result};
use crate::support::{Journal, Server, until};
use serde_json::{Value, json};

fn legacy(flags: &str) -> (Server, Journal) {
    let journal = Journal::new();
    (Server::with().flags(flags).child(&journal.flag()).start(), journal)
}

fn modern(flags: &str) -> (Server, Journal) {
    let journal = Journal::new();
    let child = format!("--ttl 3600000 --scope public {}", journal.flag());
    (Server::with().flags(flags).modern_child(&child).start(), journal)
}

fn asked(journal: &Journal, method: &str) -> usize {
    journal.frames().iter().filter(|read| read.message["method"] == method).count()
}

const RESOURCES: &str = "resources/list";

/// Returns the names in a list of one page.
fn names(listed: &Value) -> Vec<&str> {
    let resources = listed["resources"].as_array().expect("resources");
    resources.iter().map(|resource| resource["name"].as_str().expect("a name")).collect()
}

fn list(client: &Modern<'_>) -> Value {
    result(&client.send(RESOURCES, json!({})))
}

/// Replaces the list by one resource of this name; `told` decides whether the child sends `list_changed`.
fn relist(client: &Modern<'_>, name: &str, told: bool) {
    let pages = json!([[{"uri": "a:", "name": name}]]);
    client.result("relist", json!({"method": RESOURCES, "pages": pages, "told": told}));
}

/// Fills the cache, and waits until changes of the list are noticed.
fn warmed(server: &Server, journal: &Journal) {
    list(&server.modern());
    if asked(journal, "initialize") == 0 {
        until("the subscription", || asked(journal, "subscriptions/listen") > 0);
    }
    // The acknowledgment of the subscription is read before the response to this call.
    server.modern().call("facts", json!({}));
}

#[test]
fn cached_lists_are_served_until_list_changed() {
    for (server, journal) in [legacy(""), modern("")] {
        warmed(&server, &journal);
        let client = server.modern();
        relist(&client, "unsaid", false);
        let before = asked(&journal, RESOURCES);
        let kept = list(&client);
        assert!(!names(&kept).contains(&"unsaid"));
        assert_eq!(asked(&journal, RESOURCES), before, "the cached list is still valid");
        relist(&client, "said", true);
        assert_eq!(names(&list(&client)), ["said"]);
        assert_eq!(names(&list(&client)), ["said"]);
        assert_eq!(asked(&journal, RESOURCES), before + 1);
        assert_eq!(server.metric("proxyrunner_outdated_lists_total"), 1);
    }
}

#[test]
fn a_list_that_changes_in_flight_is_not_cached() {
    for (server, journal) in [legacy(""), modern("")] {
        warmed(&server, &journal);
        let client = server.modern();
        relist(&client, "old", true);
        client.result("hold", json!({"method": RESOURCES, "name": "list"}));
        let before = asked(&journal, RESOURCES);
        let mut late = client.begin_body(&client.body(1, RESOURCES, json!({})));
        until("the request", || asked(&journal, RESOURCES) == before + 1);
        relist(&client, "new", true);
        client.result("release", json!({"name": "list"}));
        assert_eq!(names(&result(&late.response())), ["old"], "the request preceded the change");
        assert_eq!(names(&list(&client)), ["new"]);
        assert_eq!(names(&list(&client)), ["new"]);
        assert_eq!(asked(&journal, RESOURCES), before + 2);
    }
}

#[test]
fn a_notified_client_gets_the_new_list() {
    for (server, journal) in [legacy(""), modern("")] {
        let client = server.modern();
        let filter = json!({"notifications": {"resourcesListChanged": true}});
        let mut events = client.begin_body(&client.body("l", "subscriptions/listen", filter)).events();
        events.message();
        list(&client);
        for round in 0..20 {
            let name = format!("round {round}");
            let pages = json!([[{"uri": "a:", "name": name}]]);
            let arguments = json!({"method": RESOURCES, "pages": pages});
            let mut changing = client.begin_call("c", "relist", arguments);
            assert_eq!(events.message()["method"], "notifications/resources/list_changed");
            assert_eq!(names(&list(&client)), [name], "the request followed the notification");
            assert_eq!(changing.response().status, 200);
        }
        drop(journal);
    }
}

#[test]
fn lists_are_fetched_again_after_a_subscription_lapses() {
    let (server, journal) = modern("");
    warmed(&server, &journal);
    let client = server.modern();
    relist(&client, "before", true);
    list(&client);
    client.result("end_listens", json!({}));
    relist(&client, "unheard", true);
    until("the unannounced list is seen", || names(&list(&client)) == ["unheard"]);
    assert_eq!(asked(&journal, "subscriptions/listen"), 2);
}

#[test]
fn cached_lists_are_served_when_no_request_can_be_admitted() {
    for (server, journal) in
        [legacy("--max-in-flight 1 --max-queued 0"), modern("--max-in-flight 1 --max-queued 0")]
    {
        warmed(&server, &journal);
        let client = server.modern();
        let hanging = client.begin_call(1, "hang", json!({}));
        journal.until_called("hang");
        let session = server.session();
        assert!(session.ask(RESOURCES, json!({}))["result"]["resources"].is_array());
        list(&client);
        assert_eq!(client.send("resources/list", json!({"cursor": "0"})).status, 503);
        hanging.cut();
    }
}

#[test]
fn responses_to_retries_are_not_cached() {
    let (server, journal) = modern("");
    let client = server.modern();
    for _ in 0..2 {
        result(&client.send(RESOURCES, json!({"inputResponses": {}})));
        result(&client.send(RESOURCES, json!({"requestState": "s"})));
    }
    assert_eq!(asked(&journal, RESOURCES), 4);
}

#[test]
fn lists_are_not_cached_if_the_child_never_sends_list_changed() {
    let journal = Journal::new();
    let child = format!("--static {}", journal.flag());
    let server = Server::with().child(&child).start();
    for _ in 0..2 {
        list(&server.modern());
        server.session().ask(RESOURCES, json!({}));
    }
    assert_eq!(asked(&journal, RESOURCES), 4);
}
