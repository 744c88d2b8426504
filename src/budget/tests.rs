//! Tests the budget on a runtime of one thread: the order of waiting bodies, and the accounts that give way.

use super::*;
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::AtomicUsize as Counter;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A limit whose half is above the reserve, so that only large bodies matter.
const LIMIT: usize = 64 * 1024 * 1024;
const MIB: usize = 1024 * 1024;

fn budget() -> Budget {
    Budget::new(LIMIT)
}

/// Returns a charge of `bytes`, for which there is room.
fn charged(account: &Account, bytes: usize) -> Charge {
    account.try_charge(bytes).expect("there is room")
}

/// A body that waits for room, polled by hand.
struct Body(Pin<Box<dyn Future<Output = Charge>>>);

impl Body {
    fn growing(mut charge: Charge, bytes: usize) -> Body {
        Body(Box::pin(async move {
            charge.cover(bytes).await;
            charge
        }))
    }

    fn of(account: &Account, bytes: usize) -> Body {
        Body::growing(account.charge(), bytes)
    }

    fn poll(&mut self) -> Option<Charge> {
        poll_once(Pin::new(&mut self.0))
    }

    fn waits(&mut self) {
        assert!(self.poll().is_none(), "it has room");
    }

    fn has_room(&mut self) -> Charge {
        self.poll().expect("room")
    }
}

