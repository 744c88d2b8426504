//! Checks that the events of a remote server's stream are the same however the network cuts it, and that no byte of it is
//! held twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyrunner::internals::remote::events_in;

fuzz_target!(|data: &[u8]| {
    let Some((size, stream)) = data.split_first() else { return };
    let whole = events_in(stream, stream.len());
    assert_eq!(events_in(stream, usize::from(*size)), whole);
    let (events, last) = whole;
    assert!(events.iter().all(|event| !event.is_empty()));
    assert!(events.iter().map(Vec::len).sum::<usize>() <= stream.len());
    assert!(last.is_none_or(|last| !last.is_empty() && !last.contains(&0)));
});
