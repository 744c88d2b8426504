//! Tests streams through their readers. The fixtures keep four events for replay.

use super::fixtures::{drain, next, said, session};
use super::streams::UnknownEvent;
use super::{Reader, Session, StreamId};
use crate::exchange::Class::{self, Dear, Droppable, Idempotent};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

fn push(session: &Session, stream: StreamId, class: Class, texts: &[&str]) {
    texts.iter().for_each(|text| session.push(stream, said(*text), class));
}

/// Returns the events of a stream after the event `seq`.
fn rest(session: &Arc<Session>, stream: StreamId, seq: u64) -> Vec<String> {
    drain(&mut session.resume(&stream.event_id(seq)).unwrap()).0
}

fn flag() -> (Arc<Flag>, Waker) {
    let flag = Arc::new(Flag::default());
    (Arc::clone(&flag), Waker::from(flag))
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Flag {
    fn was_woken(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn poll(reader: &mut Reader, waker: &Waker) -> Poll<Option<u64>> {
    reader.poll_next(&mut Context::from_waker(waker)).map(|item| item.map(|item| item.seq))
}

#[test]
fn a_reader_gets_all_events_in_order_then_the_end() {
    let session = session();
    let mut reader = session.open_stream();
    push(&session, reader.stream(), Dear, &["a", "b"]);
    assert_eq!(next(&mut reader), (1, "a".into()));
    session.finish(reader.stream(), Some(said("c")));
    push(&session, reader.stream(), Dear, &["after the end"]);
    assert_eq!(drain(&mut reader), (vec!["b".into(), "c".into()], true));
}

#[test]
fn a_waiting_reader_is_woken_by_an_event_by_the_end_and_by_another_reader() {
    let session = session();
    let mut reader = session.open_stream();
    let stream = reader.stream();
    let (flag, waker) = flag();
    assert!(poll(&mut reader, &waker).is_pending());
    push(&session, stream, Dear, &["a"]);
    assert!(flag.was_woken());
    assert_eq!(poll(&mut reader, &waker), Poll::Ready(Some(1)));
    assert!(poll(&mut reader, &waker).is_pending());
    let mut second = session.resume(&stream.event_id(1)).unwrap();
    assert!(flag.was_woken(), "taken over");
    assert_eq!(poll(&mut reader, &waker), Poll::Ready(None));
    assert!(poll(&mut second, &waker).is_pending());
    session.finish(stream, None);
    assert!(flag.was_woken());
    assert_eq!(poll(&mut second, &waker), Poll::Ready(None));
}

#[test]
fn dropping_a_replaced_reader_does_not_affect_its_successor() {
    let session = session();
    let first = session.open_stream();
    let stream = first.stream();
    push(&session, stream, Dear, &["a"]);
    let mut second = session.resume(&stream.event_id(0)).unwrap();
    drop(first);
    push(&session, stream, Dear, &["b", "c", "d", "e", "f", "g"]);
    assert_eq!(drain(&mut second).0, ["a", "b", "c", "d", "e", "f", "g"]);
}

#[test]
fn a_batch_of_answers_longer_than_the_replay_buffer_is_complete() {
    let session = session();
    let mut reader = session.open_stream();
    let answers: Vec<String> = (0..100).map(|n| format!("answer {n}")).collect();
    for answer in &answers {
        session.push_answer(reader.stream(), said(answer));
    }
    session.finish(reader.stream(), None);
    assert_eq!(drain(&mut reader), (answers, true));
}

#[test]
fn a_slow_reader_loses_droppable_events_and_never_dear_ones() {
    let session = session();
    let mut reader = session.open_stream();
    push(&session, reader.stream(), Droppable, &["1", "2", "3", "4", "5", "6"]);
    push(&session, reader.stream(), Dear, &["question", "answer"]);
    push(&session, reader.stream(), Droppable, &["7"]);
    assert_eq!(drain(&mut reader).0, ["1", "2", "3", "4", "question", "answer"]);
    push(&session, reader.stream(), Droppable, &["8"]);
    assert_eq!(drain(&mut reader).0, ["8"], "it reads again");
}

#[test]
fn a_waiting_state_is_sent_once_and_the_last_state_comes_last() {
    let session = session();
    let mut reader = session.open_stream();
    push(&session, reader.stream(), Idempotent, &["a", "a", "b", "a"]);
    assert_eq!(drain(&mut reader).0, ["b", "a"]);
    push(&session, reader.stream(), Idempotent, &["a"]);
    assert_eq!(drain(&mut reader).0, ["a"], "the earlier one was delivered: something changed again");
    push(&session, reader.stream(), Droppable, &["a"]);
    push(&session, reader.stream(), Idempotent, &["a"]);
    assert_eq!(drain(&mut reader).0, ["a", "a"], "only states replace each other");
}

#[test]
fn a_reader_resumes_at_its_position() {
    let session = session();
    let mut reader = session.open_stream();
    let stream = reader.stream();
    push(&session, stream, Dear, &["a", "b", "c"]);
    assert_eq!(next(&mut reader).1, "a");
    assert_eq!(next(&mut reader).1, "b");
    drop(reader);
    push(&session, stream, Dear, &["d"]);
    assert_eq!(rest(&session, stream, 1), ["b", "c", "d"], "b was taken, but may not have arrived");
    assert_eq!(rest(&session, stream, 3), ["d"]);
    session.finish(stream, None);
    assert!(rest(&session, stream, 4).is_empty());
}

#[test]
fn the_newest_delivered_events_are_kept() {
    let session = session();
    let mut reader = session.open_stream();
    let stream = reader.stream();
    push(&session, stream, Dear, &["1", "2", "3", "4", "5", "6"]);
    drain(&mut reader);
    drop(reader);
    assert_eq!(rest(&session, stream, 0), ["3", "4", "5", "6"], "the newest four are kept");
    session.push(stream, said("x".repeat(9_999)), Dear);
    drop(session.resume(&stream.event_id(6)).unwrap());
    assert_eq!(rest(&session, stream, 5).len(), 2, "bytes are bounded too");
}

#[test]
fn an_unread_answer_outlives_delivered_events() {
    let session = session();
    let left = session.open_stream().stream();
    session.finish(left, Some(said("answer")));
    let left_unread = session.open_stream();
    let unread = left_unread.stream();
    session.finish(unread, Some(said("unread")));
    drop(left_unread);
    let mut busy = session.open_stream();
    for _ in 0..20 {
        push(&session, busy.stream(), Dear, &["delivered"]);
        drain(&mut busy);
    }
    let also_left = session.open_stream().stream();
    push(&session, also_left, Droppable, &["1", "2", "3", "4", "5"]);
    assert_eq!(rest(&session, left, 0), ["answer"]);
    assert_eq!(rest(&session, unread, 0), ["unread"]);
}

#[test]
fn events_being_read_are_not_dropped() {
    let session = session();
    let left = session.open_stream().stream();
    push(&session, left, Droppable, &["1", "2", "3"]);
    let mut back = session.resume(&left.event_id(0)).unwrap();
    let mut busy = session.open_stream();
    push(&session, busy.stream(), Dear, &["a", "b", "c", "d"]);
    drain(&mut busy);
    assert_eq!(drain(&mut back).0, ["1", "2", "3"]);
}

#[test]
fn memory_pressure_drops_kept_events_but_not_owed_ones() {
    let session = session();
    let mut reader = session.open_stream();
    let stream = reader.stream();
    push(&session, stream, Dear, &["taken"]);
    drain(&mut reader);
    drop(reader);
    push(&session, stream, Droppable, &["progress"]);
    session.finish(stream, Some(said("owed")));
    session.forget_delivered();
    assert_eq!(rest(&session, stream, 0), ["owed"]);
    session.forget_delivered();
    assert_eq!(session.resume(&stream.event_id(0)).unwrap_err(), UnknownEvent, "none of its events is kept");
}

#[test]
fn a_stream_unknown_to_any_client_is_discarded_with_its_events() {
    let session = session();
    let reader = session.open_stream();
    let stream = reader.stream();
    push(&session, stream, Dear, &["a", "b"]);
    reader.discard();
    push(&session, stream, Dear, &["c"]);
    assert_eq!(session.resume(&stream.event_id(0)).unwrap_err(), UnknownEvent);
    assert_eq!(session.oldest_owed(), None);
}

#[test]
fn an_unknown_event_is_an_error() {
    let session = session();
    let reader = session.open_stream();
    let stream = reader.stream();
    push(&session, stream, Dear, &["a"]);
    for id in ["", "-", "1", "x-1", "1-x", "-1-1", "99-0", &stream.event_id(2), "1-99999999999999999999"] {
        assert_eq!(session.resume(id).unwrap_err(), UnknownEvent, "{id:?}");
    }
    session.finish(stream, None);
    drop(reader);
    assert!(session.resume(&stream.event_id(0)).is_ok(), "its event is still kept");
}

#[test]
fn messages_before_any_get_wait_for_the_first() {
    let session = session();
    session.notify(said("changed"), Idempotent);
    session.notify(said("changed"), Idempotent);
    session.notify(said("log"), Droppable);
    assert_eq!(drain(&mut session.open_standalone()).0, ["changed", "log"]);
}

#[test]
fn before_any_get_a_question_outlives_any_number_of_logs() {
    let session = session();
    session.notify(said("question"), Dear);
    (0..100).for_each(|n| session.notify(said(format!("log {n}")), Droppable));
    assert_eq!(drain(&mut session.open_standalone()).0, ["question", "log 97", "log 98", "log 99"]);
}

#[test]
fn a_new_get_takes_the_events_of_a_get_without_a_reader() {
    let session = session();
    let mut first = session.open_standalone();
    let stream = first.stream();
    session.notify(said("a"), Dear);
    assert_eq!(next(&mut first).1, "a");
    drop(first);
    session.notify(said("b"), Dear);
    let mut second = session.open_standalone();
    session.notify(said("c"), Dear);
    assert_eq!(drain(&mut second).0, ["b", "c"]);
    assert_eq!(session.resume(&stream.event_id(1)).unwrap_err(), UnknownEvent);
}

#[test]
fn each_message_goes_to_the_newest_get_with_a_reader() {
    let session = session();
    let mut first = session.open_standalone();
    let second = session.open_standalone();
    session.notify(said("for the second"), Dear);
    drop(second);
    session.notify(said("for the first"), Dear);
    assert_eq!(drain(&mut first).0, ["for the first"]);
    assert_eq!(drain(&mut session.open_standalone()).0, ["for the second"]);
}

#[test]
fn a_ninth_get_ends_the_oldest() {
    let session = session();
    let mut readers: Vec<_> = (0..9).map(|_| session.open_standalone()).collect();
    assert!(drain(&mut readers[0]).1);
    assert!(readers[1..].iter_mut().all(|reader| !drain(reader).1));
    readers.push(session.open_standalone());
    assert!(drain(&mut readers[1]).1, "an ended stream that is still held does not count");
    assert!(!drain(&mut readers[2]).1);
}
