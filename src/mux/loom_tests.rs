//! Loom tests that explore every interleaving of up to three threads on one or two slots, up to a bound of preemptions.
//!
//! The cells are loom's cells, so a test fails if the state word does not order an access or if a thread waits forever.
//! Threads are spawned after the exchange was sent where the child's pipes would order them.

use super::{
    Abandoned, Answering, Completed, Lost, Mux, Pending, Refused, WireId,
    free_list::{FreeList, NoSlot},
    table,
};
use crate::sync::{
    UnsafeCell,
    atomic::{AtomicU64, Ordering::Relaxed},
};
use loom::{future::block_on, sync::mpsc, thread};
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

/// The number of preemptions explored. Three are too many for the larger models.
const BOUND: usize = 3;

fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Answer(u64),
    Lost,
}

impl Lost for Outcome {
    fn lost() -> Self {
        Self::Lost
    }
}

use Outcome::Answer;

/// Counts the live held values. The counter is invisible to loom, so it orders nothing.
#[derive(Clone, Default)]
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn permit(&self) -> Permit {
        self.0.fetch_add(1, SeqCst);
        Permit(self.clone(), UnsafeCell::new(()))
    }

    fn assert_none(&self) {
        assert_eq!(self.0.load(SeqCst), 0, "each held value must be dropped once");
    }
}

/// A held value whose accesses loom checks.
struct Permit(Alive, UnsafeCell<()>);

// SAFETY: the cell holds nothing, and loom checks how it is accessed.
unsafe impl Sync for Permit {}

impl Permit {
    fn read(&self) {
        self.1.with(|_| ());
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.1.with_mut(|_| ());
        assert_ne!(self.0.0.fetch_sub(1, SeqCst), 0, "a held value was dropped twice");
    }
}

type Asking = Mux<Permit, Outcome>;
type Waiting = Pending<Permit, Outcome>;
type Router = Answering<Permit, Outcome>;

fn sent(mux: &Asking, alive: &Alive) -> Waiting {
    let Ok(pending) = mux.reserve(alive.permit()) else { panic!("expected a free slot") };
    assert!(mux.mark_sent(pending.wire_id()));
    pending
}

fn poll(pending: &mut Waiting) -> Poll<Outcome> {
    Pin::new(pending).poll(&mut Context::from_waker(Waker::noop()))
}

fn assert_idle(mux: &Asking, alive: &Alive) {
    assert_eq!((mux.waiting(), mux.abandoned()), (0, 0));
    alive.assert_none();
}

#[test]
fn either_answer_or_abandon_frees_the_slot() {
    explore(BOUND, || {
        let alive = Alive::default();
        let (mux, mut router): (Asking, Router) = table(1);
        let mut pending = sent(&mux, &alive);
        let id = pending.wire_id();
        let asker = thread::spawn(move || {
            pending.held().expect("the exchange is not over").read();
            pending.abandon()
        });
        if let Some(held) = router.held(id) {
            held.read();
        }
        let completed = router.complete(id, Answer(1));
        match asker.join().unwrap() {
            Abandoned::Settled => assert_eq!(completed, Completed::Delivered),
            Abandoned::InFlight => assert_eq!(completed, Completed::Late),
            Abandoned::Withdrawn => panic!("a sent exchange was withdrawn"),
        }
        assert_idle(&mux, &alive);
    });
}

/// The pipes order more than this test does. The state word must suffice without them.
#[test]
fn state_word_alone_orders_access_to_the_held_value() {
    explore(BOUND, || {
        let alive = Alive::default();
        let (mux, router): (Asking, Router) = table(1);
        let stdin = Arc::new(AtomicU64::new(0));
        let asker = thread::spawn({
            let (mux, alive, stdin) = (mux.clone(), alive.clone(), stdin.clone());
            move || {
                let pending = sent(&mux, &alive);
                stdin.store(pending.wire_id().as_u64(), Relaxed);
                pending
            }
        });
        let id = WireId::new(stdin.load(Relaxed));
        if let Some(held) = id.and_then(|id| router.held(id)) {
            held.read();
        }
        drop(asker.join().unwrap());
        drop(router);
        assert_idle(&mux, &alive);
    });
}

#[test]
fn answer_always_wakes_the_waiting_half() {
    explore(BOUND, || {
        let alive = Alive::default();
        let (mux, mut router): (Asking, Router) = table(1);
        let pending = sent(&mux, &alive);
        let id = pending.wire_id();
        let answerer = thread::spawn(move || {
            assert_eq!(router.complete(id, Answer(1)), Completed::Delivered);
            router
        });
        assert_eq!(block_on(pending), Answer(1));
        let _router = answerer.join().unwrap();
        assert_idle(&mux, &alive);
    });
}

