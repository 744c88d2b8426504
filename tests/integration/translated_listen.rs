//! Subscriptions of legacy clients in front of a child of 2026-07-28: all of them share one subscription at the child.

use crate::support::{Journal, Server, Session, until};
use serde_json::{Value, json};

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

#[test]
fn sessions_share_one_subscription_at_the_child() {
    let (server, journal) = modern("", "");
    let (one, two) = (server.session(), server.session());
    let (mut hears, mut too) = (one.listen(), two.listen());
    let subscribe = |session: &Session<'_>, method: &str, uri: &str| session.ask(method, json!({"uri": uri}));
    assert_eq!(subscribe(&one, "resources/subscribe", "a:")["result"], json!({}));
    assert_eq!(subscribe(&two, "resources/subscribe", "a:")["result"], json!({}));
    assert_eq!(subscribe(&two, "resources/subscribe", "b:")["result"], json!({}));
    assert_eq!(
        subscribe(&two, "resources/subscribe", "no:")["error"]["code"],
        -32602,
        "the child refuses this resource"
    );
    one.result("touch", json!({"uri": "b:"}));
    let updated = too.message();
    assert_eq!(
        (&updated["params"]["uri"], &updated["method"]),
        (&json!("b:"), &json!("notifications/resources/updated"))
    );
    assert!(!updated.to_string().contains("subscriptionId"), "{updated}");
    one.result("touch", json!({"uri": "a:"}));
    assert_eq!(
        (hears.message()["params"]["uri"].as_str(), too.message()["params"]["uri"].as_str()),
        (Some("a:"), Some("a:"))
    );
    one.result("touch", json!({"kind": "prompts"}));
    assert_eq!(hears.message()["method"], "notifications/prompts/list_changed");
    assert_eq!(too.message()["method"], "notifications/prompts/list_changed");
    assert_eq!(subscribe(&two, "resources/unsubscribe", "b:")["result"], json!({}));
    let watched = || {
        let listens = frames(&journal, "subscriptions/listen");
        listens.last().expect("one")["params"]["notifications"]["resourceSubscriptions"].clone()
    };
    assert_eq!(watched(), json!(["a:"]));
    one.delete();
    two.delete();
    until("no resource is watched", || watched().is_null());
}

/// A session gets the response to its request shortly before its subscription is recorded; the next session's request
/// may be processed in between.
#[test]
fn concurrent_subscriptions_all_take_effect() {
    let (server, _journal) = modern("", "");
    let sessions: Vec<_> = (0..8).map(|_| server.session()).collect();
    let mut streams: Vec<_> = sessions.iter().map(Session::listen).collect();
    for round in 0..4 {
        let uri = |at: usize| format!("w{round}-{at}:");
        std::thread::scope(|scope| {
            for (at, session) in sessions.iter().enumerate() {
                let uri = uri(at);
                scope.spawn(move || {
                    let answer = session.ask("resources/subscribe", json!({"uri": uri}));
                    assert_eq!(answer["result"], json!({}));
                });
            }
        });
        for (at, stream) in streams.iter_mut().enumerate() {
            sessions[0].result("touch", json!({"uri": uri(at)}));
            assert_eq!(stream.message()["params"]["uri"], json!(uri(at)));
        }
    }
}

/// One session, so that no other request triggers a check.
#[test]
fn unsubscribing_takes_effect_at_the_child_at_once() {
    let (server, journal) = modern("", "");
    let session = server.session();
    let watched = || {
        let listens = frames(&journal, "subscriptions/listen");
        listens.last().map(|last| last["params"]["notifications"]["resourceSubscriptions"].clone())
    };
    for round in 0..20 {
        let uri = json!({"uri": format!("w{round}:")});
        assert_eq!(session.ask("resources/subscribe", uri.clone())["result"], json!({}));
        assert_eq!(watched(), Some(json!([uri["uri"]])), "earlier resources are no longer watched");
        assert_eq!(session.ask("resources/unsubscribe", uri)["result"], json!({}));
        assert_eq!(watched(), Some(Value::Null));
    }
}

#[test]
fn a_subscription_ended_by_the_child_is_reopened() {
    let (server, journal) = modern("", "");
    let session = server.session();
    let mut hears = session.listen();
    let opened = || frames(&journal, "subscriptions/listen").len();
    until("the subscription", || opened() == 1);
    session.result("end_listens", json!({}));
    until("the next subscription", || opened() == 2);
    session.result("touch", json!({"kind": "tools"}));
    assert_eq!(hears.message()["method"], "notifications/tools/list_changed");
}
