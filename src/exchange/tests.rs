//! Tests exchanges with a simulated child.

use super::fixtures::{begun, begun_with, held, interim, now, outcome, text, written};
use super::*;
use crate::admission::{Admission, Bounds};
use crate::budget::{Budget, OVERHEAD};
use crate::client::Client;
use crate::jsonrpc::Message;
use crate::mux::Completed;
use std::time::Duration;

fn said(text: &str, class: Class) -> Interim {
    Interim { frame: Spliced::from(Charged::own(text.as_bytes())), class, topic: Topic::Other }
}

fn answer(ends: &mut Ends, wire_id: WireId) -> Completed<Outcome> {
    let frame = Charged::own(format!(r#" {{"id":{wire_id},"jsonrpc":"2.0","result":{{"n":1.0}}}} "#));
    let message = crate::jsonrpc::scan(&frame).unwrap();
    let Message { object, id, result, error, .. } = message;
    ends.answering
        .complete(wire_id, Ok(Answer { frame, object, id: id.unwrap(), result, error, is_error: false }))
}

#[test]
fn an_abandoned_request_is_cancelled_even_if_the_child_answers_first() {
    let (link, mut ends) = Link::new(1, 2);
    let mut exchange = begun(&link);
    written(&link, &mut ends);
    exchange.give_up();
    // The child answers while it is told other things, such as that its questions are refused.
    assert!(matches!(answer(&mut ends, exchange.wire_id()), Completed::Late));
    exchange.cancel("the client cannot be asked");
    let told = written(&link, &mut ends);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(link.in_flight(), 0);
}

#[test]
fn an_answer_gets_the_clients_id_back_and_keeps_every_other_byte() {
    let (link, mut ends) = Link::new(1, 2);
    let mut exchange = begun(&link);
    assert!(matches!(answer(&mut ends, exchange.wire_id()), Completed::Unknown(_)), "it was not sent yet");
    written(&link, &mut ends);
    assert!(matches!(answer(&mut ends, exchange.wire_id()), Completed::Delivered));
    let answer = outcome(&mut exchange).unwrap().unwrap();
    let restored = answer.restored(&ClientId::new(br#""\u0061""#));
    assert_eq!(text(restored), r#"{"id":"\u0061","jsonrpc":"2.0","result":{"n":1.0}}"#);
    drop(exchange);
    assert_eq!(link.in_flight(), 0);
    assert!(written(&link, &mut ends).is_empty(), "an answered request is not cancelled");
}

#[test]
fn messages_before_an_answer_are_delivered_before_it() {
    let (link, mut ends) = Link::new(1, 2);
    let mut exchange = begun(&link);
    written(&link, &mut ends);
    assert!(now(exchange.next()).is_none());
    exchange.mailbox().push(said("1", Class::Droppable)).unwrap();
    exchange.mailbox().push(said("2", Class::Dear)).unwrap();
    assert!(matches!(answer(&mut ends, exchange.wire_id()), Completed::Delivered));
    assert_eq!(interim(&mut exchange).unwrap(), "1");
    assert_eq!(interim(&mut exchange).unwrap(), "2");
    assert!(outcome(&mut exchange).unwrap().is_ok());
}

#[test]
fn a_closed_mailbox_takes_no_messages() {
    let (link, mut ends) = Link::new(1, 4);
    let mut answered = begun(&link);
    let mut interrupted = begun(&link);
    let dropped = begun(&link);
    written(&link, &mut ends);
    assert!(matches!(answer(&mut ends, answered.wire_id()), Completed::Delivered));
    answered.mailbox().push(said("in time", Class::Dear)).unwrap();
    assert!(interim(&mut answered).is_some());
    assert!(outcome(&mut answered).is_some());
    interrupted.mailbox().interrupt(Interruption { failure: Failure::Cancelled, cancellation: None });
    assert!(outcome(&mut interrupted).is_some());
    let mailboxes = [answered.mailbox(), interrupted.mailbox(), dropped.mailbox()].map(Arc::clone);
    drop(dropped);
    for mailbox in mailboxes {
        assert!(mailbox.push(said("too late", Class::Dear)).is_err());
    }
}

#[test]
fn a_mailbox_is_bounded_and_keeps_room_for_dear_messages() {
    let mailbox = Mailbox::default();
    mailbox.push(said("twice", Class::Idempotent)).unwrap();
    mailbox.push(said("twice", Class::Idempotent)).unwrap();
    let room = |class| (0..10_000).take_while(|n| mailbox.push(said(&n.to_string(), class)).is_ok()).count();
    assert_eq!(room(Class::Idempotent), 255, "equal messages take one place");
    assert_eq!(room(Class::Droppable), 0);
    assert_eq!(room(Class::Dear), 256);
}

#[test]
fn a_full_mailbox_keeps_the_latest_droppable_message() {
    let (link, mut ends) = Link::new(1, 2);
    let mut exchange = begun(&link);
    written(&link, &mut ends);
    exchange.mailbox().push(said("dear", Class::Dear)).unwrap();
    for n in 0..1_000 {
        exchange.mailbox().push(said(&n.to_string(), Class::Droppable)).unwrap();
    }
    assert_eq!(interim(&mut exchange).unwrap(), "dear");
    for n in 1_000 - 255..1_000 {
        assert_eq!(interim(&mut exchange).unwrap(), n.to_string());
    }
    assert!(interim(&mut exchange).is_none());
}

#[test]
fn the_first_interruption_counts_and_follows_earlier_messages() {
    let (link, mut ends) = Link::new(1, 2);
    let mut exchange = begun(&link);
    written(&link, &mut ends);
    let mailbox = Arc::clone(exchange.mailbox());
    mailbox.push(said("1", Class::Droppable)).unwrap();
    mailbox.interrupt(Interruption { failure: Failure::ShuttingDown, cancellation: None });
    mailbox.interrupt(Interruption { failure: Failure::Cancelled, cancellation: None });
    assert_eq!(interim(&mut exchange).unwrap(), "1");
    assert!(matches!(outcome(&mut exchange), Some(Err(Failure::ShuttingDown))));
    let told = written(&link, &mut ends);
    assert_eq!(told.len(), 1);
    assert!(told[0].contains(&format!(r#""requestId":{}"#, exchange.wire_id())), "{told:?}");
}

#[test]
fn dropping_an_exchange_cancels_it_at_the_child_only_if_it_was_sent() {
    let (link, mut ends) = Link::new(1, 4);
    let unsent = begun(&link);
    drop(unsent);
    assert!(written(&link, &mut ends).is_empty(), "neither the request nor its cancellation");
    assert_eq!(link.in_flight(), 0);
    let sent = begun(&link);
    let id = sent.wire_id();
    written(&link, &mut ends);
    drop(sent);
    let told = written(&link, &mut ends);
    assert!(told.len() == 1 && told[0].contains("notifications/cancelled"), "{told:?}");
    assert_eq!(link.in_flight(), 1, "the child may still work on it");
    assert!(matches!(answer(&mut ends, id), Completed::Late));
    assert_eq!(link.in_flight(), 0);
}

/// Otherwise a silent child would seem to be at work for as long as a request may take.
#[test]
fn a_child_owes_nothing_for_an_answer_that_was_not_taken_yet() {
    let (link, mut ends) = Link::new(1, 4);
    let sent = begun(&link);
    written(&link, &mut ends);
    assert_eq!(link.calls(), 1);
    assert!(matches!(answer(&mut ends, sent.wire_id()), Completed::Delivered));
    assert_eq!((link.in_flight(), link.calls()), (1, 0));
    drop(sent);
}

#[test]
fn a_cancelled_request_keeps_its_permit_until_the_child_answers() {
    let admission = Admission::new(Bounds { in_flight: 2, per_client: 2, queued: 0 });
    let place = || admission.take(Client::named("a client")).expect("two are free");
    let places = Places { all: place(), child: place(), notice: None, accepted: None };
    let (link, mut ends) = Link::new(1, 2);
    let exchange = begun_with(&link, Held { places: Some(places).into(), ..held() });
    let id = exchange.wire_id();
    written(&link, &mut ends);
    exchange.cancel("too slow");
    assert_eq!(admission.in_flight(), 2);
    assert!(written(&link, &mut ends)[0].contains("too slow"));
    assert!(matches!(answer(&mut ends, id), Completed::Late));
    assert_eq!(admission.in_flight(), 0);
}

#[test]
fn a_cancelled_subscription_keeps_its_place_until_the_child_ends_it() {
    let listens = Admission::new(Bounds { in_flight: 1, per_client: 1, queued: 0 });
    let place = Arc::new(listens.take(Client::named("a client")).expect("it is free"));
    let (link, mut ends) = Link::new(1, 2);
    let exchange = begun_with(&link, Held { listen: Some(Arc::clone(&place)), ..held() });
    let id = exchange.wire_id();
    written(&link, &mut ends);
    drop((exchange, place));
    assert_eq!(listens.in_flight(), 1);
    assert!(matches!(answer(&mut ends, id), Completed::Late));
    assert_eq!(listens.in_flight(), 0);
}

#[test]
fn a_request_that_waits_for_its_client_has_no_permits() {
    let admission = Admission::new(Bounds { in_flight: 2, per_client: 2, queued: 0 });
    let place = || admission.take(Client::named("a client")).expect("two are free");
    let places = || Some(Places { all: place(), child: place(), notice: None, accepted: None });
    let (link, mut ends) = Link::new(1, 2);
    let mut exchange = begun_with(&link, Held { places: places().into(), ..held() });
    written(&link, &mut ends);
    exchange.set_places(None);
    assert_eq!((admission.in_flight(), link.in_flight()), (0, 1));
    exchange.set_places(places());
    assert_eq!(admission.in_flight(), 2);
    assert!(matches!(answer(&mut ends, exchange.wire_id()), Completed::Delivered));
    assert!(outcome(&mut exchange).unwrap().is_ok());
    assert_eq!(admission.in_flight(), 0);
    exchange.set_places(places());
    assert_eq!(admission.in_flight(), 0, "an answered request needs none");
}

#[test]
fn a_notification_waits_for_room_and_can_be_given_up() {
    let (link, mut ends) = Link::new(1, 8);
    let notify = || link.notify(Spliced::from(Charged::fixed(b"{}")), None);
    let queued = std::iter::from_fn(|| now(notify())).count();
    assert_eq!(queued, 256);
    assert!(now(notify()).is_none(), "it is given up here");
    assert!(link.has_notifications());
    assert_eq!(written(&link, &mut ends).len(), 256);
    assert!(!link.has_notifications());
    assert!(now(notify()).is_some());
}

#[test]
fn clients_take_turns_and_each_keeps_its_order() {
    let admission = Admission::new(Bounds { in_flight: 8, per_client: 8, queued: 0 });
    let (link, mut ends) = Link::new(1, 64);
    let name = |text: String| Spliced::from(Charged::own(text));
    let begin = |client: u64, text: String| {
        let held = Held { client: Some(Client::numbered(client)), ..held() };
        link.begin(held, None, |_| name(text)).expect("the child is open and has room")
    };
    let many: Vec<_> = (0..3).map(|n| begin(1, format!("many {n}"))).collect();
    let places = || {
        let place = || admission.take(Client::numbered(1)).expect("there is one");
        Some(Places { all: place(), child: place(), notice: None, accepted: None })
    };
    now(link.notify(name("many notified".into()), places())).expect("there is room");
    let large = begin(3, format!("large {}", "x".repeat(64 * 1024)));
    let few: Vec<_> = (0..2).map(|n| begin(2, format!("few {n}"))).collect();
    let after = begin(3, "after large".into());
    now(link.notify(name("own".into()), None)).expect("there is room");
    let order: Vec<_> =
        written(&link, &mut ends).iter().map(|text| text[..text.len().min(13)].to_owned()).collect();
    let expected = [
        "many 0",
        "large xxxxxxx",
        "few 0",
        "own",
        "many 1",
        "few 1",
        "many 2",
        "many notified",
        "after large",
    ];
    assert_eq!(order, expected);
    let late: Vec<_> = [1, 1, 2].map(|client| begin(client, format!("late {client}"))).into();
    assert_eq!(written(&link, &mut ends), ["late 1", "late 2", "late 1"]);
    drop((many, large, few, after, late));
}

#[test]
fn a_request_cancelled_before_its_turn_frees_its_bytes_at_once() {
    let budget = Budget::new(1 << 20);
    let account = budget.account(crate::client::Client::numbered(1));
    let (link, mut ends) = Link::new(1, 8);
    let mut begin = |length: usize| {
        let frame = account.hold(vec![b'x'; length]);
        link.begin(held(), None, |_| Spliced::from(frame)).expect("the child is open and has room")
    };
    let [first, second, mut third] = [5_000, 6_000, 7_000].map(&mut begin);
    drop(second);
    assert_eq!(budget.used(), 12_000 + 2 * OVERHEAD);
    third.mailbox().interrupt(Interruption { failure: Failure::Cancelled, cancellation: None });
    assert!(outcome(&mut third).is_some());
    assert_eq!(budget.used(), 5_000 + OVERHEAD, "the child has read nothing");
    assert_eq!(written(&link, &mut ends).iter().map(String::len).collect::<Vec<_>>(), [5_000]);
    drop(first);
    assert_eq!(written(&link, &mut ends).len(), 1, "it was sent, and is cancelled at the child");
}

#[test]
fn cancelled_requests_do_not_change_the_order_of_others() {
    let (link, mut ends) = Link::new(1, 512);
    let begin = || link.begin(held(), None, |id: WireId| Spliced::from(Charged::own(id.to_string())));
    let mut queued: Vec<_> = (0..256).map(|_| begin().expect("the child is open")).collect();
    [200, 100, 0].into_iter().for_each(|at| drop(queued.remove(at)));
    queued.push(begin().expect("the child is open"));
    let expected: Vec<_> = queued.iter().map(|exchange| exchange.wire_id().to_string()).collect();
    assert_eq!(written(&link, &mut ends), expected);
}

/// Callers record a request as running when its frame is made, so no frame may be made that is never written.
#[test]
fn no_frame_is_made_once_the_writer_is_gone() {
    let (link, ends) = Link::new(1, 512);
    let queued = begun(&link);
    drop(ends.intake);
    let refused = link.begin(held(), None, |_| unreachable!("nothing to write"));
    assert!(matches!(refused, Err(Refused::Closed(Failure::ClosedStdin))));
    assert!(now(link.notify(Spliced::from(Charged::fixed(b"{}")), None)).is_some(), "it is dropped");
    drop(queued);
    assert_eq!(link.in_flight(), 0);
}

#[test]
fn a_full_child_refuses() {
    let (link, _ends) = Link::new(1, 1);
    let _one = begun(&link);
    let refused = link.begin(held(), None, |_| unreachable!("nothing to write"));
    assert!(matches!(refused, Err(Refused::Full)));
}

#[test]
fn a_child_that_is_gone_reports_its_end() {
    let end = End { how: "exited with code 3".into(), code: 3, last_words: LastWords::default() };
    let refusal = |link: &Link| match link.begin(held(), None, |_| unreachable!("nothing to write")) {
        Err(Refused::Closed(failure)) => failure,
        other => panic!("not refused as closed: {other:?}"),
    };
    let (link, mut ends) = Link::new(1, 1);
    ends.answering.close(|| Err(Failure::ClosedStdout));
    assert!(matches!(refusal(&link), Failure::ClosedStdout));
    assert!(!link.is_closed(), "its process may still be there");
    link.stop();
    assert!(matches!(refusal(&link), Failure::SessionEnded));
    ends.end.send_replace(Some(end.clone()));
    assert!(matches!(refusal(&link), Failure::Ended(ended) if ended == end));
    assert_eq!(now(link.ended()), Some(end));
}

#[test]
fn a_child_whose_driver_is_gone_fails_all_requests() {
    let (link, ends) = Link::new(1, 2);
    let mut exchange = begun(&link);
    drop(ends);
    assert!(matches!(outcome(&mut exchange), Some(Err(Failure::Lost))));
    assert!(now(link.ended()).is_some());
}

#[test]
fn a_failure_names_the_party_at_fault() {
    let fault = |failure: Failure| {
        let error: serde_json::Value = serde_json::from_slice(&failure.response(b"\"x\"")).unwrap();
        assert_eq!(error["id"], "x");
        assert!(!error["error"]["message"].as_str().unwrap().is_empty());
        error["error"]["data"]["fault"].as_str().unwrap().to_owned()
    };
    assert_eq!(fault(Failure::TimedOut(Duration::from_secs(1))), "child");
    assert_eq!(fault(Failure::Cancelled), "client");
    assert_eq!(fault(Failure::Lost), "proxyrunner");
    let last_words = LastWords::new(["Traceback".to_owned()].into(), false);
    let end = End { how: "exited with code 1".into(), code: 1, last_words };
    assert_eq!(fault(Failure::Ended(end.clone())), "child");
    assert!(!format!("{end} {}", Failure::Ended(end.clone()).for_probes()).contains("Traceback"));
    assert!(Failure::Ended(end).for_log().to_string().contains("Traceback"));
}
