//! Explores every interleaving of up to three threads at one or two permits: the bound holds, and no waiter is
//! starved.

use super::{Admission, Bounds, Decision, Permit};
use crate::client::Client;
use loom::{future::block_on, thread};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Waker};

/// Maximum number of preemptions explored.
const BOUND: usize = 3;

fn model(test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(BOUND);
    builder.check(test);
}

fn admission(in_flight: usize) -> Arc<Admission> {
    Admission::new(Bounds { in_flight, per_client: in_flight, queued: 8 })
}

/// Waits for a permit. A lost wake-up is a deadlock, which loom reports.
fn permit(admission: &Arc<Admission>, key: u64) -> Permit {
    match admission.ask(Client::numbered(key)) {
        Decision::Granted(permit) => permit,
        Decision::Waits(waiting) => block_on(waiting).expect("the queues are never full"),
        Decision::Full => panic!("the queues are never full"),
    }
}

/// Takes a permit, and checks the bound while it is held.
fn work(admission: &Arc<Admission>, key: u64, bound: usize, inside: &AtomicUsize) {
    let permit = permit(admission, key);
    assert!(inside.fetch_add(1, SeqCst) < bound, "more permits than the bound");
    thread::yield_now();
    inside.fetch_sub(1, SeqCst);
    drop(permit);
}

fn idle(admission: &Admission) {
    assert_eq!((admission.in_flight(), admission.queued()), (0, 0));
}

#[test]
fn permits_never_exceed_the_bound_and_every_thread_gets_one() {
    for bound in [1, 2] {
        model(move || {
            let (admission, inside) = (admission(bound), Arc::new(AtomicUsize::new(0)));
            let threads: Vec<_> = (1..3)
                .map(|key| {
                    let (admission, inside) = (Arc::clone(&admission), Arc::clone(&inside));
                    thread::spawn(move || work(&admission, key, bound, &inside))
                })
                .collect();
            work(&admission, 1, bound, &inside);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            idle(&admission);
        });
    }
}

#[test]
fn a_release_a_leaving_waiter_and_an_arrival_starve_no_waiter() {
    model(|| {
        let admission = admission(1);
        let held = permit(&admission, 1);
        let Decision::Waits(mut leaving) = admission.ask(Client::numbered(2)) else {
            panic!("the permit is held")
        };
        let _ = std::pin::Pin::new(&mut leaving).poll(&mut Context::from_waker(Waker::noop()));
        let arrival = {
            let admission = Arc::clone(&admission);
            thread::spawn(move || drop(permit(&admission, 3)))
        };
        let leaves = thread::spawn(move || drop(leaving));
        drop(held);
        arrival.join().unwrap();
        leaves.join().unwrap();
        idle(&admission);
    });
}
