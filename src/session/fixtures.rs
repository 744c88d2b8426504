//! Fixtures for tests of sessions and their users.

use super::{Directory, Reader, Session, Settings};
use crate::budget::Charged;
use crate::budget::{Account, Budget};
use crate::identity::Principal;
use crate::jsonrpc::{self, ClientId, Message, Spliced};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

pub(crate) const IDLE: Duration = Duration::from_secs(60);
pub(crate) const MAX_AGE: Duration = Duration::from_secs(600);

pub(crate) fn settings() -> Settings {
    Settings {
        idle: IDLE,
        max_age: MAX_AGE,
        max_sessions: 3,
        evict_after: IDLE / 2,
        replay_events: 4,
        replay_bytes: 10_000,
    }
}

pub(crate) fn directory() -> Directory {
    Directory::new(settings())
}

/// Returns an account with room for any test.
pub(crate) fn account() -> Account {
    Budget::new(1 << 30).account(crate::client::Client::numbered(1))
}

pub(crate) fn session() -> Arc<Session> {
    directory().open(Principal::anonymous(), None, account(), Instant::now()).unwrap()
}

/// Returns a message and its scanned parts.
pub(crate) fn scanned(json: &str) -> (Charged, Message) {
    let frame = Charged::own(json.as_bytes());
    let message = jsonrpc::scan(&frame).unwrap();
    (frame, message)
}

pub(crate) fn client_id(raw: &str) -> ClientId {
    ClientId::new(raw.as_bytes())
}

pub(crate) fn said(text: impl Into<String>) -> Spliced {
    Spliced::from(Charged::own(text.into()))
}

pub(crate) fn read(frame: &Spliced) -> String {
    String::from_utf8(frame.to_vec()).unwrap()
}

/// Returns all events that the reader can take now, and whether the stream has ended.
pub(crate) fn drain(reader: &mut Reader) -> (Vec<String>, bool) {
    let mut taken = Vec::new();
    loop {
        match reader.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(item)) => taken.push(read(&item.frame)),
            Poll::Ready(None) => return (taken, true),
            Poll::Pending => return (taken, false),
        }
    }
}

/// Returns the number and text of the next event, which must be there.
pub(crate) fn next(reader: &mut Reader) -> (u64, String) {
    match reader.poll_next(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(item)) => (item.seq, read(&item.frame)),
        other => panic!("no event is there: {other:?}"),
    }
}
