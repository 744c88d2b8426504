//! Tests the rules one by one and against a model with random operations, and the futures around them.

use super::queues::{Left, Queues, Ruling, Ticket, TicketState};
use super::{Admission, Bounds, Decision, Displaced, Permit, QueuedPermit};
use crate::client::Client;
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

const A: Client = Client::numbered(1);
const B: Client = Client::numbered(2);
const C: Client = Client::numbered(3);

fn queues(in_flight: usize, per_client: usize, queued: usize) -> Queues<&'static str> {
    Queues::new(Bounds { in_flight, per_client, queued })
}

fn waits<W: std::fmt::Debug>(verdict: Ruling<W>) -> Ticket {
    match verdict {
        Ruling::Waits(ticket, None) => ticket,
        other => panic!("it does not wait: {other:?}"),
    }
}

#[test]
fn free_permits_go_round_the_clients_and_in_order_within_one() {
    let mut queues = queues(1, 9, 9);
    assert_eq!(queues.ask(C, "c"), Ruling::Granted);
    for (key, name) in [(A, "a1"), (A, "a2"), (A, "a3"), (B, "b1"), (B, "b2")] {
        waits(queues.ask(key, name));
    }
    let mut granted = Vec::new();
    let mut holder = C;
    while let Some(name) = queues.release(holder) {
        queues.check();
        holder = if name.starts_with('a') { A } else { B };
        granted.push(name);
    }
    assert_eq!(granted, ["a1", "b1", "a2", "b2", "a3"]);
    assert_eq!((queues.in_flight(), queues.queued(), queues.clients()), (0, 0, 0));
}

#[test]
fn a_client_at_its_own_bound_is_passed_over_until_it_gives_one_back() {
    let mut queues = queues(3, 2, 9);
    assert_eq!((queues.ask(A, "a1"), queues.ask(A, "a2")), (Ruling::Granted, Ruling::Granted));
    waits(queues.ask(A, "a3"));
    assert!(queues.is_at_own_bound(A) && !queues.is_at_own_bound(B));
    assert_eq!(queues.ask(B, "b1"), Ruling::Granted);
    waits(queues.ask(B, "b2"));
    assert_eq!(queues.release(B), Some("b2"));
    assert_eq!(queues.release(B), None);
    assert_eq!(queues.release(A), Some("a3"));
    queues.check();
}

#[test]
fn a_leaving_waiter_is_passed_over_and_passes_its_permit_on() {
    let mut queues = queues(1, 9, 9);
    assert!(queues.take(C));
    let first = waits(queues.ask(A, "a1"));
    let second = waits(queues.ask(A, "a2"));
    waits(queues.ask(B, "b1"));
    assert_eq!(queues.leave(A, first), Left::Waiting(Some("a1")));
    assert_eq!(queues.release(C), Some("a2"));
    assert_eq!(queues.ticket_state(A, second), TicketState::Granted);
    assert_eq!(queues.leave(A, second), Left::Granted(Some("b1")));
    assert_eq!(queues.release(B), None);
    assert_eq!(queues.clients(), 0);
}

#[test]
fn full_queues_refuse_a_noisy_client_and_make_room_for_a_quiet_one() {
    let mut queues = queues(1, 9, 3);
    assert!(queues.take(C));
    waits(queues.ask(A, "a1"));
    waits(queues.ask(A, "a2"));
    let newest = waits(queues.ask(A, "a3"));
    assert_eq!(queues.ask(A, "a4"), Ruling::Full);
    assert!(matches!(queues.ask(B, "b1"), Ruling::Waits(_, Some("a3"))));
    assert_eq!(queues.ticket_state(A, newest), TicketState::Displaced);
    assert_eq!(queues.ask(B, "b2"), Ruling::Full, "the lengths differ by at most one");
    assert_eq!(queues.queued(), 3);
    queues.check();
}

#[test]
fn a_queue_bound_of_zero_refuses_at_once() {
    let mut queues = queues(1, 1, 0);
    assert_eq!(queues.ask(A, "a"), Ruling::Granted);
    assert_eq!(queues.ask(B, "b"), Ruling::Full);
    assert_eq!(queues.clients(), 1);
}

