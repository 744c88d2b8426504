//! Tests, first on one thread and then on many, that check the result of each operation and that each value is dropped
//! once.

use super::{
    Abandoned, Answering, Completed, Lost, Mux, Pending, Refused, WireId,
    free_list::{FreeList, NoSlot},
    state::State,
    table, table_with_generations,
};
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

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

fn sent<H>(mux: &Mux<H, Outcome>, held: H) -> Pending<H, Outcome> {
    let Ok(pending) = mux.reserve(held) else { panic!("expected a free slot") };
    assert!(mux.mark_sent(pending.wire_id()));
    pending
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn small() -> (Mux<(), Outcome>, Answering<(), Outcome>) {
    table(2)
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn outcome_wakes_and_reaches_the_waiting_half() {
    let (mux, mut answering) = small();
    let mut pending = sent(&mux, ());
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    assert!(pin!(&mut pending).poll(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(answering.complete(pending.wire_id(), Answer(7)), Completed::Delivered);
    assert_eq!(wakes.0.load(SeqCst), 1);
    assert_eq!(mux.waiting(), 1, "the waiting half frees the slot, the answer does not");
    assert_eq!(poll(&mut pending), Poll::Ready(Answer(7)));
    assert_eq!(mux.waiting(), 0);
    assert_eq!(pending.abandon(), Abandoned::Settled);
}

#[test]
fn held_value_is_available_until_the_outcome_is_taken() {
    let (mux, mut answering) = table::<u32, Outcome>(1);
    let mut pending = sent(&mux, 7);
    assert_eq!(pending.held(), Some(&7));
    assert_eq!(answering.complete(pending.wire_id(), Answer(1)), Completed::Delivered);
    assert_eq!(pending.held(), Some(&7));
    assert_eq!(poll(&mut pending), Poll::Ready(Answer(1)));
    assert_eq!(pending.held(), None);
}

/// A child may answer an abandoned request late, and a waker keeps a whole task alive.
#[test]
fn abandoned_exchange_keeps_no_waker() {
    let (mux, _answering) = small();
    let mut pending = sent(&mux, ());
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    assert!(pin!(&mut pending).poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    assert_eq!(Arc::strong_count(&wakes), 2);
    assert_eq!(pending.abandon(), Abandoned::InFlight);
    assert_eq!(Arc::strong_count(&wakes), 1);
}

#[test]
fn unanswered_counts_sent_exchanges_that_are_waiting() {
    let (mux, mut answering) = table::<(), Outcome>(4);
    let unsent = mux.reserve(()).unwrap();
    assert_eq!(mux.unanswered(), 0, "the exchange is not sent");
    let (mut one, mut two) = (sent(&mux, ()), sent(&mux, ()));
    assert_eq!(mux.unanswered(), 2);
    assert_eq!(answering.complete(one.wire_id(), Answer(1)), Completed::Delivered);
    assert_eq!(mux.unanswered(), 1, "one exchange is answered, although its outcome is not taken yet");
    assert_eq!(two.abandon(), Abandoned::InFlight);
    assert_eq!(mux.unanswered(), 0, "the exchange is abandoned");
    assert_eq!(poll(&mut one), Poll::Ready(Answer(1)));
    assert_eq!(mux.waiting(), 2);
    assert_eq!(mux.open(), 2, "the unsent and the abandoned one");
    drop(unsent);
}

#[test]
fn closed_table_reports_closed_even_if_full() {
    let (mux, mut answering) = table::<(), Outcome>(1);
    let mut pending = sent(&mux, ());
    assert_eq!(mux.reserve(()).unwrap_err(), Refused::Full(()));
    assert_eq!(answering.close(|| Outcome::Lost), 1);
    assert_eq!(mux.reserve(()).unwrap_err(), Refused::Closed(()));
    assert_eq!(poll(&mut pending), Poll::Ready(Outcome::Lost));
}

#[test]
fn halves_and_ids_can_be_formatted() {
    let (mux, answering) = table::<(), Outcome>(2);
    let pending = sent(&mux, ());
    let id = pending.wire_id();
    assert_eq!(
        (id.to_string(), format!("{id:?}")),
        (id.as_u64().to_string(), format!("WireId({})", id.as_u64()))
    );
    let table = "Table { slots: 2, in_flight: 1, abandoned: 0, retired: 0 }";
    assert_eq!(format!("{mux:?}"), format!("Mux {{ table: {table} }}"));
    for shown in [format!("{answering:?}"), format!("{pending:?}")] {
        assert!(shown.contains(table) || shown.contains(&id.to_string()), "{shown}");
    }
}

#[test]
fn id_that_was_never_sent_is_unknown() {
    let (mux, mut answering) = small();
    let pending = mux.reserve(()).unwrap();
    assert_eq!(answering.complete(pending.wire_id(), Answer(1)), Completed::Unknown(Answer(1)));
    assert!(answering.held(pending.wire_id()).is_none());
    assert!(!mux.was_sent(pending.wire_id()));
    for never in [1, 2, 1 << 30, (1 << 53) - 1] {
        let id = WireId::new(never).unwrap();
        assert_eq!(answering.complete(id, Answer(1)), Completed::Unknown(Answer(1)), "{never}");
    }
    assert_eq!(WireId::new(0), None);
    assert_eq!(WireId::new(1 << 53), None);
}

#[test]
fn second_answer_is_a_duplicate_before_and_after_the_first_is_taken() {
    let (mux, mut answering) = small();
    let mut pending = sent(&mux, ());
    let id = pending.wire_id();
    assert_eq!(answering.complete(id, Answer(1)), Completed::Delivered);
    assert_eq!(answering.complete(id, Answer(2)), Completed::Duplicate(Answer(2)));
    assert_eq!(poll(&mut pending), Poll::Ready(Answer(1)));
    assert_eq!(answering.complete(id, Answer(3)), Completed::Duplicate(Answer(3)));
}

#[test]
fn exchange_is_marked_as_sent_once() {
    let (mux, mut answering) = small();
    let pending = sent(&mux, ());
    assert!(mux.was_sent(pending.wire_id()));
    assert!(!mux.mark_sent(pending.wire_id()));
    let withdrawn = mux.reserve(()).unwrap().wire_id();
    assert!(!mux.mark_sent(withdrawn), "the exchange was dropped");
    let answered = mux.reserve(()).unwrap();
    answering.close(Outcome::lost);
    assert!(!mux.mark_sent(answered.wire_id()));
}

#[test]
fn abandoned_exchange_keeps_its_held_value_until_the_late_answer() {
    let (mux, mut answering) = table::<Arc<()>, Outcome>(1);
    let permit = Arc::new(());
    let mut pending = sent(&mux, permit.clone());
    let id = pending.wire_id();
    assert!(answering.held(id).is_some_and(|held| Arc::ptr_eq(held, &permit)));
    assert_eq!(pending.abandon(), Abandoned::InFlight);
    assert_eq!(pending.abandon(), Abandoned::Settled);
    drop(pending);
    assert!(answering.held(id).is_none());
    assert_eq!((mux.waiting(), mux.abandoned(), Arc::strong_count(&permit)), (1, 1, 2));
    assert!(matches!(mux.reserve(permit.clone()), Err(Refused::Full(_))));
    assert_eq!(answering.complete(id, Answer(1)), Completed::Late);
    assert_eq!((mux.waiting(), mux.abandoned(), Arc::strong_count(&permit)), (0, 0, 1));
    assert!(mux.reserve(permit).is_ok());
}

#[test]
fn only_waiting_returns_the_only_sent_exchange_without_an_answer() {
    let (mux, mut answering) = table::<(), Outcome>(4);
    let _unsent = mux.reserve(()).unwrap();
    assert_eq!(answering.only_waiting(), None);
    let answered = sent(&mux, ());
    assert_eq!(answering.only_waiting(), Some(answered.wire_id()));
    assert_eq!(answering.complete(answered.wire_id(), Answer(1)), Completed::Delivered);
    assert_eq!(answering.only_waiting(), None);
    let mut abandoned = sent(&mux, ());
    assert_eq!(abandoned.abandon(), Abandoned::InFlight);
    assert_eq!(answering.only_waiting(), Some(abandoned.wire_id()));
    let _another = sent(&mux, ());
    assert_eq!(answering.only_waiting(), None, "there are two exchanges");
}

#[test]
fn exchange_abandoned_before_it_was_sent_is_freed_immediately() {
    let (mux, mut answering) = table::<Arc<()>, Outcome>(1);
    let permit = Arc::new(());
    let mut pending = mux.reserve(permit.clone()).unwrap();
    assert_eq!(pending.abandon(), Abandoned::Withdrawn);
    assert_eq!((mux.waiting(), mux.abandoned(), Arc::strong_count(&permit)), (0, 0, 1));
    assert_eq!(answering.complete(pending.wire_id(), Answer(1)), Completed::Duplicate(Answer(1)));
}

#[test]
fn tombstones_expire_after_the_grace_period_and_not_before() {
    let (mux, mut answering) = table::<Arc<()>, Outcome>(4);
    let permit = Arc::new(());
    let waits = sent(&mux, permit.clone());
    drop(sent(&mux, permit.clone()));
    assert_eq!(answering.expire(100, 10), 0, "the tombstone is first seen now");
    drop(sent(&mux, permit.clone()));
    assert_eq!(answering.expire(109, 10), 0);
    assert_eq!(answering.expire(110, 10), 1);
    assert_eq!(answering.expire(118, 10), 0);
    assert_eq!(answering.expire(119, 10), 1);
    assert_eq!((mux.waiting(), mux.abandoned(), Arc::strong_count(&permit)), (1, 0, 2));
    drop(waits);
    assert_eq!(answering.expire(120, 0), 1);
}

#[test]
fn closing_answers_waiting_exchanges_and_refuses_new_ones() {
    let (mux, mut answering) = table::<Arc<()>, Outcome>(8);
    let permit = Arc::new(());
    let mut waiting = [sent(&mux, permit.clone()), mux.reserve(permit.clone()).unwrap()];
    drop(sent(&mux, permit.clone()));
    let answered = sent(&mux, permit.clone());
    let _ = answering.complete(answered.wire_id(), Answer(1));
    let mut failures = 0;
    let failed = answering.close(|| {
        failures += 1;
        Answer(failures)
    });
    assert_eq!(failed, 2);
    assert!(matches!(mux.reserve(permit.clone()), Err(Refused::Closed(_))));
    for pending in &mut waiting {
        assert!(matches!(poll(pending), Poll::Ready(Answer(1 | 2))));
    }
    drop(answered);
    assert_eq!((mux.waiting(), mux.abandoned(), Arc::strong_count(&permit)), (0, 0, 1));
    assert_eq!(answering.close(Outcome::lost), 0);
}

#[test]
fn dropping_the_answering_half_answers_the_waiting_half() {
    let (mux, answering) = small();
    let mut pending = sent(&mux, ());
    drop(answering);
    assert_eq!(poll(&mut pending), Poll::Ready(Outcome::Lost));
    assert_eq!(mux.reserve(()).unwrap_err(), Refused::Closed(()));
}

/// The check in the free list and the check in the state word each cover the case that the other sees too late.
#[test]
fn closing_prevents_taking_and_publishing() {
    let list = FreeList::new(2);
    assert_eq!(list.take(), Ok(0));
    list.close();
    assert_eq!(list.take(), Err(NoSlot::Closed));
    assert_eq!(list.taken(), 1);

    let state = State::new();
    state.close();
    assert_eq!(state.publish(), None);
}

#[test]
fn slots_are_used_in_order_and_ids_are_unique() {
    let (mux, _answering) = table::<(), Outcome>(3);
    assert_eq!(mux.slots(), 4);
    let ids: Vec<u64> = (0..8).map(|_| mux.reserve(()).unwrap().wire_id().as_u64()).collect();
    assert_eq!(ids, [4, 5, 6, 7, 8, 9, 10, 11]);
}

#[test]
fn slot_retires_when_its_generations_are_used_up() {
    let (mux, mut answering) = table_with_generations::<(), Outcome>(2, 3);
    let mut ids = Vec::new();
    while let Ok(mut pending) = mux.reserve(()) {
        assert!(ids.len() < 6, "two slots serve three exchanges each");
        ids.push(pending.wire_id());
        match ids.len() % 3 {
            0 => {}
            1 => {
                assert!(mux.mark_sent(pending.wire_id()));
                assert_eq!(answering.complete(pending.wire_id(), Answer(0)), Completed::Delivered);
                assert_eq!(poll(&mut pending), Poll::Ready(Answer(0)));
            }
            _ => {
                assert!(mux.mark_sent(pending.wire_id()));
                drop(pending);
                assert_eq!(answering.expire(0, 0), 1);
            }
        }
    }
    assert_eq!(ids.iter().map(|id| id.as_u64()).collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7]);
    assert_eq!(mux.waiting(), 0, "a retired slot is not in use");
    for id in ids {
        assert_eq!(answering.complete(id, Answer(1)), Completed::Duplicate(Answer(1)));
    }
}

#[test]
fn ids_stay_below_two_to_the_53() {
    let (mux, _answering) = table_with_generations::<(), Outcome>(super::MAX_SLOTS, u64::MAX);
    let layout = mux.table.layout;
    let last = layout.mint(layout.slots() - 1, layout.last_generation());
    assert_eq!(last.as_u64(), (1 << 53) - 1);
}

/// Counts live values: creation increments the counter and dropping decrements it, so dropping twice would underflow.
struct Counted(Arc<AtomicUsize>, u64);

impl Counted {
    fn new(alive: &Arc<AtomicUsize>, number: u64) -> Self {
        alive.fetch_add(1, SeqCst);
        Self(alive.clone(), number)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        assert_ne!(self.0.fetch_sub(1, SeqCst), 0, "a value was dropped twice");
    }
}

struct Echo(Option<Counted>);

impl Lost for Echo {
    fn lost() -> Self {
        Self(None)
    }
}

/// Six askers and one router share a table that is too small for them.
///
/// Each asker gets the answer to its own request, although one in four exchanges is abandoned and the table closes
/// under the last exchange.
#[test]
fn each_of_many_threads_gets_its_own_answer() {
    const ASKERS: u64 = 6;
    const EACH: u64 = if cfg!(miri) { 40 } else { 20_000 };
    let alive = Arc::new(AtomicUsize::new(0));
    let (mux, mut answering) = table::<Counted, Echo>(4);
    let (stdin, frames) = std::sync::mpsc::channel::<(WireId, u64)>();
    std::thread::scope(|scope| {
        for asker in 0..ASKERS {
            let (mux, stdin, alive) = (mux.clone(), stdin.clone(), alive.clone());
            scope.spawn(move || {
                for number in (0..EACH).map(|n| n * ASKERS + asker) {
                    let mut held = Counted::new(&alive, number);
                    let mut pending = loop {
                        match mux.reserve(held) {
                            Ok(pending) => break pending,
                            Err(Refused::Full(back)) => held = back,
                            Err(Refused::Closed(_)) => panic!("the table is closed only at the end"),
                        }
                        std::thread::yield_now();
                    };
                    if mux.mark_sent(pending.wire_id()) {
                        stdin.send((pending.wire_id(), number)).unwrap();
                    }
                    if number % 4 == 3 {
                        pending.abandon();
                    } else {
                        let Echo(answer) = block_on(pending);
                        assert_eq!(answer.expect("the table is not closed yet").1, number);
                    }
                }
            });
        }
        drop(stdin);
        let mut late = 0;
        for (id, number) in frames {
            if let Some(held) = answering.held(id) {
                assert_eq!(held.1, number);
            }
            match answering.complete(id, Echo(Some(Counted::new(&alive, number)))) {
                Completed::Delivered => {}
                Completed::Late => late += 1,
                Completed::Duplicate(_) | Completed::Unknown(_) => panic!("each exchange is answered once"),
            }
        }
        assert!(late <= ASKERS * EACH / 4);
    });
    let last = mux.reserve(Counted::new(&alive, 0));
    drop(answering);
    let Ok(mut last) = last else { panic!("expected a free slot") };
    assert!(matches!(poll(&mut last), Poll::Ready(Echo(None))));
    drop(last);
    assert_eq!((mux.waiting(), mux.abandoned(), alive.load(SeqCst)), (0, 0, 0));
}

/// Parks the thread until the future is ready and returns its output.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}
