//! Cutting a stream of chunks into lines.

use crate::{SIZES, response};
use criterion::{Criterion, Throughput};
use proxyrunner::internals::framing::{Framed, Framer};
use std::hint::black_box;

/// The bytes of one read: what a pipe holds.
const CHUNK: usize = 64 << 10;
const STREAM: usize = 4 << 20;
const MAX_FRAME: usize = 32 << 20;

pub fn benchmarks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("framing");
    for (name, length) in SIZES {
        let line = response(length - 1) + "\n";
        let lines = STREAM / length;
        let stream = line.repeat(lines).into_bytes();
        group.throughput(Throughput::Bytes(stream.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| assert_eq!(frames(black_box(&stream)), lines)));
    }
    group.finish();
}

/// Returns the number of frames.
fn frames(stream: &[u8]) -> usize {
    let mut framer = Framer::new(MAX_FRAME);
    let mut frames = 0;
    for chunk in stream.chunks(CHUNK) {
        framer.buffer().extend_from_slice(chunk);
        while let Some(framed) = framer.next() {
            assert!(matches!(black_box(framed), Framed::Frame { .. }));
            frames += 1;
        }
    }
    frames
}
