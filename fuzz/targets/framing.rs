//! Checks that frames do not depend on how the bytes are split into reads, and that they equal the frames of a naive
//! model. Also checks that the id seeker agrees with the scan wherever the scan finds a message, and that the events of a
//! stream, which a gateway filters, do not depend on how it is split.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyrunner::internals::framing::{Framed, Framer, IdSeeker};
use proxyrunner::internals::gateway::events_in;
use proxyrunner::internals::jsonrpc::{Kind, scan};

const BOM: &[u8] = b"\xef\xbb\xbf";

fuzz_target!(|data: &[u8]| {
    let [cap, seed, stream @ ..] = data else { return };
    let max_frame = usize::from(*cap);
    let expected = model(max_frame, stream);
    assert_eq!(frames(max_frame, stream, |rest| rest), expected);
    let mut seed = u32::from(*seed) + 1;
    let split = |rest: usize| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Single-byte reads are as likely as all longer reads together.
        (if seed >> 31 == 0 { 1 } else { (seed >> 20) as usize & 0x7f }).min(rest)
    };
    assert_eq!(frames(max_frame, stream, split), expected);
    stream.split(|byte| *byte == b'\n').for_each(seeker_agrees);
    events_agree(stream);
});

fn events_agree(stream: &[u8]) {
    let events = events_in([stream]);
    assert_eq!(events_in(stream.chunks(1)), events);
    assert_eq!(events_in(stream.chunks(5)), events);
    let text = String::from_utf8_lossy(stream.strip_prefix(BOM).unwrap_or(stream));
    let plain = text.replace("\r\n", "\n").replace('\r', "\n");
    if text.as_bytes() == stream.strip_prefix(BOM).unwrap_or(stream) {
        assert!(plain.as_bytes().starts_with(&events.concat()));
    }
    assert!(events.iter().all(|event| event == b"\n" || event.ends_with(b"\n\n")));
}

fn frames(max_frame: usize, mut stream: &[u8], mut read: impl FnMut(usize) -> usize) -> Vec<Framed> {
    let mut framer = Framer::new(max_frame);
    let mut out = Vec::new();
    while !stream.is_empty() {
        let (chunk, rest) = stream.split_at(read(stream.len()));
        framer.buffer().extend_from_slice(chunk);
        while let Some(framed) = framer.next() {
            out.push(framed);
        }
        assert!(framer.next().is_none());
        stream = rest;
    }
    out.extend(framer.finish());
    assert!(framer.finish().is_none());
    out
}

fn model(max_frame: usize, stream: &[u8]) -> Vec<Framed> {
    stream.split(|byte| *byte == b'\n').filter_map(|line| model_line(max_frame, line)).collect()
}

fn model_line(max_frame: usize, line: &[u8]) -> Option<Framed> {
    let frame = line.strip_prefix(BOM).unwrap_or(line);
    let frame = frame.strip_suffix(b"\r").unwrap_or(frame);
    if frame.len() > max_frame {
        let head = frame[..frame.len().min(256)].to_vec().into();
        return Some(Framed::Oversized {
            id: sought(frame),
            length: frame.len() as u64,
            head,
            given_up: false,
        });
    }
    (!frame.trim_ascii().is_empty())
        .then(|| Framed::Frame { bytes: frame.to_vec().into(), bom: line.starts_with(BOM) })
}

fn sought(frame: &[u8]) -> Option<Vec<u8>> {
    let mut seeker = IdSeeker::default();
    seeker.feed(frame);
    seeker.id()
}

fn seeker_agrees(line: &[u8]) {
    let found = sought(line);
    let mut bytewise = IdSeeker::default();
    line.chunks(1).for_each(|byte| bytewise.feed(byte));
    assert_eq!(bytewise.id(), found);
    if let Ok(message) = scan(line) {
        // The error of a message may be any value, but the id seeker accepts only an object.
        let is_answer = message.error.as_ref().is_none_or(|error| line[error.start] == b'{');
        let id = message.id.filter(|id| message.kind == Kind::Response && is_answer && id.len() <= 256);
        assert_eq!(found.as_deref(), id.map(|id| &line[id]));
    }
}
