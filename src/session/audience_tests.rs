//! Who hears what at a shared child.

use super::fixtures::{directory, drain, said};
use super::{Members, Principal, Reader, Seat, Session};
use crate::exchange::Failure;
use std::sync::Arc;
use std::time::Instant;

/// Three sessions at one child, each with a GET.
fn three() -> (Arc<Members>, [(Arc<Session>, Reader); 3]) {
    let (members, directory) = (Arc::new(Members::default()), directory());
    let seated = [(); 3].map(|()| {
        let session = directory.open(Principal::anonymous(), Instant::now()).unwrap();
        assert!(session.take_seat(Seat::Shared { members: Arc::clone(&members), newer: false }));
        let reader = session.open_standalone();
        (session, reader)
    });
    (members, seated)
}

#[test]
fn a_change_is_told_to_every_member_once() {
    let (members, mut three) = three();
    assert_eq!(members.count(), 3);
    members.tell_all("notifications/tools/list_changed", &said("changed"));
    three[0].0.end(&Failure::SessionEnded);
    members.tell_all("notifications/tools/list_changed", &said("again"));
    assert_eq!(drain(&mut three[0].1), (vec!["changed".into()], true));
    assert_eq!(drain(&mut three[1].1).0, ["changed", "again"]);
    assert_eq!(members.count(), 2);
}

#[test]
fn an_update_goes_to_those_who_watch_the_resource_or_the_whole_of_it() {
    let (members, mut three) = three();
    members.watch("note://1", three[0].0.id());
    members.watch("note://1/part", three[0].0.id());
    members.watch("file:///dir/", three[1].0.id());
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
fn the_child_hears_of_the_last_who_unsubscribes() {
    let (members, three) = three();
    let [a, b, c] = [0, 1, 2].map(|at| three[at].0.id());
    assert!(!members.unwatch("x", a), "nobody did");
    members.watch("x", a);
    members.watch("x", a);
    members.watch("x", b);
    assert!(!members.unwatch("x", c), "one who never did");
    assert!(!members.unwatch("x", a));
    assert!(members.is_watched("x"));
    assert!(members.unwatch("x", b));
    assert!(!members.is_watched("x"));
}

#[test]
fn a_session_watches_as_much_as_it_may_and_what_comes_on_top_is_an_orphan() {
    let (members, three) = three();
    let [a, b, _] = [0, 1, 2].map(|at| three[at].0.id());
    let long = |n: usize| format!("{n}{}", "x".repeat(8 * 1024 - 1));
    for n in 0..4 {
        assert!(members.may_watch(&long(n), a) && members.watch(&long(n), a));
    }
    assert!(members.may_watch(&long(0), a) && members.watch(&long(0), a), "it does already");
    assert!(!members.may_watch("x", a));
    // Several at once may each have found that there is room.
    assert!(!members.watch("x", a));
    assert!(members.watch("y", b) && !members.watch("y", a));
    assert_eq!(members.take_orphaned(), ["x"], "another watches the other one");
    assert!(members.unwatch(&long(1), a));
    assert!(members.watch("x", a));
    members.leave(a);
    assert_eq!(members.take_orphaned().len(), 4);
}

#[test]
fn what_only_the_gone_watched_is_orphaned_unless_another_watches_it_since() {
    let (members, three) = three();
    let [a, b, _] = [0, 1, 2].map(|at| &three[at].0);
    for uri in ["theirs", "both", "again"] {
        members.watch(uri, a.id());
    }
    members.watch("both", b.id());
    a.end(&Failure::SessionEnded);
    members.watch("again", b.id());
    assert_eq!(members.take_orphaned(), ["theirs"]);
    assert!(members.take_orphaned().is_empty());
    assert!(members.is_watched("both") && !members.is_watched("theirs"));
}

#[test]
fn a_subscription_that_comes_after_its_sessions_end_is_an_orphan() {
    let (members, three) = three();
    three[0].0.end(&Failure::SessionEnded);
    members.watch("late", three[0].0.id());
    assert!(!members.is_watched("late"));
    assert_eq!(members.take_orphaned(), ["late"]);
}
