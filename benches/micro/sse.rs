//! Encoding messages as server-sent events.

use crate::{SIZES, response};
use criterion::Criterion;
use proxyrunner::internals::budget::Charged;
use proxyrunner::internals::jsonrpc::Spliced;
use proxyrunner::internals::sse;
use std::collections::VecDeque;
use std::hint::black_box;

pub fn benchmarks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sse");
    for (name, length) in SIZES {
        let message = Spliced::from(Charged::own(response(length).into_bytes()));
        let mut out = VecDeque::new();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                sse::encode(Some("3-1"), black_box(&message), &mut out);
                black_box(&mut out).clear();
            });
        });
    }
    group.finish();
}
