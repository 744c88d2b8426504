//! Tests the routing of a child's messages.

use super::*;
use crate::audience::{Members, Seat};
use crate::budget::{Account, Budget};
use crate::exchange::fixtures::{begun, begun_with, held, interim, outcome, text, written};
use crate::exchange::{Ends, Held, Link};
use crate::identity::Principal;
use crate::session::fixtures::{account, client_id, directory, drain, session};
use std::time::Instant;

/// The router of a child, and the other parts of the child's side.
struct Child {
    router: Router,
    link: Arc<Link>,
    ends: Ends,
    account: Account,
}

fn child(audience: Audience) -> Child {
    let (link, ends) = Link::new(1, 8);
    // The router owns one answering half; the ends keep that of another link.
    let (_, mut spare) = Link::new(2, 1);
    spare.intake = ends.intake;
    let account = Budget::new(1 << 20).account(crate::client::Client::numbered(1));
    let router = Router::new(1, ends.answering, audience, link.inbox().clone(), 3);
    Child { router, link, ends: spare, account }
}

impl Child {
    fn says(&mut self, json: &str) {
        let framed = Framed::Frame { bytes: json.as_bytes().to_vec(), bom: false };
        self.router.deliver(framed, self.account.charge());
    }

    fn hears(&mut self) -> Vec<String> {
        written(&self.link, &mut self.ends)
    }
}