#[test]
fn marking_as_sent_and_abandoning_agree() {
    explore(BOUND, || {
        let alive = Alive::default();
        let (mux, mut router): (Asking, Router) = table(1);
        let mut pending = mux.reserve(alive.permit()).ok().unwrap();
        let id = pending.wire_id();
        let writer = thread::spawn({
            let mux = mux.clone();
            move || mux.mark_sent(id)
        });
        let became = pending.abandon();
        let written = writer.join().unwrap();
        assert_eq!(became, if written { Abandoned::InFlight } else { Abandoned::Withdrawn });
        assert_eq!(mux.abandoned(), usize::from(written));
        assert_eq!(router.expire(0, 0), usize::from(written));
        assert_idle(&mux, &alive);
    });
}

#[test]
fn reserving_during_close_is_refused_or_answered() {
    explore(BOUND, || {
        let alive = Alive::default();
        let (mux, router): (Asking, Router) = table(2);
        let asker = |mux: Asking, alive: Alive| {
            move || match mux.reserve(alive.permit()) {
                Ok(pending) => {
                    mux.mark_sent(pending.wire_id());
                    assert_eq!(block_on(pending), Outcome::Lost);
                }
                Err(Refused::Closed(_)) => {}
                Err(Refused::Full(_)) => panic!("expected a free slot for each asker"),
            }
        };
        let first = thread::spawn(asker(mux.clone(), alive.clone()));
        let second = thread::spawn(asker(mux.clone(), alive.clone()));
        drop(router);
        first.join().unwrap();
        second.join().unwrap();
        assert_idle(&mux, &alive);
    });
}

/// The slot was used before. `close` must not mistake the state of the previous exchange for the state of the new
/// exchange.
#[test]
fn close_closes_a_reused_slot() {
    explore(BOUND, || {
        let alive = Alive::default();
        let (mux, mut router): (Asking, Router) = table(1);
        let first = sent(&mux, &alive);
        assert_eq!(router.complete(first.wire_id(), Answer(1)), Completed::Delivered);
        let asker = thread::spawn({
            let (mux, alive) = (mux.clone(), alive.clone());
            move || {
                assert_eq!(block_on(first), Answer(1));
                match mux.reserve(alive.permit()) {
                    Ok(pending) => assert_eq!(block_on(pending), Outcome::Lost),
                    Err(Refused::Closed(_)) => {}
                    Err(Refused::Full(_)) => panic!("expected the asker's own slot to be free"),
                }
            }
        });
        router.close(Outcome::lost);
        asker.join().unwrap();
        assert_idle(&mux, &alive);
    });
}

#[test]
fn abandoning_during_close_leaks_nothing() {
    for is_sent in [false, true] {
        explore(BOUND, move || {
            let alive = Alive::default();
            let (mux, router): (Asking, Router) = table(1);
            let mut pending = mux.reserve(alive.permit()).ok().unwrap();
            let id = pending.wire_id();
            assert!(!is_sent || mux.mark_sent(id));
            let writer = thread::spawn({
                let mux = mux.clone();
                move || mux.mark_sent(id)
            });
            let asker = thread::spawn(move || {
                pending.held().expect("the exchange is not over").read();
                pending.abandon()
            });
            drop(router);
            writer.join().unwrap();
            asker.join().unwrap();
            assert_idle(&mux, &alive);
        });
    }
}

#[test]
fn slot_is_free_only_after_it_is_empty() {
    explore(BOUND, || {
        let alive = Alive::default();
        let (mux, mut router): (Asking, Router) = table(1);
        let mut old = sent(&mux, &alive);
        assert_eq!(router.complete(old.wire_id(), Answer(1)), Completed::Delivered);
        let taker = thread::spawn(move || assert_eq!(poll(&mut old), Poll::Ready(Answer(1))));
        if let Ok(mut new) = mux.reserve(alive.permit()) {
            assert!(poll(&mut new).is_pending());
            new.held().expect("the exchange is not over").read();
        }
        taker.join().unwrap();
        assert_idle(&mux, &alive);
    });
}

