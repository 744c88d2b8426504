//! Tests requests in flight, questions of a child, and the end of a session.

use super::fixtures::{client_id, drain, read, said, scanned, session};
use super::underway::Cancelled;
use super::*;
use crate::audience::{Members, Own, SeatedSession, TooManyQuestions};
use crate::exchange::fixtures::{begun, interim, outcome, written};
use crate::exchange::{Ends, Exchange, Link};

const QUESTION: &str =
    r#"{"jsonrpc":"2.0","id":"a","method":"roots/list","params":{"_meta":{"progressToken":7}}}"#;

/// Begins a request of this client id at the child, registered in the session.
fn request(session: &Session, link: &Link, raw: &str) -> Exchange {
    let exchange = begun(link);
    session.note_request(client_id(raw), Some(exchange.wire_id()), Arc::clone(exchange.mailbox()));
    exchange
}

fn cancel(session: &Session, raw: &str) -> Cancelled {
    let json = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{raw},"reason":"why"}}}}"#
    );
    let (frame, message) = scanned(&json);
    session.cancel(&client_id(raw), &frame, &message)
}

fn ask(session: &Session, json: &str) -> Result<(), TooManyQuestions> {
    let (mut frame, message) = scanned(json);
    session.ask(&mut frame, &message)
}

fn answer(session: &Session, raw: &str) -> Option<String> {
    let (frame, message) = scanned(&format!(r#"{{"jsonrpc":"2.0","id":{raw},"result":{{"n":1.0}}}}"#));
    session.take_answer(&client_id(raw), &frame, &message).map(|frame| read(&frame))
}

fn link() -> (Arc<Link>, Ends) {
    Link::new(1, 8)
}

#[test]
fn a_clients_cancellation_reaches_the_child_with_the_wire_id() {
    let (session, (link, mut ends)) = (session(), link());
    let mut exchange = request(&session, &link, r#""x""#);
    assert_eq!(written(&link, &mut ends).len(), 1);
    assert_eq!(cancel(&session, r#""x""#), Cancelled::One);
    assert!(matches!(outcome(&mut exchange), Some(Err(Failure::Cancelled))));
    let told = written(&link, &mut ends);
    let id = exchange.wire_id().as_u64();
    assert_eq!(
        told,
        [format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":"why"}}}}"#
        )]
    );
}

#[test]
fn an_ambiguous_cancellation_cancels_no_request() {
    let (session, (link, _ends)) = (session(), link());
    let mut both = [request(&session, &link, "1"), request(&session, &link, "1")];
    let mut other = request(&session, &link, r#""1""#);
    assert_eq!(cancel(&session, "2"), Cancelled::None);
    assert_eq!(cancel(&session, "1"), Cancelled::Several);
    assert!(both.iter_mut().all(|exchange| outcome(exchange).is_none()));
    session.finish_request(both[0].mailbox(), Instant::now());
    assert_eq!(cancel(&session, "1"), Cancelled::One);
    assert!(outcome(&mut both[0]).is_none());
    assert!(outcome(&mut both[1]).is_some());
    assert!(outcome(&mut other).is_none());
}

#[test]
fn requests_of_one_wire_id_at_two_children_are_two() {
    let (session, (one, _one), (other, _other)) = (session(), link(), link());
    let (mut first, mut second) = (request(&session, &one, "1"), request(&session, &other, "2"));
    assert_eq!(first.wire_id(), second.wire_id());
    session.finish_request(second.mailbox(), Instant::now());
    assert_eq!(cancel(&session, "2"), Cancelled::None);
    assert_eq!(cancel(&session, "1"), Cancelled::One);
    assert!(outcome(&mut first).is_some() && outcome(&mut second).is_none());
}

#[test]
fn logs_and_questions_go_with_the_newest_request_that_is_not_over() {
    let (session, (link, mut ends)) = (session(), link());
    let mut get = session.open_standalone();
    let mut older = request(&session, &link, "1");
    let mut newer = request(&session, &link, "2");
    written(&link, &mut ends);
    session.notify(said("log"), Class::Droppable);
    session.notify(said("changed"), Class::Idempotent);
    assert_eq!(interim(&mut newer).unwrap(), "log");
    ends.answering.close(|| Err(Failure::ClosedStdout));
    assert!(outcome(&mut newer).is_some());
    // Its driver has not reported yet that it is finished.
    ask(&session, QUESTION).unwrap();
    assert!(interim(&mut older).is_some(), "a message that no request would read goes to the next");
    assert!(outcome(&mut older).is_some());
    ask(&session, QUESTION).unwrap();
    let (waiting, _) = drain(&mut get);
    assert_eq!(waiting.len(), 2, "{waiting:?}");
    assert_eq!(waiting[0], "changed");
}

#[test]
fn a_question_goes_out_under_our_id_and_its_answer_back_under_the_childs() {
    let session = session();
    let mut get = session.open_standalone();
    ask(&session, QUESTION).unwrap();
    ask(&session, QUESTION).unwrap();
    assert_eq!(
        drain(&mut get).0,
        [
            r#"{"jsonrpc":"2.0","id":1,"method":"roots/list","params":{"_meta":{"progressToken":1}}}"#,
            r#"{"jsonrpc":"2.0","id":2,"method":"roots/list","params":{"_meta":{"progressToken":2}}}"#
        ]
    );
    assert!(!session.is_quiet_for(Duration::ZERO, Instant::now()));
    assert_eq!(answer(&session, "2").unwrap(), r#"{"jsonrpc":"2.0","id":"a","result":{"n":1.0}}"#);
    assert_eq!(answer(&session, "2"), None, "each is answered once");
    for raw in ["3", "0", r#""1""#, "-1"] {
        assert_eq!(answer(&session, raw), None, "{raw}");
    }
    assert!(answer(&session, "1").is_some());
    assert!(session.is_quiet_for(Duration::ZERO, Instant::now()));
}

#[test]
fn progress_on_a_question_requires_its_token() {
    let session = session();
    ask(&session, QUESTION).unwrap();
    ask(&session, r#"{"jsonrpc":"2.0","id":2,"method":"roots/list"}"#).unwrap();
    let progress = |token: &str| {
        let json = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
        );
        let (frame, message) = scanned(&json);
        session.question_progress(&client_id(token), &frame, &message).map(|frame| read(&frame))
    };
    assert!(progress("1").unwrap().contains(r#""progressToken":7,"progress":1"#));
    assert_eq!(progress("2"), None);
    assert_eq!(progress("3"), None);
    answer(&session, "1");
    assert_eq!(progress("1"), None, "it is over");
}

#[test]
fn a_question_that_was_withdrawn_can_no_longer_be_answered() {
    let session = session();
    let mut get = session.open_standalone();
    ask(&session, QUESTION).unwrap();
    drain(&mut get);
    let json = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"a"}}"#;
    let (frame, message) = scanned(json);
    session.withdraw_question(br#""b""#, &frame, &message);
    assert!(drain(&mut get).0.is_empty(), "no such question");
    session.withdraw_question(br#""a""#, &frame, &message);
    assert_eq!(
        drain(&mut get).0,
        [r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#]
    );
    assert_eq!(answer(&session, "1"), None);
}

#[test]
fn a_client_that_never_answers_is_not_asked_forever() {
    let session = session();
    let asked = (0..2_000).take_while(|_| ask(&session, QUESTION).is_ok()).count();
    assert_eq!(asked, 1_024);
    answer(&session, "5").unwrap();
    assert_eq!(ask(&session, QUESTION), Ok(()));
    assert_eq!(ask(&session, QUESTION), Err(TooManyQuestions));
}

#[test]
fn an_end_interrupts_requests_in_flight_and_beginning_ones() {
    let (session, (link, mut ends)) = (session(), link());
    let get = session.open_standalone();
    assert!(session.take_seat(Seat::Exclusive(Arc::new(Own::new(&link)))));
    let mut before = request(&session, &link, "1");
    written(&link, &mut ends);
    session.end(&Failure::ShuttingDown);
    assert!(matches!(outcome(&mut before), Some(Err(Failure::ShuttingDown))));
    assert_eq!(written(&link, &mut ends).len(), 1, "the child is told");
    let mut after = request(&session, &link, "2");
    assert!(matches!(outcome(&mut after), Some(Err(Failure::ShuttingDown))), "for the same reason");
    assert!(link.is_closed());
    let mut get = get;
    assert!(drain(&mut get).1);
}

#[test]
fn a_session_that_ended_during_its_handshake_leaves_no_child_or_member() {
    let (link, _ends) = link();
    let exclusive = session();
    exclusive.end(&Failure::SessionEnded);
    assert!(exclusive.take_seat(Seat::Exclusive(Arc::new(Own::new(&link)))));
    assert!(link.is_closed());
    let (shared, members) = (session(), Arc::new(Members::default()));
    shared.end(&Failure::SessionEnded);
    assert!(shared.take_seat(Seat::Shared { members: Arc::clone(&members), newer: false }));
    assert_eq!(members.count(), 0);
}