/// The rules in their plainest form: a list of holders and a list of waiters.
#[derive(Default)]
struct Model {
    held: Vec<Client>,
    waiting: Vec<(Client, usize)>,
    // Clients in the order of their turns.
    turns: VecDeque<Client>,
}

impl Model {
    fn may(&self, key: Client, bounds: Bounds) -> bool {
        let held = self.held.iter().filter(|holder| **holder == key).count();
        held < bounds.per_client && self.waiting.iter().any(|(waiter, _)| *waiter == key)
    }

    fn length(&self, key: Client) -> usize {
        self.waiting.iter().filter(|(waiter, _)| *waiter == key).count()
    }

    /// Updates the turns for `key`, and grants a permit if possible. Returns the waiter that got it.
    fn settle(&mut self, key: Client, bounds: Bounds) -> Option<usize> {
        let may = self.may(key, bounds);
        match self.turns.iter().position(|turn| *turn == key) {
            None if may => self.turns.push_back(key),
            Some(at) if !may => drop(self.turns.remove(at)),
            _ => {}
        }
        if self.held.len() >= bounds.in_flight {
            return None;
        }
        let held = |client: &Client| self.held.iter().filter(|holder| *holder == client).count();
        let has_less_than_half = |client: &Client| held(client) * 2 < bounds.in_flight;
        let at = self.turns.iter().position(has_less_than_half).unwrap_or(0);
        let next = self.turns.remove(at)?;
        let at = self.waiting.iter().position(|(waiter, _)| *waiter == next).expect("it has a waiter");
        let (_, name) = self.waiting.remove(at);
        self.held.push(next);
        if self.may(next, bounds) {
            self.turns.push_back(next);
        }
        Some(name)
    }
}

/// A linear congruential generator with a fixed seed: every run sees the same numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

#[test]
fn a_client_with_half_of_all_permits_gets_no_more_while_others_wait() {
    let mut queues = queues(4, 4, 9);
    for _ in 0..4 {
        assert_eq!(queues.ask(A, "a"), Ruling::Granted);
    }
    for (key, name) in [(A, "a1"), (A, "a2"), (B, "b1"), (B, "b2"), (B, "b3")] {
        waits(queues.ask(key, name));
        queues.check();
    }
    let granted: Vec<_> = [A, A, A, B].map(|holder| queues.release(holder)).into();
    assert_eq!(granted, [Some("b1"), Some("b2"), Some("a1"), Some("b3")]);
    queues.check();
}

#[test]
fn the_queues_agree_with_the_model_after_any_operations() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let bounds =
            Bounds { in_flight: 1 + dice.below(4), per_client: 1 + dice.below(3), queued: dice.below(6) };
        walk(&mut dice, bounds);
    }
}

fn walk(dice: &mut Dice, bounds: Bounds) {
    let (mut queues, mut model) = (Queues::<usize>::new(bounds), Model::default());
    let mut tickets = std::collections::HashMap::new();
    for name in 0..200 {
        let key = [A, B, C, Client::numbered(4)][dice.below(4)];
        match dice.below(3) {
            0 => ask(&mut queues, &mut model, bounds, key, name, &mut tickets),
            1 if !model.held.is_empty() => {
                let holder = model.held.remove(dice.below(model.held.len()));
                assert_eq!(queues.release(holder), model.settle(holder, bounds));
            }
            2 if !model.waiting.is_empty() => {
                let (waiter, name) = model.waiting.remove(dice.below(model.waiting.len()));
                assert_eq!(model.settle(waiter, bounds), None);
                assert_eq!(queues.leave(waiter, tickets[&name]), Left::Waiting(Some(name)));
            }
            _ => {}
        }
        queues.check();
        assert_eq!((queues.in_flight(), queues.queued()), (model.held.len(), model.waiting.len()));
    }
}

