//! The multiplexer beside the usual alternative, a map of oneshot senders behind a mutex.
//!
//! An exchange consists of: reserve, mark as sent, complete, await. With more than one thread, askers and one router run
//! side by side and hand over ids as writer and child do; a figure is the wall time over all exchanges.

use criterion::{BenchmarkId, Criterion, Throughput};
use proxyrunner::internals::mux::{self, Answering, Completed, Lost, Mux, Pending, WireId};
use std::{
    collections::HashMap,
    hint::{black_box, spin_loop},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::*},
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

const SLOTS: usize = 1024;
/// Number of exchanges that an asker has in flight at a time.
const WINDOW: usize = 16;

/// A stand-in for a frame: the width of `bytes::Bytes`.
type Frame = [u64; 4];

struct Outcome(Frame);

impl Lost for Outcome {
    fn lost() -> Self {
        Self([0; 4])
    }
}

/// The interface of both contenders. The held value stands in for a permit.
trait Contender: Send + Sync + 'static {
    type Pending: Future<Output = Frame> + Unpin;
    type Answering: Send + 'static;

    fn table() -> (Self, Self::Answering)
    where
        Self: Sized;
    fn reserve(&self, held: u64) -> (u64, Self::Pending);
    fn mark_sent(&self, id: u64);
    fn complete(answering: &mut Self::Answering, id: u64, frame: Frame);
}

struct Slots(Mux<u64, Outcome>);
struct SlotPending(Pending<u64, Outcome>);

impl Future for SlotPending {
    type Output = Frame;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Frame> {
        Pin::new(&mut self.0).poll(context).map(|Outcome(frame)| frame)
    }
}

impl Contender for Slots {
    type Pending = SlotPending;
    type Answering = Answering<u64, Outcome>;

    fn table() -> (Self, Self::Answering) {
        let (mux, answering) = mux::table(SLOTS);
        (Self(mux), answering)
    }

    fn reserve(&self, held: u64) -> (u64, SlotPending) {
        let pending = self.0.reserve(held).expect("more slots than are asked for");
        (pending.wire_id().as_u64(), SlotPending(pending))
    }

    fn mark_sent(&self, id: u64) {
        assert!(self.0.mark_sent(WireId::new(id).expect("minted")));
    }

    fn complete(answering: &mut Self::Answering, id: u64, frame: Frame) {
        let completed = answering.complete(WireId::new(id).expect("minted"), Outcome(frame));
        assert!(matches!(completed, Completed::Delivered));
    }
}

struct Entry {
    sender: oneshot::Sender<Frame>,
    sent: bool,
    _held: u64,
}

type Entries = Arc<Mutex<HashMap<u64, Entry>>>;

struct Map {
    entries: Entries,
    next: AtomicU64,
}

struct MapPending(oneshot::Receiver<Frame>);

impl Future for MapPending {
    type Output = Frame;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Frame> {
        Pin::new(&mut self.0).poll(context).map(|frame| frame.expect("answered"))
    }
}

impl Contender for Map {
    type Pending = MapPending;
    type Answering = Entries;

    fn table() -> (Self, Entries) {
        let entries = Entries::new(Mutex::new(HashMap::with_capacity(SLOTS)));
        (Self { entries: entries.clone(), next: AtomicU64::new(1) }, entries)
    }

    fn reserve(&self, held: u64) -> (u64, MapPending) {
        let (sender, receiver) = oneshot::channel();
        let id = self.next.fetch_add(1, Relaxed);
        self.entries.lock().unwrap().insert(id, Entry { sender, sent: false, _held: held });
        (id, MapPending(receiver))
    }

    fn mark_sent(&self, id: u64) {
        let mut entries = self.entries.lock().unwrap();
        let entry = entries.get_mut(&id).expect("reserved");
        assert!(!std::mem::replace(&mut entry.sent, true));
    }

    fn complete(entries: &mut Entries, id: u64, frame: Frame) {
        let entry = entries.lock().unwrap().remove(&id).expect("reserved");
        assert!(entry.sent && entry.sender.send(frame).is_ok());
    }
}

fn poll_now<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs `exchanges` exchanges in sequence on this thread.
fn alone<C: Contender>(exchanges: u64) {
    let (contender, mut answering) = C::table();
    for number in 0..exchanges {
        let (id, mut pending) = contender.reserve(number);
        contender.mark_sent(id);
        C::complete(&mut answering, id, black_box([number; 4]));
        let Poll::Ready(frame) = poll_now(&mut pending) else { panic!("answered") };
        assert_eq!(black_box(frame)[0], number);
    }
}

/// The queue from an asker to the router: an id per place, or 0.
#[derive(Default)]
#[repr(align(128))]
struct Lane([AtomicU64; WINDOW]);

/// Runs askers that each keep a window of exchanges in flight, and one router that answers all of them.
fn together<C: Contender>(askers: usize, exchanges: u64) {
    let (contender, mut answering) = C::table();
    let lanes: Vec<Lane> = (0..askers).map(|_| Lane::default()).collect();
    thread::scope(|scope| {
        for (asker, lane) in (0..).zip(&lanes) {
            let (askers, contender) = (askers as u64, &contender);
            let own = exchanges / askers + u64::from(asker < exchanges % askers);
            scope.spawn(move || ask(contender, lane, own));
        }
        let mut left = exchanges;
        while left > 0 {
            let before = left;
            for place in lanes.iter().flat_map(|lane| &lane.0) {
                let id = place.load(Acquire);
                if id != 0 {
                    place.store(0, Relaxed);
                    C::complete(&mut answering, id, [id; 4]);
                    left -= 1;
                }
            }
            if left == before {
                thread::yield_now();
            }
        }
    });
}

fn ask<C: Contender>(contender: &C, lane: &Lane, exchanges: u64) {
    let mut window: [Option<(u64, C::Pending)>; WINDOW] = std::array::from_fn(|_| None);
    let (mut begun, mut ended) = (0, 0);
    while ended < exchanges {
        let mut idle = true;
        for (place, waiting) in lane.0.iter().zip(&mut window) {
            if let Some((id, pending)) = waiting {
                let Poll::Ready(frame) = poll_now(pending) else { continue };
                assert_eq!(frame[0], *id);
                *waiting = None;
                ended += 1;
                idle = false;
            }
            if begun < exchanges {
                let (id, pending) = contender.reserve(begun);
                contender.mark_sent(id);
                *waiting = Some((id, pending));
                place.store(id, Release);
                begun += 1;
                idle = false;
            }
        }
        if idle {
            spin_loop();
            thread::yield_now();
        }
    }
}

/// Returns the wall time of this many exchanges.
fn elapsed<C: Contender>(askers: usize, exchanges: u64) -> Duration {
    let begin = Instant::now();
    match askers {
        1 => alone::<C>(exchanges),
        _ => together::<C>(askers, exchanges),
    }
    begin.elapsed()
}

pub fn benchmarks(criterion: &mut Criterion) {
    // The router would otherwise wait forever for an asker that panicked.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(1);
    }));
    let mut group = criterion.benchmark_group("exchange");
    group.throughput(Throughput::Elements(1));
    for askers in [1, 2, 4, 8, 16] {
        group.bench_function(BenchmarkId::new("mux", askers), |bencher| {
            bencher.iter_custom(|exchanges| elapsed::<Slots>(askers, exchanges));
        });
        group.bench_function(BenchmarkId::new("map", askers), |bencher| {
            bencher.iter_custom(|exchanges| elapsed::<Map>(askers, exchanges));
        });
    }
    group.finish();
}
