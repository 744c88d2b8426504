//! Tests which members of a shared child get which notifications.

use super::fixtures::{account, directory, drain, said};
use super::{Reader, Session};
use crate::audience::{Members, Seat, SessionId};
use crate::exchange::Failure;
use crate::identity::Principal;
use std::sync::Arc;
use std::time::Instant;

/// Returns three sessions at one child, each with a GET.
fn three() -> (Arc<Members>, [(Arc<Session>, Reader); 3]) {
    let (members, directory) = (Arc::new(Members::default()), directory());
    let seated = [(); 3].map(|()| {
        let session = directory.open(Principal::anonymous(), None, account(), Instant::now()).unwrap();
        assert!(session.take_seat(Seat::Shared { members: Arc::clone(&members), newer: false }));
        let reader = session.open_standalone();
        (session, reader)
    });
    (members, seated)
}

fn orphans(members: &Members) -> Vec<String> {
    members.take_orphaned(usize::MAX)
}

fn watch(members: &Members, uri: &str, id: &SessionId) {
    members.room_for(uri, id).expect("there is room").watch();
}

#[test]
fn every_member_is_notified_of_a_change_once() {
    let (members, mut three) = three();
    assert_eq!(members.count(), 3);
    members.tell_all("notifications/tools/list_changed", &said("changed"));
    three[0].0.end(&Failure::SessionEnded);
    members.tell_all("notifications/tools/list_changed", &said("again"));
    assert_eq!(drain(&mut three[0].1), (vec!["changed".into()], true));
    assert_eq!(drain(&mut three[1].1).0, ["changed", "again"]);
    assert_eq!(members.count(), 2);
}

#[tokio::test]
async fn changes_in_quick_succession_cause_two_notifications() {
    let (members, mut three) = three();
    let method = "notifications/tools/list_changed";
    for n in 0..1_000 {
        members.tell_changed(method, &said(n.to_string()));
    }
    members.tell_changed("notifications/prompts/list_changed", &said("prompts"));
    assert_eq!(drain(&mut three[0].1).0, ["0", "prompts"], "the first one at once");
    let mut told = Vec::new();
    while told.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        told = drain(&mut three[0].1).0;
    }
    assert_eq!(told, ["999"], "and the last");
}

#[test]
fn an_update_goes_to_the_watchers_of_the_resource_or_its_whole() {
    let (members, mut three) = three();
    watch(&members, "note://1", three[0].0.id());
    watch(&members, "note://1/part", three[0].0.id());
    watch(&members, "file:///dir/", three[1].0.id());
    for (uri, heard) in [
        ("note://1", [1, 0, 0]),
        ("note://1/part", [1, 0, 0]),
        ("note://1#part", [1, 0, 0]),
        ("note://1?part", [1, 0, 0]),
        ("note://10", [0, 0, 0]),
        ("note://1.bak", [0, 0, 0]),
        ("note://1%20", [0, 0, 0]),
        ("note:", [0, 0, 0]),
        ("file:///dir/name", [0, 1, 0]),
        ("file:///dir", [0, 0, 0]),
    ] {
        members.tell_watchers(uri, &said("updated"));
        let counts = [0, 1, 2].map(|at| drain(&mut three[at].1).0.len());
        assert_eq!(counts, heard, "{uri}");
    }
}

#[test]
fn a_watcher_of_a_bare_uri_gets_no_updates_of_other_resources() {
    let (members, mut three) = three();
    for whole in ["", "note", "note:", "note://", "file:///"] {
        watch(&members, whole, three[0].0.id());
    }
    for (uri, heard) in
        [("note://1", 0), ("file:///dir/name", 0), ("other:1", 0), ("note:", 1), ("file:///", 1)]
    {
        members.tell_watchers(uri, &said("updated"));
        assert_eq!(drain(&mut three[0].1).0.len(), heard, "{uri}");
    }
}

#[test]
fn only_the_last_unsubscription_reaches_the_child() {
    let (members, three) = three();
    let [a, b, c] = [0, 1, 2].map(|at| three[at].0.id());
    assert!(!members.unwatch("x", a), "nobody did");
    watch(&members, "x", a);
    watch(&members, "x", a);
    watch(&members, "x", b);
    assert!(!members.unwatch("x", c), "it never watched it");
    assert!(!members.unwatch("x", a));
    assert!(members.is_watched("x"));
    assert!(members.unwatch("x", b));
    assert!(!members.is_watched("x"));
}