fn ask(
    queues: &mut Queues<usize>,
    model: &mut Model,
    bounds: Bounds,
    key: Client,
    name: usize,
    tickets: &mut std::collections::HashMap<usize, Ticket>,
) {
    match queues.ask(key, name) {
        Ruling::Granted => model.held.push(key),
        Ruling::Full => {
            assert_eq!(model.waiting.len(), bounds.queued);
            let longest = model.waiting.iter().map(|(waiter, _)| model.length(*waiter)).max();
            assert!(longest.unwrap_or(0) <= model.length(key) + 1);
        }
        Ruling::Waits(ticket, displaced) => {
            if let Some(displaced) = displaced {
                assert_eq!(model.waiting.len(), bounds.queued);
                let at = model.waiting.iter().position(|(_, name)| *name == displaced).expect("it waited");
                let (longest, _) = model.waiting[at];
                assert!(model.waiting[at + 1..].iter().all(|(waiter, _)| *waiter != longest), "the newest");
                model.waiting.remove(at);
                assert!(model.length(longest) > model.length(key));
                assert_eq!(model.settle(longest, bounds), None);
                assert_eq!(queues.ticket_state(longest, tickets[&displaced]), TicketState::Displaced);
            }
            tickets.insert(name, ticket);
            model.waiting.push((key, name));
            assert_eq!(model.settle(key, bounds), None, "a permit is free, and yet it waits");
        }
    }
}

/// Counts its wake-ups.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn one() -> Arc<Admission> {
    Admission::new(Bounds { in_flight: 1, per_client: 1, queued: 2 })
}

fn granted(admission: &Arc<Admission>, key: Client) -> Permit {
    match admission.ask(key) {
        Decision::Granted(permit) => permit,
        other => panic!("{other:?}"),
    }
}

fn waiting(admission: &Arc<Admission>, key: Client) -> QueuedPermit {
    match admission.ask(key) {
        Decision::Waits(waiting) => waiting,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_waiter_is_woken_with_a_permit_and_another_when_it_is_dropped_with_it() {
    let admission = one();
    let held = granted(&admission, A);
    let first = waiting(&admission, B);
    let mut second = pin!(waiting(&admission, C));
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let mut cx = Context::from_waker(&waker);
    assert!(second.as_mut().poll(&mut cx).is_pending());
    drop(held);
    assert_eq!((admission.in_flight(), admission.queued(), bell.0.load(SeqCst)), (1, 1, 0));
    drop(first);
    assert_eq!(bell.0.load(SeqCst), 1);
    let Poll::Ready(Ok(permit)) = second.as_mut().poll(&mut cx) else { panic!("it was granted") };
    assert!(admission.take(A).is_none());
    drop(permit);
    assert_eq!((admission.in_flight(), admission.queued()), (0, 0));
}

#[test]
fn a_free_permit_may_be_taken() {
    let admission = Admission::new(Bounds { in_flight: 2, per_client: 1, queued: 0 });
    assert!(!admission.is_at_own_bound(A));
    let permit = admission.take(A).expect("it is free");
    assert_eq!(admission.in_flight(), 1);
    assert!(admission.is_at_own_bound(A) && !admission.is_at_own_bound(B));
    assert!(admission.take(A).is_none());
    assert!(admission.take(B).is_some());
    drop(permit);
    assert!(!admission.is_at_own_bound(A));
}

#[test]
fn a_displaced_waiter_is_woken_and_gets_an_error() {
    let admission = one();
    let _held = granted(&admission, A);
    let _first = waiting(&admission, B);
    let mut newest = pin!(waiting(&admission, B));
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let mut cx = Context::from_waker(&waker);
    assert!(newest.as_mut().poll(&mut cx).is_pending());
    let _quiet = waiting(&admission, C);
    assert_eq!(bell.0.load(SeqCst), 1);
    assert!(matches!(newest.as_mut().poll(&mut cx), Poll::Ready(Err(Displaced))));
    assert!(matches!(admission.ask(C), Decision::Full));
    assert_eq!(admission.queued(), 2);
}
