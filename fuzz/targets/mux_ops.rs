//! Compares arbitrary sequences of multiplexer operations with a plain list of exchanges.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyrunner::internals::mux::{self, Abandoned, Answering, Completed, Lost, Mux, Pending, Refused, WireId};
use std::{
    collections::HashSet,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

const SLOTS: usize = 4;
const GRACE: u64 = 5;
const LOST: u8 = 255;

#[derive(Debug, PartialEq, Eq)]
struct Outcome(u8);

impl Lost for Outcome {
    fn lost() -> Self {
        Self(LOST)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Reserved,
    Sent,
    Answered(u8),
    /// Contains the tick at which an expiry first saw the tombstone.
    Tombstone(Option<u64>),
    Over,
}

struct Exchange {
    id: WireId,
    pending: Pending<usize, Outcome>,
    expected: Expected,
}

struct World {
    mux: Mux<usize, Outcome>,
    answering: Answering<usize, Outcome>,
    exchanges: Vec<Exchange>,
    ids: HashSet<WireId>,
    tick: u64,
    is_closed: bool,
}

impl World {
    fn new() -> Self {
        let (mux, answering) = mux::table(SLOTS);
        Self { mux, answering, exchanges: Vec::new(), ids: HashSet::new(), tick: 0, is_closed: false }
    }

    fn in_use(&self) -> usize {
        self.exchanges.iter().filter(|exchange| exchange.expected != Expected::Over).count()
    }

    fn reserve(&mut self) {
        let number = self.exchanges.len();
        match self.mux.reserve(number) {
            Ok(pending) => {
                assert!(!self.is_closed && self.in_use() < SLOTS);
                let id = pending.wire_id();
                assert!(self.ids.insert(id), "{id} was minted before");
                assert_eq!(pending.held(), Some(&number));
                self.exchanges.push(Exchange { id, pending, expected: Expected::Reserved });
            }
            Err(Refused::Full(held)) => assert!(held == number && !self.is_closed && self.in_use() == SLOTS),
            Err(Refused::Closed(held)) => assert!(held == number && self.is_closed),
        }
    }

    fn mark_sent(&mut self, number: usize) {
        let exchange = &mut self.exchanges[number];
        let marked = self.mux.mark_sent(exchange.id);
        assert_eq!(marked, exchange.expected == Expected::Reserved);
        if marked {
            exchange.expected = Expected::Sent;
        }
    }

    fn complete(&mut self, number: usize, value: u8) {
        let exchange = &mut self.exchanges[number];
        let completed = self.answering.complete(exchange.id, Outcome(value));
        let (becomes, expected) = match exchange.expected {
            Expected::Reserved => (Expected::Reserved, Completed::Unknown(Outcome(value))),
            Expected::Sent => (Expected::Answered(value), Completed::Delivered),
            Expected::Tombstone(_) => (Expected::Over, Completed::Late),
            settled => (settled, Completed::Duplicate(Outcome(value))),
        };
        assert_eq!(completed, expected);
        exchange.expected = becomes;
    }

    fn complete_any(&mut self, number: u64) {
        let Some(id) = WireId::new(number) else { return };
        if !self.ids.contains(&id) {
            assert_eq!(self.answering.complete(id, Outcome(0)), Completed::Unknown(Outcome(0)));
        }
    }

    fn poll(&mut self, number: usize) {
        let exchange = &mut self.exchanges[number];
        // Polling after the end panics, which the contract of futures allows.
        if exchange.pending.held().is_none() {
            return;
        }
        let polled = Pin::new(&mut exchange.pending).poll(&mut Context::from_waker(Waker::noop()));
        match exchange.expected {
            Expected::Answered(value) => {
                assert_eq!(polled, Poll::Ready(Outcome(value)));
                exchange.expected = Expected::Over;
            }
            _ => assert_eq!(polled, Poll::Pending),
        }
    }

    fn abandon(&mut self, number: usize) {
        let exchange = &mut self.exchanges[number];
        let (becomes, expected) = match exchange.expected {
            Expected::Reserved => (Expected::Over, Abandoned::Withdrawn),
            Expected::Sent => (Expected::Tombstone(None), Abandoned::InFlight),
            Expected::Answered(_) => (Expected::Over, Abandoned::Settled),
            over => (over, Abandoned::Settled),
        };
        assert_eq!(exchange.pending.abandon(), expected);
        exchange.expected = becomes;
    }

    fn expire(&mut self, ticks: u64) {
        self.tick += ticks;
        let mut expected = 0;
        for exchange in &mut self.exchanges {
            let Expected::Tombstone(since) = exchange.expected else { continue };
            let since = since.unwrap_or(self.tick);
            exchange.expected = Expected::Tombstone(Some(since));
            if self.tick - since >= GRACE {
                exchange.expected = Expected::Over;
                expected += 1;
            }
        }
        assert_eq!(self.answering.expire(self.tick, GRACE), expected);
    }

    fn close(&mut self, value: u8) {
        self.is_closed = true;
        let mut expected = 0;
        for exchange in &mut self.exchanges {
            match exchange.expected {
                Expected::Reserved | Expected::Sent => {
                    exchange.expected = Expected::Answered(value);
                    expected += 1;
                }
                Expected::Tombstone(_) => exchange.expected = Expected::Over,
                Expected::Answered(_) | Expected::Over => {}
            }
        }
        assert_eq!(self.answering.close(|| Outcome(value)), expected);
    }

    fn check(&self) {
        assert_eq!(self.mux.waiting(), self.in_use());
        let tombstones =
            self.exchanges.iter().filter(|exchange| matches!(exchange.expected, Expected::Tombstone(_)));
        assert_eq!(self.mux.abandoned(), tombstones.count());
        for (number, exchange) in self.exchanges.iter().enumerate() {
            let held = (exchange.expected == Expected::Sent).then_some(&number);
            assert_eq!(self.answering.held(exchange.id), held);
        }
    }
}

fuzz_target!(|operations: &[u8]| {
    let mut world = World::new();
    for operation in operations.chunks_exact(2).take(200) {
        let (verb, argument) = (operation[0] % 10, operation[1]);
        let known = world.exchanges.len();
        // The operation applies to one of the last eight exchanges, because older exchanges rarely matter.
        let number = known.saturating_sub(1 + usize::from(argument) % 8);
        match verb {
            0 | 1 => world.reserve(),
            6 => world.complete_any(u64::from(argument)),
            7 => world.expire(u64::from(argument % 8)),
            8 if argument > 250 => world.close(argument),
            _ if known == 0 => {}
            2 | 9 => world.mark_sent(number),
            3 => world.complete(number, argument),
            4 => world.poll(number),
            _ => world.abandon(number),
        }
        world.check();
    }
});
