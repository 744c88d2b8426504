//! Tests the places, ids and ages of sessions.

use super::directory::DirectoryFull;
use super::fixtures::{IDLE, MAX_AGE, account, client_id, directory, drain, said};
use super::{Directory, Session, StreamId};
use crate::exchange::fixtures::begun;
use crate::exchange::{Class, Failure, Link};
use crate::identity::Principal;
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

const BEFORE: Duration = Duration::from_nanos(1);

fn listed(directory: &Directory, now: Instant) -> Arc<Session> {
    let session = directory.open(Principal::anonymous(), None, account(), now).unwrap();
    directory.list(&session);
    session
}

#[test]
fn a_place_is_released_with_the_last_handle_of_its_session() {
    let (directory, now) = (directory(), Instant::now());
    let mut sessions: Vec<_> = (0..3).map(|_| listed(&directory, now)).collect();
    assert_eq!(directory.open(Principal::anonymous(), None, account(), now).unwrap_err(), DirectoryFull);
    let last = sessions.pop().unwrap();
    directory.end(&last, &Failure::SessionEnded);
    assert_eq!(directory.count(), 2);
    assert!(
        directory.open(Principal::anonymous(), None, account(), now).is_err(),
        "its streams are still open"
    );
    drop(last);
    assert!(directory.open(Principal::anonymous(), None, account(), now).is_ok());
}

#[test]
fn a_session_is_found_by_its_principal_while_it_lives() {
    let (directory, now) = (directory(), Instant::now());
    let alice = Principal::named("alice").expect("a name");
    let session = directory.open(alice.clone(), None, account(), now).unwrap();
    let id = session.id().secret();
    assert!(directory.find(id, &alice).is_none(), "its handshake is not complete");
    directory.list(&session);
    assert!(directory.find(id, &alice).is_some());
    assert!(directory.find(id, &Principal::anonymous()).is_none());
    assert!(directory.find(&id[1..], &alice).is_none());
    session.end(&Failure::SessionEnded);
    assert!(directory.find(id, &alice).is_none());
}

#[test]
fn the_session_that_was_quiet_longest_is_evicted_but_none_that_is_busy_or_recent() {
    let (directory, now) = (directory(), Instant::now());
    let (quiet_after, later) = (IDLE / 2, now + BEFORE);
    let sessions = [now, now, later].map(|at| listed(&directory, at));
    let busy = sessions[0].receive(now).expect("it lives");
    let open = |at| directory.open(Principal::anonymous(), None, account(), at);
    assert_eq!(open(now + quiet_after - BEFORE).unwrap_err(), DirectoryFull, "none is idle for long enough");
    let first = open(now + quiet_after).unwrap();
    assert_eq!(sessions.each_ref().map(|session| session.is_ended()), [false, true, false]);
    let second = open(later + quiet_after).unwrap();
    assert_eq!(sessions.each_ref().map(|session| session.is_ended()), [false, true, true]);
    assert!(open(later + quiet_after).is_err(), "the others are busy or new");
    drop((busy, first, second));
}

#[test]
fn a_session_that_ended_before_it_was_listed_is_not_listed() {
    let directory = directory();
    let session = directory.open(Principal::anonymous(), None, account(), Instant::now()).unwrap();
    session.end(&Failure::SessionEnded);
    directory.list(&session);
    assert_eq!(directory.count(), 0);
}

#[test]
fn an_idle_session_expires_unless_its_client_is_active() {
    let (directory, now) = (directory(), Instant::now());
    let [idle, heard, alive] = [(); 3].map(|()| listed(&directory, now));
    directory.expire(now + IDLE - BEFORE);
    assert_eq!(directory.count(), 3);
    heard.note_message(now + BEFORE);
    alive.note_alive(now + BEFORE);
    assert_eq!(heard.last_message(), now + BEFORE);
    assert_eq!(alive.last_message(), now, "a keep-alive is no message");
    directory.expire(now + IDLE);
    assert!(idle.is_ended() && !heard.is_ended() && !alive.is_ended());
    directory.expire(now + IDLE + BEFORE);
    assert_eq!(directory.count(), 0);
}