#[test]
fn a_session_cannot_watch_beyond_its_limits() {
    let (members, three) = three();
    let [a, b, _] = [0, 1, 2].map(|at| three[at].0.id());
    let long: Vec<String> = (0..5).map(|n| format!("{n}{}", "x".repeat(2 * 1024 - 1))).collect();
    watch(&members, &long[0], a);
    let asked: Vec<_> =
        long[1..4].iter().map(|uri| members.room_for(uri, a).expect("there is room")).collect();
    assert!(members.room_for(&long[4], a).is_none(), "reservations count");
    assert!(members.room_for(&long[0], a).is_some(), "it watches it already");
    assert!(members.room_for(&long[4], b).is_some(), "each session has its own limit");
    drop(asked);
    for uri in &long[1..4] {
        watch(&members, uri, a);
    }
    assert!(members.room_for("x", a).is_none());
    assert!(members.unwatch(&long[1], a));
    watch(&members, "x", a);
    members.leave(a);
    assert!(members.room_for("x", a).is_none(), "it has left");
    assert_eq!(orphans(&members).len(), 4);
}

#[test]
fn a_resource_without_watchers_is_orphaned_until_another_watches_it() {
    let (members, three) = three();
    let [a, b, _] = [0, 1, 2].map(|at| &three[at].0);
    for uri in ["theirs", "both", "again"] {
        watch(&members, uri, a.id());
    }
    watch(&members, "both", b.id());
    a.end(&Failure::SessionEnded);
    watch(&members, "again", b.id());
    assert_eq!(orphans(&members), ["theirs"]);
    assert!(orphans(&members).is_empty());
    assert!(members.is_watched("both") && !members.is_watched("theirs"));
}

/// Before, an orphan was kept again whenever its last session left.
#[test]
fn an_orphan_is_one_however_often_it_was_left_and_many_are_taken_in_parts() {
    let (members, three) = three();
    for _ in 0..3 {
        for session in &three {
            watch(&members, "x", session.0.id());
            watch(&members, "y", session.0.id());
        }
        for session in &three {
            members.leave(session.0.id());
            members.join(&session.0);
        }
    }
    assert_eq!(members.take_orphaned(1).len(), 1);
    assert_eq!(members.take_orphaned(8).len(), 1);
    assert!(orphans(&members).is_empty());
}

#[test]
fn a_child_with_too_many_subscriptions_to_end_gets_no_others() {
    let (members, three) = three();
    let [a, b, _] = [0, 1, 2].map(|at| &three[at].0);
    watch(&members, "kept", b.id());
    for n in 0..1_024 {
        watch(&members, &n.to_string(), a.id());
        members.leave(a.id());
        members.join(a);
    }
    assert!(members.room_for("another", a.id()).is_none());
    assert!(members.room_for("kept", a.id()).is_some(), "the child need not be told");
    members.take_orphaned(1);
    assert!(members.room_for("another", a.id()).is_some());
}

#[test]
fn a_subscription_after_its_sessions_end_is_an_orphan() {
    let (members, three) = three();
    let room = members.room_for("late", three[0].0.id()).expect("it is still a member");
    three[0].0.end(&Failure::SessionEnded);
    room.watch();
    assert!(!members.is_watched("late"));
    assert_eq!(orphans(&members), ["late"]);
}

#[test]
fn a_subscription_whose_answer_is_not_known_is_an_orphan() {
    let (members, three) = three();
    let id = three[0].0.id();
    let mut rooms =
        ["asked", "refused", "unasked"].map(|uri| members.room_for(uri, id).expect("there is room"));
    rooms[0].ask();
    rooms[1].ask();
    rooms[1].note_answer();
    drop(rooms);
    assert_eq!(orphans(&members), ["asked"]);
}

#[test]
fn a_resource_is_awaited_until_all_members_watch_it_or_give_up() {
    let (members, three) = three();
    let [a, b, c] = [0, 1, 2].map(|at| three[at].0.id());
    let rooms = [a, b, c].map(|id| members.room_for("x", id).expect("there is room"));
    assert!(members.is_awaited("x") && !members.is_awaited("y"));
    let [watches, leaves, gives_up] = rooms;
    watches.watch();
    members.leave(b);
    leaves.watch();
    assert!(members.is_awaited("x"), "one member is still about to watch it");
    drop(gives_up);
    assert!(!members.is_awaited("x") && members.is_watched("x"));
    drop(members.room_for("x", a));
    assert!(!members.is_awaited("x"), "all members watch it already");
}
