//! Every interleaving of up to three threads on one or two slots, up to a bound of preemptions.
//!
//! Cells are loom's, so an access that the state word does not order fails the test, as does a thread that
//! waits for ever. Threads are spawned after the exchange was sent where the child's pipes would order them.

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

/// Preemptions explored; three are too many for the larger models.
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

/// Counts the held values alive. Outside of loom's view, so that it orders nothing.
#[derive(Clone, Default)]
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn permit(&self) -> Permit {
        self.0.fetch_add(1, SeqCst);
        Permit(self.clone(), UnsafeCell::new(()))
    }

    fn assert_none(&self) {
        assert_eq!(self.0.load(SeqCst), 0, "dropped once, all of them");
    }
}

/// A held value whose uses loom sees.
struct Permit(Alive, UnsafeCell<()>);

// SAFETY: the cell holds nothing; loom checks how it is accessed.
unsafe impl Sync for Permit {}

impl Permit {
    fn read(&self) {
        self.1.with(|_| ());
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.1.with_mut(|_| ());
        assert_ne!(self.0.0.fetch_sub(1, SeqCst), 0, "dropped twice");
    }
}

type Asking = Mux<Permit, Outcome>;
type Waiting = Pending<Permit, Outcome>;
type Router = Answering<Permit, Outcome>;

fn sent(mux: &Asking, alive: &Alive) -> Waiting {
    let Ok(pending) = mux.reserve(alive.permit()) else { panic!("a slot is free") };
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
fn answer_or_abandon_one_of_them_frees() {
    explore(BOUND, || {
        let alive = Alive::default();
        let (mux, mut router): (Asking, Router) = table(1);
        let mut pending = sent(&mux, &alive);
        let id = pending.wire_id();
        let asker = thread::spawn(move || {
            pending.held().expect("not over").read();
            pending.abandon()
        });
        if let Some(held) = router.held(id) {
            held.read();
        }
        let completed = router.complete(id, Answer(1));
        match asker.join().unwrap() {
            Abandoned::Settled => assert_eq!(completed, Completed::Delivered),
            Abandoned::InFlight => assert_eq!(completed, Completed::Late),
            Abandoned::Withdrawn => panic!("it was sent"),
        }
        assert_idle(&mux, &alive);
    });
}

/// Pipes order more than this; the state word has to do without.
#[test]
fn the_word_alone_orders_what_is_held() {
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
fn an_answer_always_wakes_its_waiter() {
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
fn the_sent_mark_and_abandoning_agree() {
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
fn whoever_reserves_while_the_table_closes_is_refused_or_answered() {
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
                Err(Refused::Full(_)) => panic!("there are slots for both"),
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

/// The slot was used before: what closes must not take the last exchange's state for the new one's.
#[test]
fn a_reused_slot_is_closed_too() {
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
                    Err(Refused::Full(_)) => panic!("its own slot is free"),
                }
            }
        });
        router.close(Outcome::lost);
        asker.join().unwrap();
        assert_idle(&mux, &alive);
    });
}

#[test]
fn abandoning_while_the_table_closes_leaks_nothing() {
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
                pending.held().expect("not over").read();
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
fn a_slot_is_free_only_once_it_is_empty() {
    explore(BOUND, || {
        let alive = Alive::default();
        let (mux, mut router): (Asking, Router) = table(1);
        let mut old = sent(&mux, &alive);
        assert_eq!(router.complete(old.wire_id(), Answer(1)), Completed::Delivered);
        let taker = thread::spawn(move || assert_eq!(poll(&mut old), Poll::Ready(Answer(1))));
        if let Ok(mut new) = mux.reserve(alive.permit()) {
            assert!(poll(&mut new).is_pending());
            new.held().expect("not over").read();
        }
        taker.join().unwrap();
        assert_idle(&mux, &alive);
    });
}

#[test]
fn a_late_answer_never_reaches_the_slots_next_exchange() {
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

/// The old exchange's waiting half forgets its waker while the new one registers its own.
#[test]
fn abandoning_never_forgets_the_next_exchanges_waker() {
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
            router.held(id).expect("waited for").read();
            assert_eq!(router.complete(id, Answer(number)), Completed::Delivered);
        }
        first.join().unwrap();
        second.join().unwrap();
        assert_idle(&mux, &alive);
    });
}

/// However far the other giver has come, what was given here can be taken here.
#[test]
fn a_stalled_giver_never_makes_the_list_look_empty() {
    explore(BOUND, || {
        let list = Arc::new(FreeList::new(2));
        assert_eq!((list.take(), list.take(), list.take()), (Ok(0), Ok(1), Err(NoSlot::Empty)));
        let other = thread::spawn({
            let list = list.clone();
            move || list.give(0)
        });
        list.give(1);
        let first = list.take().expect("given");
        list.give(first);
        other.join().unwrap();
        assert_eq!(list.taken(), 0);
    });
}

#[test]
fn an_index_is_in_one_hand_at_a_time() {
    explore(BOUND, || {
        struct Shared(FreeList, [UnsafeCell<()>; 2]);
        // SAFETY: the cells hold nothing; loom checks how they are accessed.
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
                        // Whoever gives the other one back is still at it.
                        Err(NoSlot::Empty) => {}
                        Err(NoSlot::Closed) => panic!("nobody closes"),
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