#[test]
fn a_request_in_flight_prevents_idleness_but_not_old_age() {
    let (directory, now) = (directory(), Instant::now());
    let (link, _ends) = Link::new(1, 2);
    let [busy, done] = [(); 2].map(|()| {
        let (session, exchange) = (listed(&directory, now), begun(&link));
        session.note_request(client_id("1"), Some(exchange.wire_id()), Arc::clone(exchange.mailbox()));
        (session, exchange)
    });
    done.0.finish_request(done.1.mailbox(), now + BEFORE);
    directory.expire(now + IDLE);
    assert!(!done.0.is_ended(), "an answer counts as a message");
    directory.expire(now + IDLE + BEFORE);
    assert!(done.0.is_ended() && !busy.0.is_ended());
    directory.expire(now + MAX_AGE - BEFORE);
    assert!(!busy.0.is_ended());
    directory.expire(now + MAX_AGE);
    assert!(busy.0.is_ended());
}

/// Only as long as memory is needed, and never the events that a client is about to read.
#[test]
fn owed_events_of_disconnected_clients_are_dropped_one_by_one_oldest_first() {
    let (directory, now) = (directory(), Instant::now());
    let sessions: Vec<_> = (0..3).map(|_| listed(&directory, now)).collect();
    let owe = |session: &Arc<Session>| {
        let stream = session.open_stream().stream();
        session.finish(stream, Some(said("owed")));
        stream
    };
    let read_by_somebody = sessions[2].open_stream();
    sessions[2].push(read_by_somebody.stream(), said("read"), Class::Dear);
    let owed = [(1, owe(&sessions[1])), (0, owe(&sessions[0])), (1, owe(&sessions[1]))];
    let is_there =
        |(session, stream): (usize, StreamId)| sessions[session].resume(&stream.event_id(0)).is_ok();
    let left = Cell::new(2);
    directory.forget_owed(|| left.replace(left.get() - 1) == 0);
    assert_eq!(owed.map(is_there), [false, false, true]);
    directory.forget_owed(|| false);
    assert_eq!(owed.map(is_there), [false; 3]);
    assert_eq!(drain(&mut sessions[2].resume(&read_by_somebody.stream().event_id(0)).unwrap()).0, ["read"]);
}

#[test]
fn a_message_that_is_being_handled_prevents_idleness() {
    let (directory, now) = (directory(), Instant::now());
    let session = listed(&directory, now);
    let present = session.receive(now + BEFORE).unwrap();
    assert!(!directory.end_if_quiet_for(Duration::ZERO, &session, &Failure::SessionEnded, now + IDLE));
    directory.expire(now + IDLE + BEFORE);
    assert!(!session.is_ended());
    drop(present);
    let idle = IDLE - BEFORE;
    assert!(!directory.end_if_quiet_for(IDLE, &session, &Failure::SessionEnded, now + IDLE), "since it came");
    assert!(directory.end_if_quiet_for(idle, &session, &Failure::SessionEnded, now + IDLE));
    assert!(session.receive(now + IDLE).is_none() && directory.count() == 0);
    assert!(!directory.end_if_quiet_for(idle, &session, &Failure::SessionEnded, now + IDLE), "it has ended");
}

/// Such a race occurred: a session was seen to be quiet, took a request, and was ended.
#[test]
fn a_session_takes_a_message_or_is_ended_as_quiet_but_never_both() {
    let directory = Directory::new(super::Settings { max_sessions: 4_000, ..super::fixtures::settings() });
    let now = Instant::now();
    let sessions: Vec<_> = (0..4_000).map(|_| listed(&directory, now)).collect();
    let at_once = std::sync::Barrier::new(2);
    let receive = |session: &Arc<Session>| {
        at_once.wait();
        session.receive(now)
    };
    let end = |session: &Arc<Session>| {
        at_once.wait();
        directory.end_if_quiet_for(Duration::ZERO, session, &Failure::SessionEnded, now)
    };
    let (received, ended) = std::thread::scope(|scope| {
        let received = scope.spawn(|| sessions.iter().map(receive).collect::<Vec<_>>());
        let ended: Vec<bool> = sessions.iter().map(end).collect();
        (received.join().unwrap(), ended)
    });
    let one = |(received, ended): (&Option<_>, &bool)| received.is_some() != *ended;
    assert!(received.iter().zip(&ended).all(one));
}
