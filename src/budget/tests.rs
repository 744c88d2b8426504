//! The budget on a runtime of one thread: who waits, who is served, and when.

use super::*;
use std::task::{Context, Poll, Waker};

fn message(length: usize) -> Bytes {
    Bytes::from(vec![b'x'; length])
}

#[test]
fn a_body_waits_until_another_is_released() {
    let budget = Budget::new(10_000);
    let first = budget.hold(message(8_000));
    let slice = first.slice(10..20);
    let mut second = budget.open();
    {
        let mut cover = pin!(second.cover(5_000));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(cover.as_mut().poll(&mut cx), Poll::Pending);
        drop(first);
        assert_eq!(cover.as_mut().poll(&mut cx), Poll::Pending, "a slice of it is still alive");
        drop(slice);
        assert_eq!(cover.as_mut().poll(&mut cx), Poll::Ready(()));
    }
    assert_eq!(budget.used(), 5_000);
    let body = second.hold(message(5_000));
    assert_eq!(budget.used(), 5_000);
    drop(body);
    assert_eq!(budget.used(), 0);
}

#[test]
fn an_answer_is_charged_even_above_the_limit_and_says_so() {
    let budget = Budget::new(10_000);
    let _both = (budget.hold(message(8_000)), budget.hold(message(8_000)));
    assert_eq!(budget.excess(), 6_000);
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(pin!(budget.overdrawn()).poll(&mut cx), Poll::Ready(()));
}

#[test]
fn what_is_kept_is_charged_however_small() {
    let budget = Budget::new(10_000);
    let kept: Vec<_> = (0..100).map(|_| budget.keep(message(1))).collect();
    assert_eq!(budget.used(), 100 * (1 + KEPT_BESIDE));
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(pin!(budget.overdrawn()).poll(&mut cx), Poll::Ready(()));
    drop(kept);
    assert_eq!(budget.used(), 0);
}

#[test]
fn small_messages_are_free() {
    let budget = Budget::new(1);
    let small = budget.hold(message(CHARGED_FROM - 1));
    assert_eq!((small.len(), budget.used()), (CHARGED_FROM - 1, 0));
}

/// A body that waits for room, polled by hand.
struct Body(std::pin::Pin<Box<dyn Future<Output = Charge>>>);

impl Body {
    /// One that needs `bytes` together, and has `charge` of them.
    fn growing(mut charge: Charge, bytes: usize) -> Body {
        Body(Box::pin(async move {
            charge.cover(bytes).await;
            charge
        }))
    }

    fn of(budget: &Budget, bytes: usize) -> Body {
        Body::growing(budget.open(), bytes)
    }

    fn poll(&mut self) -> Option<Charge> {
        match self.0.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(charge) => Some(charge),
            Poll::Pending => None,
        }
    }

    fn waits(&mut self) {
        assert!(self.poll().is_none(), "it has room");
    }

    fn has_room(&mut self) -> Charge {
        self.poll().expect("room")
    }
}

#[test]
fn who_came_first_is_served_first_however_little_another_needs() {
    let budget = Budget::new(100_000);
    let held = budget.hold(message(60_000));
    let (mut long, mut short) = (Body::of(&budget, 90_000), Body::of(&budget, 5_000));
    long.waits();
    short.waits();
    assert_eq!(budget.lack(), 50_000, "for the first of them");
    assert!(Body::of(&budget, CHARGED_FROM - 1).poll().is_some(), "small ones never wait");
    drop(held);
    let first = long.has_room();
    let second = short.has_room();
    assert_eq!((budget.used(), budget.is_awaited(), budget.lack()), (95_000, false, 0));
    drop((first, second));
    assert_eq!(budget.used(), 0);
}

#[test]
fn one_that_gives_up_lets_those_behind_it_pass() {
    let budget = Budget::new(100_000);
    let held = budget.hold(message(60_000));
    let (mut long, mut short) = (Body::of(&budget, 90_000), Body::of(&budget, 5_000));
    long.waits();
    short.waits();
    drop(long);
    let second = short.has_room();
    drop(held);
    // Granted, but gone before it took notice.
    let (mut gone, mut last) = (Body::of(&budget, 98_000), Body::of(&budget, 98_000));
    gone.waits();
    last.waits();
    drop(second);
    drop(gone);
    drop(last.has_room());
    assert_eq!((budget.used(), budget.is_awaited()), (0, false));
}

#[test]
fn bodies_of_unknown_length_never_wait_for_each_other_in_a_circle() {
    let budget = Budget::new(100_000);
    let (first, second) = (Body::of(&budget, 50_000).has_room(), Body::of(&budget, 50_000).has_room());
    let mut known = Body::of(&budget, 10_000);
    known.waits();
    let first = Body::growing(first, 80_000).has_room();
    assert_eq!(budget.excess(), 30_000);
    let mut second = Body::growing(second, 60_000);
    second.waits();
    // It goes on until it is complete.
    let first = Body::growing(first, 90_000).has_room();
    known.waits();
    let complete = first.hold(message(90_000));
    let second = second.has_room();
    assert_eq!(budget.used(), 150_000, "now the other one goes over");
    drop(complete);
    known.has_room();
    drop(second);
    assert_eq!(budget.used(), 0);
}

#[test]
fn who_holds_room_hears_of_those_who_wait() {
    let budget = Budget::new(10_000);
    let held = budget.hold(message(8_000));
    let mut cx = Context::from_waker(Waker::noop());
    let mut awaited = Box::pin(budget.awaited());
    assert!(awaited.as_mut().poll(&mut cx).is_pending());
    assert!(pin!(budget.overdrawn()).poll(&mut cx).is_pending());
    let mut body = Body::of(&budget, 5_000);
    body.waits();
    assert!(awaited.as_mut().poll(&mut cx).is_ready());
    assert!(pin!(budget.awaited()).poll(&mut cx).is_ready(), "and whoever asks later");
    assert!(pin!(budget.overdrawn()).poll(&mut cx).is_ready());
    drop(held);
    body.has_room();
    assert!(pin!(budget.awaited()).poll(&mut cx).is_pending());
}
