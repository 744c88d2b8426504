//! Scanning messages, and changing ids in them.

use crate::{SIZES, call, response};
use criterion::{Criterion, Throughput};
use proxyrunner::internals::budget::Charged;
use proxyrunner::internals::jsonrpc::{rewrite, scan};
use proxyrunner::internals::trace_context::Trace;
use std::hint::black_box;

pub fn benchmarks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan");
    for (name, length) in SIZES {
        let bytes = call(length).into_bytes();
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(name, |bencher| bencher.iter(|| scan(black_box(&bytes)).expect("a message")));
    }
    group.finish();
    let mut group = criterion.benchmark_group("rewrite");
    let trace = Trace::default();
    for (name, length) in SIZES {
        let bytes = Charged::own(call(length).into_bytes());
        let message = scan(&bytes).expect("a message");
        group.bench_function(format!("request for the child, {name}"), |bencher| {
            bencher.iter(|| {
                rewrite::request_for_child(black_box(&bytes), &message, Some(123_456), None, &trace)
            });
        });
        let bytes = Charged::own(response(length).into_bytes());
        let message = scan(&bytes).expect("a message");
        group.bench_function(format!("response for the client, {name}"), |bencher| {
            bencher.iter(|| rewrite::with_id(black_box(&bytes), &message, b"\"a-clients-id\""));
        });
    }
    group.finish();
}
