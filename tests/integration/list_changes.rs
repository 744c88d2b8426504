//! Lists that are kept, while they change and while there is no room for requests: nobody is told what is over.

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

/// The names of a list of one page.
fn names(listed: &Value) -> Vec<&str> {
    let resources = listed["resources"].as_array().expect("resources");
    resources.iter().map(|resource| resource["name"].as_str().expect("a name")).collect()
}

fn list(client: &Modern<'_>) -> Value {
    result(&client.send(RESOURCES, json!({})))
}

/// The list has one resource now, of this name.
fn relist(client: &Modern<'_>, name: &str, told: bool) {
    let pages = json!([[{"uri": "a:", "name": name}]]);
    client.result("relist", json!({"method": RESOURCES, "pages": pages, "told": told}));
}

/// A list is kept, and a change of it is heard.
fn warmed(server: &Server, journal: &Journal) {
    list(&server.modern());
    if asked(journal, "initialize") == 0 {
        until("the subscription", || asked(journal, "subscriptions/listen") > 0);
    }
    // Its acknowledgement is read before the answer to this.
    server.modern().call("facts", json!({}));
}

#[test]
fn what_is_kept_is_told_until_the_child_says_that_it_changed() {
    for (server, journal) in [legacy(""), modern("")] {
        warmed(&server, &journal);
        let client = server.modern();
        relist(&client, "unsaid", false);
        let before = asked(&journal, RESOURCES);
        let kept = list(&client);
        assert!(!names(&kept).contains(&"unsaid"));
        assert_eq!(asked(&journal, RESOURCES), before, "it is still good");
        relist(&client, "said", true);
        assert_eq!(names(&list(&client)), ["said"]);
        assert_eq!(names(&list(&client)), ["said"]);
        assert_eq!(asked(&journal, RESOURCES), before + 1);
        assert_eq!(server.metric("proxyrunner_outdated_lists_total"), 1);
    }
}

#[test]
fn what_a_change_overtook_is_told_once_and_not_kept() {
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
        assert_eq!(names(&result(&late.response())), ["old"], "it was asked before the change");
        assert_eq!(names(&list(&client)), ["new"]);
        assert_eq!(names(&list(&client)), ["new"]);
        assert_eq!(asked(&journal, RESOURCES), before + 2);
    }
}

#[test]
fn who_hears_of_a_change_gets_the_new_list() {
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
            assert_eq!(names(&list(&client)), [name], "it asked because it heard");
            assert_eq!(changing.response().status, 200);
        }
        drop(journal);
    }
}

#[test]
fn after_a_subscription_that_lapsed_lists_are_asked_for_again() {
    let (server, journal) = modern("");
    warmed(&server, &journal);
    let client = server.modern();
    relist(&client, "before", true);
    list(&client);
    client.result("end_listens", json!({}));
    relist(&client, "unheard", true);
    until("what nobody heard of is seen", || names(&list(&client)) == ["unheard"]);
    assert_eq!(asked(&journal, "subscriptions/listen"), 2);
}

#[test]
fn what_is_kept_is_told_although_there_is_no_room_for_requests() {
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
fn what_answers_a_retry_is_not_kept() {
    let (server, journal) = modern("");
    let client = server.modern();
    for _ in 0..2 {
        result(&client.send(RESOURCES, json!({"inputResponses": {}})));
        result(&client.send(RESOURCES, json!({"requestState": "s"})));
    }
    assert_eq!(asked(&journal, RESOURCES), 4);
}

#[test]
fn a_list_of_a_child_that_never_says_so_is_asked_for_each_time() {
    let journal = Journal::new();
    let child = format!("--static {}", journal.flag());
    let server = Server::with().child(&child).start();
    for _ in 0..2 {
        list(&server.modern());
        server.session().ask(RESOURCES, json!({}));
    }
    assert_eq!(asked(&journal, RESOURCES), 4);
}