#[test]
fn an_answer_reaches_its_request() {
    let mut child = child(Audience::Nobody);
    let [mut a, mut b] = [begun(&child.link), begun(&child.link)];
    child.hears();
    child.says(&format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, b.wire_id()));
    assert!(outcome(&mut a).is_none());
    let answer = outcome(&mut b).unwrap().unwrap();
    assert_eq!(text(answer.restored(&client_id("\"b\""))), r#"{"jsonrpc":"2.0","id":"b","result":{}}"#);
    child.says(&format!(r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":1,"message":""}}}}"#, a.wire_id()));
    assert!(outcome(&mut a).unwrap().unwrap().result.is_none());
}

#[test]
fn unexpected_answers_have_no_effect() {
    let mut child = child(Audience::Nobody);
    let mut exchange = begun(&child.link);
    for id in ["0", "99999", "\"x\"", "-1", "9007199254740993", "1.5"] {
        child.says(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
    }
    let id = exchange.wire_id();
    child.says(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"before it was sent"}}"#));
    assert!(outcome(&mut exchange).is_none());
    child.hears();
    child.says(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":1}}"#));
    child.says(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":2}}"#));
    let answer = outcome(&mut exchange).unwrap().unwrap();
    assert_eq!(&answer.frame[answer.result.unwrap()], b"1");
}

#[test]
fn one_bad_message_fails_one_request() {
    let mut child = child(Audience::Nobody);
    let [mut a, mut b, mut c] = [(); 3].map(|()| begun(&child.link));
    child.hears();
    child.says("Server listening");
    child.says("{");
    child.says(&format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"#, a.wire_id()));
    assert!(matches!(outcome(&mut a), Some(Err(Failure::Malformed(_)))));
    let id = Some(b.wire_id().to_string().into_bytes());
    for (id, head) in [(id, b"{".to_vec()), (None, Vec::new())] {
        child
            .router
            .deliver(Framed::Oversized { id, length: 5_000, head, given_up: false }, child.account.charge());
    }
    assert!(matches!(outcome(&mut b), Some(Err(Failure::Oversized { length: 5_000 }))));
    assert!(outcome(&mut c).is_none());
    child.says(&format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, c.wire_id()));
    assert!(outcome(&mut c).unwrap().is_ok());
}

#[test]
fn an_error_without_an_id_concerns_the_only_request_or_none() {
    let mut child = child(Audience::Nobody);
    let [mut a, mut b] = [begun(&child.link), begun(&child.link)];
    child.hears();
    let error = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"?"}}"#;
    child.says(error);
    assert!(outcome(&mut a).is_none() && outcome(&mut b).is_none());
    child.says(&format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, a.wire_id()));
    assert!(outcome(&mut a).is_some());
    child.says(error);
    assert!(matches!(outcome(&mut b), Some(Err(Failure::Malformed(_)))));
}

#[test]
fn progress_goes_to_its_request_under_the_clients_token() {
    let mut child = child(Audience::Nobody);
    let token = Some(Charged::fixed(br#""t""#));
    let mut with = begun_with(&child.link, Held { token, ..held() });
    let mut without = begun(&child.link);
    child.hears();
    for wire_id in [with.wire_id(), without.wire_id()] {
        child.says(&format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{wire_id},"progress":1e0}}}}"#
        ));
    }
    child.says(r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t"}}"#);
    child.says(r#"{"jsonrpc":"2.0","method":"notifications/progress"}"#);
    assert_eq!(
        interim(&mut with).unwrap(),
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":1e0}}"#
    );
    assert_eq!(interim(&mut with), None);
    assert_eq!(interim(&mut without), None);
}

#[test]
fn a_shared_childs_questions_are_refused_and_its_logs_dropped() {
    let members = Arc::new(Members::default());
    let mut child = child(Audience::Shared(Arc::clone(&members)));
    let (directory, now) = (directory(), Instant::now());
    let mut readers = [(); 2].map(|()| {
        let session = directory.open(Principal::anonymous(), None, account(), now).unwrap();
        assert!(session.take_seat(Seat::Shared { members: Arc::clone(&members), newer: false }));
        session.open_standalone()
    });
    let mut exchange = begun(&child.link);
    child.hears();
    members.room_for("a://b", readers[0].session().id()).unwrap().watch();
    child.says(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"secret"}}"#);
    child.says(r#"{"jsonrpc":"2.0","method":"notifications/tasks/status","params":{}}"#);
    child
        .says(r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a:\/\/b/c"}}"#);
    child.says("{\"jsonrpc\":\"2.0\",\r \"method\":\"notifications/tools\\/list_changed\"}");
    child.says(r#"{"jsonrpc":"2.0","id":"q","method":"sampling/createMessage","params":{}}"#);
    child.says(r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#);
    let changed = "{\"jsonrpc\":\"2.0\",  \"method\":\"notifications/tools\\/list_changed\"}";
    assert!(drain(&mut readers[0]).0.iter().any(|text| text.contains("resources/updated")));
    assert_eq!(drain(&mut readers[1]).0, [changed]);
    assert_eq!(interim(&mut exchange), None);
    let told = child.hears();
    assert!(told[0].starts_with(r#"{"jsonrpc":"2.0","id":"q","error":{"code":-32601"#), "{told:?}");
    assert_eq!(told[1..], [r#"{"jsonrpc":"2.0","id":7,"result":{}}"#]);
}

#[test]
fn a_childs_own_messages_count_among_the_bytes_in_transit() {
    let session = session();
    let mut child = child(Audience::exclusive(&session, true));
    let mut get = session.open_standalone();
    let long = "x".repeat(100_000);
    child.says(&format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"data":"{long}"}}}}"#
    ));
    assert!(child.account.budget().used() > 100_000);
    assert_eq!(drain(&mut get).0.len(), 1);
    session.forget_delivered();
    assert_eq!(child.account.budget().used(), 0);
}

#[test]
fn an_exclusive_childs_questions_and_logs_reach_its_session() {
    let session = session();
    let mut child = child(Audience::exclusive(&session, true));
    let mut get = session.open_standalone();
    child.says(r#"{"jsonrpc":"2.0","id":"q","method":"roots/list"}"#);
    child.says(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"q"}}"#);
    child.says(r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a:"}}"#);
    child.says(r#"{"jsonrpc":"2.0","method":"x/unknown","params":{}}"#);
    assert_eq!(
        drain(&mut get).0,
        [
            r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a:"}}"#,
            r#"{"jsonrpc":"2.0","method":"x/unknown","params":{}}"#
        ]
    );
    for _ in 0..1_024 {
        child.says(r#"{"jsonrpc":"2.0","id":"q","method":"roots/list"}"#);
    }
    assert!(child.hears().is_empty());
    child.says(r#"{"jsonrpc":"2.0","id":"one too many","method":"roots/list"}"#);
    assert!(child.hears()[0].contains("one too many"));
    drop((get, session));
    child.says(r#"{"jsonrpc":"2.0","id":"nobody","method":"roots/list"}"#);
    assert!(child.hears()[0].contains("-32601"), "an ended session is asked nothing");
}

#[test]
fn a_cancelled_request_that_is_never_answered_is_forgotten_after_its_grace() {
    let mut child = child(Audience::Nobody);
    let exchange = begun(&child.link);
    child.hears();
    drop(exchange);
    // The first tick records it; the grace of three ticks begins there.
    (0..3).for_each(|_| child.router.tick());
    assert_eq!(child.link.in_flight(), 1);
    child.router.tick();
    assert_eq!(child.link.in_flight(), 0);
}

#[test]
fn closing_a_child_fails_its_requests_and_prevents_new_ones() {
    let mut child = child(Audience::Nobody);
    let [mut sent, mut unsent] = [begun(&child.link), begun(&child.link)];
    assert!(child.link.mux().mark_sent(sent.wire_id()));
    child.router.close(&Failure::ClosedStdout);
    for exchange in [&mut sent, &mut unsent] {
        assert!(matches!(outcome(exchange), Some(Err(Failure::ClosedStdout))));
    }
    let refused = child.link.begin(held(), None, |_| unreachable!("nothing to write"));
    assert!(refused.is_err());
}