fn poll_once<T>(future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

#[test]
fn a_charge_lasts_as_long_as_the_last_slice() {
    let budget = budget();
    let account = budget.account(Client::numbered(1));
    let message = account.hold(vec![b'x'; 8_000]);
    let slice = message.slice(10..20);
    drop(message);
    assert_eq!((slice.len(), budget.used(), account.used()), (10, 8_000 + OVERHEAD, 8_000 + OVERHEAD));
    let copy = slice.derive(slice.to_vec());
    assert_eq!(budget.used(), 8_010 + 2 * OVERHEAD, "a copy takes a charge of its own");
    drop((slice, copy));
    assert_eq!((budget.used(), account.used(), account.client_used()), (0, 0, 0));
}

#[test]
fn proxyrunners_own_messages_count_outside_the_budget() {
    let before = outside();
    let own = Charged::own(vec![b'x'; 100_000]);
    let slice = own.slice(0..1);
    drop(own);
    // Other tests have such messages at the same time, but none so long.
    assert!(outside() >= before.saturating_sub(50_000) + 100_000);
    assert!(slice.derive(b"y".to_vec()).account().is_none());
}

#[test]
fn a_message_moves_to_another_account_unless_it_is_shared() {
    let budget = budget();
    let (child, client) = (budget.account(Client::numbered(1)), budget.account(Client::numbered(2)));
    let mut message = child.hold(vec![b'x'; 1_000]);
    message.move_to(&client);
    assert_eq!((child.used(), client.used()), (0, 1_000 + OVERHEAD));
    let slice = message.slice(0..1);
    message.move_to(&child);
    assert_eq!(child.used(), 0, "it is shared");
    drop((message, slice));
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_body_waits_until_another_is_released() {
    let budget = budget();
    let account = budget.account(Client::numbered(1));
    let first = charged(&account, 40 * MIB).hold(vec![b'x'; 40 * MIB - OVERHEAD]);
    let slice = first.slice(10..20);
    let mut second = Body::of(&account, 30 * MIB);
    second.waits();
    drop(first);
    second.waits();
    drop(slice);
    let second = second.has_room();
    assert_eq!(budget.used(), 30 * MIB);
    drop(second.hold(vec![b'x'; 10]));
    assert_eq!(budget.used(), 0);
}

#[test]
fn only_the_reserve_exceeds_the_limit() {
    let budget = budget();
    let [greedy, modest] = [1, 2].map(|client| budget.account(Client::numbered(client)));
    let _most = charged(&greedy, LIMIT);
    assert!(greedy.try_charge(1).is_none());
    assert!(modest.try_charge(budget.small() + 1).is_none());
    let small = charged(&modest, budget.small());
    assert!(modest.try_charge(1).is_none(), "its share of the reserve is used up");
    let own: Vec<_> =
        (0..).map_while(|_| greedy.sibling(greedy.client()).try_charge(budget.small())).collect();
    assert_eq!(own.len(), SMALL_PART / 2 - 1, "half of the reserve is there for all accounts");
    let others: Vec<_> = (3..)
        .map_while(|client| budget.account(Client::numbered(client)).try_charge(budget.small()))
        .collect();
    assert_eq!(others.len(), SMALL_PART / 2, "the other half for clients that hold little");
    assert_eq!(budget.used(), LIMIT + budget.reserve());
    drop((small, own, others));
}

#[test]
fn a_body_as_long_as_the_limit_goes_through_beside_small_messages() {
    let budget = budget();
    let [large, small] = [1, 2].map(|client| budget.account(Client::numbered(client)));
    let held = charged(&small, MIB);
    let whole = charged(&large, LIMIT);
    assert!(budget.excess() > 0);
    assert!(budget.account(Client::numbered(3)).try_charge(LIMIT).is_none(), "one at a time");
    drop((held, whole));
}

#[test]
fn a_client_within_its_half_goes_before_a_client_above_it() {
    let budget = budget();
    let [greedy, modest] = [1, 2].map(|client| budget.account(Client::numbered(client)));
    let held = charged(&greedy, 60 * MIB);
    let (mut long, mut short) = (Body::of(&greedy, 40 * MIB), Body::of(&modest, 20 * MIB));
    long.waits();
    short.waits();
    assert_eq!(budget.lack(), 16 * MIB, "for the second of them");
    drop(held);
    let (short, long) = (short.has_room(), long.has_room());
    assert_eq!(budget.used(), 60 * MIB);
    drop((short, long));
}

#[test]
fn clients_within_their_half_are_served_in_order_of_arrival() {
    let budget = budget();
    let [held, first, second] = [1, 2, 3].map(|client| budget.account(Client::numbered(client)));
    let charge = charged(&held, 50 * MIB);
    let (mut long, mut short) = (Body::of(&first, 20 * MIB), Body::of(&second, 5 * MIB));
    long.waits();
    short.waits();
    assert!(Body::of(&second, budget.small()).poll().is_some(), "small ones never wait");
    drop(charge);
    let both = (long.has_room(), short.has_room());
    assert_eq!((budget.used(), budget.is_awaited(), budget.lack()), (25 * MIB, false, 0));
    drop(both);
}

#[test]
fn a_body_that_gives_up_lets_later_bodies_pass() {
    let budget = budget();
    let [a, b, c] = [1, 2, 3].map(|client| budget.account(Client::numbered(client)));
    let held = charged(&a, 50 * MIB);
    let (mut long, mut short) = (Body::of(&b, 20 * MIB), Body::of(&c, 5 * MIB));
    long.waits();
    short.waits();
    drop(long);
    let second = short.has_room();
    drop(held);
    // Granted, but dropped before it was polled.
    let rest = charged(&a, 50 * MIB);
    let (mut gone, mut last) = (Body::of(&b, 30 * MIB), Body::of(&c, 25 * MIB));
    gone.waits();
    last.waits();
    drop((second, rest));
    drop(gone);
    drop(last.has_room());
    assert_eq!((budget.used(), budget.is_awaited()), (0, false));
}

#[test]
fn a_body_that_holds_a_part_goes_before_bodies_that_hold_none() {
    let budget = budget();
    let [a, b] = [1, 2].map(|client| budget.account(Client::numbered(client)));
    let (part, rest) = (charged(&a, 20 * MIB), charged(&a, 40 * MIB));
    let (mut whole, mut growing) = (Body::of(&b, 10 * MIB), Body::growing(part, 30 * MIB));
    whole.waits();
    growing.waits();
    drop(rest);
    let grown = growing.has_room();
    assert_eq!(grown.bytes(), 30 * MIB);
    drop((whole.has_room(), grown));
    assert_eq!(budget.used(), 0);
}

#[test]
fn the_client_that_holds_most_gives_way_with_the_account_that_holds_most() {
    let budget = budget();
    let (greedy, more_of_it, other) = (
        budget.account(Client::numbered(1)),
        budget.account(Client::numbered(1)),
        budget.account(Client::numbered(2)),
    );
    let asked = Arc::new(Counter::new(0));
    let counted = Arc::clone(&asked);
    more_of_it.on_give_way(move || counted.fetch_add(1, Ordering::Relaxed) == 0);
    let modest = budget.account(Client::numbered(1));
    let _held = (charged(&greedy, 20 * MIB), charged(&more_of_it, 30 * MIB), charged(&modest, 1024));
    assert!(budget.fullest().is_empty(), "nobody waits");
    let mut body = Body::of(&other, 20 * MIB);
    body.waits();
    let fullest = budget.fullest();
    let [first, second] = &fullest[..] else {
        panic!("both accounts of the client with more than half: {fullest:?}")
    };
    assert!(first.is(&more_of_it) && second.is(&greedy));
    assert!(first.give_way() && !first.give_way());
    assert!(!second.give_way(), "no function was set");
}

#[test]
fn every_account_gives_way_when_the_reserve_is_used_up() {
    let budget = budget();
    let others: Vec<_> =
        (2..5).map(|client| charged(&budget.account(Client::numbered(client)), 20 * MIB)).collect();
    let forced = budget.account(Client::numbered(5));
    let copies: Vec<_> = (0..20).map(|_| forced.hold(vec![b'x'; MIB])).collect();
    assert!(budget.is_far_exceeded());
    let mut body = Body::of(&budget.account(Client::numbered(9)), 1024);
    body.waits();
    assert_eq!(budget.fullest().len(), 4, "though no client holds half, and a body waits");
    assert!(budget.fullest()[0].is(&forced));
    drop(copies);
    assert_eq!(body.has_room().bytes(), 1024);
    drop(others);
}

#[tokio::test(start_paused = true)]
async fn a_request_of_a_client_that_holds_little_waits_for_room_and_others_are_refused() {
    let budget = budget();
    let patience = Duration::from_secs(5);
    let (greedy, modest) = (budget.account(Client::numbered(1)), budget.account(Client::numbered(2)));
    let mut held: Vec<_> = (0..72).map(|_| greedy.hold(vec![b'x'; MIB])).collect();
    assert!(budget.is_far_exceeded());
    assert!(
        poll_once(pin!(greedy.charge_soon(1024, patience))).is_some_and(|charge| charge.is_none()),
        "refused at once"
    );
    let mut large = Body::of(&budget.account(Client::numbered(3)), 20 * MIB);
    large.waits();
    let mut soon = pin!(modest.charge_soon(40 * 1024, patience));
    assert!(poll_once(soon.as_mut()).is_none(), "it waits");
    held.truncate(66);
    assert_eq!(soon.await.map(|charge| charge.bytes()), Some(40 * 1024), "before the body that came first");
    held.extend((0..6).map(|_| greedy.hold(vec![b'x'; MIB])));
    assert!(modest.charge_soon(40 * 1024, patience).await.is_none(), "but not forever");
    let others = (10..10 + MOST_PATIENT as u64).map(|client| budget.account(Client::numbered(client)));
    let mut waiting: Vec<_> =
        others.map(|other| Box::pin(async move { other.charge_soon(1024, patience).await })).collect();
    assert!(waiting.iter_mut().all(|waiting| poll_once(waiting.as_mut()).is_none()));
    assert!(
        poll_once(pin!(modest.charge_soon(1024, patience))).is_some_and(|charge| charge.is_none()),
        "enough wait"
    );
    waiting.pop();
    assert!(poll_once(pin!(modest.charge_soon(1024, patience))).is_none(), "one has left");
}

#[tokio::test(start_paused = true)]
async fn a_large_message_is_not_refused_for_its_small_overhead() {
    let budget = budget();
    let patience = Duration::from_secs(5);
    let (greedy, honest) = (budget.account(Client::numbered(1)), budget.account(Client::numbered(2)));
    let message = honest.hold(vec![b'x'; 6 * MIB]);
    let _held: Vec<_> = (0..60).map(|_| greedy.hold(vec![b'x'; MIB])).collect();
    assert!(budget.excess() > 0 && !budget.is_far_exceeded());
    let more = honest.charge_soon(20 * 1024, patience).await;
    assert_eq!(more.map(|charge| charge.bytes()), Some(20 * 1024));
    assert!(greedy.charge_soon(20 * 1024, patience).await.is_none(), "it holds more than one message");
    assert!(!greedy.may_take_over(20 * 1024));
    drop(message);
}

#[test]
fn a_short_answer_to_a_message_as_long_as_the_limit_is_not_refused() {
    let budget = budget();
    let (client, child) = (budget.account(Client::numbered(1)), budget.account(Client::numbered(2)));
    let body = charged(&client, LIMIT).hold(vec![b'x'; LIMIT - OVERHEAD]);
    let beside = charged(&client, 50 * 1024);
    let mut answer = child.hold(vec![b'x'; 1024]);
    assert!(client.may_take_over(answer.len()));
    answer.move_to(&client);
    let copy = body.slice(0..10);
    drop(body);
    assert!(client.try_charge(1).is_some(), "a slice holds the whole message");
    drop(copy);
    drop((beside, answer));
    assert_eq!((budget.used(), client.client_used()), (0, 0));
    let _held: Vec<_> = (0..65).map(|_| client.hold(vec![b'x'; MIB])).collect();
    assert!(!client.may_take_over(1024), "many messages are not one");
}

#[test]
fn a_message_that_grows_has_as_much_room_as_one_whose_length_is_known() {
    let budget = budget();
    let mut line = budget.account(Client::numbered(1)).charge();
    let beside = charged(&budget.account(Client::numbered(2)), MIB);
    let whole = LIMIT + budget.reserve() - 2 * MIB;
    for bytes in (MIB..=whole).step_by(MIB) {
        assert!(line.try_cover(bytes), "{bytes}");
    }
    let mut another = Body::of(&budget.account(Client::numbered(3)), 2 * MIB);
    another.waits();
    drop((line, beside));
    drop(another.has_room());
}

#[test]
fn no_client_gives_way_to_itself_or_with_less_than_half() {
    let budget = budget();
    let (alone, sibling) = (budget.account(Client::numbered(1)), budget.account(Client::numbered(1)));
    let held = charged(&alone, 60 * MIB);
    let mut own = Body::of(&alone, 10 * MIB);
    own.waits();
    assert!(budget.fullest().is_empty(), "it waits for itself");
    drop(own);
    let mut body = Body::of(&sibling, 10 * MIB);
    body.waits();
    assert!(matches!(&budget.fullest()[..], [fullest] if fullest.is(&alone)), "between one client's own");
    drop((body, held));
    let others: Vec<_> =
        (2..5).map(|client| charged(&budget.account(Client::numbered(client)), 20 * MIB)).collect();
    let mut body = Body::of(&budget.account(Client::numbered(9)), 10 * MIB);
    body.waits();
    assert!(budget.fullest().is_empty(), "each holds a third");
    drop(others);
}

#[test]
fn waiters_and_overdrafts_request_room() {
    let budget = budget();
    let account = budget.account(Client::numbered(1));
    let woken = Rc::new(Cell::new(false));
    let mut cx = Context::from_waker(Waker::noop());
    let mut awaited = Box::pin(budget.awaited());
    assert_eq!(awaited.as_mut().poll(&mut cx), Poll::Pending);
    let held = charged(&account, LIMIT);
    let mut body = Body::of(&account, MIB);
    body.waits();
    assert_eq!(awaited.as_mut().poll(&mut cx), Poll::Ready(()));
    assert_eq!(pin!(budget.overdrawn()).poll(&mut cx), Poll::Ready(()));
    let over = account.hold(vec![b'x'; 10]);
    assert_eq!(pin!(budget.overdrawn()).poll(&mut cx), Poll::Ready(()));
    assert_eq!(budget.excess(), 10 + OVERHEAD);
    woken.set(true);
    drop((body, held, over));
    assert_eq!((budget.used(), budget.is_awaited()), (0, false));
}

#[test]
fn memory_is_tight_until_half_of_it_is_free() {
    let budget = budget();
    let account = budget.account(Client::numbered(1));
    let (first, second) = (charged(&account, 40 * MIB), charged(&account, 20 * MIB));
    budget.note_tight();
    drop(second);
    assert!(budget.is_tight());
    drop(first);
    assert!(!budget.is_tight());
}

#[test]
fn accounts_and_clients_are_removed_with_their_last_handle() {
    let budget = budget();
    let account = budget.account(Client::numbered(1));
    let (sibling, message) = (account.sibling(account.client()), account.hold(b"x".to_vec()));
    assert!(sibling.is_of_same_client(&account) && !sibling.is(&account));
    drop(account);
    assert_eq!(budget.accounts().open().len(), 2, "a message keeps its account");
    drop((sibling, message));
    assert_eq!(budget.accounts().open().len(), 0);
}