#[test]
fn late_answer_never_reaches_the_next_exchange_of_the_slot() {
    explore(BOUND, || {
        let alive = Alive::default();
        let (mux, mut router): (Asking, Router) = table(1);
        let old = sent(&mux, &alive);
        let old_id = old.wire_id();
        let asker = thread::spawn({
            let (mux, alive) = (mux.clone(), alive.clone());
            move || {
                drop(old);
                let mut new = mux.reserve(alive.permit()).ok()?;
                assert_ne!(new.wire_id(), old_id);
                assert!(mux.mark_sent(new.wire_id()));
                assert!(poll(&mut new).is_pending());
                Some(new)
            }
        });
        assert!(matches!(router.complete(old_id, Answer(1)), Completed::Delivered | Completed::Late));
        assert_eq!(router.complete(old_id, Answer(2)), Completed::Duplicate(Answer(2)));
        if let Some(mut new) = asker.join().unwrap() {
            assert!(poll(&mut new).is_pending());
            assert_eq!(router.complete(new.wire_id(), Answer(3)), Completed::Delivered);
            assert_eq!(poll(&mut new), Poll::Ready(Answer(3)));
        }
        assert_idle(&mux, &alive);
    });
}

/// The waiting half of the old exchange clears its waker while the new exchange registers its own.
#[test]
fn abandoning_never_clears_the_waker_of_the_next_exchange() {
    explore(BOUND, || {
        let alive = Alive::default();
        let (mux, mut router): (Asking, Router) = table(1);
        let mut old = sent(&mux, &alive);
        assert!(poll(&mut old).is_pending());
        let old_id = old.wire_id();
        let leaver = thread::spawn(move || drop(old));
        if router.complete(old_id, Answer(1)) == Completed::Late {
            let new = sent(&mux, &alive);
            let new_id = new.wire_id();
            let answerer = thread::spawn(move || {
                assert_eq!(router.complete(new_id, Answer(2)), Completed::Delivered);
                router
            });
            assert_eq!(block_on(new), Answer(2));
            drop(answerer.join().unwrap());
        }
        leaver.join().unwrap();
        assert_idle(&mux, &alive);
    });
}

#[test]
fn two_askers_and_a_router_share_two_slots() {
    explore(2, || {
        let alive = Alive::default();
        let (mux, mut router): (Asking, Router) = table(2);
        let (stdin, frames) = mpsc::channel();
        let asker = |number: u64| {
            let (mux, alive, stdin) = (mux.clone(), alive.clone(), stdin.clone());
            move || {
                let pending = sent(&mux, &alive);
                stdin.send((pending.wire_id(), number)).unwrap();
                assert_eq!(block_on(pending), Answer(number));
            }
        };
        let first = thread::spawn(asker(1));
        let second = thread::spawn(asker(2));
        for _ in 0..2 {
            let (id, number) = frames.recv().unwrap();
            router.held(id).expect("the exchange is waiting").read();
            assert_eq!(router.complete(id, Answer(number)), Completed::Delivered);
        }
        first.join().unwrap();
        second.join().unwrap();
        assert_idle(&mux, &alive);
    });
}

/// A thread can take an index after it has given one, regardless of the progress of the other giver.
#[test]
fn stalled_giver_never_makes_the_list_look_empty() {
    explore(BOUND, || {
        let list = Arc::new(FreeList::new(2));
        assert_eq!((list.take(), list.take(), list.take()), (Ok(0), Ok(1), Err(NoSlot::Empty)));
        let other = thread::spawn({
            let list = list.clone();
            move || list.give(0)
        });
        list.give(1);
        let first = list.take().expect("this thread gave an index");
        list.give(first);
        other.join().unwrap();
        assert_eq!(list.taken(), 0);
    });
}

#[test]
fn index_has_one_owner_at_a_time() {
    explore(BOUND, || {
        struct Shared(FreeList, [UnsafeCell<()>; 2]);
        // SAFETY: the cells hold nothing, and loom checks how they are accessed.
        unsafe impl Sync for Shared {}
        let shared = Arc::new(Shared(FreeList::new(2), [UnsafeCell::new(()), UnsafeCell::new(())]));
        let user = |shared: Arc<Shared>| {
            move || {
                for _ in 0..2 {
                    match shared.0.take() {
                        Ok(index) => {
                            shared.1[index].with_mut(|_| ());
                            shared.0.give(index);
                        }
                        // The other thread has not finished giving back the other index.
                        Err(NoSlot::Empty) => {}
                        Err(NoSlot::Closed) => panic!("no thread closes the list"),
                    }
                }
            }
        };
        let other = thread::spawn(user(shared.clone()));
        user(shared.clone())();
        other.join().unwrap();
        assert_eq!(shared.0.taken(), 0);
        let last = [shared.0.take(), shared.0.take(), shared.0.take()];
        assert!(
            matches!(last, [Ok(0), Ok(1), Err(NoSlot::Empty)] | [Ok(1), Ok(0), Err(NoSlot::Empty)]),
            "{last:?}"
        );
    });
}
